"""A full store: what was accepted ends, what is new is refused with a reason; and a log rewritten under load."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from meshwright.cli.chaos.job import Job, Word
from meshwright.cli.chaos.rig import PATIENCE_S, Rig, Told
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally
from meshwright.core.errors import MeshError

PLAN: tuple[Word, ...] = ("look", "mark", "send") * 2
PACE_S = 0.15
TASKS = 6
USED = 0.9
"""How full the store is made: past the mark at which it takes nothing new, with room for what it has taken."""
DISK_MIB = 64
NOTICED_S = 10.0
"""How soon it has to be noticed that there is no room, or that there is room again."""
RETRY_S = 0.2
NO_MOUNT = "not played: no small disk can be mounted"


async def play(setting: Setting) -> Row:
    """Fills memory, then the disk, then has the log rewritten, each in the middle of a few tasks."""
    row = Row("memory full, disk full, the log rewritten: each under load")
    async with small_disk(setting.folder / "mesh") as disk, Rig(setting, workers=0) as rig:
        await squeezed(rig, row, "memory", full_memory(rig))
        if disk:
            await squeezed(rig, row, "disk", full_disk(disk))
        else:
            row.figures["disk"] = NO_MOUNT
        row.check(await rewritten(rig), "the log could not be rewritten under load")
    Tally.of(rig).report(row, 0, rig.bound_s)
    return row


async def squeezed(rig: Rig, row: Row, name: str, full: AbstractAsyncContextManager[None]) -> None:
    """Fills something while tasks run: they end, new ones are refused, and taken again once there is room."""
    playing = await under_way(rig, name)
    async with full:
        rig.setting.tell(f"{name} is full")
        refusal, taken = await first_refusal(rig, name)
        told = await asyncio.gather(*playing)
        row.check(all(one.result for one in told), f"accepted tasks did not end with {name} full")
    row.figures[name] = refusal.message if refusal else "not refused"
    code = refusal.code.name if refusal else "nothing"
    row.check(code == "RESOURCE_EXHAUSTED", f"with {name} full a new task was answered with {code}")
    await asyncio.gather(*taken)
    ends = asyncio.get_running_loop().time() + NOTICED_S
    while error := await refused(rig, job := small(rig, f"{name}-after")):
        if asyncio.get_running_loop().time() > ends:
            row.check(is_kept=False, promise=f"with room again, {name} is still refused: {error.message}")
            return
        await asyncio.sleep(RETRY_S)
    await rig.play(job, "courier")


async def under_way(rig: Rig, name: str) -> list[asyncio.Task[Told]]:
    """Has a few tasks begun, and returns once the first has got somewhere."""
    names = [f"{name}-{task}" for task in range(TASKS)]
    playing = [asyncio.create_task(rig.play(rig.job(one, PLAN, PACE_S), "courier")) for one in names]
    await rig.reached(playing[0], names[0], "tool_result", 0)
    return playing


async def first_refusal(rig: Rig, name: str) -> tuple[MeshError | None, list[asyncio.Task[Told]]]:
    """Submits small tasks until one is refused; returns the refusal and those that were taken before."""
    taken: list[asyncio.Task[Told]] = []
    for number in range(int(NOTICED_S / RETRY_S)):
        job = small(rig, f"{name}-new-{number}")
        if error := await refused(rig, job):
            return error, taken
        taken.append(asyncio.create_task(rig.play(job, "courier")))
        await asyncio.sleep(RETRY_S)
    return None, taken


def small(rig: Rig, name: str) -> Job:
    """Makes a small job."""
    return rig.job(name, ("look",), 0)


async def refused(rig: Rig, job: Job) -> MeshError | None:
    """Submits a job once; returns why it was refused."""
    try:
        await rig.edge.call(rig.edge.tasks.SubmitTask, rig.request(job, "courier"))
    except MeshError as error:
        return error
    return None


@asynccontextmanager
async def store_client(rig: Rig) -> AsyncIterator[Any]:
    """Talks to the store directly."""
    client: redis.Redis = redis.Redis.from_url(rig.store_url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def full_memory(rig: Rig) -> AsyncIterator[None]:
    """Gives the store little more memory than it uses."""
    async with store_client(rig) as client:
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", int(used / USED))
        try:
            yield
        finally:
            await client.config_set("maxmemory", 0)


@asynccontextmanager
async def full_disk(folder: Path) -> AsyncIterator[None]:
    """Leaves little room on the store's disk."""
    ballast = folder / "ballast"
    fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()


def fill(ballast: Path) -> None:
    """Writes a file that takes what a disk has too much of room."""
    usage = shutil.disk_usage(ballast.parent)
    ballast.write_bytes(bytes(max(0, int(usage.total * USED) - usage.used)))


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Path | None]:
    """Mounts a disk of its own size in memory, where this user may; None: it may not."""
    is_mounted = await ran("mkdir", str(folder)) and await ran(
        "mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "chaos", str(folder)
    )
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            await ran("umount", str(folder))


async def ran(*command: str) -> bool:
    """Runs a command quietly; whether it could do what it does."""
    quiet = asyncio.subprocess.DEVNULL
    with contextlib.suppress(OSError):
        process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
        return await process.wait() == 0
    return False


async def rewritten(rig: Rig) -> bool:
    """Has the log rewritten while tasks run; whether that worked."""
    playing = await under_way(rig, "rewrite")
    async with store_client(rig) as client:
        await client.bgrewriteaof()
        rig.setting.tell("the log is being rewritten")
        await asyncio.gather(*playing)
        for _ in range(int(PATIENCE_S / RETRY_S)):
            state = await client.info("persistence")
            if not state["aof_rewrite_in_progress"]:
                return bool(state["aof_last_bgrewrite_status"] == "ok")
            await asyncio.sleep(RETRY_S)
    return False
