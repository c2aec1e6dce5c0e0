"""Admittance: holds who calls a method against its rule."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import grpc

from meshwright.core.access import Rule, rule_of
from meshwright.core.errors import (
    CredentialsMissingError,
    IdentityInvalidError,
    PermissionDeniedError,
    ScopeMissingError,
)
from meshwright.core.grant import is_call
from meshwright.core.role import Role, bearer_in
from meshwright.core.scope import covers, missing
from meshwright.gen.agents.v1.grant_pb2 import Grant

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

PROCESSES = frozenset(Role) - {Role.EDGE}
"""Roles of processes that call others in their own name; a command that serves tools is one."""


def bearer_of(context: Context) -> tuple[Role, str] | None:
    """Returns role and name that the caller's certificate bears, as `bearer_in` does; None as well without one."""
    return bearer_in(name.decode(errors="replace") for name in context.auth_context().get("peer_uri", ()))


def role_of(context: Context) -> str | None:
    """Returns the role that the caller's certificate bears; empty: none of ours; None: the connection is plain text."""
    if context.auth_context().get("transport_security_type") != [b"ssl"]:
        return None
    bearer = bearer_of(context)
    return bearer[0] if bearer else ""


def check_grant(rule: Rule, grant: Grant) -> None:
    """Lets a call under a grant pass that opens the method.

    Raises:
        PermissionDeniedError: It does not.
    """
    if is_call(grant) and rule.grants != "call":
        raise PermissionDeniedError("the grant of a call is for the tool that is called, and for its task")
    if rule.grants == "none":
        needed = f", with the scope {rule.scope}" if rule.scope else ""
        raise PermissionDeniedError(f"an agent's task does not do this: a person or a program does{needed}")


def check_carrier(role: str | None) -> None:
    """Lets an identity pass that the edge itself hands over: whoever else has one has kept it.

    Args:
        role: Of the caller's certificate; None where there are none, and the network is trusted.

    Raises:
        IdentityInvalidError: It comes from somebody else.
    """
    if role not in (None, Role.EDGE):
        raise IdentityInvalidError(f"the role {role or 'without a name'} hands over no identities: the edge does")


def check_scope(method: str, rule: Rule, held: Collection[str]) -> None:
    """Lets a caller from outside pass who holds the method's scope.

    Raises:
        PermissionDeniedError: The method is not for callers from outside.
        ScopeMissingError: The caller does not hold it.
    """
    if rule.is_open:
        return
    if not rule.scope:
        raise PermissionDeniedError(f"{method} is for processes of the mesh alone")
    is_part = rule.is_named and any(scope.startswith(f"{rule.scope}:") for scope in held)
    if not (is_part or covers(held, rule.scope)):
        raise ScopeMissingError(
            f"{method} needs the scope {rule.scope}: ask for a key or a token that holds it",
            metadata={"method": method, "scopes": rule.scope},
        )


def check_others(method: str, held: Collection[str]) -> None:
    """Lets a caller pass that names another principal of its tenant.

    Args:
        method: What it calls.
        held: Its scopes; of whoever calls under a grant, none.

    Raises:
        PermissionDeniedError: The method is for what is one's own alone.
        ScopeMissingError: The caller does not hold what it needs; names it.
    """
    needed = rule_of(method).others
    if not needed:
        raise PermissionDeniedError(f"{method} reaches what is one's own alone")
    if lacking := missing(held, needed):
        raise ScopeMissingError(
            f"tasks of other principals need the scope {' and '.join(lacking)}: ask for a key or a token that holds it",
            metadata={"method": method, "scopes": " ".join(lacking)},
        )


def check_process(method: str, rule: Rule, role: str | None) -> None:
    """Lets a process of the mesh pass that calls in its own name, with neither identity nor grant.

    Args:
        method: What it calls.
        rule: Of the method.
        role: Of its certificate; None where there are none, and the network is trusted.

    Raises:
        CredentialsMissingError: The method has to know who asks, or the caller is no process of the mesh.
    """
    if not rule.is_inside or (role is not None and role not in PROCESSES):
        raise CredentialsMissingError(f"{method} has to know who calls: go through the edge, with a key or a token")
