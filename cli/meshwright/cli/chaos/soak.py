"""Soak: steady work for a while; memory, open files and what is kept for unfinished work stay flat."""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.core.store import Store, partition_key

AGENTS = ("trader", "helper")
LANES = 4
LOOK_S = 0.5
PATIENCE_S = 15.0
GROWTH = 0.05
SLACK_BYTES = 6 * 2**20
"""An allocator grows in steps: an interpreter's arenas are 1 MiB, the C library's heaps up to 64 MiB of addresses."""
SLACK_FILES = 6
TASK_BYTES = 64 * 2**10
"""What the store may keep of one task: its journal, for seven days."""
PENDING = ("ready", "leases", "deadlines", "ending", "outbox")
"""What the store holds only for work that has not ended."""
PROC = Path("/proc")


@dataclass(slots=True)
class Gauge:
    """Readings of one process, in order."""

    bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def growth(self) -> tuple[int, int]:
        """Compares the medians of first and last third, after everything has warmed up: bytes, open files."""
        return between(self.bytes), between(self.files)


def between(readings: list[int]) -> int:
    """Returns how much the last third is above the first."""
    third = max(1, len(readings) // 3)
    return int(statistics.median(readings[-third:]) - statistics.median(readings[:third]))


def read(pid: int) -> tuple[int, int]:
    """Reads a process's resident bytes and how many files it has open."""
    status = (PROC / str(pid) / "status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident.split()[1]) * 1024, len(list((PROC / str(pid) / "fd").iterdir()))


async def gauge(rig: Rig, gauges: dict[str, Gauge]) -> None:
    """Reads all processes again and again."""
    while True:
        for name, child in rig.mesh.children.items():
            resident, files = read(child.pid)
            one = gauges.setdefault(name, Gauge())
            one.bytes.append(resident)
            one.files.append(files)
        await asyncio.sleep(LOOK_S)


async def work(rig: Rig, seconds: float, phase: str) -> None:
    """Keeps a few clients busy: tasks with tools here and there, and with children."""
    ends = time.monotonic() + seconds

    async def lane(number: int) -> None:
        done = 0
        while time.monotonic() < ends:
            done += 1
            job = rig.job(f"{phase}-{number}-{done}", ("look", "post", "ask"), 0.0, ("look",))
            await rig.play(job, AGENTS[0], PATIENCE_S)

    await asyncio.gather(*(lane(number) for number in range(LANES)))


async def pending(rig: Rig) -> dict[str, int]:
    """Counts what the store holds for work that has not ended, once it has had a moment to tidy up."""
    store = Store(str(rig.mesh.facts()["store"]))
    await store.open()
    try:
        counts: dict[str, int] = {}
        for _ in range(int(PATIENCE_S / LOOK_S)):
            counts = {noun: await entries(store, noun) for noun in PENDING}
            if not any(counts.values()):
                break
            await asyncio.sleep(LOOK_S)
        return counts
    finally:
        await store.close()


async def entries(store: Store, noun: str) -> int:
    """Counts the entries of all keys of a noun."""
    count = 0
    sizes = {b"zset": "ZCARD", b"set": "SCARD", b"stream": "XLEN", b"list": "LLEN", b"hash": "HLEN"}
    for partition in range(store.partitions):
        prefix = store_prefix(partition, noun)
        async for key in store.client.scan_iter(f"{prefix}*", count=1_000):
            (kind,) = await store.run(("TYPE", key))
            (size,) = await store.run((sizes[kind], key))
            count += int(size)
    return count


def store_prefix(partition: int, noun: str) -> str:
    """Spells how the keys of a noun begin; braces are no pattern."""
    assert noun in PENDING
    return partition_key(partition, "ready").removesuffix("ready") + noun


def complaints(gauges: dict[str, Gauge], tasks: int) -> Iterator[str]:
    """Names the processes that grew."""
    for name, one in gauges.items():
        grown, files = one.growth()
        allowed = SLACK_BYTES + GROWTH * one.bytes[0] + (tasks * TASK_BYTES if name == "store" else 0)
        if grown > allowed:
            yield f"{name} grew by {grown / 2**20:.1f} MiB, more than {allowed / 2**20:.1f}"
        if files > SLACK_FILES:
            yield f"{name} holds {files} more files open"


async def play(setting: Setting) -> Row:
    """Warms a mesh up, then measures it at work."""
    seconds = setting.size(6, 120)
    row = Row(f"{seconds} s of steady work")
    if sys.platform != "linux":
        row.skipped = "there is no /proc to read memory and open files from"
        return row
    gauges: dict[str, Gauge] = {}
    async with Rig(setting, agents=AGENTS, workers=0, lease_s=5.0) as rig:
        await work(rig, setting.size(2, 15), "warm")
        before = len(rig.told)
        gauging = asyncio.create_task(gauge(rig, gauges))
        await work(rig, seconds, "steady")
        gauging.cancel()
        await asyncio.gather(gauging, return_exceptions=True)
        left = await pending(rig)
    steady = rig.told[before:]
    lost = [told.job.name for told in steady if not told.result or not told.job.is_right(told.result.output)]
    growth = {name: one.growth() for name, one in gauges.items()}
    fattest = max(growth, key=lambda name: growth[name][0])
    row.figures = {
        "tasks": str(len(steady)),
        "most memory": f"{fattest} {growth[fattest][0] / 2**20:+.1f} MiB",
        "files": f"{max(files for _, files in growth.values()):+d}",
        "pending": str(sum(left.values())),
    }
    row.broken = list(complaints(gauges, len(steady)))
    row.check(not lost, f"{len(lost)} tasks did not end as they should: {lost[:3]}")
    row.check(not any(left.values()), f"entries stayed behind: { {noun: many for noun, many in left.items() if many} }")
    return row
