"""What `meshwright run` and `meshwright task submit` can ask for, in the same words."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from meshwright.core.canonical import to_struct
from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import CALLER_ID, TOOL_NAME
from meshwright.gen.agents.v1.task_pb2 import BudgetAction, TaskPriority, TaskRequest

MAX_SCHEMA_BYTES = 64 * 2**10
FEWEST_TOKENS, MOST_TOKENS = 512, 32_768


class BudgetEnd(StrEnum):
    """What happens when a budget is used up."""

    PARTIAL = "partial"
    ASK = "ask"
    DEGRADE = "degrade"
    FAIL = "fail"


class Priority(StrEnum):
    """Order among the waiting tasks of one tenant."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


def id_of_caller(text: str) -> str:
    """Holds an id of the command line against the form that ids have.

    Raises:
        typer.BadParameter: It has another one.
    """
    if text and not CALLER_ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no id: write {CALLER_ID.words}")
    return text


def tool_names(names: list[str] | None) -> list[str] | None:
    """Holds names of tools against the form that they have.

    Raises:
        typer.BadParameter: One has another form.
    """
    for name in names or ():
        if not TOOL_NAME.fullmatch(name):
            raise typer.BadParameter(f"{name!r} names no tool: write {TOOL_NAME.words}")
    return names


def tokens(budget: int) -> int:
    """Holds a budget of tokens against the smallest one.

    Raises:
        typer.BadParameter: It is smaller.
    """
    if 0 < budget < FEWEST_TOKENS:
        raise typer.BadParameter(f"{budget} is not in {FEWEST_TOKENS}..{MOST_TOKENS}; 0 is the default")
    return budget


Question = Annotated[str, typer.Argument(help="What to do")]
AgentName = Annotated[str, typer.Option("--agent", "-a", help="Agent that does it; by default the orchestrator")]
TaskId = Annotated[
    str, typer.Option("--id", callback=id_of_caller, help="Your own id; the same id again is the same task")
]
SessionId = Annotated[str, typer.Option(callback=id_of_caller, help="Conversation that the task belongs to")]
ModelName = Annotated[str, typer.Option(help="Model, or class of models: fast, best; by default the agent's choice")]
SchemaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON Schema of type object: the answer is JSON that satisfies it")
]
ToolNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tool",
        callback=tool_names,
        help="Only this tool, of the agent and of those below it; ask.AGENT: a delegate; repeatable",
    ),
]
MaxSteps = Annotated[int, typer.Option(min=0, max=25, help="Plan-act-observe rounds, 1..25; 0: 10")]
MaxToolCalls = Annotated[
    int, typer.Option(min=0, max=1_000, help="Tool calls, 1..1000; 0: as many as the rounds allow")
]
TokenBudget = Annotated[int, typer.Option(min=0, max=MOST_TOKENS, callback=tokens, help="Tokens, 512..32768; 0: 8192")]
CostBudget = Annotated[
    int, typer.Option(min=0, max=10**12, help="What the task may cost in US$ / 1000000; 0: no limit")
]
OnBudget = Annotated[BudgetEnd, typer.Option(help="What happens when a budget is used up")]
Timeout = Annotated[int, typer.Option(min=0, max=86_400, help="Seconds that the task may take; 0: 600")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither take nor keep an answer in the response cache")]
Urgency = Annotated[Priority, typer.Option(help="Order among your waiting tasks")]


def task_request(
    question: str,
    *,
    on_budget: BudgetEnd,
    priority: Priority,
    timeout: int,
    output_schema: Path | None,
    **fields: Any,
) -> TaskRequest:
    """Makes a request of options.

    Args:
        question: What to do.
        on_budget: What happens when a budget is used up.
        priority: Order among the waiting tasks.
        timeout: Seconds; 0: the default.
        output_schema: File of a JSON Schema; None: the answer is text.
        fields: Other fields of the request, under their names.

    Raises:
        SetupError: The file cannot be read, or is too large.
        InvalidRequestError: It holds no JSON object.
    """
    request = TaskRequest(
        prompt=question,
        on_budget_exceeded=BudgetAction.Value(f"BUDGET_ACTION_{on_budget.name}"),
        priority=TaskPriority.Value(f"TASK_PRIORITY_{priority.name}"),
        **fields,
    )
    if timeout:
        request.timeout.FromSeconds(timeout)
    if output_schema:
        request.output_schema.CopyFrom(to_struct(schema_in(output_schema)))
    return request


def schema_in(path: Path) -> dict[str, Any]:
    """Reads a JSON Schema; what it says is checked by the mesh.

    Raises:
        SetupError: The file cannot be read, or is too large.
        InvalidRequestError: It holds no JSON object.
    """
    from meshwright.registry.arguments import READER  # brings the host of tools, which most requests do without
    from meshwright.registry.file import content

    text = content(path, MAX_SCHEMA_BYTES)
    try:
        schema = READER.decode(text.decode())
    except RecursionError:
        raise unreadable(path, "goes too deep") from None
    except ValueError as error:  # no JSON, no UTF-8, or what no two readers read alike
        raise unreadable(path, str(error)) from None
    if not isinstance(schema, dict):
        raise unreadable(path, "is no JSON object")
    return schema


def unreadable(path: Path, why: str) -> InvalidRequestError:
    """Builds the error for a file that holds no schema."""
    return InvalidRequestError(f"{path} holds no JSON Schema: {why}", fields={"output_schema": why})
