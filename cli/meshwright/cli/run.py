"""`meshwright run`: ask a question and wait for the answer."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from meshwright.cli import task_request
from meshwright.cli.edge import Edge
from meshwright.cli.offered_tools import check_offered
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, harmless, show, show_message
from meshwright.cli.question import commands, sentence, told
from meshwright.cli.steps import Steps, shortfall, unwrapped
from meshwright.cli.task_request import BudgetEnd, Priority
from meshwright.core.errors import BudgetExceededError, MeshError, UnavailableError
from meshwright.core.ids import uuid7
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_PARKED, StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_COMPLETED,
    TASK_STATUS_INPUT_REQUIRED,
    TaskRequest,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest

WAITING = "waiting for a person; Ctrl-C leaves, and the task waits on"


def run(
    question: task_request.Question,
    agent: task_request.AgentName = "",
    stream: Annotated[bool, typer.Option("--stream", "-s", help="Show the steps as they happen")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With --stream: why each model was asked")] = False,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--no-wait",
            help="Where the task asks a person: wait, or end with exit code 1  [default: wait on a terminal]",
            show_default=False,
        ),
    ] = None,
    task_id: task_request.TaskId = "",
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
    """Asks a question and prints the answer.

    A connection that breaks is resumed where it was.
    """
    request = task_request.task_request(
        question,
        agent_id=agent,
        task_id=task_id,
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
    console = Console(stderr=True)
    follower = Follower(
        console,
        is_streamed=stream,
        is_verbose=verbose,
        is_waiting=console.is_terminal if wait is None else wait,
        form=output,
    )
    result = with_edge(edge, lambda mesh: follower.answer(mesh, request))
    show_result(result, output, is_streamed=stream)


class Follower:
    """Follows one task to its end, or to where it waits for a person whom nobody waits for.

    Args:
        console: Where steps and questions are drawn.
        is_streamed: Shows every step: drawn, or as lines of JSON on stdout.
        is_verbose: Says why each model was asked.
        is_waiting: Stays while a person is asked.
        form: How data is printed.
    """

    def __init__(
        self, console: Console, *, is_streamed: bool, is_verbose: bool, is_waiting: bool, form: Format
    ) -> None:
        self._console = console
        self._steps = Steps(console, is_verbose=is_verbose)
        self._is_streamed = is_streamed
        self._is_waiting = is_waiting
        self._form = form
        self._sign = console.status(WAITING)
        self._open: set[str] = set()

    async def answer(self, mesh: Edge, request: TaskRequest) -> TaskResponse:
        """Submits a task and returns its result, or the task as it waits for a person.

        Raises:
            ToolNotFoundError: It names tools that nobody has: nothing was submitted.
            MeshError: The task was not accepted, or the mesh stays away.
        """
        await check_offered(mesh, request.allowed_tools)
        request.task_id = request.task_id or uuid7()
        if self._is_streamed and self._form is Format.TABLE:
            self._console.print(f"task {request.task_id}", style="dim", markup=False, highlight=False)
        try:
            return await self._followed(mesh, request)
        except asyncio.CancelledError:
            self._sign.stop()
            self._console.print(f"the task goes on: meshwright task watch {request.task_id}", highlight=False)
            raise
        finally:
            self._sign.stop()

    async def _followed(self, mesh: Edge, request: TaskRequest) -> TaskResponse:
        async for event in mesh.steps(request):
            self._show(event)
            if event.HasField("result"):
                return event.result
            if not self._is_waiting and may_wait(event):
                task: TaskResponse = await mesh.call(mesh.tasks.GetTask, GetTaskRequest(task_id=request.task_id))
                if task.status == TASK_STATUS_INPUT_REQUIRED:
                    return task
        raise UnavailableError("the stream ended without a result: `meshwright task get` tells how the task stands")

    def _show(self, event: StepEvent) -> None:
        _, inner = unwrapped(event)
        if self._is_streamed and self._form is Format.TABLE:
            self._steps.draw(event)
        elif self._is_streamed and event.sequence:
            show(as_json(event, None))
        elif inner.HasField("input_requested"):
            self._console.print(asking(inner), style="yellow", markup=False, highlight=False, soft_wrap=True)
        if inner.HasField("input_requested"):
            self._open.add(inner.input_requested.input_id)
        elif inner.HasField("input_resolved"):
            self._open.discard(inner.input_resolved.input_id)
        if self._is_waiting and self._open:
            self._sign.start()
        else:
            self._sign.stop()


def may_wait(event: StepEvent) -> bool:
    """Whether a task may wait for a person after an event: it has asked, or has laid down its work."""
    _, inner = unwrapped(event)
    return inner.HasField("input_requested") or inner.notice.kind == NOTICE_KIND_PARKED


def asking(event: StepEvent) -> str:
    """Writes a question as lines of its own: what is asked, then the commands that decide."""
    pending = event.input_requested
    lines = (f"a person is asked: {sentence(told(pending))} Decide with one of", *commands(event.task_id, pending))
    return harmless("\n  ".join(lines))


def show_result(result: TaskResponse, form: Format, *, is_streamed: bool) -> None:
    """Prints a result; a task that failed exits with its error's code, one that waits for a person with 1."""
    if form is Format.TABLE:
        if result.unanswered:  # what output says is no answer, and whoever reads stdout takes it for one
            raise BudgetExceededError(
                f"{shortfall(result)}; --token-budget, --cost-budget and --max-steps give it more, "
                "unless a budget that tasks share is used up: see `meshwright cost`"
            )
        if result.output:
            show(result.output)
        if short := shortfall(result):
            typer.echo(short, err=True)
    elif not is_streamed:
        show_message(result, form)
    if result.HasField("error"):
        raise MeshError.from_status(result.error)
    if result.status == TASK_STATUS_INPUT_REQUIRED:
        typer.echo(f"task {result.task_id} waits for a person: meshwright task get {result.task_id}", err=True)
    if result.status != TASK_STATUS_COMPLETED:
        raise typer.Exit(1)
