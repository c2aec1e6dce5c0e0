"""The registry's state in the store: instances under leases, tools by version, outcomes by key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshwright.core.audit import OF_MESH, line_of
from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import ToolNotFoundError
from meshwright.core.ids import root_of
from meshwright.core.seals import Seals
from meshwright.core.store import MESH, Library, Store, partition_key, partition_of, reference, segment
from meshwright.registry.catalog import ToolState

LIBRARY = Library("registry", Path(__file__).with_name("registry.lua").read_text())
MAX_TOOLS, MAX_VERSIONS, MAX_ALIASES = 100_000, 1_000, 32
"""How many tools there may be, and of one tool how many versions and aliases."""
MAX_CHANGES = 100
"""Changes that are read at once."""
LEDGER_KEPT_MS = 40 * 86_400_000
"""Longer than any task lives, also one that waits thirty days for a person; who deletes a task deletes its ledger."""

Holder = tuple[str, str, str]
"""Tenant, principal and task id."""
Actor = tuple[str, str]
"""Tenant and principal of whoever changes the catalog."""
NOBODY: Actor = (OF_MESH, "")
"""A process of the mesh."""


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
    """Tools: serialized contracts by name and version, which never change; what does is a `ToolState`.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(
        self, name: str, version: str, tool: bytes, digest: str, endpoint: str, *, seen: int, by: Actor = NOBODY
    ) -> str:
        """Stores a version once.

        Args:
            name: The tool's.
            version: Of the contract.
            tool: The contract.
            digest: Tells whether a known version is the same.
            endpoint: Who serves it from now on.
            seen: How many versions of the tool there were when it was held against them.
            by: Who wants it, for the audit.

        Returns:
            `stored`, `known`, `conflict`, `again` (there are others by now) or `full`.
        """
        limits = (seen, MAX_VERSIONS, MAX_TOOLS)
        line = self._line(by, digest=digest)
        return str((await self._call("register", name, version, tool, digest, endpoint, *limits, *line)).decode())

    async def set_alias(self, name: str, alias: str, version: str, *, by: Actor = NOBODY) -> str:
        """Points an alias at a version; returns `set`, `same`, `unknown` (no such version) or `full`."""
        line = self._line(by, alias=alias)
        return str((await self._call("set_alias", name, alias, version, MAX_ALIASES, *line)).decode())

    async def deprecate(self, name: str, version: str, sunset_ms: int, replaced_by: str, *, by: Actor = NOBODY) -> str:
        """Marks a version; returns `set`, `same` or `unknown` (no such version)."""
        line = self._line(by, sunset_ms=sunset_ms, replaced_by=replaced_by)
        return str((await self._call("deprecate", name, version, sunset_ms, replaced_by, *line)).decode())

    async def names(self, prefix: str, after: str, many: int, *, inclusive: bool = False) -> list[str]:
        """Returns the first `many` names with a prefix, sorted: those behind another name, or also (inclusive) it."""
        least = f"[{prefix}" if prefix else "-"
        if after and after >= prefix:
            least = f"[{after}" if inclusive else f"({after}"
        most = f"({prefix}\x7f" if prefix else "+"
        key = partition_key(MESH, "tools", "names")
        (members,) = await self._store.run(("ZRANGE", key, least, most, "BYLEX", "LIMIT", 0, many))
        return [member.decode() for member in members]

    async def states(self, names: Sequence[str]) -> tuple[int, list[ToolState]]:
        """Returns the catalog's revision, and how each tool stands at it; one that is not registered has no hosts."""
        revision, *maps = await self._call("states", *names)
        found = [mapping(flat) for flat in maps]
        return int(revision), [
            ToolState(hosts, aliases, {version: sunset(text) for version, text in sunsets.items()})
            for hosts, aliases, sunsets in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]

    async def contracts(self, pins: Sequence[tuple[str, str]]) -> list[bytes]:
        """Returns contracts by name and version, in their order.

        Raises:
            ToolNotFoundError: One is not there.
        """
        found = list(await self._call("contracts", *(part for pin in pins for part in pin)))
        for (name, version), contract in zip(pins, found, strict=True):
            if contract is None:
                raise ToolNotFoundError(f"{name}@{version} is registered no more: list the tools again")
        return found

    async def revision(self) -> int:
        """Returns the number of the newest change."""
        (value,) = await self._store.run(("GET", partition_key(MESH, "revision", "tools")))
        return int(value or 0)

    async def changes(self, after: int) -> list[tuple[int, tuple[str, str]]]:
        """Returns (revision, (name, version)) of the changes after a revision, oldest first, `MAX_CHANGES` at most."""
        key = partition_key(MESH, "changes", "tools")
        (items,) = await self._store.run(("XRANGE", key, f"0-{after + 1}", "+", "COUNT", MAX_CHANGES))
        return [
            (int(item_id.partition(b"-")[2]), (fields[b"tool"].decode(), fields[b"version"].decode()))
            for item_id, fields in items
        ]

    def _line(self, by: Actor, **facts: str | int) -> tuple[str, str]:
        """Writes whose audit tells of a change, and the line."""
        return segment(by[0]), line_of(by[1], "", **facts)

    async def _call(self, function: str, *arguments: str | int | bytes) -> Any:
        return await self._store.call(LIBRARY.function(function), partition_key(MESH, "tools"), *arguments)


def mapping(flat: Sequence[bytes]) -> dict[str, str]:
    """Reads a hash as functions return it: names and values in turn."""
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def sunset(text: str) -> tuple[int, str]:
    """Reads what is stored of a deprecation."""
    ends_ms, _, replaced_by = text.partition(" ")
    return int(ends_ms), replaced_by


class Ledger:
    """What became of tool calls, by key: begun, then the first outcome; kept as long as the task.

    Where a call comes with a line for the audit, the line is written with the change that it tells of.

    Args:
        store: Where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._seals = Seals(store)

    async def begin(
        self,
        holder: Holder,
        key: str,
        *,
        intent: str,
        timeout_s: float,
        may_rerun: bool,
        fence: int,
        token: str,
        may_begin: bool = True,
        line: str = "",
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
            may_begin: Whether it may run at all now; if not, the ledger only answers.
            line: For the audit; empty: none.

        Returns:
            `run`, `done` with its outcome, `open`, `unknown`, `fenced`, `differs` (the key belongs to another call), or
            `shut`: it would run, but may not.
        """
        partition, ref = self._place(holder)
        timeout_ms = int(timeout_s * 1000)
        reply = await self._call(
            "begin",
            partition,
            ref,
            key,
            intent,
            timeout_ms,
            int(may_rerun),
            fence,
            token,
            LEDGER_KEPT_MS,
            int(may_begin),
            line,
        )
        return reply[0].decode(), await self._opened(holder, key, reply[1]) if len(reply) > 1 else b""

    async def settle(self, holder: Holder, key: str, intent: str, outcome: bytes, *, line: str = "") -> bytes:
        """Writes the outcome; returns the one that counts: the first. `line`: for the audit."""
        partition, ref = self._place(holder)

        async def put(seal: Seal) -> bytes:
            sealed = seal.encrypt(kind_of(holder, key), outcome)
            facts = (partition, ref, key, intent, sealed, LEDGER_KEPT_MS, root_ref(holder), seal.wrapped, line)
            reply: bytes = await self._call("settle", *facts)
            return reply

        return await self._opened(
            holder, key, await self._seals.write(self._seal_place(holder), [self._root(holder)], put)
        )

    async def refused(self, holder: Holder, line: str) -> None:
        """Writes into the audit that a call was not let through."""
        await self._call("refused", *self._place(holder), line)

    async def forgo(self, holder: Holder, key: str, intent: str, outcome: bytes) -> bytes | None:
        """Settles a call that was not begun; returns the outcome that counts, None: it was begun and is open."""
        partition, ref = self._place(holder)

        async def put(seal: Seal) -> list[bytes]:
            sealed = seal.encrypt(kind_of(holder, key), outcome)
            facts = (partition, ref, key, intent, sealed, LEDGER_KEPT_MS, root_ref(holder), seal.wrapped, "")
            reply: list[bytes] = await self._call("forgo", *facts)
            return reply

        reply = await self._seals.write(self._seal_place(holder), [self._root(holder)], put)
        return await self._opened(holder, key, reply[0]) if reply else None

    async def look(self, holder: Holder, key: str) -> tuple[str, bytes]:
        """Reads what is known of a call: `not_seen`, `running`, `unknown`, or `done` with its outcome."""
        partition, ref = self._place(holder)
        reply = await self._call("look", partition, ref, key)
        return reply[0].decode(), await self._opened(holder, key, reply[1]) if len(reply) > 1 else b""

    async def _opened(self, holder: Holder, key: str, outcome: bytes) -> bytes:
        """Reads an outcome.

        Raises:
            DataLossError: It was changed, or its data key is gone.
            ContentKeyMissingError: This process does not have the keys.
        """
        return await self._seals.decrypt(self._seal_place(holder), kind_of(holder, key), outcome)

    def _seal_place(self, holder: Holder) -> SealPlace:
        """Names where the data key of a task's tree stands; a call from outside of any task has its own."""
        return SealPlace(holder[0], partition_key(self._place(holder)[0], "seal", root_ref(holder)))

    def _root(self, holder: Holder) -> str:
        return partition_key(self._place(holder)[0], "task", root_ref(holder))

    def _place(self, holder: Holder) -> tuple[int, str]:
        tenant, _, task_id = holder
        return partition_of(tenant, root_of(task_id), self.store.partitions), reference(*holder)

    async def _call(self, function: str, partition: int, *arguments: str | int | bytes) -> Any:
        slot = partition_key(partition, "ledger", "-")
        return await self.store.call(LIBRARY.function(function), slot, partition, *arguments)


def root_ref(holder: Holder) -> str:
    """Names in keys the root of the task that calls."""
    tenant, principal, task_id = holder
    return reference(tenant, principal, root_of(task_id))


def kind_of(holder: Holder, key: str) -> str:
    """Says of which call an outcome is."""
    return f"outcome/{holder[2]}/{key}"


class QuotaStore:
    """How often tools were called, by tenant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, tenant: str, tool: str, interval_us: int, burst: int) -> int:
        """Counts a call by the store's clock.

        A repetition after a lost reply counts once more: what is promised is an upper bound.

        Args:
            tenant: Who calls.
            tool: Which tool; its versions count together.
            interval_us: Microseconds between two calls at a steady pace.
            burst: Calls that may come at once after a rest.

        Returns:
            0, or the microseconds after which the call may be made.
        """
        partition = partition_of(tenant, tool, self._store.partitions)
        slot = partition_key(partition, "quota", "-")
        name = f"{segment(tenant)}/{tool}"
        return int(await self._store.call(LIBRARY.function("take"), slot, partition, name, interval_us, burst))
