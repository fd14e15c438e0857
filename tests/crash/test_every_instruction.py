# SPDX-License-Identifier: PSF-2.0
"""A process is ended after each instruction of every operation that writes shared memory; the others go on.

The tool is Modules/_testcmultiprocessing, InternalDocs/crash_recovery.md says how it works. By default every instruction
is tried at its first execution, within a time budget; the environment asks for more:

    CMP_STEPPER_VISITS=0       at every execution of every instruction
    CMP_STEPPER_SECONDS=0      however long it takes (default: seconds per operation and way to end)
    CMP_STEPPER_ENDINGS=...    of kill, zombie, exec, stop
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import stepper

VISITS = int(os.environ.get("CMP_STEPPER_VISITS", "1"))
SECONDS = float(os.environ.get("CMP_STEPPER_SECONDS", "20"))
ENDINGS = os.environ.get("CMP_STEPPER_ENDINGS", "kill,zombie,exec,stop").split(",")
LIMIT = SECONDS * 3 + 60 if SECONDS else 24 * 3600.0


# The names are needed when the tests are collected.
OPERATIONS, _ = stepper.names(stepper.build("release"))
CHECKED, FAULTS = stepper.names(stepper.build("debug"))


@pytest.fixture(scope="module")
def program() -> Path:
    return stepper.build("release")


@pytest.fixture(scope="module")
def checked() -> Path:
    """The build with assertions and planted faults."""
    return stepper.build("debug")


@pytest.mark.watchdog(LIMIT + 30)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_survivors_go_on(program: Path, operation: str, ending: str) -> None:
    report = stepper.run(
        program, "--visits", VISITS, "--seconds", SECONDS, "--endings", ending, operation, limit=LIMIT
    )
    assert report.returncode == 0, str(report)
    assert not report.failures, str(report)
    [summary] = report.summaries
    assert summary["kills"] > 0, "nothing was tried"
    # What another process did in between may lead a run another way; most instructions must have been reached.
    assert summary["addresses_tried"] >= 0.8 * summary["addresses"] or not summary["complete"], str(report)


@pytest.mark.watchdog(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(checked: Path, fault: str) -> None:
    """A store moved across the commit, in a toy and in the library itself."""
    report = stepper.run(checked, "--failures", 1, "--seconds", 60, fault, limit=90)
    assert report.failures, f"{fault} went unnoticed: {report}"
    assert report.returncode in (1, 3), str(report)


def test_faults_are_planted_in_the_library_too() -> None:
    assert {"ring-fault-write-after-commit", "lock-fault-name-owner-later"} <= set(FAULTS)


@pytest.mark.watchdog(120)
def test_every_instruction_of_a_small_operation_is_tried(program: Path) -> None:
    """The number of ends is the number of instructions: the tool does not skip."""
    report = stepper.run(program, "--visits", 0, "toy-record")
    [summary] = report.summaries
    assert summary["complete"]
    assert summary["kills"] == summary["instructions"]
    assert summary["addresses_tried"] == summary["addresses"]


@pytest.mark.watchdog(120)
def test_the_failure_names_the_instruction(checked: Path) -> None:
    report = stepper.run(checked, "--failures", 1, "toy-fault-commit-early")
    [failure] = report.failures
    assert "word 3 is missing" in failure["what"]
    assert "toy_commit_early" in failure["where"]


@pytest.mark.watchdog(LIMIT + 30)
@pytest.mark.parametrize("operation", CHECKED)
def test_assertions_hold(checked: Path, operation: str) -> None:
    """The same with the library's assertions on, which also end the survivor; one instruction in seven."""
    report = stepper.run(checked, "--stride", 7, "--seconds", SECONDS, operation, limit=LIMIT)
    assert report.returncode == 0, str(report)


def test_an_unknown_operation_is_refused(program: Path) -> None:
    done = subprocess.run([program, "no-such-thing"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
