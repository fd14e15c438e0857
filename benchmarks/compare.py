# SPDX-License-Identifier: PSF-2.0
"""The command line: run what is asked for, print the tables, write the files."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence

from benchmarks import _catalogue, _machine, _plot, _report
from benchmarks._harness import PEERS, Case, Check
from benchmarks._rounds import CaseResult, CheckResult, Plan, run_case, run_check

__all__ = ["main"]

Result = CaseResult | CheckResult


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure cmultiprocessing against the standard library's multiprocessing.",
    )
    parser.add_argument("--match", action="append", metavar="PATTERN",
                        help="only what matches this regular expression by name, title or section; may be repeated")
    parser.add_argument("--rounds", type=_positive, metavar="N",
                        help="pairs per case (default: 7; with --quick 1)")
    parser.add_argument("--seconds", type=float, default=0.25, metavar="S",
                        help="length of one timed run (default: %(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="smallest sizes, not calibrated: shows that everything runs, not how fast")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    parser.add_argument("--svg", metavar="FILE", help="write a bar plot of the ratios")
    parser.add_argument("--check", action="store_true", help="exit with 3 if a goal is not reached")
    parser.add_argument("--no-peers", action="store_true", help="leave out faster_fifo")
    parser.add_argument("--subject", default="cmultiprocessing", metavar="NAME",
                        help="library that is looked at (default: %(default)s)")
    parser.add_argument("--baseline", default="multiprocessing", metavar="NAME",
                        help="library that it is compared with (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=300.0, metavar="S",
                        help="end a run that takes longer (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _chosen(patterns: list[str] | None) -> list[Case | Check]:
    entries = _catalogue.entries()
    if not patterns:
        return entries
    wanted = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
    return [
        entry
        for entry in entries
        if any(one.search(text) for one in wanted for text in (entry.name, entry.title, entry.section))
    ]


def _tell(text: str) -> None:
    """A line on a terminal that the next one replaces; nothing where stderr is no terminal."""
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{text[:columns]}\x1b[K" if text else "\r\x1b[K")
        sys.stderr.flush()


def _run(plan: Plan, entries: list[Case | Check], peers: list[str]) -> list[Result]:
    """Measure everything and print each row as soon as it is known."""
    results: list[Result] = []
    section = ""
    for entry in entries:
        result: Result
        if isinstance(entry, Case):
            result = run_case(plan, entry, peers, _tell)
            lines, top = _report.case_lines(result, plan), _report.case_head(plan)
        else:
            result = run_check(plan, entry, _tell)
            lines, top = _report.check_lines(result, plan), _report.check_head(plan)
        _tell("")
        if entry.section != section:
            section = entry.section
            lines = ["", section, top, *lines]
        print("\n".join(lines), flush=True)
        results.append(result)
    return results


def _write(options: argparse.Namespace, machine: dict[str, str], plan: Plan, results: list[Result]) -> None:
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(_report.as_json(machine, plan, results), file, indent=1)
            file.write("\n")
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(_plot.svg(machine, plan, [each for each in results if isinstance(each, CaseResult)]))


def _missing(names: Sequence[str]) -> str:
    for name in names:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; run `pip install .` in the project's folder first"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks.

    Args:
        arguments: command line without the program's name; default: ``sys.argv[1:]``.

    Returns:
        0; 1 if something could not be measured that should be; 2 for a wrong command line or a
        missing library; 3 with ``--check`` if a goal was not reached; 130 after Ctrl-C.
    """
    options = _parse(arguments)
    try:
        entries = _chosen(options.match)
    except re.error as error:
        print(f"benchmarks: --match {error.pattern!r}: {error}", file=sys.stderr)
        return 2
    problem = "" if entries else "nothing matches"
    if options.list and entries:
        print("\n".join(f"{entry.name:<24} {entry.title}" for entry in entries))
        return 0
    problem = problem or _missing([options.subject, options.baseline])
    if problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2
    plan = Plan(
        subject=options.subject,
        baseline=options.baseline,
        rounds=options.rounds or (1 if options.quick else 7),
        seconds=options.seconds,
        quick=options.quick,
        patience=options.patience,
    )
    peers = [] if options.no_peers else [peer for peer in PEERS if importlib.util.find_spec(peer)]
    machine = _machine.describe(plan.subject, plan.baseline)
    print("\n".join(_report.head(machine, plan)))
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            results = _run(plan._replace(bytecode=folder), entries, peers)
    except KeyboardInterrupt:
        _tell("")
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    _write(options, machine, plan, results)
    return _conclude(options, results)


def _conclude(options: argparse.Namespace, results: list[Result]) -> int:
    failed, short = _report.failures(results), _report.shortfalls(results)
    if short and not options.quick:
        print(f"\nBelow what is asked: {len(short)}")
        print("\n".join(f"    {line}" for line in short))
    if failed:
        print(f"\nFailed: {len(failed)}")
        print("\n".join(f"    {line}" for line in failed))
        return 1
    return 3 if options.check and short else 0
