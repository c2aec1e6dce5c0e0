"""Load: processes killed at random while many tasks run."""

import asyncio
import random

from meshwright.cli.chaos.job import Word
from meshwright.cli.chaos.rig import PATIENCE_S, Rig, until
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally

WORDS: tuple[Word, ...] = ("look", "mark", "send")
AT_ONCE = 12
START_S = 4.0
"""What a takeover waits longer where the store was killed as well: it starts again, and gives every owner a lease."""


async def play(setting: Setting) -> Row:
    """Keeps a dozen tasks under way and spreads the kills over all of them."""
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    tasks = setting.size(40, 500)
    kinds = ["worker"] * setting.size(8, 150) + ["store", "envoy"] * setting.size(1, 5)
    draw.shuffle(kinds)
    async with Rig(setting, workers=3) as rig:
        load = asyncio.create_task(under_load(rig, draw, tasks, len(kinds)))
        for number, kind in enumerate(kinds):
            least = number * tasks // len(kinds)
            await until(lambda least=least: len(rig.told) >= least, PATIENCE_S)  # type: ignore[misc]
            await killed(rig, draw, kind)
        await load
    row = Row(f"{tasks} tasks, {len(rig.kills)} random kills")
    row.check(len(rig.kills) == len(kinds), f"only {len(rig.kills)} of {len(kinds)} kills could be made")
    Tally.of(rig).report(row, len(rig.kills), rig.bound_s + rig.lease_s + START_S)
    return row


async def under_load(rig: Rig, draw: random.Random, tasks: int, kills: int) -> None:
    """Has tasks done, so many at once; they do not run ahead of the kills."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, plan: list[Word], pace_s: float) -> None:
        async with places:
            await until(lambda: len(rig.kills) * tasks >= (number - AT_ONCE) * kills, PATIENCE_S)
            await rig.play(rig.job(f"l{number}", plan, pace_s), "courier", 2 * PATIENCE_S)

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            plan = draw.choices(WORDS, k=draw.randint(2, 5))
            group.create_task(one(number, plan, draw.uniform(0.05, 0.3)))


async def killed(rig: Rig, draw: random.Random, kind: str) -> None:
    """Kills a random worker, while another one lives, or a service, once it is back from its last kill."""
    await asyncio.sleep(draw.uniform(0.05, 0.6))
    if kind == "worker":
        if not await until(lambda: len(rig.processes("courier")) > 1, PATIENCE_S):
            return
        child = draw.choice(rig.processes("courier"))
    else:
        child = rig.mesh.children[kind]
        await until(lambda: rig.is_back(child), PATIENCE_S)
    if kill := rig.kill(child):
        rig.setting.tell(f"kill -9 {kill.name}, {len(rig.told)} tasks begun")
