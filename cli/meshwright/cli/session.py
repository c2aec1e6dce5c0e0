"""`meshwright session`: what is remembered of conversations: look at it, pin facts, export it, delete it."""

from typing import Annotated

import typer

from meshwright.cli.edge import Edge
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, show, show_message, show_messages, show_table
from meshwright.cli.steps import shortened
from meshwright.core import channel
from meshwright.core.errors import FactNotFoundError
from meshwright.gen.agents.v1.session_service_pb2 import (
    DeleteSessionRequest,
    ExportSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    PinFactRequest,
    Session,
    UnpinFactRequest,
)

app = typer.Typer(no_args_is_help=True, help="Look at conversations, pin facts to them, export and delete them.")
SessionId = Annotated[str, typer.Argument(help="The session's id, as its tasks name it")]
LONG_S = 60.0
"""For what takes longer than a look: an export, a deletion."""


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many")] = 20,
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Lists sessions, the one that was used last first."""
    request = ListSessionsRequest(page_size=limit)
    found = with_edge(edge, lambda mesh: mesh.call(mesh.sessions.ListSessions, request)).sessions
    if output is not Format.TABLE:
        show_messages(found, output)
        return
    show_table(
        ("SESSION", "TURNS", "FIRST USED", "LAST USED"),
        (
            (one.session_id, str(one.turn_count), one.create_time.ToJsonString(), one.update_time.ToJsonString())
            for one in found
        ),
    )


@app.command("show")
def show_session(
    session_id: SessionId,
    turns: Annotated[int, typer.Option(min=1, max=200, help="How many of its latest turns")] = 20,
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Shows a session: pinned facts, the summary of older turns, its latest turns."""
    request = GetSessionRequest(session_id=session_id, turns=turns)
    session: Session = with_edge(edge, lambda mesh: mesh.call(mesh.sessions.GetSession, request))
    if output is not Format.TABLE:
        show_message(session, output)
        return
    show(f"{session.session_id}  {session.turn_count} turns, last used {session.update_time.ToJsonString()}")
    for fact in session.facts:
        show(f"pinned: {fact.text}  ({fact.fact_id})")
    if session.summary:
        show(f"summary of older turns:\n{session.summary}")
    show_table(
        ("TASK", "AGENT", "ASKED", "ANSWERED"),
        ((turn.task_id, turn.agent_id, shortened(turn.prompt), shortened(turn.output)) for turn in session.turns),
    )


@app.command()
def export(session_id: SessionId, edge: EdgeUrl = None) -> None:
    """Prints all that is kept of a session as lines of JSON: the session, its turns, memories that came from it."""

    async def read(mesh: Edge) -> None:
        request = ExportSessionRequest(session_id=session_id)
        async for entry in channel.stream(mesh.sessions.ExportSession, request, timeout_s=LONG_S):
            show(as_json(entry, None))

    with_edge(edge, read)


@app.command()
def delete(session_id: SessionId, edge: EdgeUrl = None) -> None:
    """Deletes a session with its tasks, their journals, and the long-term memories that came from it."""
    request = DeleteSessionRequest(session_id=session_id)
    gone = with_edge(edge, lambda mesh: mesh.call(mesh.sessions.DeleteSession, request, LONG_S))
    show(f"{session_id}  deleted: {gone.tasks} tasks, {gone.memories} long-term memories")


@app.command()
def pin(
    session_id: SessionId,
    fact: Annotated[str, typer.Argument(help="What stands in every prompt of the session from now on")],
    edge: EdgeUrl = None,
) -> None:
    """Pins a fact to a session and prints its id; the same fact again changes nothing."""
    request = PinFactRequest(session_id=session_id, text=fact)
    pinned = with_edge(edge, lambda mesh: mesh.call(mesh.sessions.PinFact, request))
    show(f"{pinned.fact_id}  pinned to {session_id}")


@app.command()
def unpin(
    session_id: SessionId,
    fact_id: Annotated[str, typer.Argument(help="As `session show` prints it")],
    edge: EdgeUrl = None,
) -> None:
    """Takes a fact off a session."""

    async def take_off(mesh: Edge) -> None:
        session: Session = await mesh.call(mesh.sessions.GetSession, GetSessionRequest(session_id=session_id, turns=1))
        if fact_id not in {fact.fact_id for fact in session.facts}:
            hint = f"`meshwright session show {session_id}` lists what is"
            raise FactNotFoundError(f"{fact_id} is not pinned to {session_id}: {hint}")
        request = UnpinFactRequest(session_id=session_id, fact_id=fact_id)
        await mesh.call(mesh.sessions.UnpinFact, request)

    with_edge(edge, take_off)
    show(f"{fact_id}  is no longer pinned to {session_id}")
