"""`meshwright trace`: a task with its children as a tree, with times and money; read from its journal."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from meshwright.cli.edge import Edge
from meshwright.cli.journal import journal
from meshwright.cli.options import EdgeUrl, Output, Principal, with_edge
from meshwright.cli.output import Format, dollars, show, show_table
from meshwright.cli.trace_tree import Node, Tree
from meshwright.core.errors import InvalidRequestError, TaskNotFoundError
from meshwright.gen.agents.v1.task_pb2 import TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest, ListTasksRequest, ListTasksResponse

TRACE_ID = re.compile("[0-9a-fA-F]{32}")
NEWEST = 200
"""Tasks among which that of a trace is looked for: one page."""
MOST_NAMED = 5
COLUMNS = ("", "START s", "TOOK s", "TOKENS", "US$", "STATUS")


def trace(
    task_id: Annotated[str, typer.Argument(help="The task's id, or its trace's")],
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Draws a task with its children as a tree: what was done when, how long it took, what it cost."""
    task, tree = with_edge(edge, lambda mesh: read(mesh, task_id, principal))
    if output is not Format.TABLE:
        show(json.dumps(told(task, tree.root), indent=2 if output is Format.JSON else None))
        return
    show(f"task {task.task_id}, trace {task.trace_id or 'none: tracing is off'}")
    show_table(COLUMNS, rows(tree.root, tree.root.start_ms))


async def read(mesh: Edge, task_id: str, principal: str) -> tuple[TaskResponse, Tree]:
    """Reads a task, named by its id or its trace's, and all that is journaled of it.

    Raises:
        TaskNotFoundError: There is none; of a trace: not among the newest tasks.
        InvalidRequestError: Several tasks are of this trace.
    """
    try:
        task: TaskResponse = await mesh.call(mesh.tasks.GetTask, GetTaskRequest(task_id=task_id, principal=principal))
    except TaskNotFoundError:
        if not TRACE_ID.fullmatch(task_id):
            raise
        task = await task_of(mesh, task_id, principal)
    tree = Tree(task)
    async with contextlib.aclosing(journal(mesh, task, principal)) as events:
        async for event in events:
            tree.add(event)
    tree.close()
    return task, tree


async def task_of(mesh: Edge, trace_id: str, principal: str) -> TaskResponse:
    """Finds the task of a trace among the newest that no other task delegated.

    Raises:
        TaskNotFoundError: It is not among them.
        InvalidRequestError: Several of them are of this trace.
    """
    request = ListTasksRequest(page_size=NEWEST, roots_only=True, principal=principal)
    found: ListTasksResponse = await mesh.call(mesh.tasks.ListTasks, request)
    of_trace = [task for task in found.tasks if task.trace_id == trace_id.lower()]
    if len(of_trace) == 1:
        return of_trace[0]
    if of_trace:
        ids = ", ".join(task.task_id for task in of_trace[:MOST_NAMED])
        more = f" and {len(of_trace) - MOST_NAMED} more" if len(of_trace) > MOST_NAMED else ""
        raise InvalidRequestError(f"several tasks are of trace {trace_id}: {ids}{more}; name one of them")
    raise TaskNotFoundError(
        f"{trace_id} is the id of a trace, and none of your {NEWEST} newest tasks is of it: lines of the log with this "
        "trace_id name the task as task_id"
    )


def told(task: TaskResponse, root: Node) -> dict[str, Any]:
    """Returns a tree as JSON data; `start_ms` counts from `start_time`, when the task was accepted."""
    return {
        "trace_id": task.trace_id,
        "start_time": task.create_time.ToJsonString(),
        "tree": root.told(root.start_ms),
    }


def rows(node: Node, origin_ms: int, first: str = "", rest: str = "") -> Iterator[tuple[str, ...]]:
    """Yields a line for a node and each below it; `first` and `rest` draw the branch that it hangs on."""
    took = "" if node.duration_ms is None else f"{node.duration_ms / 1000:.3f}"
    yield (
        f"{first}{node.kind} {node.name}".rstrip(),
        f"{(node.start_ms - origin_ms) / 1000:.3f}",
        took,
        str(node.tokens) if node.tokens else "",
        dollars(node.cost_micros) if node.cost_micros else "",
        ", ".join(words(node)),
    )
    for number, one in enumerate(node.below, 1):
        branch, below = ("└─ ", "   ") if number == len(node.below) else ("├─ ", "│  ")
        yield from rows(one, origin_ms, rest + branch, rest + below)


def words(node: Node) -> Iterator[str]:
    """Yields how a node has ended and what is worth knowing of that."""
    yield node.status or ("still open" if node.duration_ms is None else "ended")
    if node.retries:
        yield f"{node.retries + 1} tries"
    if node.takeovers:
        yield f"{node.takeovers + 1} workers"
    yield from node.notes
