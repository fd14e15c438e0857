# SPDX-License-Identifier: PSF-2.0
"""The ratios as a bar plot: one SVG file, written by hand, on a logarithmic axis.

A bar reaches from 1x to the median, a thin line from the smallest to the largest pair; a dark
stroke marks the goal and a diamond what a bare prototype reached.
"""

from __future__ import annotations

import math
import re
from statistics import median
from xml.sax.saxutils import escape

from benchmarks._report import write_ratio
from benchmarks._rounds import CaseResult, Plan

__all__ = ["svg"]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1000, 290, 90, 96, 60
ROW, PEER_ROW, SECTION = 24, 14, 34  # heights
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

STYLE = """
text { font: 13px system-ui, "DejaVu Sans", Arial, sans-serif; fill: #24292f }
.title { font-size: 19px; font-weight: 600 } .note, .tick { font-size: 11.5px; fill: #6e7781 }
.section { font-weight: 600; fill: #57606a } .value { font-weight: 600 } .peer { font-size: 11px; fill: #6e7781 }
.grid { stroke: #e4e8ec } .one { stroke: #8c959f } .spread { stroke: #1b3a57; stroke-width: 1.5 }
.bar { fill: #3a86c8 } .short { fill: #e08a3c } .slow { fill: #cf4a4a } .plain { fill: #8fb8dc }
.peerbar { fill: #c3cad1 }
.goal { stroke: #1f2328; stroke-width: 2.5 } .limit { fill: #ffffff; stroke: #1f2328; stroke-width: 1.3 }
"""


class _Axis:
    """Where on the page a ratio lies."""

    def __init__(self, ratios: list[float]) -> None:
        low, high = min(ratios, default=1), max(ratios, default=1)
        below = [tick for tick in TICKS if tick <= min(low, 0.99)]
        above = [tick for tick in TICKS if tick >= max(high, 2) * 1.05]
        self.low = below[-1] if below else TICKS[0]
        self.high = above[0] if above else TICKS[-1]
        self.ticks = [tick for tick in TICKS if self.low <= tick <= self.high]

    def at(self, ratio: float) -> float:
        """The horizontal position; what lies outside is drawn at the edge."""
        inside = min(max(ratio, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def svg(machine: dict[str, str], plan: Plan, results: list[CaseResult]) -> str:
    """The plot of all results that have a ratio.

    Args:
        machine: what the head says about machine and versions.
        plan: how it was measured.
        results: the rows, in their order.
    """
    rows = [result for result in results if result.ratios()]
    numbers = [ratio for row in rows for ratio in row.ratios()]
    numbers += [ratio for row in rows for peer in row.peers for ratio in row.ratios(peer)]
    numbers += [row.case.goal for row in rows if row.case.goal is not None]
    numbers += [number for row in rows if (number := _prototype(row)) is not None]
    axis = _Axis(numbers)
    body: list[str] = []
    y, section = float(TOP), ""
    for row in rows:
        if row.case.section != section:
            section = row.case.section
            body.append(_text(16, y + 22, section, "section"))
            y += SECTION
        body += _row(row, axis, y)
        y += ROW
        for peer in row.peers:
            if row.ratios(peer):
                body += _peer(peer.library, median(row.ratios(peer)), axis, y - 2)
                y += PEER_ROW
    height = y + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img">',
            f"<title>{escape(plan.subject)} against {escape(plan.baseline)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
            *_heading(machine, plan),
            *_grid(axis, y),
            *body,
            *_key(y + 40),
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}" '
        f'rx="2" class="{kind}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _heading(machine: dict[str, str], plan: Plan) -> list[str]:
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}"
    how = f"{machine['date']}, {plan.rounds} paired rounds, fork; logarithmic axis"
    return [
        _text(16, 32, f"{plan.subject}: times faster than {plan.baseline}", "title"),
        _text(16, 52, where, "note"),
        _text(16, 68, how, "note"),
    ]


def _grid(axis: _Axis, bottom: float) -> list[str]:
    lines = []
    for tick in axis.ticks:
        x = axis.at(tick)
        lines.append(_line(x, TOP - 6, x, bottom + 4, "one" if tick == 1 else "grid"))
        lines += [_text(x, y, f"{tick:g}x", "tick", "middle") for y in (TOP - 10, bottom + 18)]
    return lines


def _prototype(row: CaseResult) -> float | None:
    """What the prototype reached; the smaller number where a range is given."""
    number = re.match(r"[\d.]+", row.case.limit)
    return float(number[0]) if number else None


def _row(row: CaseResult, axis: _Axis, y: float) -> list[str]:
    ratios = row.ratios()
    ratio, goal, middle = median(ratios), row.case.goal, y + ROW / 2 - 2
    if goal is None:
        kind = "plain" if ratio >= 1 else "slow"
    else:
        kind = "bar" if ratio >= goal else "short" if ratio >= 1 else "slow"
    start, end = sorted((axis.at(1), axis.at(ratio)))
    parts = [
        _text(LEFT - 10, middle + 4.5, row.case.title, "", "end"),
        _rect(start, y + 3, end - start, ROW - 10, kind),
        _line(axis.at(min(ratios)), middle, axis.at(max(ratios)), middle, "spread"),
    ]
    right = max(end, axis.at(max(ratios)))
    if goal is not None:
        parts.append(_line(axis.at(goal), y, axis.at(goal), y + ROW - 4, "goal"))
        right = max(right, axis.at(goal))
    prototype = _prototype(row)
    if prototype is not None:
        x = axis.at(prototype)
        parts.append(f'<path d="M{x:.1f} {middle - 5} l5 5 l-5 5 l-5 -5z" class="limit"/>')
        right = max(right, x + 5)
    return [*parts, _text(right + 8, middle + 4.5, write_ratio(ratio), "value")]


def _peer(name: str, ratio: float, axis: _Axis, y: float) -> list[str]:
    start, end = sorted((axis.at(1), axis.at(ratio)))
    return [
        _text(LEFT - 10, y + 8.5, name, "peer", "end"),
        _rect(start, y + 1, end - start, PEER_ROW - 6, "peerbar"),
        _text(end + 6, y + 8.5, write_ratio(ratio), "peer"),
    ]


def _key(y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for kind, text in (
        ("bar", "goal reached"),
        ("short", "below its goal"),
        ("slow", "slower"),
        ("plain", "no goal"),
    ):
        parts += [_rect(x, y, 14, 10, kind), _text(x + 19, y + 9.5, text, "note")]
        x += 112
    parts += [_line(x, y - 2, x, y + 12, "goal"), _text(x + 8, y + 9.5, "goal", "note")]
    x += 56
    parts.append(f'<path d="M{x:.1f} {y} l5 5 l-5 5 l-5 -5z" class="limit"/>')
    parts.append(_text(x + 10, y + 9.5, "bare prototype", "note"))
    return parts
