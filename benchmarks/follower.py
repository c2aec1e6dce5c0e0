"""Many followers of one task in one process, without a gRPC server around them.

`python -m benchmarks.follower feed|alone STORE_URL MANY`: `feed` follows through our Feeds, `alone` gives every one
a blocking read of its own. For each task id on its stdin the process says when all listen, then what was delivered.
"""

import asyncio
import json
import sys
from typing import Any

import redis.asyncio as redis

from meshwright.agents.feed import Feeds
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.task import Entry, TaskName
from meshwright.core import process
from meshwright.core.process import Process
from meshwright.core.store import Store, partition_key

BLOCK_MS = 30_000
JOIN_S = 0.002
"""What joins at the very same moment would need a connection each."""
LAST = "last"
"""What the final event's notice says."""


class Count:
    """What has been delivered to all followers together."""

    def __init__(self) -> None:
        self.delivered = 0


async def by_feed(feeds: Feeds, name: TaskName, count: Count) -> None:
    """Follows a task as a watching call does."""
    async for event in feeds.follow(name, 0):
        if event is not None:
            count.delivered += 1
            if event.notice.detail == LAST:
                break


async def alone(client: "redis.Redis", name: TaskName, count: Count) -> None:
    """Follows a task by a connection of its own."""
    log, after = partition_key(0, "log", name.ref), b"0-0"
    while True:
        found: Any = await client.xread({log: after}, block=BLOCK_MS)
        (entries,) = found[log.encode()]
        for entry_id, fields in entries:
            after = entry_id
            sequence = int(entry_id.partition(b"-")[2])
            event = Entry(sequence, int(fields[b"t"]), "", fields[b"e"]).event(name.task_id)
            count.delivered += 1
            if event.notice.detail == LAST:
                return


async def follow(kind: str, feeds: Feeds, client: "redis.Redis", name: TaskName, many: int) -> None:
    """Follows one task until its last event has reached everybody."""
    count = Count()
    following = []
    for _ in range(many):
        one = by_feed(feeds, name, count) if kind == "feed" else alone(client, name, count)
        following.append(asyncio.create_task(one))
        await asyncio.sleep(JOIN_S)
    say(listening=many)
    await asyncio.gather(*following)
    say(delivered=count.delivered)


def say(**facts: int) -> None:
    """Tells the parent."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def main(running: Process) -> None:
    """Follows one task after the other until it is told to stop."""
    kind, url, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = Store(url, LIBRARY)
    await store.open(1)
    feeds = Feeds(Journal(store, "follower"))
    client = redis.Redis.from_url(url, protocol=3, max_connections=many + 1)
    await feeds.open({"nobody": lambda _: None})
    running.ready()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().strip():
        await follow(kind, feeds, client, TaskName("default", "default", line), many)


if __name__ == "__main__":
    process.run(main)
