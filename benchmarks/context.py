"""The context: building the prompt of a session's next task takes as long after a thousand turns as after fifty."""

import time

from benchmarks.findings import Finding, spread
from benchmarks.parts import BenchmarkError, Mesh, Scene
from benchmarks.rounds import Effort
from meshwright.agents.context import ContextManager, Conversation, Cut
from meshwright.agents.memory import Memory
from meshwright.agents.session import Sessions
from meshwright.agents.task import TaskName
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

FEW, MANY = 50, 1_000
"""Turns, each of about a hundred tokens."""
WINDOW, BUDGET = 32_768, 8_192
GOAL_MS = 5.0
BUILDS = 50
NAME = TaskName("default", "default", "bench")
INSTRUCTIONS = "Answer questions about boats. " * 10


def turn(number: int) -> tuple[str, str]:
    """Writes a turn; no two are alike."""
    asked = f"What do we know about boat {number}, and who paid for its {number % 7} sails?"
    return asked, f"Boat {number} lies in harbour {number % 13}. Its sails were paid by Ann. " + "It has a mast. " * 12


async def fill(mesh: Mesh, session_id: str, turns: int) -> None:
    """Has that many tasks leave a turn, as the runtime does."""
    memory, sessions = Memory(mesh.store), Sessions(mesh.journal)
    for number in range(turns):
        name = NAME.sibling(f"{session_id}-{number}")
        asked, output = turn(number)
        await sessions.enter(name, session_id)
        request = TaskRequest(prompt=asked, session_id=session_id)
        await sessions.leave(name, request, TaskResponse(status=TASK_STATUS_COMPLETED, output=output))
        await memory.settle(name, session_id)
    await memory.pin(NAME, session_id, "The harbour's code is 7319.")


async def build(memory: Memory, contexts: ContextManager, session_id: str) -> None:
    """Loads a session and builds a prompt, what is left out included."""
    history = await memory.load(NAME, session_id)
    room = contexts.room(INSTRUCTIONS, (), budget=BUDGET, left=BUDGET)
    context = contexts.build(Conversation(history, "And the last one?", []), Cut.read(None, history), room)
    if context.compacted is None or "7319" not in context.messages[0].text:
        raise BenchmarkError("the prompt holds too much, or too little")


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures a build in a long session, and holds it against one in a short session."""
    memory, contexts = Memory(scene.mesh.store), ContextManager(WINDOW)
    for turns in (FEW, MANY):
        await fill(scene.mesh, f"turns-{turns}", turns)

    async def measured(turns: int) -> tuple[float, float]:
        started, cpu = time.perf_counter(), time.process_time()
        for _ in range(BUILDS):
            await build(memory, contexts, f"turns-{turns}")
        return (time.perf_counter() - started) / BUILDS * 1e3, (time.process_time() - cpu) / BUILDS * 1e3

    found = await effort.interleaved({"few": lambda: measured(FEW), "many": lambda: measured(MANY)})
    return [
        Finding(
            name="context",
            what=f"a prompt built in a session of {MANY:,} turns: read from the store, bounded, shortened",
            unit="ms",
            ours=[wall for wall, _ in found["many"]],
            goal=GOAL_MS,
            beside={"of it CPU, ms": spread([cpu for _, cpu in found["many"]])},
        ),
        Finding(
            name="flat_context",
            what=f"a prompt built in a session of {MANY:,} turns against one of {FEW}",
            unit="ms CPU",
            ours=[cpu for _, cpu in found["many"]],
            theirs=[cpu for _, cpu in found["few"]],
            goal=1.2,
            is_gated=True,
        ),
    ]
