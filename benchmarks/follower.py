"""Many followers of one task in one process, without a gRPC server around them.

`python -m benchmarks.follower feed|alone STORE_URL TASK_ID MANY`: `feed` follows through our Feeds, `alone` gives every
follower a blocking read of its own. The process says when they listen, and at the end what was delivered.
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
JOIN_S = 0.005
LAST = "last"
"""What the final event's notice says."""


class Count:
    """What has been delivered, by follower."""

    def __init__(self, many: int) -> None:
        self.delivered = 0
        self.left = many


async def by_feed(feeds: Feeds, name: TaskName, count: Count) -> None:
    """Follows a task as a watching call does."""
    async for event in feeds.follow(name, 0):
        if event is not None:
            count.delivered += 1
            if event.notice.detail == LAST:
                break
    count.left -= 1


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
                count.left -= 1
                return


async def main(running: Process) -> None:
    """Follows until the last event has reached everybody."""
    kind, url, task_id, many = *sys.argv[1:4], int(sys.argv[4])
    store = Store(url, LIBRARY)
    await store.open(1)
    feeds = Feeds(Journal(store, "follower"))
    name, count = TaskName("default", "default", task_id), Count(many)
    client = redis.Redis.from_url(url, protocol=3, max_connections=many + 1)
    if kind == "feed":
        await feeds.open({"nobody": lambda _: None})
    following = []
    for _ in range(many):
        following.append(
            asyncio.create_task(by_feed(feeds, name, count) if kind == "feed" else alone(client, name, count))
        )
        await asyncio.sleep(JOIN_S)  # what joins at the very same moment would need a connection each
    running.ready()
    await asyncio.gather(*following)
    sys.stdout.write(json.dumps({"delivered": count.delivered, "left": count.left}) + "\n")
    sys.stdout.flush()
    await running.stopping.wait()


if __name__ == "__main__":
    process.run(main)
