"""`meshwright task`: submit, look at, watch and cancel tasks."""

import contextlib
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from meshwright.cli import dead_letters, inbox, task_request
from meshwright.cli.edge import Edge
from meshwright.cli.journal import journal
from meshwright.cli.offered_tools import check_offered
from meshwright.cli.options import EdgeUrl, Output, Principal, with_edge
from meshwright.cli.output import Format, as_json, dollars, show, show_message, show_messages, show_table
from meshwright.cli.question import commands, told
from meshwright.cli.steps import Steps, shortened, shortfall, unwrapped
from meshwright.cli.task_request import BudgetEnd, Priority
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.task_pb2 import TaskResponse, TaskStatus
from meshwright.gen.agents.v1.task_service_pb2 import CancelTaskRequest, GetTaskRequest, ListTasksRequest

app = typer.Typer(no_args_is_help=True, help="Submit, look at, watch and cancel tasks; decide what they wait for.")
app.command("inbox")(inbox.inbox)
app.command("resolve")(inbox.resolve)
app.add_typer(dead_letters.app, name="dead-letters")
TaskId = Annotated[str, typer.Argument(help="The task's id")]
ANSWER = 60
"""Characters of an answer in a list."""
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Why each model was asked")]


class Status(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    INPUT_REQUIRED = "input-required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command()
def submit(
    question: task_request.Question,
    agent: task_request.AgentName = "",
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
    """Queues a task and prints its id at once."""
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

    async def submitted(mesh: Edge) -> TaskResponse:
        await check_offered(mesh, request.allowed_tools)
        return await mesh.submit(request)

    show_task(with_edge(edge, submitted), output, is_short=True)


@app.command()
def get(
    task_id: TaskId,
    verbose: Verbose = False,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Shows a task as it stands."""

    async def read(mesh: Edge) -> tuple[TaskResponse, list[str]]:
        request = GetTaskRequest(task_id=task_id, principal=principal)
        task: TaskResponse = await mesh.call(mesh.tasks.GetTask, request)
        return task, await reasons(mesh, task, principal) if verbose else []

    task, models = with_edge(edge, read)
    show_task(task, output)
    for reason in models if output is Format.TABLE else ():
        show(reason)


async def reasons(mesh: Edge, task: TaskResponse, principal: str) -> list[str]:
    """Says which models a task and those below it have asked so far, and why, each once.

    Raises:
        DeadlineExceededError: The journal is not read in time.
    """
    found: dict[str, None] = {}
    async with contextlib.aclosing(journal(mesh, task, principal)) as events:
        async for event in events:
            call = unwrapped(event)[1].llm_call
            if call.routed_because:
                found[f"asked {call.model}: {call.routed_because}"] = None
    return list(found)


@app.command("list")
def list_tasks(
    agent: Annotated[str, typer.Option("--agent", "-a", help="Only tasks of this agent")] = "",
    session: Annotated[str, typer.Option(help="Only tasks of this conversation")] = "",
    state: Annotated[list[Status] | None, typer.Option("--status", help="Only tasks that stand so")] = None,
    roots: Annotated[bool, typer.Option("--roots", help="Only tasks that no other task delegated")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many")] = 20,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Lists tasks, newest first."""
    statuses = [TaskStatus.Value(f"TASK_STATUS_{one.name}") for one in state or ()]
    request = ListTasksRequest(
        page_size=limit,
        agent_id=agent,
        session_id=session,
        statuses=statuses,
        roots_only=roots,
        principal=principal,
    )
    found = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.ListTasks, request)).tasks
    if output is not Format.TABLE:
        show_messages(found, output)
        return
    show_table(
        ("TASK", "AGENT", "STATUS", "STEPS", "TOKENS", "MS", "ANSWER"),
        (
            (
                t.task_id,
                t.agent_id,
                status(t),
                str(t.steps_used),
                str(t.tokens_used),
                str(t.duration_ms),
                shortened(failure(t) or t.output, ANSWER),
            )
            for t in found
        ),
    )


@app.command()
def watch(
    task_id: TaskId,
    after: Annotated[int, typer.Option(min=0, help="Sequence to resume after")] = 0,
    verbose: Verbose = False,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Shows a task's steps from the beginning and then as they happen, to the end."""

    async def follow(mesh: Edge) -> None:
        steps = Steps(Console(), is_verbose=verbose)
        async for event in mesh.watch(task_id, after, principal):
            if output is Format.TABLE:
                steps.draw(event)
            elif event.sequence:
                show(as_json(event, None))

    with_edge(edge, follow)


@app.command()
def cancel(
    task_id: TaskId,
    reason: Annotated[str, typer.Option(help="Kept with the task")] = "",
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Stops a task and its children; one that has ended stays as it is."""
    request = CancelTaskRequest(task_id=task_id, reason=reason, principal=principal)
    show_task(with_edge(edge, lambda mesh: mesh.call(mesh.tasks.CancelTask, request)), output, is_short=True)


def status(task: TaskResponse) -> str:
    """Returns a task's status as people read it."""
    return TaskStatus.Name(task.status).removeprefix("TASK_STATUS_").lower()


def failure(task: TaskResponse) -> str:
    """Says why a task has failed: the reason, then its words; empty: it has not."""
    return f"{MeshError.from_status(task.error).reason}: {task.error.message}" if task.HasField("error") else ""


def show_task(task: TaskResponse, form: Format, *, is_short: bool = False) -> None:
    """Prints one task."""
    if form is not Format.TABLE:
        show_message(task, form)
        return
    show(f"{task.task_id}  {status(task)}" + (f", {short}" if (short := shortfall(task)) else ""))
    if not is_short:
        spent = f", US$ {dollars(task.usage.cost_micros)}" if task.usage.cost_micros else ""
        show(f"{task.agent_id}, {task.steps_used} steps, {task.tokens_used} tokens{spent}, {task.duration_ms} ms")
        show(task.output or failure(task))
        for pending in task.pending_inputs:
            show("\n  ".join((f"waits for you: {told(pending)}", *commands(task.task_id, pending))))
