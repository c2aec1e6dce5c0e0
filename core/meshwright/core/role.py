"""Roles in the mesh: what a certificate says its holder is, whom a service takes calls from, what a server proves."""

from collections.abc import Iterable
from enum import StrEnum

TRUST_DOMAIN = "spiffe://meshwright/"
"""What a URI SAN of ours begins with; the role follows, and a name where there is one."""
MESH_NAME = "meshwright.internal"
"""A DNS SAN of every certificate of the mesh. Servers prove by `ROLE.meshwright.internal` which one they are: gRPC
compares names of hosts alone, and addresses of pods are in nobody's certificate."""


class Role(StrEnum):
    """What a process of the mesh is."""

    EDGE = "edge"
    GATEWAY = "gateway"
    REGISTRY = "registry"
    AGENT = "agent"
    TOOL = "tool"
    CLI = "cli"


OPEN = frozenset(Role)
FRONT = frozenset({Role.EDGE, Role.GATEWAY})
CALLERS = {
    "registry.v1.AgentDirectoryService/AnnounceAgent": frozenset({Role.AGENT}),
    "registry.v1.AgentDirectoryService/WithdrawAgent": frozenset({Role.AGENT}),
    "registry.v1.": FRONT | {Role.AGENT, Role.TOOL, Role.CLI},
    "agents.v1.": FRONT | {Role.REGISTRY, Role.AGENT, Role.TOOL},
    "tools.v1.": frozenset({Role.REGISTRY, Role.AGENT}),
    "gateway.v1.": frozenset({Role.EDGE}),
    "envoy.service.": frozenset({Role.EDGE}),
    "grpc.health.v1.": OPEN,
    "grpc.reflection.": OPEN,
}
"""Who may call a method or the services of a package: the first entry that fits, and nobody where none does. Whoever
announces an agent signs grants in its name. A tool host calls agents for tools that are agents, under the grant of one
call."""
SERVERS = {
    "registry.v1.": Role.REGISTRY,
    "agents.v1.": Role.AGENT,
    "tools.v1.": Role.TOOL,
    "gateway.v1.": Role.GATEWAY,
}
"""What the server of a package has to be."""


def bearer_in(uris: Iterable[str]) -> tuple[Role, str] | None:
    """Returns role and name that the URIs in a certificate tell; the name may be empty: any of the role.

    None: no role of ours, or more than one URI of ours.
    """
    ours = [uri for uri in uris if uri.startswith(TRUST_DOMAIN)]
    role, slash, name = ours[0].removeprefix(TRUST_DOMAIN).partition("/") if len(ours) == 1 else ("", "", "")
    return (Role(role), name) if role in OPEN and bool(slash) == bool(name) else None


def callers_of(method: str) -> frozenset[Role]:
    """Returns who may call a method, `/package.Service/Method`."""
    return next((roles for package, roles in CALLERS.items() if method.startswith("/" + package)), frozenset())


def name_of_server(method: str, agent_id: str = "") -> str:
    """Returns the DNS name that a method's server has to prove.

    Args:
        method: `/package.Service/Method`.
        agent_id: Which agent is called, where one is; empty: any server of the role.
    """
    role = next((role for package, role in SERVERS.items() if method.startswith("/" + package)), None)
    if role is None:
        return MESH_NAME
    return dns_name(role, agent_id if role is Role.AGENT else "")


def dns_name(role: Role, name: str = "") -> str:
    """Spells the name by which a server proves its role, and which of that role it is."""
    return f"{name}.{role}.{MESH_NAME}" if name else f"{role}.{MESH_NAME}"


def names_of(role: Role, name: str = "") -> list[str]:
    """Lists the DNS names that a certificate holds: agents serve tools as well; one without a name is any agent's."""
    of_agent = [dns_name(Role.TOOL), dns_name(role, name or "*")] if role is Role.AGENT else []
    return [MESH_NAME, dns_name(role), *of_agent]
