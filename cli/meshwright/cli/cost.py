"""`meshwright cost`: what ended tasks have cost, by day."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

import typer

from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, dollars, show_message, show_table
from meshwright.gen.agents.v1.task_service_pb2 import CostGrouping, GetCostsRequest

MOST_DAYS = 40
"""So long sums are kept."""


class Grouping(StrEnum):
    """What costs are summed by."""

    AGENT = "agent"
    MODEL = "model"
    TOOL = "tool"
    TYPE = "type"
    TENANT = "tenant"
    SESSION = "session"
    USER = "user"


def day_of(text: str) -> str:
    """Holds a day of the command line against the form that days have.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day: write YYYY-MM-DD, as in 2026-01-31") from None


def first_day(text: str) -> date:
    """Returns the day at which sums begin; today (UTC) unless one is named."""
    return date.fromisoformat(text) if text else datetime.now(UTC).date()


def cost(
    by: Annotated[Grouping, typer.Option(help="What a row stands for")] = Grouping.AGENT,
    day: Annotated[
        str, typer.Option(callback=day_of, help="Day (UTC) on which tasks were accepted, YYYY-MM-DD; by default today")
    ] = "",
    to: Annotated[
        str, typer.Option("--to", callback=day_of, help="Last day, where it is several; at most 40 of them")
    ] = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Sums what your tenant's ended tasks have cost."""
    if to and not 0 <= (ago := (date.fromisoformat(to) - first_day(day)).days) < MOST_DAYS:
        raise typer.BadParameter(
            f"{to} is {ago} days after the first day: write 0 to {MOST_DAYS - 1}", param_hint="--to"
        )
    request = GetCostsRequest(by=CostGrouping.Value(f"COST_GROUPING_{by.name}"), from_day=day, to_day=to)
    found = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.GetCosts, request))
    if output is not Format.TABLE:
        show_message(found, output)
        return
    show_table(
        (by.name, "US$", "ESTIMATED US$", "TOKENS"),
        (
            (row.name, dollars(row.cost_micros), dollars(row.estimated_cost_micros), str(row.tokens))
            for row in found.rows
        ),
    )
