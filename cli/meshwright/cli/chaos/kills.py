"""Kills: each kind of process, ended with -9 at each boundary of a task's steps."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.cli.chaos.job import CHILD, Word
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally
from meshwright.cli.child import Child

PLAN: tuple[Word, ...] = ("look", "mark", "send", "post", "ask")
BELOW: tuple[Word, ...] = ("mark", "send")
PACE_S = 0.05
SHORT = 10


@dataclass(frozen=True, slots=True)
class Boundary:
    """A moment in a task: of which of the two jobs, what is seen, in which step."""

    suffix: str
    what: str
    step: int


def boundaries(plan: Sequence[Word], suffix: str = "") -> list[Boundary]:
    """Lists the moments of a job: asked, planned, effect made, outcome journaled; asked once more."""
    found = [Boundary(suffix, "started", 0)]
    for step, word in enumerate(plan):
        found += [Boundary(suffix, "asked", step), Boundary(suffix, "llm_call", step)]
        if word == "ask":
            found += boundaries(BELOW, CHILD)
        else:
            found += [Boundary(suffix, word, step), Boundary(suffix, "tool_result", step)]
    return [*found, Boundary(suffix, "asked", len(plan))]


KINDS = ("worker", "store", "child", "registry", "gateway", "host", "envoy")
AGENTS = ("worker", "child", "host")


def victim(rig: Rig, kind: str, job: str) -> Child | None:
    """Finds the process of a kind that is to be killed: the one that works on the job, where that matters."""
    match kind:
        case "worker":
            return rig.owner(job) or next(iter(rig.processes("trader")), None)
        case "child":
            return rig.owner(job + CHILD) or next(iter(rig.processes("helper")), None)
        case "host":
            return rig.mesh.children["helper"]
        case _:
            return rig.mesh.children[kind]


def chosen(setting: Setting) -> list[tuple[str, Boundary]]:
    """Draws which kind is killed at which boundary: all pairs, or a few of them of every kind."""
    pairs = [(kind, boundary) for boundary in boundaries(PLAN) for kind in KINDS]
    if setting.mutant:  # where a worker that is lost shows most
        return [("worker", Boundary("", "mark", 1))]
    if setting.is_full:
        return pairs
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    kinds = [KINDS[number % len(KINDS)] for number in range(SHORT)]
    return [draw.choice([pair for pair in pairs if pair[0] == kind]) for kind in kinds]


async def play(setting: Setting) -> Row:
    """Has one job after the other done; each is disturbed by one kill."""
    pairs = chosen(setting)
    async with Rig(setting, agents=("trader", "helper"), workers=1) as rig:
        for number, (kind, boundary) in enumerate(pairs):
            await disturbed(rig, f"k{number}", kind, boundary)
    row = Row(f"{len(rig.kills)} kills of {len({kill.name for kill in rig.kills})} processes")
    row.check(len(rig.kills) == len(pairs), f"only {len(rig.kills)} of {len(pairs)} kills could be made")
    Tally.of(rig).report(row, len(rig.kills), rig.bound_s)
    return row


def pace_s(setting: Setting) -> float:
    """Returns how long the calls of a job take: a mutant's long enough to be hit in the middle."""
    return 4 * PACE_S if setting.mutant else PACE_S


async def disturbed(rig: Rig, name: str, kind: str, boundary: Boundary) -> None:
    """Has one job done and kills one process on the way."""
    rig.setting.tell(f"{name}: kill -9 {kind} at {boundary.what} of step {boundary.step}{boundary.suffix}")
    if kind in AGENTS:  # somebody has to be there who takes over
        await rig.whole()
    job = rig.job(name, PLAN, pace_s(rig.setting), BELOW)
    playing = asyncio.create_task(rig.play(job, "trader"))
    if await rig.reached(playing, name + boundary.suffix, boundary.what, boundary.step):
        child = victim(rig, kind, name)
        if child:
            rig.kill(child)
    await playing
