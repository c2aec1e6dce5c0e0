"""Options that several commands share."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from meshwright.cli.edge import Edge
from meshwright.cli.output import Format
from meshwright.cli.settings import CliSettings
from meshwright.gen.agents.v1.task_pb2 import BudgetAction


class BudgetEnd(StrEnum):
    """What happens when a budget is used up."""

    PARTIAL = "partial"
    ASK = "ask"
    DEGRADE = "degrade"
    FAIL = "fail"

    @property
    def action(self) -> BudgetAction.ValueType:
        """The same as the contract says it."""
        return BudgetAction.Value(f"BUDGET_ACTION_{self.name}")


EdgeUrl = Annotated[str | None, typer.Option("--edge", help="URL of the edge  [default: http://127.0.0.1:8080]")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed")]
CostBudget = Annotated[int, typer.Option(help="What the task may cost in US$ / 1000000; 0: no limit")]
OnBudget = Annotated[BudgetEnd, typer.Option(help="What happens when a budget is used up")]
T = TypeVar("T")


def with_edge(url: str | None, work: Callable[[Edge], Awaitable[T]]) -> T:
    """Runs a command's work against the edge that it names."""

    async def run() -> T:
        edge = Edge(CliSettings.load(edge=url).edge)
        try:
            return await work(edge)
        finally:
            await edge.close()

    return asyncio.run(run())
