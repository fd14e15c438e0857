# SPDX-License-Identifier: PSF-2.0
"""Paired rounds: every measurement in a fresh interpreter, the libraries in turn.

    calibrate A, calibrate B          how many operations fill the time; not counted
    A B   A B   A B   A B   ...       one pair per round; the ratio is taken within the pair

Interference that lasts longer than a round meets both halves of a pair and leaves the ratio alone;
a shorter one spoils one ratio of many, and the median forgets it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks._harness import Case, Check, Finding, Timing

__all__ = ["FAILED", "CaseResult", "CheckResult", "Plan", "Series", "run_case", "run_check"]

FAILED = "failed:"
ROOT = Path(__file__).resolve().parent.parent


class Plan(NamedTuple):
    """How to measure.

    Attributes:
        subject: name of the library that is looked at.
        baseline: name of the library that it is compared with.
        rounds: number of pairs.
        seconds: length of one timed run.
        quick: take the smallest sizes and do not calibrate.
        patience: seconds after which a run is ended as hanging.
        bytecode: folder in which the runners keep compiled modules; empty: wherever Python does.
    """

    subject: str
    baseline: str
    rounds: int
    seconds: float
    quick: bool
    patience: float
    bytecode: str = ""


class Series(NamedTuple):
    """What one library reached in one case.

    Attributes:
        library: its name.
        operations: timed in each round.
        seconds: time of one operation, one entry per round.
        problem: why there is nothing, or nothing more; else empty.
    """

    library: str
    operations: int
    seconds: list[float]
    problem: str

    @property
    def median(self) -> float:
        """Median time of one operation in seconds."""
        return median(self.seconds)


class CaseResult(NamedTuple):
    """One row of the table of times: the case and what each library reached."""

    case: Case
    baseline: Series
    subject: Series
    peers: list[Series]

    def ratios(self, series: Series | None = None) -> list[float]:
        """How many times faster than the baseline, one number per round."""
        theirs = (self.subject if series is None else series).seconds
        return [base / other for base, other in zip(self.baseline.seconds, theirs)]


class CheckResult(NamedTuple):
    """What each library showed in one check: its findings, or why there are none."""

    check: Check
    baseline: list[Finding] | str
    subject: list[Finding] | str


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a runner and everything that it started and that is still in its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _ask(plan: Plan, **request: Any) -> dict[str, Any]:
    """Run the runner; answer with what it printed, or with what became of it."""
    command = [sys.executable, "-m", "benchmarks._runner", json.dumps(request)]
    # Files, not pipes: a server process that outlives the runner would keep a pipe open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(plan), stdin=subprocess.DEVNULL,
            stdout=output, stderr=errors, start_new_session=True,
        )
        try:
            status: int | None = process.wait(plan.patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
        complaint = errors.read().decode(errors="replace").strip()
    if complaint:
        print(complaint, file=sys.stderr)
    if status is None:
        return {"error": f"did not end within {plan.patience:g} s"}
    if status != 0 or not lines:
        return {"error": f"the runner ended with {status}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _environment(plan: Plan) -> dict[str, str]:
    """This process's, with its import path made absolute, because the runner works elsewhere.

    With `plan.bytecode` both libraries are compiled, whether or not bytecode may be written beside
    them: a library that is compiled anew for every process would lose the rows of import and spawn.
    """
    environment = dict(os.environ)
    path = environment.get("PYTHONPATH")
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    if plan.bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = plan.bytecode
    return environment


def _problem(answer: dict[str, Any]) -> str:
    """Why there is no result, or empty; `FAILED` begins it if that is a fault and not a lack."""
    if "unavailable" in answer:
        return f"not measured: {answer['unavailable']}"
    return f"{FAILED} {answer['error']}" if "error" in answer else ""


def run_case(plan: Plan, case: Case, peers: list[str], tell: Callable[[str], None]) -> CaseResult:
    """Measure one case in paired rounds.

    Args:
        plan: how.
        case: what.
        peers: installed libraries to measure beside; those are taken that the case names.
        tell: told what is being done, for a progress line.
    """
    names = [plan.baseline, plan.subject, *(peer for peer in peers if peer in case.peers)]
    series = []
    for name in names:
        tell(f"{case.title}: calibrating {name}")
        operations, problem = case.start, ""
        if not plan.quick:
            answer = _ask(
                plan, library=name, case=case.name, operations=case.start, seconds=plan.seconds
            )
            operations, problem = answer.get("operations", case.start), _problem(answer)
        series.append(Series(name, operations, [], problem))
    for number in range(plan.rounds):
        tell(f"{case.title}: round {number + 1} of {plan.rounds}")
        for place, one in enumerate(series):
            if one.problem:
                continue
            answer = _ask(plan, library=one.library, case=case.name, operations=one.operations)
            problem = _problem(answer)
            if not problem:
                timing = Timing(**answer)
                one.seconds.append(timing.seconds / timing.operations)
            series[place] = one._replace(problem=problem)
    return CaseResult(case, series[0], series[1], series[2:])


def run_check(plan: Plan, check: Check, tell: Callable[[str], None]) -> CheckResult:
    """Run one check once on either library.

    Args:
        plan: how.
        check: what.
        tell: told what is being done, for a progress line.
    """
    findings: list[list[Finding] | str] = []
    for name in (plan.baseline, plan.subject):
        tell(f"{check.title}: {name}")
        answer = _ask(
            plan, library=name, case=check.name, operations=check.quick if plan.quick else check.full
        )
        problem = _problem(answer)
        findings.append(problem or [Finding(**each) for each in answer["findings"]])
    return CheckResult(check, findings[0], findings[1])
