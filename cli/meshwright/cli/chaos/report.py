"""The report: a row a scenario, for people as a table, for programs as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from meshwright.cli.chaos.scenario import Row, Scenario
from meshwright.cli.output import Format, show, show_table


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that was played, its row, and how long it took."""

    scenario: Scenario
    row: Row
    seconds: float

    @property
    def verdict(self) -> str:
        """`kept`, `BROKEN` or `skipped`."""
        if self.row.skipped:
            return "skipped"
        return "BROKEN" if self.row.broken else "kept"

    @property
    def facts(self) -> dict[str, object]:
        """What a program reads."""
        head: dict[str, object] = {
            "scenario": self.scenario.name,
            "title": self.scenario.title,
            "verdict": self.verdict,
        }
        return head | asdict(self.row) | {"seconds": round(self.seconds, 1)}


def show_report(played: Sequence[Played], form: Format) -> None:
    """Prints the report."""
    if form is Format.JSON:
        show(json.dumps([one.facts for one in played], indent=2))
    elif form is Format.JSONL:
        for one in played:
            show(json.dumps(one.facts))
    else:
        show_table(
            ("SCENARIO", "SIZE", "FIGURES", "SECONDS", "PROMISES"),
            (
                (one.scenario.name, one.row.size, figures(one.row), f"{one.seconds:.0f}", judgement(one))
                for one in played
            ),
        )


def figures(row: Row) -> str:
    """Writes a row's figures in one line."""
    return ", ".join(f"{name} {value}" for name, value in row.figures.items())


def judgement(one: Played) -> str:
    """Says whether the promises were kept, and which were not."""
    return ": ".join(filter(None, (one.verdict, one.row.skipped or "; ".join(one.row.broken))))
