"""`meshwright run`: ask a question and wait for the answer."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from meshwright.agents.task import leaf
from meshwright.cli import task_request
from meshwright.cli.edge import Edge
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, show
from meshwright.cli.steps import Steps
from meshwright.cli.task_request import BudgetEnd, Priority
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
    question: task_request.Question,
    agent: task_request.AgentName = "",
    stream: Annotated[bool, typer.Option("--stream", "-s", help="Show the steps as they happen")] = False,
    session: task_request.SessionId = "",
    model: task_request.ModelName = "",
    output_schema: task_request.SchemaFile = None,
    tools: task_request.ToolNames = None,
    max_steps: task_request.MaxSteps = 0,
    max_tool_calls: task_request.MaxToolCalls = 0,
    token_budget: task_request.TokenBudget = 0,
    cost_budget: task_request.CostBudget = 0,
    on_budget: task_request.OnBudget = BudgetEnd.PARTIAL,
    timeout: task_request.Timeout = 0,
    no_cache: task_request.NoCache = False,
    priority: task_request.Urgency = Priority.NORMAL,
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Asks a question and prints the answer; a connection that breaks is resumed where it was."""
    request = task_request.task_request(
        question,
        agent_id=agent,
        session_id=session,
        model=model,
        output_schema=output_schema,
        allowed_tools=tools,
        max_steps=max_steps,
        max_tool_calls=max_tool_calls,
        token_budget=token_budget,
        cost_budget_micros=cost_budget,
        on_budget=on_budget,
        timeout=timeout,
        no_cache=no_cache,
        priority=priority,
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
