"""Upgrade: an agent's processes are replaced by those of a newer version while its tasks run."""

import asyncio
from pathlib import Path

from meshwright.cli.chaos.job import Word
from meshwright.cli.chaos.mutant import NEWER_JOURNAL
from meshwright.cli.chaos.rig import AGENTS_MODULE, MUTANT, Rig
from meshwright.cli.chaos.rolling import rolled, serves
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally, takeovers
from meshwright.cli.child import Child

PLAN: tuple[Word, ...] = ("look", "mark", "send", "look", "mark", "send")
PACE_S = 0.05
TASKS = 6
AGENT = '''"""Version {version} of an agent."""

from dataclasses import replace

from meshwright.cli.chaos.agents import courier as plain

courier = replace(plain, version="{version}.0.0")
'''


async def play(setting: Setting) -> Row:
    """Rolls out a new version of the agent, on another version of the journal's functions, again and again."""
    many = setting.size(1, 5)
    file = setting.folder / "courier.py"
    write(file, 1)
    ended_by: set[str] = set()
    async with Rig(setting, agents=(f"{file}:courier",), disguise=serves) as rig:
        is_whole = True
        for number in range(many):
            names = [f"u{number}-{task}" for task in range(TASKS)]
            playing = [asyncio.create_task(rig.play(rig.job(name, PLAN, PACE_S), "courier")) for name in names]
            await rig.reached(playing[0], names[0], "tool_result", 1)
            with rig.held():  # so that every task is in flight from the first process to the last
                write(file, number + 2)
                is_whole &= await rolled(rig, rig.processes("courier"), newer)
            rig.setting.tell(f"version {number + 2} is out")
            ended_by |= {told.result.agent_version for told in await asyncio.gather(*playing) if told.result}
    tally = Tally.of(rig)
    row = Row(f"{many} rolling upgrades, {TASKS} tasks in flight")
    taken = sum(len(list(takeovers(told))) for told in rig.told)
    row.figures = {"stranded": str(len(tally.lost)), "versions that ended tasks": str(len(ended_by))}
    row.check(is_whole, "a process of the new version did not start")
    row.check(f"{many + 1}.0.0" in ended_by, "no task was carried from the old version to the new one")
    row.check(not taken, f"{taken} tasks were taken over instead of handed on")
    tally.report(row, 0, rig.bound_s)
    return row


def write(file: Path, version: int) -> None:
    """Writes a version of the agent's file."""
    file.write_text(AGENT.format(version=version))


def newer(child: Child) -> None:
    """Makes a process come back on a version of the journal's functions of its own."""
    if MUTANT not in child.command:
        place = child.command.index(AGENTS_MODULE)
        child.command[place:place] = [MUTANT, NEWER_JOURNAL]
