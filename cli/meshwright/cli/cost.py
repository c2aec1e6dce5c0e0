"""`meshwright cost`: what ended tasks have cost, by day."""

from enum import StrEnum
from typing import Annotated

import typer

from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, dollars, show, show_table
from meshwright.gen.agents.v1.task_service_pb2 import CostGrouping, GetCostsRequest, GetCostsResponse


class Grouping(StrEnum):
    """What costs are summed by."""

    AGENT = "agent"
    MODEL = "model"
    TOOL = "tool"
    TYPE = "type"
    TENANT = "tenant"
    SESSION = "session"
    USER = "user"


def cost(
    by: Annotated[Grouping, typer.Option(help="What a row stands for")] = Grouping.AGENT,
    day: Annotated[str, typer.Option(help="Day (UTC) on which tasks were accepted, YYYY-MM-DD; by default today")] = "",
    to: Annotated[str, typer.Option("--to", help="Last day, where it is several; at most 40 of them")] = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Sums what your tenant's ended tasks have cost; tasks that cost nothing are in no row."""
    request = GetCostsRequest(by=CostGrouping.Value(f"COST_GROUPING_{by.name}"), from_day=day, to_day=to)
    found: GetCostsResponse = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.GetCosts, request))
    if output is not Format.TABLE:
        show(as_json(found, 2 if output is Format.JSON else None))
        return
    show_table(
        (by.name, "US$", "ESTIMATED US$", "TOKENS"),
        (
            (row.name, dollars(row.cost_micros), dollars(row.estimated_cost_micros), str(row.tokens))
            for row in found.rows
        ),
    )
