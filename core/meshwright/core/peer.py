"""Who is at the other end of a connection: the role in its certificate, held against who may call."""

import structlog

from meshwright.core.admittance import bearer_of, role_of
from meshwright.core.errors import NameRefusedError, RoleRefusedError
from meshwright.core.interceptors import Context, Principal
from meshwright.core.role import Role, callers_of
from meshwright.gen.agents.v1.identity_pb2 import Identity

log = structlog.get_logger("tls")


class PeerPrincipal(Principal):
    """Lets calls pass whose connection is of a role that may make them, before anything else is learnt of them."""

    async def learn(self, method: str, context: Context) -> Identity | None:
        """Checks the role, then learns who is calling.

        Raises:
            RoleRefusedError: The certificate is of another role, or of none.
            MeshError: As `Principal.learn`.
        """
        role = role_of(context)
        if role not in callers_of(method):
            named = f"the role {role}" if role else "no role of the mesh"
            log.warning("role_refused", method=method, peer=context.peer(), role=role)
            raise RoleRefusedError(
                f"a certificate of {named} may not call {method}: see the table of roles in docs/tls.md",
                metadata={"role": role or "", "method": method},
            )
        return await super().learn(method, context)


def check_agent(context: Context, agent_id: str) -> None:
    """Lets a caller pass who speaks for an agent, unless its certificate bears the name of another one.

    Raises:
        NameRefusedError: It does.
    """
    role, name = bearer_of(context) or (None, "")
    if role is Role.AGENT and name not in ("", agent_id):
        log.warning("name_refused", peer=context.peer(), name=name, agent_id=agent_id)
        raise NameRefusedError(
            f"a certificate of the agent {name} does not speak for {agent_id}: give the process one of its own name",
            metadata={"name": name, "agent_id": agent_id},
        )
