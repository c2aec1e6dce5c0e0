"""Whether a caller of one version of a tool keeps working with another. Pure."""

from collections.abc import Iterable, Iterator

from google.protobuf.duration_pb2 import Duration

from meshwright.core.canonical import from_struct
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    APPROVAL_RULE_NEVER,
    EFFECT_NON_IDEMPOTENT,
    ApprovalRule,
    Effect,
    SchemaChange,
    Tool,
)
from meshwright.registry.catalog import DEFAULT_TIMEOUT_S
from meshwright.registry.compat.schema import schema_changes

MAX_CHANGES = 200
MAX_POINTERS = 2**20
"""Characters of all pointers of one answer; a name in a schema may be long."""


def contract_changes(old: Tool, new: Tool) -> list[SchemaChange]:
    """Lists how a contract differs from another one, breaking changes first.

    A change is breaking where a caller of the old contract may fail with the new one, or where no rule can tell. Of
    contracts that differ in very much only the first changes are listed, a breaking one before all harmless ones.

    Args:
        old: A contract as `checked_contract` returns it: what a caller relies on.
        new: Another one, that may take its place.

    Raises:
        InvalidRequestError: A schema holds a number that is not exact.
    """
    found = [*field_changes(old, new)]
    for field, is_input in (("input_schema", True), ("output_schema", False)):
        before, after = (from_struct(getattr(tool, field), field) for tool in (old, new))
        for change in schema_changes(before, after, is_input=is_input):
            change.pointer = f"/{field}{change.pointer}"
            found.append(change)
    return list(listed(sorted(found, key=lambda change: not change.breaking)))


def is_compatible(changes: Iterable[SchemaChange]) -> bool:
    """Whether none of the changes is breaking."""
    return not any(change.breaking for change in changes)


def listed(changes: list[SchemaChange]) -> Iterator[SchemaChange]:
    """Yields as many changes as fit into one answer; the first always does."""
    room = MAX_POINTERS
    for index, change in enumerate(changes[:MAX_CHANGES]):
        room -= len(change.pointer)
        if index and room < 0:
            return
        yield change


def field_changes(old: Tool, new: Tool) -> Iterator[SchemaChange]:
    """Yields how two contracts differ beside their schemas."""
    if old.name != new.name:
        yield changed("/name", "NAME_CHANGED", f"callers name {old.name}, and this is {new.name}", breaking=True)
    if old.description != new.description:
        sentence = "models choose the tool by another text; calls stay valid"
        yield changed("/description", "DESCRIPTION_CHANGED", sentence)
    yield from effect_changes(old.effect or EFFECT_NON_IDEMPOTENT, new.effect or EFFECT_NON_IDEMPOTENT)
    yield from approval_changes(old.approval or APPROVAL_RULE_NEVER, new.approval or APPROVAL_RULE_NEVER)
    yield from timeout_changes(timeout_ms(old), timeout_ms(new))
    if old.cost_micros != new.cost_micros:
        rule = "COST_RAISED" if new.cost_micros > old.cost_micros else "COST_LOWERED"
        sentence = f"one call was expected to cost {old.cost_micros} micros and is expected to cost {new.cost_micros}"
        yield changed("/cost_micros", rule, f"{sentence}; calls stay valid, budgets hold")
    yield from scope_changes(set(old.required_scopes), set(new.required_scopes))
    yield from redaction_changes(list(old.redact), list(new.redact))
    yield from agent_changes(old.agent_id, new.agent_id)


def effect_changes(old: Effect.ValueType, new: Effect.ValueType) -> Iterator[SchemaChange]:
    """Compares effects; the greater number is the riskier one to retry."""
    if old != new:
        was, now = (Effect.Name(one).removeprefix("EFFECT_") for one in (old, new))
        rule = "EFFECT_RISKIER" if new > old else "EFFECT_SAFER"
        sentence = f"callers repeat it as {was}, and it is {now} now" if new > old else f"it was {was} and is {now} now"
        yield changed("/effect", rule, sentence, breaking=new > old)


def approval_changes(old: ApprovalRule.ValueType, new: ApprovalRule.ValueType) -> Iterator[SchemaChange]:
    """Compares approval rules; the greater number is the stricter one.

    A call that ran by itself and now waits for a person, perhaps in vain, fails a caller who works without people. An
    agent that wants to be stricter needs no new version for that: it sets its own approvals.
    """
    if old != new:
        was, now = (ApprovalRule.Name(one).removeprefix("APPROVAL_RULE_") for one in (old, new))
        if new > old:
            sentence = f"a person was asked {was} and is asked {now}: calls that ran by themselves may wait for one"
            yield changed("/approval", "APPROVAL_STRICTER", sentence, breaking=True)
        else:
            sentence = f"a person was asked {was} and is asked {now}; an agent's own approvals still hold"
            yield changed("/approval", "APPROVAL_RELAXED", sentence)


def timeout_ms(tool: Tool) -> int:
    """Returns the time for one call."""
    timeout = tool.timeout if tool.HasField("timeout") else Duration(seconds=DEFAULT_TIMEOUT_S)
    return timeout.ToMilliseconds()


def timeout_changes(old_ms: int, new_ms: int) -> Iterator[SchemaChange]:
    """Compares times for one call: which calls need how long cannot be told, so less time may break one."""
    if new_ms < old_ms:
        sentence = f"a call had {old_ms / 1000:g} s and has {new_ms / 1000:g} s: one that took longer fails now"
        yield changed("/timeout", "TIMEOUT_SHORTENED", sentence, breaking=True)
    elif new_ms > old_ms:
        sentence = f"a call had {old_ms / 1000:g} s and has {new_ms / 1000:g} s; callers read the time off the contract"
        yield changed("/timeout", "TIMEOUT_EXTENDED", sentence)


def scope_changes(old: set[str], new: set[str]) -> Iterator[SchemaChange]:
    """Compares scopes that a caller must hold."""
    for scope in sorted(new - old):
        yield changed("/required_scopes", "SCOPE_ADDED", f"callers without {scope} are refused now", breaking=True)
    for scope in sorted(old - new):
        yield changed("/required_scopes", "SCOPE_REMOVED", f"callers need {scope} no longer")


def redaction_changes(old: list[str], new: list[str]) -> Iterator[SchemaChange]:
    """Compares what stays out of logs: a caller may have handed over a secret because it does."""
    for lost in uncovered(old, new):
        sentence = f"{lost or 'everything'} was kept out of logs and streams and is not now"
        yield changed("/redact", "REDACTION_REMOVED", sentence, breaking=True)
    for added in uncovered(new, old):
        yield changed("/redact", "REDACTION_ADDED", f"{added or 'everything'} is kept out of logs and streams now")


def agent_changes(old: str, new: str) -> Iterator[SchemaChange]:
    """Compares agents: a caller who let its host start tasks at one has not let it start them at another."""
    if new and new != old:
        sentence = f"a call starts a task of {new} in its caller's name, and did not before"
        yield changed("/agent_id", "AGENT_CHANGED", sentence, breaking=True)
    elif old and not new:
        yield changed("/agent_id", "AGENT_REMOVED", f"a call starts no task of {old} any more")


def uncovered(pointers: Iterable[str], by: list[str]) -> list[str]:
    """Returns the pointers that neither stand among others nor lead below one of them."""
    return sorted(one for one in set(pointers) if not any(one == up or one.startswith(f"{up}/") for up in by))


def changed(pointer: str, rule: str, sentence: str, *, breaking: bool = False) -> SchemaChange:
    """Builds one change."""
    return SchemaChange(pointer=pointer, rule=rule, breaking=breaking, message=sentence)
