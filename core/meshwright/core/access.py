"""Access: who may call which method. One table for all services; a method that is not in it is closed. Pure."""

from dataclasses import dataclass
from typing import Literal

Grants = Literal["none", "task", "call"]
"""Which grants open a method: none, those of tasks, or those of a single call from outside of any task as well."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method.

    Attributes:
        scope: What a caller from outside needs; empty: the method is not for callers from outside.
        grants: Which grants open it.
        is_inside: Whether processes of the mesh call it in their own name.
        is_open: Whether anybody may call it, who has said nothing of who it is.
        is_named: Whether the scope for a part is enough (`tools:write:docs.`): the service looks which part it is.
        others: What a caller needs beside `scope` to name another principal of its tenant, and reach what that one
            has; empty: everybody reaches only what is its own.
    """

    scope: str = ""
    grants: Grants = "none"
    is_inside: bool = False
    is_open: bool = False
    is_named: bool = False
    others: tuple[str, ...] = ()


READ_ALL, ADMIN = "tasks:read_all", "tasks:admin"
"""Scopes that open tasks of other principals of the caller's tenant: to be seen, and to be stopped."""
CLOSED = Rule()
OPEN = Rule(is_open=True, grants="task")
INSIDE = Rule(is_inside=True)

RULES = {
    "/agents.v1.AgentService/RunTask": Rule("tasks:write", grants="call"),
    "/agents.v1.AgentService/StreamSteps": Rule("tasks:write", grants="call"),
    "/agents.v1.AgentService/Health": Rule("agents:read", grants="task", is_inside=True),
    "/agents.v1.TaskService/SubmitTask": Rule("tasks:write", grants="call"),
    "/agents.v1.TaskService/GetTask": Rule("tasks:read", grants="call", others=(READ_ALL,)),
    "/agents.v1.TaskService/ListTasks": Rule("tasks:read", grants="task", others=(READ_ALL,)),
    "/agents.v1.TaskService/WatchTask": Rule("tasks:read", grants="call", others=(READ_ALL,)),
    "/agents.v1.TaskService/WatchTaskEvents": Rule("tasks:read", grants="call", others=(READ_ALL,)),
    "/agents.v1.TaskService/CancelTask": Rule("tasks:write", grants="call", others=(READ_ALL, ADMIN)),
    "/agents.v1.TaskService/ResolveInput": Rule("tasks:approve", others=(READ_ALL,)),
    "/agents.v1.TaskService/RetryDeadLetter": Rule(ADMIN),
    "/agents.v1.TaskService/DropDeadLetter": Rule(ADMIN),
    "/agents.v1.TaskService/GetCosts": Rule("costs:read"),
    "/agents.v1.SessionService/ListSessions": Rule("sessions:read"),
    "/agents.v1.SessionService/GetSession": Rule("sessions:read"),
    "/agents.v1.SessionService/ExportSession": Rule("sessions:read"),
    "/agents.v1.SessionService/DeleteSession": Rule("sessions:write"),
    "/agents.v1.SessionService/PinFact": Rule("sessions:write"),
    "/agents.v1.SessionService/UnpinFact": Rule("sessions:write"),
    "/agents.v1.WebhookService/ListDeliveries": Rule("webhooks:read"),
    "/agents.v1.WebhookService/RedeliverEvent": Rule("webhooks:write"),
    "/registry.v1.ToolRegistryService/RegisterTool": Rule("tools:write", is_inside=True, is_named=True),
    "/registry.v1.ToolRegistryService/SetAlias": Rule("tools:write", is_named=True),
    "/registry.v1.ToolRegistryService/DeprecateTool": Rule("tools:write", is_named=True),
    "/registry.v1.ToolRegistryService/GetTool": Rule("tools:read", grants="task"),
    "/registry.v1.ToolRegistryService/ListTools": Rule("tools:read", grants="task"),
    "/registry.v1.ToolRegistryService/ResolveTools": Rule("tools:read", grants="task", is_inside=True),
    "/registry.v1.ToolRegistryService/CheckCompatibility": Rule("tools:read", grants="task"),
    "/registry.v1.ToolRegistryService/WatchTools": Rule("tools:read", grants="task", is_inside=True),
    "/registry.v1.ToolRegistryService/InvokeTool": Rule("tools:invoke", grants="task"),
    "/registry.v1.AgentDirectoryService/AnnounceAgent": INSIDE,
    "/registry.v1.AgentDirectoryService/WithdrawAgent": INSIDE,
    "/registry.v1.AgentDirectoryService/GetAgent": Rule("agents:read", grants="task", is_inside=True),
    "/registry.v1.AgentDirectoryService/ListAgents": Rule("agents:read", grants="task", is_inside=True),
    "/registry.v1.AgentDirectoryService/GetKey": INSIDE,
    "/registry.v1.AgentDirectoryService/WatchAgents": INSIDE,
    "/tools.v1.ToolService/Invoke": Rule(grants="call"),
    "/tools.v1.ToolService/GetOutcome": Rule(grants="call"),
    "/gateway.v1.EdgeService/GetReady": OPEN,
    "/gateway.v1.EdgeService/GetOpenApi": OPEN,
    "/gateway.v1.EdgeService/GetDocs": OPEN,
    "/gateway.v1.EdgeService/GetPage": OPEN,
    "/gateway.v1.EdgeService/GetAsset": OPEN,
    "/gateway.v1.KeyService/CreateKey": Rule("keys:admin"),
    "/gateway.v1.KeyService/ListKeys": Rule("keys:admin"),
    "/gateway.v1.KeyService/RevokeKey": Rule("keys:admin"),
    "/envoy.service.auth.v3.Authorization/Check": OPEN,
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
}
"""By full name. Of `Check` the service itself looks who asks."""


def rule_of(method: str) -> Rule:
    """Returns who may call a method, by its full name (`/package.Service/Method`)."""
    return RULES.get(method, CLOSED)
