"""`meshwright demo`: start a mesh, ask a real question of real files, show every step, stop."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meshwright.cli import ports
from meshwright.cli.edge import Edge
from meshwright.cli.mesh import HOST, Mesh, MeshPlan
from meshwright.cli.output import Format
from meshwright.cli.own_key import own_key
from meshwright.cli.run import show_result
from meshwright.cli.steps import Steps
from meshwright.core.errors import InvalidRequestError, UnavailableError
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse

OWN_DOCS = Path("docs")
QUESTION = "How does a task survive the crash of its worker, and what keeps a tool's effect from being doubled?"
LEASE_S = 2.0
"""Short, so that a killed agent's task is taken over while one watches."""
TOKENS = 32_768
"""As much as a task may have: the documents are the user's own, and may be long."""
SCOPES = ("tasks:read", "tasks:write")
PACE = "offline:0.3"
"""The offline model answers at once; in the demo it takes its time, so that one can follow."""


def demo(
    docs: Annotated[Path, typer.Option(help="Folder of text, Markdown, reStructuredText, HTML or PDF files")] = Path(
        "docs"
    ),
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask; has an answer for our own docs")] = "",
    model: Annotated[
        str, typer.Option(help="offline, openai:NAME[@URL], anthropic:NAME[@URL] or scripted:FILE")
    ] = "offline",
    kill: Annotated[bool, typer.Option(help="Kill the working agent in the middle")] = False,
) -> None:
    """Starts a whole mesh, asks it a question of your files, draws the steps, prints the answer, stops."""
    if not question and docs.resolve() != OWN_DOCS.resolve():
        raise InvalidRequestError('ask something of your own files: --question "…" (make demo: Q="…")')
    started = time.monotonic()
    paced = PACE if model == "offline" else model
    with tempfile.TemporaryDirectory(prefix="meshwright-") as data:
        taken: set[int] = set()
        port = ports.reserve(HOST, taken)
        plan = MeshPlan(port=port, data=Path(data), docs=docs, model=paced, lease_s=LEASE_S)
        result = asyncio.run(Demo(plan, question or QUESTION, is_killing=kill, started=started).play())
    show_result(result, Format.TABLE, is_streamed=True)


class Demo:
    """One question to a mesh of its own."""

    def __init__(self, plan: MeshPlan, question: str, *, is_killing: bool, started: float) -> None:
        self._mesh = Mesh(plan, None, self._tell)
        self._plan = plan
        self._question = question
        self._is_killing = is_killing
        self._started = started
        self._console = Console(stderr=True)

    async def play(self) -> TaskResponse:
        """Plays it and returns the result; nothing is left running, whatever happens."""
        this = asyncio.current_task()
        assert this is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, this.cancel)
        try:
            with self._console.status("starting store, registry, agents, gateway and Envoy …"):
                await self._mesh.start()
            async with own_key(str(self._mesh.facts()["store"]), "demo", SCOPES) as key:
                return await self._asked(key)
        except asyncio.CancelledError:
            raise typer.Exit(130) from None
        finally:
            with self._console.status("stopping …"):
                await self._mesh.stop()

    async def _asked(self, key: str) -> TaskResponse:
        self._console.print(self._question, style="bold", markup=False, highlight=False)
        self._console.print(
            f"of the files in {self._plan.docs}, through Envoy at {self._mesh.edge_url}\n",
            highlight=False,
            markup=False,
        )
        edge = Edge(self._mesh.edge_url, key)
        steps = Steps(self._console)
        is_first = True
        try:
            async for event in edge.steps(TaskRequest(prompt=self._question, token_budget=TOKENS)):
                if is_first:
                    seconds = time.monotonic() - self._started
                    self._console.print(f"first step after {seconds:.1f} s", style="dim", highlight=False)
                    is_first = False
                steps.draw(event)
                if self._is_killing and event.HasField("delegation"):
                    self._kill()
                if event.HasField("result"):
                    self._console.print()
                    return event.result
        finally:
            await edge.close()
        raise UnavailableError("the stream ended without a result")

    def _tell(self, what: str) -> None:
        self._console.print(f"     · {what}", style="red", markup=False, highlight=False)

    def _kill(self) -> None:
        """Kills the agent that works, once, as a crash would."""
        self._is_killing = False
        agent = self._mesh.children["orchestrator"]
        self._console.print(
            f"     ✗ kill -9 {agent.pid}: the orchestrator is gone; its task is not", style="red", highlight=False
        )
        os.kill(agent.pid, signal.SIGKILL)
