"""Zombies: a worker that is stopped past its lease, and then goes on as if nothing had happened."""

import asyncio
import os
import random
import signal

from meshwright.cli.chaos.evidence import ASKED
from meshwright.cli.chaos.job import Word
from meshwright.cli.chaos.rig import PATIENCE_S, Rig, until
from meshwright.cli.chaos.rolling import serves
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally

PLAN: tuple[Word, ...] = ("look", "mark", "send", "look", "mark", "send", "look", "mark")
PACE_S = 0.1
STALE_S = 1.0
"""How long the zombie is watched at least: the owner works as long, so a stale worker would too."""


async def play(setting: Setting) -> Row:
    """Stops the owner of one task after the other in the middle of a step."""
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    many = 4 if setting.mutant else setting.size(2, 30)
    row = Row(f"{many} workers stopped past their lease")
    async with Rig(setting, disguise=serves) as rig:  # the one that serves the stream may be stopped, too
        wrote: list[int] = []
        while len(wrote) < many and not (setting.mutant and max(wrote, default=0) > 1):  # one is enough to be caught
            wrote.append(await written_by_zombie(rig, f"z{len(wrote)}", draw))
    row.figures["steps begun by stale workers"] = str(sum(max(0, steps) for steps in wrote))
    row.check(-1 not in wrote, "a worker that was stopped past its lease kept its task")
    row.check(max(wrote) <= 1, "a stale worker went on: its writes were not refused")
    Tally.of(rig).report(row, len(rig.kills), rig.bound_s)
    return row


async def written_by_zombie(rig: Rig, name: str, draw: random.Random) -> int:
    """Makes a zombie of a task's owner; returns how many steps it began after it was back.

    One may be: if it was stopped just after a write, it learns only from its next one that it is stale. -1: nobody
    took the task over.
    """
    playing = asyncio.create_task(rig.play(rig.job(name, PLAN, PACE_S), "courier"))
    await rig.reached(playing, name, "llm_call", draw.randrange(2))
    await asyncio.sleep(draw.uniform(0, 2 * PACE_S))
    owner = rig.owner(name)
    stopped = rig.kill(owner, signal.SIGSTOP) if owner else None
    if not stopped:
        return -1
    is_taken_over = await until(lambda: has_other_owner(rig, name, stopped.pid), PATIENCE_S)
    begun = len(asked_by(rig, name, stopped.pid))
    os.kill(stopped.pid, signal.SIGCONT)
    rig.setting.tell(f"{name}: {stopped.name} was stopped, another one took over, it goes on")
    await playing
    await asyncio.sleep(STALE_S)
    return len(asked_by(rig, name, stopped.pid)) - begun if is_taken_over else -1


def has_other_owner(rig: Rig, job: str, pid: int) -> bool:
    """Whether another process works on a job: the stream may hang, where the stopped one serves it."""
    return any(trace.pid != pid for trace in rig.evidence.of(job))


def asked_by(rig: Rig, job: str, pid: int) -> list[int]:
    """Lists the steps for which a process asked the model."""
    return [trace.step for trace in rig.evidence.of(job) if trace.pid == pid and trace.what == ASKED]
