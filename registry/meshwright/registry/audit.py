"""Lines of the audit about calls of tools: who called what, and what came of it."""

import re

import structlog

from meshwright.core.audit import line_of
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.call import Call
from meshwright.registry.hosted import Hosted
from meshwright.registry.store import Ledger

log = structlog.get_logger("audit")
DIGEST = re.compile(r"[0-9a-f]{64}")
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
        line = written(hosted, grant, key, claimed, outcome=error.reason)
        log.warning("tool_refused", tool=hosted.pin, tenant=grant.tenant, agent=grant.agent_id, reason=error.reason)
        try:
            await self._ledger.refused((grant.tenant, grant.principal, grant.task_id), line)
        except MeshError as failure:
            log.warning("audit_line_lost", line=line, error=failure.message)

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


def call_line(call: Call, outcome: Outcome | None = None) -> str:
    """Writes the line of a call: of its beginning, or of what came of it."""
    return written(call.hosted, call.grant, call.key, call.intent, outcome=told(outcome) if outcome else "")


def written(hosted: Hosted, grant: Grant, key: str, intent: str, *, outcome: str = "") -> str:
    """Writes who calls what; `intent`: digest of tool, version and arguments; `key`: as the caller gave it."""
    facts = {"agent": grant.agent_id, "tool": hosted.pin, "effect": hosted.effect, "intent": intent, "key": key}
    return line_of(grant.principal, outcome, **facts)


def told(outcome: Outcome) -> str:
    """Says in one word how a call ended."""
    return MeshError.from_status(outcome.error).reason if outcome.HasField("error") else OK
