"""`meshwright task inbox` and `resolve`: what agents ask of people, and what people decide."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from meshwright.cli.edge import Edge
from meshwright.cli.options import EdgeUrl, Output, Principal, with_edge
from meshwright.cli.output import Format, show, show_message, show_messages, show_table
from meshwright.cli.question import DIGITS, choices, needs_digest, told, word
from meshwright.cli.steps import shortened
from meshwright.core.canonical import to_struct
from meshwright.core.errors import DigestMismatchError, InputNotPendingError, InvalidRequestError
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_INPUT_REQUIRED,
    Decision,
    InputKind,
    PendingInput,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest, ListTasksRequest, ResolveInputRequest

SECONDS_SHOWN = 120
"""Below so many seconds a deadline is told in seconds."""


class Choice(StrEnum):
    """What can be decided; each question offers some of these."""

    APPROVE = "approve"
    REJECT = "reject"
    EDIT = "edit"
    ANSWER = "answer"
    RETRY = "retry"
    SKIP = "skip"
    FAIL = "fail"
    RAISE_BUDGET = "raise_budget"


def inbox(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many tasks are looked at")] = 50,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Lists what agents wait for people to decide, over all tasks."""
    request = ListTasksRequest(page_size=limit, statuses=[TASK_STATUS_INPUT_REQUIRED], principal=principal)
    found = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.ListTasks, request)).tasks
    asking = [task for task in found if any(not pending.origin_task_id for pending in task.pending_inputs)]
    if output is not Format.TABLE:
        show_messages(asking, output)
        return
    rows = [(task, pending) for task in asking for pending in task.pending_inputs if not pending.origin_task_id]
    show_table(
        ("TASK", "AGENT", "KIND", "ASKS", "LAPSES", "DIGEST", "CHOICES"),
        (
            (
                task.task_id,
                task.agent_id,
                InputKind.Name(pending.kind).removeprefix("INPUT_KIND_").lower().replace("_", " "),
                shortened(told(pending)),
                lapses(pending),
                pending.intent_digest[:DIGITS] or "-",
                choices(pending),
            )
            for task, pending in sorted(rows, key=lambda row: (-row[1].priority, row[1].expire_time.ToNanoseconds()))
        ),
        empty="nothing waits for a person",
    )


def resolve(
    task_id: Annotated[str, typer.Argument(help="The task that waits, or one above it")],
    decision: Annotated[Choice, typer.Argument(help="What is decided")],
    value: Annotated[
        str, typer.Argument(help="For answer: what is answered, as JSON or plain text; for edit: arguments as JSON")
    ] = "",
    input_id: Annotated[str, typer.Option("--input", help="Which question, where there are several")] = "",
    digest: Annotated[
        str,
        typer.Option(
            help=f"Of the call that approve, edit or retry lets run, its first {DIGITS} digits or all, as the inbox "
            "shows it; else they are refused. Others need none"
        ),
    ] = "",
    reason: Annotated[str, typer.Option(help="Kept in the journal, and read by the model")] = "",
    cost_budget: Annotated[
        int, typer.Option(min=0, max=10**12, help="For raise_budget: the new total in US$ / 1000000; 0: as before")
    ] = 0,
    token_budget: Annotated[int, typer.Option(min=0, max=10**6, help="For raise_budget: the new total of tokens")] = 0,
    max_steps: Annotated[int, typer.Option(min=0, max=100, help="For raise_budget: the new number of rounds")] = 0,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Decides on what a task waits for; then it goes on."""
    answer = answer_of(value) if decision is Choice.ANSWER else None
    edited = to_struct(arguments_of(value)) if decision is Choice.EDIT else None
    if decision is Choice.RAISE_BUDGET and not (cost_budget or token_budget or max_steps):
        raise typer.BadParameter("raise_budget needs a new total: --cost-budget, --token-budget or --max-steps")

    async def decide(mesh: Edge) -> TaskResponse:
        named = GetTaskRequest(task_id=task_id, principal=principal)
        task: TaskResponse = await mesh.call(mesh.tasks.GetTask, named)
        pending = chosen(task, input_id)
        check_choice(pending, decision)
        check_digest(pending, decision, digest)
        request = ResolveInputRequest(
            task_id=task_id,
            input_id=pending.input_id,
            decision=Decision.Value(f"DECISION_{decision.name}"),
            intent_digest=pending.intent_digest,
            reason=reason,
            cost_budget_micros=cost_budget,
            token_budget=token_budget,
            max_steps=max_steps,
            answer=answer,
            edited_arguments=edited,
            principal=principal,
        )
        response: TaskResponse = await mesh.call(mesh.tasks.ResolveInput, request)
        if output is Format.TABLE:
            typer.echo(f"{decision.value}: {told(pending)}", err=True)
        return response

    task = with_edge(edge, decide)
    if output is Format.TABLE:
        show(f"{task.task_id}  goes on: meshwright task watch {task.task_id} --after {task.last_sequence}")
    else:
        show_message(task, output)


def check_choice(pending: PendingInput, decision: Choice) -> None:
    """Makes sure that a question offers a decision.

    Raises:
        InvalidRequestError: It does not; names those that it offers.
    """
    offered = [word(choice) for choice in pending.choices]
    if decision.value not in offered:
        names = ", ".join(offered)
        message = f"this question takes no {decision.value}: it takes one of {names}"
        raise InvalidRequestError(message, fields={"decision": f"must be one of {names}"})


def check_digest(pending: PendingInput, decision: Choice, digest: str) -> None:
    """Makes sure that who lets something run has seen what.

    Raises:
        DigestMismatchError: The digest is missing, or that of something else.
    """
    if not digest and needs_digest(pending, Decision.Value(f"DECISION_{decision.name}")):
        now = f"add --digest {pending.intent_digest[:DIGITS]}"
        raise DigestMismatchError(f"this is about {told(pending)}: if that is what you mean, {now}")
    if digest and (len(digest) < DIGITS or not pending.intent_digest.startswith(digest)):
        raise DigestMismatchError(f"the task waits for {told(pending)}, whose digest is {pending.intent_digest}")


def chosen(task: TaskResponse, input_id: str) -> PendingInput:
    """Returns the question that is meant.

    Raises:
        InputNotPendingError: There is none, or there are several and none was named.
    """
    found = [pending for pending in task.pending_inputs if input_id in ("", pending.input_id)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputNotPendingError(f"task {task.task_id} waits for no such decision: `meshwright task inbox` lists all")
    names = ", ".join(f"{pending.input_id} ({shortened(told(pending))})" for pending in found)
    raise InputNotPendingError(f"task {task.task_id} asks several things: name one with --input: {names}")


def lapses(pending: PendingInput) -> str:
    """Says how long a question stays open."""
    seconds = int((pending.expire_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds())
    if seconds <= 0:
        return "now"
    if seconds < SECONDS_SHOWN:
        return f"in {seconds} s"
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86_400
    return f"in {days} d {hours} h" if days else f"in {hours} h {minutes} min"


def answer_of(text: str) -> Value:
    """Reads an answer: JSON where it is some, else plain text.

    Raises:
        typer.BadParameter: There is none.
    """
    if not text:
        raise typer.BadParameter('an answer is needed: meshwright task resolve TASK answer "…"', param_hint="VALUE")
    try:
        return json_format.Parse(text, Value())
    except json_format.ParseError:
        return Value(string_value=text)


def arguments_of(text: str) -> dict[str, object]:
    """Reads edited arguments.

    Raises:
        typer.BadParameter: They are no JSON object.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        message = "edit needs the arguments as a JSON object: '{\"name\": value}'"
        raise typer.BadParameter(message, param_hint="VALUE")
    return values
