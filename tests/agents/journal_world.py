"""The store of a journal, as tests look into it and share it."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from meshwright.agents.journal import LIBRARY, Journal, Limits
from meshwright.core.store import Store

PARTITIONS = 2


@dataclass
class Places:
    """Where the store holds which tasks: the only reader of keys here. Nouns with their members, and streams."""

    members: dict[str, Counter[str]]
    records: dict[str, dict[bytes, bytes]]
    running: Counter[tuple[str, str]]
    keys: list[str]

    @classmethod
    async def read(cls, store: Store) -> "Places":
        keys = sorted([key.decode() async for key in store.client.scan_iter("mw:{[0-9]*", count=1000)])
        kinds = await store.run(*(("TYPE", key) for key in keys)) if keys else []
        reads = {b"zset": ("ZRANGE", 0, -1), b"set": ("SMEMBERS",), b"hash": ("HGETALL",), b"list": ("LRANGE", 0, -1)}
        read = [(key, reads[kind]) for key, kind in zip(keys, kinds, strict=True) if kind in reads]
        replies = await store.run(*((how[0], key, *how[1:]) for key, how in read)) if read else []
        members: dict[str, Counter[str]] = {}
        records, running = {}, Counter[tuple[str, str]]()
        for (key, _), reply in zip(read, replies, strict=True):
            noun, _, name = key.split(":", 2)[2].partition(":")
            if noun == "task":
                records[name] = reply
            elif noun == "running":
                running.update({(name, tenant.decode()): int(many) for tenant, many in reply.items()})
            elif not isinstance(reply, dict):
                members.setdefault(noun, Counter()).update(member.decode() for member in reply)
        return cls(members, records, running, keys)

    def many(self, noun: str, ref: str) -> int:
        """Counts where a task stands, over all keys of a noun, such as the ready queues of several tenants."""
        return sum(found[ref] for key, found in self.members.items() if key.startswith(noun))

    def is_frozen(self, ref: str) -> bool:
        return b"frozen_at" in self.records.get(ref, {})

    def fence(self, ref: str) -> str | None:
        fence = self.records.get(ref, {}).get(b"fence")
        return fence.decode() if fence else None

    def traces(self, ref: str) -> set[str]:
        """Names what still knows a task."""
        keyed = {key.split(":", 3)[2] for key in self.keys if key.split(":", 3)[3:] == [ref]}
        either = {ref, ref.rpartition("/")[2]}
        return keyed | {noun for noun, found in self.members.items() if either & set(found)}


class World:
    """A store of one test, and the owners that share it."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.store = Store(url, LIBRARY)
        self.owners = [Journal(self.store, name, lease_s=3600) for name in ("one", "two", "three")]
        self.doomed = Journal(self.store, "doomed", lease_s=0)
        self.strict = Journal(self.store, "strict", limits=Limits(max_ready=1))
        self.reset()

    def reset(self) -> None:
        async def emptied() -> None:
            await self.store.open()
            await self.store.client.flushall()
            await self.store.open(PARTITIONS)

        self.run(emptied())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def close(self) -> None:
        self.run(self.store.close())
        self.runner.close()
