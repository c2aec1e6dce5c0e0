"""What encryption of content costs: an event by itself, and a durable task."""

import base64
import os

import grpc

from benchmarks.arguments import cost_us
from benchmarks.durable import IN_FLIGHT, Round, Streams, events_of, one_round
from benchmarks.findings import Finding, spread
from benchmarks.load import closed_loop
from benchmarks.parts import Scene
from benchmarks.rounds import Effort
from meshwright.core.codec import Codec, ContentKeys, SealPlace

EVENT_BYTES, EVENTS = 1_024, 5_000
GOAL_US, GOAL_RATIO = 15.0, 1.15
SHAPE = (1, 1)
TASKS = 30


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures both."""
    return [await event(effort), await durable(scene, effort)]


async def event(effort: Effort) -> Finding:
    """Measures one event: written, read, and beside it a data key opened."""
    codec = Codec(ContentKeys({"bench": os.urandom(32)}))
    place = SealPlace("default", "bench")
    seal, content = codec.fresh(place), os.urandom(EVENT_BYTES)
    sealed = seal.encrypt("event/t", content)

    async def write() -> float:
        return cost_us(lambda: seal.encrypt("event/t", content), EVENTS * effort.scale)

    async def read() -> float:
        return cost_us(lambda: seal.decrypt("event/t", sealed), EVENTS * effort.scale)

    async def unwrap() -> float:
        return cost_us(lambda: codec.open(place, seal.wrapped), EVENTS * effort.scale)

    found = await effort.interleaved({"write": write, "read": read, "unwrap": unwrap})
    both = [one + other for one, other in zip(found["write"], found["read"], strict=True)]
    return Finding(
        name="codec",
        what="event of 1 KiB encrypted and decrypted",
        unit="µs CPU",
        ours=both,
        goal=GOAL_US,
        is_gated=True,
        beside={
            "encrypted": f"{spread(found['write'])} µs",
            "decrypted": f"{spread(found['read'])} µs",
            "a data key opened": f"{spread(found['unwrap'])} µs",
        },
    )


async def durable(scene: Scene, effort: Effort) -> Finding:
    """Measures a durable task with encryption against the same without."""
    stage = scene.stage
    file = stage.folder / "content.keys"
    file.write_text(f"bench {base64.b64encode(os.urandom(32)).decode()}\n")
    file.chmod(0o600)
    mesh = await stage.mesh("sealed")
    sealed = await stage.agent("sealed", mesh, content_keys_file=str(file))
    shape, many, tasks = "{}x{}".format(*SHAPE), events_of(*SHAPE), TASKS * effort.scale
    async with grpc.aio.insecure_channel(sealed.target) as one, grpc.aio.insecure_channel(scene.agent.target) as other:
        with_codec, without = Streams(sealed, one), Streams(scene.agent, other)

        async def ours() -> Round:
            return await one_round(with_codec, mesh, tasks, closed_loop(with_codec.act(shape, many), tasks, IN_FLIGHT))

        async def theirs() -> Round:
            load = closed_loop(without.act(shape, many), tasks, IN_FLIGHT)
            return await one_round(without, scene.mesh, tasks, load)

        found = await effort.interleaved({"ours": ours, "theirs": theirs})
    await sealed.stop()
    return Finding(
        name="durable_codec",
        what=f"task of {many - 1} journaled events and a result, content encrypted, {IN_FLIGHT} at once",
        unit="ms CPU of the serving process a task",
        ours=[one.cpu_ms for one in found["ours"]],
        theirs=[one.cpu_ms for one in found["theirs"]],
        goal=GOAL_RATIO,
        is_gated=True,
        beside={"the store's CPU, ms a task": spread([one.store_ms for one in found["ours"]])},
        unequal="each has a store of its own",
    )
