# SPDX-License-Identifier: PSF-2.0
"""Every benchmark runs once, briefly, and its reports say what was measured.

How fast anything is, no test asserts: a machine that is busy must not fail it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed

from benchmarks import _catalogue, _plot, _report  # noqa: E402
from benchmarks._harness import Case, Check, Finding, race  # noqa: E402
from benchmarks._rounds import CaseResult, CheckResult, Plan, Series, run_case  # noqa: E402

pytestmark = pytest.mark.watchdog(300)
ENTRIES = _catalogue.entries()
PLAN = Plan("ours", "theirs", 3, 0.1, False, 60)


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one quick run of everything printed and wrote."""
    folder = tmp_path_factory.mktemp("benchmarks")
    files = {"json": folder / "out.json", "svg": folder / "out.svg"}
    run = benchmarks("--quick", "--json", str(files["json"]), "--svg", str(files["svg"]))
    assert files["json"].exists(), run.stderr
    written = json.loads(files["json"].read_text())
    rows = {row["name"]: row for row in written["cases"] + written["checks"]}
    return {"run": run, "written": written, "rows": rows, "svg": files["svg"].read_text()}


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if isinstance(entry, Case)])
def test_case(quick: dict[str, Any], name: str) -> None:
    row = quick["rows"][name]
    for side in (row["baseline"], row["subject"], *row["peers"]):
        if side["problem"].startswith("not measured: NumPy"):
            pytest.skip("NumPy is not installed, and the row says so")
        assert side["problem"] == "", side["library"]
        assert len(side["seconds"]) == 1
        assert 0 < side["seconds"][0] < math.inf
    assert row["ratio"] == pytest.approx(row["baseline"]["seconds"][0] / row["subject"]["seconds"][0])


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if isinstance(entry, Check)])
def test_check(quick: dict[str, Any], name: str) -> None:
    row = quick["rows"][name]
    for side in (row["baseline"], row["subject"]):
        if side["problem"].startswith("not measured"):
            pytest.skip(side["problem"])
        assert side["problem"] == ""
        assert side["findings"]


def test_the_quick_run_ends_well_and_its_head_names_the_machine(quick: dict[str, Any]) -> None:
    run = quick["run"]
    assert run.returncode == 0, run.stdout + run.stderr
    for name in ("processor", "cores", "kernel", "python", "cmultiprocessing", "multiprocessing"):
        assert quick["written"]["machine"][name]
        assert f"\n{name} " in "\n" + run.stdout


def test_the_plot_is_svg_with_a_bar_for_every_row(quick: dict[str, Any]) -> None:
    root = ElementTree.fromstring(quick["svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    measured = [row for row in quick["written"]["cases"] if row["ratio"] is not None]
    assert measured
    assert {row["title"] for row in measured} <= set(texts)


def test_every_name_is_there_once() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names))


def test_match_and_list() -> None:
    run = benchmarks("--list", "--match", "^barrier", "--match", "5 GiB")
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["barrier-2", "memory-5gib"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--match", "no such thing"], "nothing matches"),
        (["--match", "("], "--match '('"),
        (["--subject", "no_such_library"], "no_such_library is not installed"),
        (["--rounds", "0"], "must be at least 1, not 0"),
    ],
)
def test_wrong_command_line(arguments: list[str], message: str) -> None:
    run = benchmarks(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def case(goal: float | None = 2.0) -> Case:
    return Case("name", "A title", "A section", lambda mp, n: None, 1, 1, goal)  # type: ignore[arg-type,return-value]


def result(theirs: list[float], ours: list[float], problem: str = "") -> CaseResult:
    return CaseResult(case(), Series("theirs", 10, theirs, ""), Series("ours", 10, ours, problem), [])


def test_the_ratio_is_the_median_of_the_pairs_and_not_of_the_times() -> None:
    measured = result([1.0, 10.0, 4.0], [1.0, 2.0, 2.0])
    assert measured.ratios() == [1.0, 5.0, 2.0]
    (line,) = _report.case_lines(measured, PLAN)
    assert line.split() == ["A", "title", "4", "s", "2", "s", "2.00x", "1.00x", "-", "5.00x", "2x", "reached"]


def test_a_missed_goal_is_named() -> None:
    measured = result([1.0], [1.0])
    assert _report.case_lines(measured, PLAN)[0].endswith("BELOW")
    assert _report.shortfalls([measured]) == ["A title"]
    check = Check("name", "A check", "A section", lambda mp, n: [], 1, 1)
    findings = [Finding("grown", 3, "%", at_most=2), Finding("made", 5, at_least=5)]
    over = CheckResult(check, "not measured: why", findings)
    assert _report.shortfalls([over]) == ["A check: grown"]
    assert _report.failures([over]) == []


def test_a_failure_is_named_and_is_no_time() -> None:
    measured = result([1.0], [], "failed: it broke")
    assert "failed: it broke" in _report.case_lines(measured, PLAN)[0]
    assert _report.failures([measured]) == ["A title, ours: failed: it broke"]


def test_a_library_that_is_missing_is_told_in_its_row() -> None:
    measured = run_case(PLAN._replace(subject="no_such_library", quick=True), _catalogue.find("with-lock"), [], str)  # type: ignore[arg-type]
    assert isinstance(_catalogue.find("with-lock"), Case)
    assert measured.subject.problem.startswith("not measured: no_such_library")
    assert measured.ratios() == []


def test_a_run_that_hangs_is_ended() -> None:
    asleep = _catalogue.find("queue-asleep")
    assert isinstance(asleep, Case)
    hanging = PLAN._replace(subject="multiprocessing", baseline="multiprocessing", quick=True, rounds=1, patience=0.2)
    measured = run_case(hanging, asleep._replace(start=100_000), [], lambda text: None)
    assert measured.baseline.problem == "failed: did not end within 0.2 s"


def test_a_participant_that_fails_is_not_waited_for() -> None:
    import multiprocessing

    context = multiprocessing.get_context("fork")

    def nothing() -> None:
        pass

    def wait() -> None:
        import time

        time.sleep(60)

    with pytest.raises(RuntimeError, match="ended with 1"):
        race(context, [(nothing, wait), (lambda: sys.exit(1), nothing)])


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0125, "12.5 ms"), (1.5e-6, "1.5 us"), (6.25e-8, "62.5 ns")]
)
def test_times_are_written_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert _report.time_text(seconds) == text


def test_a_plot_of_nothing_is_still_a_plot() -> None:
    machine = dict.fromkeys(("processor", "cores", "kernel", "python", "date"), "?")
    ElementTree.fromstring(_plot.svg(machine, PLAN, []))
