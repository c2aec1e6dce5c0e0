"""Rules of the directory: what an announcement must be, how instances make up an agent's card. Pure."""

from collections.abc import Mapping

from meshwright.core.errors import InvalidRequestError
from meshwright.core.grant import REGISTRY
from meshwright.core.ids import AGENT_ID, TARGET, VERSION, checked
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, AnnounceAgentRequest
from meshwright.registry.version import precedence

MIN_LEASE_MS, MAX_LEASE_MS, DEFAULT_LEASE_MS = 1_000, 120_000, 15_000
MAX_INSTANCE_ID = 128
KEY_BYTES = 32
RESERVED = frozenset({REGISTRY, "outside"})
"""Names that stand for callers who are no agents."""


def checked_announcement(request: AnnounceAgentRequest) -> int:
    """Checks an announcement and returns its lease in milliseconds.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    checked("agent.agent_id", request.agent.agent_id, AGENT_ID)
    if request.agent.agent_id in RESERVED:
        raise InvalidRequestError("the name is taken by the mesh", fields={"agent.agent_id": "choose another name"})
    checked("agent.version", request.agent.version, VERSION)
    endpoint = request.endpoint
    checked("endpoint.target", endpoint.target, TARGET)
    if not 0 < len(endpoint.instance_id) <= MAX_INSTANCE_ID:
        raise InvalidRequestError("an endpoint needs an id", fields={"endpoint.instance_id": f"1..{MAX_INSTANCE_ID}"})
    if len(endpoint.public_key) not in (0, KEY_BYTES):
        raise InvalidRequestError("no Ed25519 key", fields={"endpoint.public_key": f"{KEY_BYTES} bytes"})
    lease_ms = request.lease.ToMilliseconds() or DEFAULT_LEASE_MS
    if not MIN_LEASE_MS <= lease_ms <= MAX_LEASE_MS:
        raise InvalidRequestError("lease out of range", fields={"lease": f"{MIN_LEASE_MS}..{MAX_LEASE_MS} ms"})
    return lease_ms


def stored_announcement(request: AnnounceAgentRequest) -> bytes:
    """Returns what is stored: all but the lease, so that a renewal is no change."""
    kept = AnnounceAgentRequest()
    kept.CopyFrom(request)
    kept.ClearField("lease")
    kept.ClearField("open")
    kept.agent.ClearField("endpoints")
    kept.endpoint.ClearField("lease_expire_time")
    return kept.SerializeToString(deterministic=True)


def cards(instances: Mapping[str, tuple[bytes, int]]) -> dict[str, AgentCard]:
    """Makes one card an agent of its instances: the newest version's words, every instance's endpoint.

    Keys of signers are left out: they are read one by one, by instance.
    """
    merged: dict[str, AgentCard] = {}
    for _, (announcement, lease_ends) in sorted(instances.items()):
        request = AnnounceAgentRequest.FromString(announcement)
        card = merged.setdefault(request.agent.agent_id, AgentCard())
        endpoints = list(card.endpoints)
        if not card.agent_id or precedence(request.agent.version) >= precedence(card.version):
            card.CopyFrom(request.agent)
        endpoint = request.endpoint
        endpoint.ClearField("public_key")
        if lease_ends:
            endpoint.lease_expire_time.FromMilliseconds(lease_ends)
        del card.endpoints[:]
        card.endpoints.extend([*endpoints, endpoint])
    return merged
