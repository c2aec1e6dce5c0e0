"""Mutants: one promise's mechanism is taken out, and the scenario that guards the promise has to notice."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from meshwright.cli.chaos.mutant import EVERYSEC
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.core.process import ended, signal_to
from meshwright.core.settings import Settings, child_environment
from meshwright.core.tether import tethered

COMMAND = (sys.executable, "-m", "meshwright.cli.main", "chaos")
GUARDS = {"no-fence": "zombies", "no-intent": "kills", "no-sweep": "kills", "release-early": "kills", EVERYSEC: "power"}
"""Which scenario has to notice which mutant."""
SHORT = ("no-fence", "no-intent")
AT_ONCE = 2


async def play(setting: Setting) -> Row:
    """Plays each guard on a mesh with its mutant, in a process of its own, a few at once."""
    mutants = list(GUARDS) if setting.is_full else list(SHORT)
    places = asyncio.Semaphore(AT_ONCE)

    async def verdict(mutant: str) -> str:
        async with places:
            return await verdict_on(setting, mutant)

    tasks = [asyncio.create_task(verdict(mutant)) for mutant in mutants]
    try:
        verdicts = dict(zip(mutants, await asyncio.gather(*tasks), strict=True))
    finally:
        await ended(*tasks)
    row = Row(f"{len(mutants)} mutants", dict(verdicts))
    for mutant, said in verdicts.items():
        row.check(said in ("caught", "skipped"), f"{GUARDS[mutant]} did not notice {mutant}: {said}")
    return row


async def verdict_on(setting: Setting, mutant: str) -> str:
    """Plays a guard; `caught`: it found a promise broken."""
    folder = setting.folder / mutant
    options = ("--mutant", mutant, "--seed", str(setting.seed), "--folder", str(folder), "-o", "json")
    process = await asyncio.create_subprocess_exec(
        *tethered(*COMMAND, GUARDS[mutant], *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(Settings.load()),
    )
    try:
        said, _ = await process.communicate()
    finally:
        signal_to(process, signal.SIGTERM)
        await process.wait()
    verdict = read(said, folder)
    setting.tell(f"{mutant}: {verdict}")
    return verdict


def read(said: bytes, folder: Path) -> str:
    """Reads the verdict of a guard; one that could not be played has caught nothing."""
    try:
        (row,) = json.loads(said)
    except ValueError:
        return f"no report, see {folder}"
    if row["size"] == "not played":
        return str(row["skipped"] and "skipped") or "; ".join(row["broken"])
    return "caught" if row["verdict"] == "BROKEN" else "not noticed"
