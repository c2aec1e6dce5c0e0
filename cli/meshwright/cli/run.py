"""`meshwright run`: ask a question and wait for the answer."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from meshwright.agents.task import leaf
from meshwright.cli.edge import Edge
from meshwright.cli.options import BudgetEnd, CostBudget, EdgeUrl, OnBudget, Output, with_edge
from meshwright.cli.output import Format, as_json, show
from meshwright.cli.steps import Steps
from meshwright.core.errors import BudgetExceededError, MeshError, UnavailableError
from meshwright.core.ids import uuid7
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    FinishReason,
    TaskRequest,
    TaskResponse,
)


def run(
    question: Annotated[str, typer.Argument(help="What to do")],
    agent: Annotated[str, typer.Option("--agent", "-a", help="Agent that does it; by default the orchestrator")] = "",
    stream: Annotated[bool, typer.Option("--stream", "-s", help="Show the steps as they happen")] = False,
    session: Annotated[str, typer.Option(help="Conversation that the question belongs to")] = "",
    max_steps: Annotated[int, typer.Option(help="Plan-act-observe rounds, 1..25; 0: 10")] = 0,
    token_budget: Annotated[int, typer.Option(help="Tokens, 512..32768; 0: 8192")] = 0,
    cost_budget: CostBudget = 0,
    on_budget: OnBudget = BudgetEnd.PARTIAL,
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Asks a question and prints the answer; a connection that breaks is resumed where it was."""
    request = TaskRequest(
        prompt=question,
        agent_id=agent,
        session_id=session,
        max_steps=max_steps,
        token_budget=token_budget,
        cost_budget_micros=cost_budget,
        on_budget_exceeded=on_budget.action,
    )
    result = with_edge(edge, lambda mesh: answered(mesh, request, is_streamed=stream, form=output))
    show_result(result, output, is_streamed=stream)


async def answered(mesh: Edge, request: TaskRequest, *, is_streamed: bool, form: Format) -> TaskResponse:
    """Follows a task to its end, drawing the steps on stderr, or printing them as lines of JSON."""
    console = Console(stderr=True)
    steps = Steps(console)
    request.task_id = uuid7()
    if is_streamed and form is Format.TABLE:
        console.print(f"task {request.task_id}", style="dim", markup=False, highlight=False)
    try:
        return await followed(mesh, request, steps, is_streamed=is_streamed, form=form)
    except asyncio.CancelledError:
        console.print(f"the task goes on: meshwright task watch {request.task_id}", highlight=False)
        raise


async def followed(mesh: Edge, request: TaskRequest, steps: Steps, *, is_streamed: bool, form: Format) -> TaskResponse:
    """Shows a task's events as they come and returns its result."""
    async for event in mesh.steps(request):
        if is_streamed and form is Format.TABLE:
            steps.draw(event)
        elif is_streamed and event.sequence:
            show(as_json(event, None))
        elif leaf(event).HasField("input_requested"):
            steps.draw(event)
        if event.HasField("result"):
            return event.result
    raise UnavailableError("the stream ended without a result: `meshwright task get` tells how the task stands")


def show_result(result: TaskResponse, form: Format, *, is_streamed: bool) -> None:
    """Prints a result; a task that failed exits with its error's code."""
    if form is Format.TABLE:
        if result.output:
            show(result.output)
        if result.status == TASK_STATUS_COMPLETED and result.finish_reason != FINISH_REASON_STOP:
            reason = FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_").lower()
            if not result.output:
                raise BudgetExceededError(
                    f"no answer: {reason}; --token-budget, --cost-budget and --max-steps give it more"
                )
            typer.echo(f"partial answer: {reason}", err=True)
    elif not is_streamed:
        show(as_json(result, 2 if form is Format.JSON else None))
    if result.HasField("error"):
        raise MeshError.from_status(result.error)
    if result.status != TASK_STATUS_COMPLETED:
        raise typer.Exit(1)
