"""The audit: who called what, when, and what came of it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from meshwright.core.errors import MeshError
from meshwright.core.facts import shortened
from meshwright.core.store import Store, partition_key, segment
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.call import Call
from meshwright.registry.hosted import Hosted
from meshwright.registry.store import Ledger

log = structlog.get_logger("audit")
DIGEST = re.compile(r"[0-9a-f]{64}")
FIELD_BYTES = 256
MOST_LINES = 10_000
OK = "ok"


class Audit:
    """Writes lines: neither arguments nor results, only the digest of what was meant.

    A call with effects leaves a line when it begins and one when it is settled, each in the script that makes it so. A
    refusal leaves one line, best effort: it stands whether or not the store can be told. A call of a pure tool leaves
    a line in the process's log alone.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def refused(self, hosted: Hosted, grant: Grant, key: str, intent: str, error: MeshError) -> None:
        """Writes that a call was refused for authority; what the caller only claims is written as far as it fits."""
        claimed = intent if DIGEST.fullmatch(intent) else ""
        line = written(hosted, grant, shortened(key, FIELD_BYTES), claimed)
        log.warning("tool_refused", tool=hosted.pin, tenant=grant.tenant, agent=grant.agent_id, reason=error.reason)
        try:
            await self._ledger.refused((grant.tenant, grant.principal, grant.task_id), line, error.reason)
        except MeshError as failure:
            log.warning("audit_line_lost", line=line, outcome=error.reason, error=failure.message)

    def called(self, call: Call, outcome: Outcome) -> None:
        """Logs a call of a pure tool."""
        grant = call.grant
        log.info(
            "tool_called",
            tool=call.hosted.pin,
            tenant=grant.tenant,
            principal=grant.principal,
            agent=grant.agent_id,
            task_id=grant.task_id,
            intent=call.intent,
            outcome=told(outcome),
        )


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of a tenant's audit.

    Attributes:
        partition: Stream in which it stands.
        id: Its place there; begins with the store's time.
        time_ms: When, by the store's clock.
        event: `begun`, `settled` or `refused`.
        outcome: `ok` or the reason of the failure or refusal; empty for `begun`.
        tenant: Whose call.
        principal: Who asked for the task.
        agent_id: Agent that called.
        task_id: Task that called.
        pin: `name@version`.
        intent: Digest of tool, version and arguments; of a refused call as the caller gave it, or empty.
        effect: `pure`, `idempotent` or `non_idempotent`.
        key: Idempotency key; of a refused call as the caller gave it.
    """

    partition: int
    id: str
    time_ms: int
    event: str
    outcome: str
    tenant: str
    principal: str
    agent_id: str
    task_id: str
    pin: str
    intent: str
    effect: str
    key: str


class AuditReader:
    """Reads audits, for whoever may: nothing here asks who that is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, tenant: str, after: Mapping[int, str] | None = None, limit: int = 1_000) -> list[AuditRecord]:
        """Returns a tenant's lines, oldest first.

        Args:
            tenant: Whose.
            after: The id of the last line that was seen, by partition; where it holds none, from the beginning.
            limit: Lines at most, 1 to 10,000. Of each partition the oldest are returned, so to go on after the last
                line of each leaves nothing out.
        """
        seen, count = after or {}, min(max(limit, 1), MOST_LINES)
        partitions = range(self._store.partitions)
        replies = await self._store.run(
            *(
                (
                    "XRANGE",
                    place(partition, tenant),
                    f"({seen[partition]}" if partition in seen else "-",
                    "+",
                    "COUNT",
                    count,
                )
                for partition in partitions
            )
        )
        found = [
            record(tenant, partition, item_id, fields)
            for partition, items in zip(partitions, replies, strict=True)
            for item_id, fields in items
        ]
        return sorted(found, key=lambda one: (one.time_ms, one.partition, one.id))[:count]


def place(partition: int, tenant: str) -> str:
    """Spells the key of a tenant's audit."""
    return partition_key(partition, "audit", segment(tenant))


def record(tenant: str, partition: int, item_id: bytes, fields: Mapping[bytes, bytes]) -> AuditRecord:
    """Reads a line."""
    line: dict[str, str] = json.loads(fields[b"line"])
    return AuditRecord(
        partition=partition,
        id=item_id.decode(),
        time_ms=int(item_id.partition(b"-")[0]),
        event=fields[b"event"].decode(),
        outcome=fields[b"outcome"].decode(),
        tenant=tenant,
        **line,
    )


def line_of(call: Call) -> str:
    """Writes who calls what."""
    return written(call.hosted, call.grant, call.key, call.intent)


def written(hosted: Hosted, grant: Grant, key: str, intent: str) -> str:
    """Writes a line; its words are those of `AuditRecord`."""
    return json.dumps(
        {
            "principal": shortened(grant.principal, FIELD_BYTES),
            "agent_id": shortened(grant.agent_id, FIELD_BYTES),
            "task_id": shortened(grant.task_id, FIELD_BYTES),
            "pin": hosted.pin,
            "intent": intent,
            "effect": hosted.effect,
            "key": key,
        }
    )


def told(outcome: Outcome) -> str:
    """Says in one word how a call ended."""
    return MeshError.from_status(outcome.error).reason if outcome.HasField("error") else OK
