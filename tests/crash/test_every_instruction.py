# SPDX-License-Identifier: PSF-2.0
"""A process is ended after each instruction of every operation that writes shared memory; the others go on.

The tool is Modules/_testcmultiprocessing; InternalDocs/crash_recovery.md says how it works. By default SIGKILL is tried
at the first execution of every instruction, and the other ways to end at one in seven, within a time per operation.
The environment asks for more or other things:

    CMP_STEPPER_VISITS=0         at every execution of every instruction (hours)
    CMP_STEPPER_SECONDS=60       time per operation and way to end; 0: however long it takes
    CMP_STEPPER_STRIDE=1         one instruction in so many for the other ways to end
    CMP_STEPPER_OPERATIONS=ring- those whose names begin so

What was tried is left in build/stepper/*.txt.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import stepper

pytestmark = pytest.mark.no_sanitizer

VISITS = int(os.environ.get("CMP_STEPPER_VISITS", "1"))
SECONDS = float(os.environ.get("CMP_STEPPER_SECONDS", "10"))
STRIDE = int(os.environ.get("CMP_STEPPER_STRIDE", "7"))
WANTED = os.environ.get("CMP_STEPPER_OPERATIONS", "")
#: Most of the time is waiting for slices to end, so more run at a time than there are CPUs.
AT_A_TIME = 4
LIMIT = 600.0 if SECONDS else 24 * 3600.0


def operations(program: Path) -> list[str]:
    return [name for name in stepper.names(program)[0] if name.startswith(WANTED)]


def step_all(program: Path, ending: str, stride: int, seconds: float) -> list[stepper.Report]:
    """Step every operation; leave a table of what was tried."""

    def step(operation: str) -> stepper.Report:
        return stepper.run(
            program, "--visits", VISITS, "--stride", stride, "--seconds", seconds, "--endings", ending, operation,
            limit=seconds + 120 if seconds else LIMIT,
        )  # fmt: skip

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        reports = list(pool.map(step, operations(program)))
    table = program.parent.parent / f"{program.parent.name}-{ending}.txt"
    table.write_text("".join(f"{report.line()}\n" for report in reports))
    return reports


def assert_survived(reports: list[stepper.Report]) -> None:
    assert reports, "no operation was stepped"
    bad = [str(report) for report in reports if report.returncode != 0 or report.failures]
    assert not bad, "\n".join(bad)
    idle = [report.line() for report in reports if report.summary["kills"] == 0]
    assert not idle, f"nothing was tried: {idle}"


@pytest.fixture(scope="module")
def program() -> Path:
    return stepper.build("release")


@pytest.fixture(scope="module")
def checked() -> Path:
    """The build with assertions and planted faults."""
    return stepper.build("debug")


@pytest.mark.watchdog(LIMIT)
def test_sigkill_after_every_instruction(program: Path) -> None:
    reports = step_all(program, "kill", 1, SECONDS)
    assert_survived(reports)
    # What others did in between may lead a run another way than the trace: most must have been reached all the same.
    gaps = [report.line() for report in reports if report.summary["complete"] and report.tried() < 0.8]
    assert not gaps, "\n".join(gaps)


@pytest.mark.watchdog(LIMIT)
@pytest.mark.parametrize("ending", ["zombie", "exec", "stop"])
def test_other_ends(program: Path, ending: str) -> None:
    """Dead and not waited for; alive as another program; alive, but standing still."""
    assert_survived(step_all(program, ending, STRIDE, SECONDS / 2))


@pytest.mark.watchdog(LIMIT)
def test_assertions_hold(checked: Path) -> None:
    """The library's assertions on, in the process that dies and in the survivors."""
    assert_survived(step_all(checked, "kill", STRIDE, SECONDS / 2))


@pytest.mark.watchdog(LIMIT)
def test_deaths_in_what_repairs_a_death(checked: Path) -> None:
    """A helper dies at an injection point, the child is killed while it repairs what that left, the driver goes on."""
    repairs = [name for name in operations(checked) if "-repair" in name]
    assert len(repairs) >= 6 or WANTED
    for name in repairs:
        assert_survived([stepper.run(checked, "--seconds", SECONDS, name, limit=LIMIT)])


@pytest.mark.watchdog(200)
def test_planted_faults_are_found(checked: Path) -> None:
    """A store moved across the commit, in a toy and in the library itself."""
    faults = stepper.names(checked)[1]
    expected = {
        "toy-fault-commit-first",
        "ring-fault-write-after-commit",
        "lock-fault-name-owner-later",
        "block-fault-not-zeroed",
        "value-fault-clear-first",
    }
    assert expected <= set(faults)
    for fault in faults:
        report = stepper.run(checked, "--failures", 1, "--seconds", 20, fault, limit=60)
        assert report.failures, f"{fault} went unnoticed: {report}"
        assert report.returncode in (1, 3), str(report)


@pytest.mark.watchdog(120)
def test_every_instruction_of_a_small_operation_is_tried(program: Path) -> None:
    """The number of ends is the number of instructions: the tool does not skip."""
    summary = stepper.run(program, "--visits", 0, "toy-record").summary
    assert summary["complete"]
    assert summary["kills"] == summary["instructions"]
    assert summary["addresses_tried"] == summary["addresses"]


@pytest.mark.watchdog(120)
def test_the_failure_names_the_instruction(program: Path) -> None:
    report = stepper.run(program, "--failures", 1, "toy-fault-commit-early")
    [failure] = report.failures
    assert "word 3 is missing" in failure["what"]
    assert "toy_commit_early" in failure["where"]


def test_an_unknown_operation_is_refused(program: Path) -> None:
    done = subprocess.run([program, "no-such-thing"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
