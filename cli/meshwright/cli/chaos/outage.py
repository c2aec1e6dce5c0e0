"""Outage: the store is away for longer than a lease while every worker lives."""

import asyncio
import shutil
import time

from meshwright.cli.chaos.job import Word
from meshwright.cli.chaos.rig import PATIENCE_S, Rig, until
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally, takeovers
from meshwright.core.errors import SetupError

PLAN: tuple[Word, ...] = ("send", "mark", "send", "look", "send", "mark", "send", "look")
TASKS = 8
PACE_S = 0.15
AWAY_S = 2.5
"""For how long the process that stands in for the store keeps its place; more than two leases."""


async def play(setting: Setting) -> Row:
    """Takes the store away in the middle of a few tasks, again and again."""
    many = setting.size(1, 5)
    away: list[float] = []
    async with Rig(setting) as rig:
        for number in range(many):
            names = [f"o{number}-{task}" for task in range(TASKS)]
            playing = [asyncio.create_task(rig.play(rig.job(name, PLAN, PACE_S), "courier")) for name in names]
            await rig.reached(playing[0], names[0], "tool_result", 1)
            away.append(await outage(rig))
            await asyncio.gather(*playing)
    tally = Tally.of(rig)
    taken = sum(len(list(takeovers(told))) for told in rig.told)
    row = Row(f"{many} outages of the store, {TASKS} tasks in flight")
    row.figures = {"away": f"{min(away):.1f} s at a lease of {rig.lease_s:g} s", "takeovers": str(taken)}
    row.check(min(away) > rig.lease_s, "the store was back within the lease: nothing was shown")
    row.check(not taken, f"{taken} tasks were taken from workers that lived")
    row.check(not tally.unknown, f"{tally.unknown} outcomes became unknown although their host lived")
    tally.report(row, many * TASKS, rig.bound_s)
    return row


async def outage(rig: Rig) -> float:
    """Kills the store and lets another program take its place for a while; returns for how many seconds it was away."""
    store = rig.mesh.children["store"]
    sleep = shutil.which("sleep")
    if sleep is None:
        raise SetupError("there is no program `sleep` that could stand in for the store")
    command = store.command
    store.command = [sleep, str(AWAY_S)]
    kill = rig.kill(store)
    if kill is None:
        raise SetupError("the store did not run")
    rig.setting.tell("the store is away")
    await until(lambda: store.pid not in (0, kill.pid), PATIENCE_S)
    store.command = command  # what is started after the stand-in, since that never answers as a store does
    await until(lambda: rig.is_back(store), PATIENCE_S)
    rig.setting.tell("the store is back")
    return time.time() - kill.at
