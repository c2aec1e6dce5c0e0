"""Authority: what a grant lets a caller do at a tool."""

import time

from meshwright.core.errors import (
    ApprovalRequiredError,
    AuthDiffersError,
    GrantInvalidError,
    ScopeMissingError,
    TaskTimeoutError,
)
from meshwright.core.grant import approval_of, check_tool
from meshwright.core.scope import missing
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import APPROVAL_RULE_ALWAYS, APPROVAL_RULE_WHEN_TAINTED
from meshwright.registry.call import Call
from meshwright.registry.hosted import Hosted


def check_authority(grant: Grant, hosted: Hosted, task_id: str = "") -> None:
    """Lets a call pass that its grant covers; signature and age were checked where the token came in.

    Args:
        grant: What the caller may do.
        hosted: What is called.
        task_id: Task for which the caller says that it calls; empty: it does not say.

    Raises:
        GrantInvalidError: The grant is another task's.
        TaskTimeoutError: The task is out of time.
        PermissionDeniedError: The grant does not hold the tool.
        ScopeMissingError: Nor scopes that the tool needs; names them.
    """
    if task_id not in ("", grant.task_id):
        raise GrantInvalidError("the grant is another task's than the call: send the one of the calling task")
    if grant.HasField("deadline") and grant.deadline.ToNanoseconds() <= time.time_ns():
        raise TaskTimeoutError("the task is out of time: nothing is begun any more")
    check_tool(grant, hosted.pin)
    if hosted.contract.required_scopes:
        check_scopes(grant, hosted)


def check_scopes(grant: Grant, hosted: Hosted) -> None:
    """Lets a call pass whose grant holds every scope that the tool needs.

    Raises:
        ScopeMissingError: Names those that it does not.
    """
    if lacking := missing(frozenset(grant.scopes), hosted.contract.required_scopes):
        named = " ".join(lacking)
        raise ScopeMissingError(
            f"{hosted.pin} needs the scope {' and '.join(lacking)}: ask for the task as somebody who holds it",
            metadata={"tool": hosted.pin, "scopes": named},
        )


def check_approval(call: Call) -> None:
    """Lets a call pass that needs no person, or that a person has allowed exactly as it is.

    Who calls makes no difference. A caller outside of any task has no tainted conversation, but may be anybody or
    anything that reaches the port, a tool on a model's behalf too: that it calls is no proof that a person was asked.

    Raises:
        ApprovalRequiredError: A person has to be asked, and none has allowed it.
    """
    rule, grant = call.hosted.contract.approval, call.grant
    is_asked = rule == APPROVAL_RULE_ALWAYS or (rule == APPROVAL_RULE_WHEN_TAINTED and grant.tainted)
    if is_asked and approval_of(call.key, call.intent) not in grant.approved:
        raise ApprovalRequiredError(
            f"{call.hosted.tool.name} runs once a person has allowed exactly this call: an agent asks for it",
            metadata={"tool": call.hosted.pin, "intent_digest": call.intent},
        )


def check_guarded(*, is_open: bool, is_asking: bool) -> None:
    """Lets a process join that knows who calls it, or a mesh where nobody is asked.

    Args:
        is_open: Whether the process takes calls of anybody.
        is_asking: Whether the mesh wants to know who is calling.

    Raises:
        AuthDiffersError: It would be an open door into this mesh.
    """
    if is_open and is_asking:
        raise AuthDiffersError(
            "the mesh wants to know who is calling, and this process has MESHWRIGHT_AUTH=none: "
            "set it to what the registry and the gateway have"
        )
