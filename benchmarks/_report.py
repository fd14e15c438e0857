# SPDX-License-Identifier: PSF-2.0
"""The results as a text table and as JSON."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from benchmarks._harness import Finding
from benchmarks._rounds import FAILED, CaseResult, CheckResult, Plan, Series

__all__ = [
    "as_json",
    "case_head",
    "case_lines",
    "check_head",
    "check_lines",
    "failures",
    "finding_text",
    "head",
    "shortfalls",
    "time_text",
    "write_ratio",
]

COLUMNS = "{:<38} {:>16} {:>16} {:>8} {:>15} {:>6} {:>10}  {}"


def time_text(seconds: float) -> str:
    """A time with three digits in the unit that suits it: ``1.23 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 999.5 * scale else f"{seconds:.0f} s"
    return f"{seconds * 1e9:.3g} ns"


def write_ratio(ratio: float) -> str:
    """A ratio with as many digits as mean anything: ``0.95x``, ``12.3x``, ``140x``."""
    if ratio >= 100:
        return f"{ratio:.0f}x"
    return f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def head(machine: dict[str, str], plan: Plan) -> list[str]:
    """The lines above the tables: machine, versions, and how the numbers were made."""
    width = max(map(len, machine))
    lines = [f"{name:<{width}}  {value}" for name, value in machine.items()]
    length = "smallest sizes, not calibrated" if plan.quick else f"about {plan.seconds:g} s each"
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    lines += [
        "",
        f"{rounds} of {plan.baseline}, {plan.subject} in turn, every run in an interpreter of its own, "
        f"{length}.",
        f"Times are medians of one operation; ratio = {plan.baseline} / {plan.subject}, median of the "
        "pairs (smallest to largest).",
    ]
    return lines


def case_lines(result: CaseResult, plan: Plan) -> list[str]:
    """A row for the case and one for each peer."""
    case = result.case
    goal = f"{case.goal:g}x" if case.goal is not None else ""
    limit = f"{case.limit}x" if case.limit else ""
    problem = result.baseline.problem or result.subject.problem
    if not result.ratios():
        return [f"{case.title:<38} {problem}"]
    ratio = median(result.ratios())
    if problem:
        verdict = problem
    elif case.goal is None or plan.quick:
        verdict = ""
    else:
        verdict = "reached" if ratio >= case.goal else "BELOW"
    lines = [
        COLUMNS.format(
            case.title, time_text(result.baseline.median), time_text(result.subject.median),
            write_ratio(ratio), _spread(result.ratios()), goal, limit, verdict,
        ).rstrip()
    ]
    return lines + [_peer_line(result, peer) for peer in result.peers]


def _peer_line(result: CaseResult, peer: Series) -> str:
    ratios = result.ratios(peer)
    name = f"    {peer.library}"
    if not ratios:
        return f"{name:<38} {peer.problem}"
    return COLUMNS.format(
        name, "", time_text(peer.median), write_ratio(median(ratios)), _spread(ratios), "", "",
        peer.problem,
    ).rstrip()


def _spread(ratios: list[float]) -> str:
    return f"{write_ratio(min(ratios))} - {write_ratio(max(ratios))}"


def case_head(plan: Plan) -> str:
    """The line above the rows of times."""
    return COLUMNS.format(
        "", plan.baseline[:16], plan.subject[:16], "ratio", "spread", "goal", "prototype", ""
    ).rstrip()


def finding_text(finding: Finding) -> str:
    """A finding's value with its unit."""
    if math.isinf(finding.value):
        return "never"
    number = f"{finding.value:,.0f}" if not finding.unit else f"{finding.value:,.3g}"
    if finding.unit == "B":
        number = f"{finding.value:,.0f}"
    return f"{number} {finding.unit}".rstrip()


def _met(finding: Finding) -> bool:
    return (finding.at_most is None or finding.value <= finding.at_most) and (
        finding.at_least is None or finding.value >= finding.at_least
    )


def _allowed(finding: Finding) -> str:
    if finding.at_most is not None:
        return "at most " + finding_text(finding._replace(value=finding.at_most))
    if finding.at_least is not None:
        return "at least " + finding_text(finding._replace(value=finding.at_least))
    return ""


def check_lines(result: CheckResult, plan: Plan) -> list[str]:
    """A heading for the check and a row for each finding."""
    check = result.check
    lines = [f"{check.title} (here {check.quick:,} instead of {check.full:,})" if plan.quick else check.title]
    theirs = {} if isinstance(result.baseline, str) else {f.what: f for f in result.baseline}
    if isinstance(result.baseline, str):
        lines.append(f"    {plan.baseline}: {result.baseline}")
    if isinstance(result.subject, str):
        lines.append(f"    {plan.subject}: {result.subject}")
        ours = []
    else:
        ours = result.subject
    for finding in ours or list(theirs.values()):
        other = finding_text(theirs[finding.what]) if finding.what in theirs else ""
        verdict = ""
        if ours and not plan.quick and (finding.at_most is not None or finding.at_least is not None):
            verdict = "reached" if _met(finding) else "BELOW"
        own = finding_text(finding) if ours else ""
        lines.append(
            f"    {finding.what:<34} {other:>18} {own:>18}  {_allowed(finding):<24} {verdict}".rstrip()
        )
    return lines


def check_head(plan: Plan) -> str:
    """The line above the checks."""
    return f"{'':<38} {plan.baseline[:18]:>18} {plan.subject[:18]:>18}  allowed"


def shortfalls(results: list[CaseResult | CheckResult]) -> list[str]:
    """Titles of all that did not reach what is asked of it."""
    short = []
    for result in results:
        if isinstance(result, CaseResult):
            goal = result.case.goal
            if goal is not None and result.ratios() and median(result.ratios()) < goal:
                short.append(result.case.title)
        elif not isinstance(result.subject, str):
            short += [f"{result.check.title}: {f.what}" for f in result.subject if not _met(f)]
    return short


def failures(results: list[CaseResult | CheckResult]) -> list[str]:
    """What went wrong, one line each; what merely cannot be measured here is not among it."""
    failed = []
    for result in results:
        if isinstance(result, CaseResult):
            title = result.case.title
            sides = [(each.library, each.problem) for each in (result.baseline, result.subject, *result.peers)]
        else:
            title = result.check.title
            found = {"baseline": result.baseline, "subject": result.subject}
            sides = [(name, text) for name, text in found.items() if isinstance(text, str)]
        failed += [f"{title}, {name}: {text}" for name, text in sides if text.startswith(FAILED)]
    return failed


def as_json(
    machine: dict[str, str], plan: Plan, results: list[CaseResult | CheckResult]
) -> dict[str, Any]:
    """All that was measured, round by round, for other programs."""
    return {
        "format": 1,
        "machine": machine,
        "plan": plan._asdict(),
        "cases": [_case_json(result) for result in results if isinstance(result, CaseResult)],
        "checks": [_check_json(result) for result in results if isinstance(result, CheckResult)],
    }


def _case_json(result: CaseResult) -> dict[str, Any]:
    case = result.case
    ratios = result.ratios()
    return {
        "name": case.name,
        "title": case.title,
        "section": case.section,
        "per": case.per,
        "goal": case.goal,
        "prototype": case.limit,
        "ratio": median(ratios) if ratios else None,
        "ratios": ratios,
        "baseline": result.baseline._asdict(),
        "subject": result.subject._asdict(),
        "peers": [
            {**peer._asdict(), "ratios": result.ratios(peer)} for peer in result.peers
        ],
    }


def _check_json(result: CheckResult) -> dict[str, Any]:
    def side(found: list[Finding] | str) -> dict[str, Any]:
        if isinstance(found, str):
            return {"problem": found, "findings": []}
        values = [
            {**f._asdict(), "value": None if math.isinf(f.value) else f.value, "met": _met(f)} for f in found
        ]
        return {"problem": "", "findings": values}

    return {
        "name": result.check.name,
        "title": result.check.title,
        "baseline": side(result.baseline),
        "subject": side(result.subject),
    }
