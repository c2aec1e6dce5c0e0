"""Delegation in the narrowest place: an agent that runs one task at once hands work to itself, twice, and ends."""

import asyncio
import time

from meshwright.agents import Agent
from meshwright.agents.models.model import Answer, Call, OnText, Prompt, Usage
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.child import Child
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

NAME = "looper"
FAN = 2
PATIENCE_S = 60.0
BUDGET = 32_768


class Halving:
    """A model that hands a number above zero, less one, to its own agent twice, and adds up what comes back."""

    provider = "chaos"
    name = "halving"

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks itself in the first turn, answers in the second."""
        depth = int(prompt.messages[0].text)
        calls: tuple[Call, ...] = ()
        text = "1"
        if depth and not prompt.turn:
            calls = tuple(Call(f"call_{one}", f"ask.{NAME}", {"prompt": str(depth - 1)}) for one in range(FAN))
        elif depth:
            text = str(sum(int(message.text) for message in prompt.messages if message.role == "tool"))
        return Answer(text, calls, Usage(1, 1), self.provider, self.name, "tool_calls" if calls else "stop")

    async def close(self) -> None:
        """Holds nothing open."""


looper = Agent(NAME, "Hand it to yourself.", delegates=(NAME,), model=Halving())


def narrow(child: Child) -> None:
    """Lets an agent's process run one task at once."""
    if "meshwright.agents" in child.command:
        child.environment["MESHWRIGHT_CONCURRENCY"] = "1"


async def play(setting: Setting) -> Row:
    """Runs a tree of tasks that all need the same single place."""
    depth, trees = setting.size(1, 3), setting.size(2, 5)
    tasks = trees * sum(FAN**level for level in range(depth + 1))
    row = Row(f"{trees} trees, {tasks} tasks, {depth} deep, at a concurrency of 1")
    spec = f"{__name__}:{looper.name}"
    async with Rig(setting, agents=(spec,), workers=0, disguise=narrow) as rig:
        edge, started = rig.edge, time.monotonic()

        async def grown(number: int) -> TaskResponse | None:
            request = TaskRequest(task_id=f"tree-{number}", agent_id=NAME, prompt=str(depth), token_budget=BUDGET)
            async for event in edge.steps(request):
                if event.HasField("result"):
                    return event.result
            return None

        try:
            async with asyncio.timeout(PATIENCE_S):
                results = await asyncio.gather(*(grown(number) for number in range(trees)))
        except TimeoutError:
            results = []
        row.figures["seconds"] = f"{time.monotonic() - started:.1f}"
    done = [one for one in results if one and one.status == TASK_STATUS_COMPLETED and one.output == str(FAN**depth)]
    row.figures["completed"] = f"{len(done)}/{trees}"
    row.check(len(done) == trees, f"{trees - len(done)} of {trees} trees did not complete with the right sum")
    return row
