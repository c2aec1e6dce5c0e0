"""The registry's state in the store: instances under leases, tools by version, outcomes by key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshwright.core.ids import root_of
from meshwright.core.store import MESH, Library, Store, partition_key, partition_of, reference

LIBRARY = Library("registry", Path(__file__).with_name("registry.lua").read_text())
LEDGER_KEPT_MS = 40 * 86_400_000
"""Longer than any task lives, also one that waits thirty days for a person; who deletes a task deletes its ledger."""


class DirectoryStore:
    """Announcements by instance; the bytes are the announcement as the service wrote it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def announce(self, agent_id: str, instance_id: str, announcement: bytes, lease_ms: int) -> int:
        """Stores or renews; returns when the lease ends, in store milliseconds."""
        return int(await self._call("announce", agent_id, instance_id, announcement, lease_ms))

    async def withdraw(self, agent_id: str, instance_id: str) -> bool:
        """Removes an instance; False: it was not there."""
        return bool(await self._call("withdraw", agent_id, instance_id))

    async def expire(self) -> int:
        """Removes instances that fell silent; returns how many."""
        return int(await self._call("expire"))

    async def instances(self) -> dict[str, tuple[bytes, int]]:
        """Returns announcement and lease end (store ms) by instance id."""
        fields, leases = await self._store.run(
            ("HGETALL", partition_key(MESH, "instances")),
            ("ZRANGE", partition_key(MESH, "leases"), 0, -1, "WITHSCORES"),
        )
        ends = {member.decode(): int(score) for member, score in leases}
        return {name.decode(): (value, ends.get(name.decode(), 0)) for name, value in fields.items()}

    async def instance(self, instance_id: str) -> bytes | None:
        """Returns one announcement."""
        value: bytes | None
        (value,) = await self._store.run(("HGET", partition_key(MESH, "instances"), instance_id))
        return value

    async def revision(self) -> int:
        """Returns the number of the newest change."""
        (value,) = await self._store.run(("GET", partition_key(MESH, "revision")))
        return int(value or 0)

    async def changes(self, after: int) -> list[tuple[int, str]]:
        """Returns (revision, agent id) of the changes after a revision, oldest first."""
        (items,) = await self._store.run(("XRANGE", partition_key(MESH, "changes"), f"0-{after + 1}", "+"))
        return [(int(item_id.partition(b"-")[2]), fields[b"agent"].decode()) for item_id, fields in items]

    async def _call(self, function: str, *arguments: str | int | bytes) -> Any:
        return await self._store.call(LIBRARY.function(function), partition_key(MESH, "instances"), *arguments)


class CatalogStore:
    """Tools: serialized contracts by name and version, and the host of each."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(self, name: str, version: str, tool: bytes, digest: str, endpoint: str) -> str:
        """Stores a version once; returns `stored`, `known` or `conflict`."""
        key = partition_key(MESH, "tools")
        reply = await self._store.call(LIBRARY.function("register"), key, name, version, tool, digest, endpoint)
        return str(reply.decode())

    async def names(self) -> list[str]:
        """Returns all tool names, sorted."""
        (members,) = await self._store.run(("SMEMBERS", partition_key(MESH, "tools")))
        return sorted(member.decode() for member in members)

    async def versions(self, names: Sequence[str]) -> list[dict[str, tuple[bytes, str]]]:
        """Returns, for each name, contract and endpoint by version."""
        replies = await self._store.run(
            *(("HGETALL", partition_key(MESH, "tool", name)) for name in names),
            *(("HGETALL", partition_key(MESH, "hosts", name)) for name in names),
        )
        found = []
        for contracts, hosts in zip(replies[: len(names)], replies[len(names) :], strict=True):
            versions = {v.decode(): (tool, hosts.get(v, b"").decode()) for v, tool in contracts.items()}
            found.append(versions)
        return found

    async def revision(self) -> int:
        """Returns the number of the newest change."""
        (value,) = await self._store.run(("GET", partition_key(MESH, "revision", "tools")))
        return int(value or 0)


class Ledger:
    """What became of tool calls, by key: begun, then the first outcome; kept as long as the task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(
        self,
        holder: tuple[str, str, str],
        key: str,
        *,
        intent: str,
        timeout_s: float,
        may_rerun: bool,
        fence: int,
        token: str,
    ) -> tuple[str, bytes]:
        """Opens a call.

        Args:
            holder: Tenant, principal and task id.
            key: The call's idempotency key.
            intent: Digest of what is called with which arguments.
            timeout_s: Time after which the call is over, by the store's clock.
            may_rerun: Whether a call that was begun and never settled may run again.
            fence: The task's ownership counter.
            token: Names this attempt, so that it may be repeated after a lost reply.

        Returns:
            `run`, `done` with its outcome, `open`, `unknown`, `fenced` or `differs` (the key belongs to another call).
        """
        partition, ref = self._place(holder)
        timeout_ms = int(timeout_s * 1000)
        reply = await self._call(
            "begin", partition, ref, key, intent, timeout_ms, int(may_rerun), fence, token, LEDGER_KEPT_MS
        )
        return reply[0].decode(), reply[1] if len(reply) > 1 else b""

    async def settle(self, holder: tuple[str, str, str], key: str, intent: str, outcome: bytes) -> bytes:
        """Writes the outcome; returns the one that counts: the first."""
        partition, ref = self._place(holder)
        reply: bytes = await self._call("settle", partition, ref, key, intent, outcome, LEDGER_KEPT_MS)
        return reply

    async def forgo(self, holder: tuple[str, str, str], key: str, intent: str, outcome: bytes) -> bytes | None:
        """Settles a call that was not begun; returns the outcome that counts, None: it was begun and is open."""
        partition, ref = self._place(holder)
        reply = await self._call("forgo", partition, ref, key, intent, outcome, LEDGER_KEPT_MS)
        return reply[0] if reply else None

    async def look(self, holder: tuple[str, str, str], key: str) -> tuple[str, bytes]:
        """Reads what is known of a call: `not_seen`, `running`, `unknown`, or `done` with its outcome."""
        partition, ref = self._place(holder)
        reply = await self._call("look", partition, ref, key)
        return reply[0].decode(), reply[1] if len(reply) > 1 else b""

    def _place(self, holder: tuple[str, str, str]) -> tuple[int, str]:
        tenant, _, task_id = holder
        return partition_of(tenant, root_of(task_id), self._store.partitions), reference(*holder)

    async def _call(self, function: str, partition: int, *arguments: str | int | bytes) -> Any:
        slot = partition_key(partition, "ledger", "-")
        return await self._store.call(LIBRARY.function(function), slot, partition, *arguments)
