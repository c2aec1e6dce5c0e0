"""Power: the store's machine loses it, and with it whatever was written but not yet on disk."""

import asyncio
import os
import random
import shutil
import sys
import time
from pathlib import Path

import redis.asyncio as redis

from meshwright.cli.chaos.rig import Rig, Told
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally
from meshwright.cli.child import Child
from meshwright.core.errors import SetupError, TaskNotFoundError
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest

SHIM = Path(__file__).with_name("shim.c")
EVERYSEC = "everysec"
AT_ONCE = 6
PACE_S = 0.02
DIES_S = 5.0
TRIES = 4
START_S = 4.0
"""What a takeover waits longer since the store was away: it starts again, and gives every owner a lease."""


class Disk:
    """What of the store's log would be left after a power cut.

    A library that is loaded into the store notes after each fsync how long the file is. A cut kills the store and
    shortens its log to that length.

    Args:
        folder: Where the library and its notes are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._library = folder / "shim.so"
        self._notes = folder / "synced"

    async def build(self, compiler: str) -> None:
        """Compiles the library.

        Raises:
            SetupError: The compiler refuses.
        """
        command = (compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SHIM), "-ldl")
        process = await asyncio.create_subprocess_exec(*command)
        if await process.wait():
            raise SetupError(f"{compiler} cannot build {SHIM.name}")

    def disguise(self, child: Child) -> None:
        """Loads the library into the store."""
        if child.name == "store":
            child.environment |= {"LD_PRELOAD": str(self._library), "SYNCED": str(self._notes)}

    def cut(self, rig: Rig) -> int:
        """Cuts the power; returns how many bytes that were written are gone.

        It does not let go of the event loop in between: the supervisor must not start the store on the whole file.
        """
        store = rig.mesh.children["store"]
        pid = store.pid
        rig.kill(store)
        ends = time.monotonic() + DIES_S
        while is_running(pid) and time.monotonic() < ends:
            time.sleep(0.001)
        kept: dict[str, int] = {}
        for line in self._notes.read_text().splitlines():
            size, _, path = line.partition(" ")
            kept[path] = int(size)
        gone = 0
        for log in rig.store_folder.rglob("*.incr.aof"):
            whole, safe = log.stat().st_size, kept.get(str(log), 0)
            os.truncate(log, min(whole, safe))
            gone += whole - min(whole, safe)
        return gone


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def play(setting: Setting) -> Row:
    """Cuts the power a few times while tasks are accepted, and once more with a store that writes late."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return Row("not played", skipped="what is on disk is known only with a C compiler, on Linux")
    disk = Disk(setting.folder)
    await disk.build(compiler)
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    many = TRIES if setting.mutant else setting.size(2, 20)
    row = Row(f"{many} power cuts, and one with appendfsync everysec")
    async with Rig(setting, workers=0, disguise=disk.disguise) as rig:
        is_late = setting.mutant == EVERYSEC
        lost = [await forgotten(rig, disk, draw, f"p{number}", is_late=is_late) for number in range(many)]
        tally, kills = Tally.of(rig), len(rig.kills)
        control = await forgotten_by_late_writes(rig, disk, draw)
    row.figures = {"forgotten": str(sum(lost)), "forgotten by everysec": str(control)}
    row.check(not sum(lost), f"{sum(lost)} acknowledged tasks were forgotten")
    row.check(control > 0, "the control forgot nothing: the cuts have shown nothing")
    tally.report(row, AT_ONCE * kills, rig.bound_s + rig.lease_s + START_S)
    return row


async def forgotten(rig: Rig, disk: Disk, draw: random.Random, name: str, *, is_late: bool) -> int:
    """Cuts the power while tasks are accepted without a pause; returns how many that were acknowledged are gone."""
    await rig.whole()
    if is_late:
        await write_late(rig)
    is_cut = asyncio.Event()
    feeding = [asyncio.create_task(feed(rig, f"{name}-{feeder}", is_cut)) for feeder in range(AT_ONCE)]
    await asyncio.sleep(draw.uniform(1.2, 2.0))
    gone = disk.cut(rig)
    is_cut.set()
    told = [told for fed in await asyncio.gather(*feeding) for told in fed if told.is_accepted]
    found = await asyncio.gather(*(is_known(rig, one) for one in told))
    kind = "with everysec" if is_late else "with always"
    rig.setting.tell(f"power cut {kind}: {gone} bytes were not on disk; {len(told)} acknowledged")
    return found.count(False)


async def forgotten_by_late_writes(rig: Rig, disk: Disk, draw: random.Random) -> int:
    """Plays the control, until something is lost: a cut may come right after the store has written."""
    for number in range(TRIES):
        if lost := await forgotten(rig, disk, draw, f"late{number}", is_late=True):
            return lost
    return 0


async def feed(rig: Rig, name: str, is_cut: asyncio.Event) -> list[Told]:
    """Has one small task done after the other, until the power is cut; sees the last one through."""
    told: list[Told] = []
    while not is_cut.is_set():
        told.append(await rig.play(rig.job(f"{name}-{len(told)}", ("mark", "send"), PACE_S), "courier"))
    return told


async def is_known(rig: Rig, told: Told) -> bool:
    """Whether the mesh still knows a task that it took."""
    try:
        await rig.edge.call(rig.edge.tasks.GetTask, GetTaskRequest(task_id=told.job.name))
    except TaskNotFoundError:
        return False
    return True


async def write_late(rig: Rig) -> None:
    """Lets the store write its log to disk once a second, as many do."""
    client: redis.Redis = redis.Redis.from_url(rig.store_url)
    try:
        await client.config_set("appendfsync", EVERYSEC)
    finally:
        await client.aclose()
