"""`meshwright task dead-letters`: tasks that were given up because they took worker after worker down."""

from typing import Annotated

import typer

from meshwright.cli.options import EdgeUrl, Output, Principal, with_edge
from meshwright.cli.output import Format, show, show_messages, show_table
from meshwright.cli.steps import shortened
from meshwright.gen.agents.v1.task_service_pb2 import (
    DropDeadLetterRequest,
    ListTasksRequest,
    RetryDeadLetterRequest,
)

app = typer.Typer(no_args_is_help=True, help="Tasks that were given up: look at them, start them anew, drop them.")
TaskId = Annotated[str, typer.Argument(help="The task's id")]


@app.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many")] = 20,
    principal: Principal = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Lists dead letters, newest first."""
    request = ListTasksRequest(page_size=limit, dead_letters_only=True, principal=principal)
    found = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.ListTasks, request)).tasks
    if output is not Format.TABLE:
        show_messages(found, output)
        return
    show_table(
        ("TASK", "AGENT", "ATTEMPTS", "STEPS", "ENDED", "ERROR"),
        (
            (
                task.task_id,
                task.agent_id,
                str(task.attempt),
                str(task.steps_used),
                task.end_time.ToJsonString(),
                shortened(task.error.message),
            )
            for task in found
        ),
    )


@app.command()
def retry(task_id: TaskId, edge: EdgeUrl = None) -> None:
    """Starts a dead letter anew, as a new task with the same request; repeating this starts nothing twice."""
    request = RetryDeadLetterRequest(task_id=task_id)
    task = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.RetryDeadLetter, request))
    show(f"{task.task_id}  started anew: meshwright task watch {task.task_id}")


@app.command()
def drop(task_id: TaskId, edge: EdgeUrl = None) -> None:
    """Takes a dead letter off the list; the task itself can be read until it expires."""
    request = DropDeadLetterRequest(task_id=task_id)
    task = with_edge(edge, lambda mesh: mesh.call(mesh.tasks.DropDeadLetter, request))
    show(f"{task.task_id}  dropped")
