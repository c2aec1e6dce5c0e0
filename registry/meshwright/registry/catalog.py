"""Rules of the catalog: what a tool's contract must be, how it may change, who may change it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core.canonical import digest, from_struct, to_struct
from meshwright.core.errors import (
    IncompatibleContractError,
    InvalidRequestError,
    PermissionDeniedError,
    ToolNotFoundError,
)
from meshwright.core.ids import AGENT_ID, TARGET, TOOL_NAME, VERSION, Form, checked
from meshwright.core.interceptors import Caller
from meshwright.core.scope import SCOPE, covers
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    EFFECT_UNSPECIFIED,
    ApprovalRule,
    DeprecateToolRequest,
    Effect,
    SchemaChange,
    Tool,
)
from meshwright.registry.addresses import refusal
from meshwright.registry.redaction import Redaction
from meshwright.registry.schema import Schema
from meshwright.registry.version import choose

MAX_DESCRIPTION = 4_096
DEFAULT_TIMEOUT_S = 30
MAX_TIMEOUT_S = 3_600
MAX_COST_MICROS = 10**12
MAX_LISTED, MAX_TEXT = 64, 200
"""Scopes or pointers of a tool, and characters of each; the owner's name is as long at most."""
MAX_SELECTOR = 256
UNPLACED = "unplaced:0"
"""Endpoint of a tool that no host serves yet."""
NAME_PREFIX = Form(re.compile(r"[a-z0-9_.]{0,64}"), "at most 64 small letters, digits, _ or dots")
LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where timestamps end."""
WRITE = "tools:write"
"""The scope that lets somebody change the catalog: all of it, or `tools:write:docs.` for names that begin so."""
SELECTOR = re.compile(r"(?P<name>[^@]+)(@(?P<range>\^?[0-9A-Za-z.+-]+))?")


@dataclass(frozen=True, slots=True)
class ToolState:
    """What may change about a tool while its contracts stay as they are.

    Attributes:
        hosts: By version, the endpoint that serves it now; every registered version is in it.
        aliases: Version by alias.
        sunsets: By deprecated version, when nobody should rely on it any more (ms) and what to use instead.
    """

    hosts: Mapping[str, str]
    aliases: Mapping[str, str]
    sunsets: Mapping[str, tuple[int, str]]

    def chosen(self, name: str, wanted: str) -> str:
        """Returns the version that is meant, as `choose` does."""
        return choose(name, wanted, self.hosts, aliases=self.aliases, deprecated=self.sunsets)

    def shown(self, contract: bytes, version: str) -> Tool:
        """Joins a stored contract with its state."""
        tool = Tool.FromString(contract)
        tool.endpoint = self.hosts[version]
        tool.aliases.extend(sorted(alias for alias, target in self.aliases.items() if target == version))
        if version in self.sunsets:
            ends_ms, tool.replaced_by = self.sunsets[version]
            tool.sunset_time.FromMilliseconds(ends_ms)
        return tool


class Declaration(Protocol):
    """What the author of a tool says of it, whatever its schemas come from."""

    @property
    def name(self) -> str:
        """Dotted name."""
        ...

    @property
    def version(self) -> str:
        """Semantic version of the contract."""
        ...

    @property
    def effect(self) -> str:
        """What a retry may do."""
        ...

    @property
    def timeout_s(self) -> float:
        """Seconds for one call."""
        ...

    @property
    def approval(self) -> str:
        """When a person is asked before a call."""
        ...

    @property
    def cost_micros(self) -> int:
        """What a call costs, in millionths of a US dollar."""
        ...

    @property
    def required_scopes(self) -> Sequence[str]:
        """Scopes that a caller must hold."""
        ...

    @property
    def redact(self) -> Sequence[str]:
        """JSON Pointers of what is taken out of results."""
        ...


def declared_contract(
    declaration: Declaration,
    *,
    description: str,
    input_schema: dict[str, Any],
    output_schema: dict[str, Any],
    endpoint: str,
    agent_id: str = "",
) -> Tool:
    """Builds the contract of a tool as `checked_contract` returns it.

    Args:
        declaration: What its author says.
        description: What models choose it by.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result.
        endpoint: Who serves it.
        agent_id: Agent that does the work; empty: none.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    timeout = Duration()
    timeout.FromMilliseconds(int(declaration.timeout_s * 1000))
    return checked_contract(
        Tool(
            name=declaration.name,
            version=declaration.version,
            description=description,
            input_schema=to_struct(input_schema),
            output_schema=to_struct(output_schema),
            effect=Effect.Value(f"EFFECT_{declaration.effect.upper()}"),
            endpoint=endpoint,
            timeout=timeout,
            approval=ApprovalRule.Value(f"APPROVAL_RULE_{declaration.approval.upper()}"),
            cost_micros=declaration.cost_micros,
            required_scopes=declaration.required_scopes,
            redact=declaration.redact,
            agent_id=agent_id,
        )
    )


def checked_contract(tool: Tool, field: str = "tool") -> Tool:
    """Returns the contract as it is stored: checked, with defaults and its digest, without what may change.

    Args:
        tool: As somebody wrote it; it is left alone.
        field: How errors name it.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    check_words(tool, field)
    check_numbers(tool, field)
    input_schema = from_struct(tool.input_schema, f"{field}.input_schema")
    if input_schema.get("type") != "object":
        must = {f"{field}.input_schema": 'must have type "object"'}
        raise InvalidRequestError("arguments are an object", fields=must)
    Schema(input_schema, f"{field}.input_schema")
    Schema(from_struct(tool.output_schema, f"{field}.output_schema"), f"{field}.output_schema")
    stored = Tool()
    stored.CopyFrom(tool)
    for set_later in ("aliases", "sunset_time", "replaced_by", "create_time"):
        stored.ClearField(set_later)
    if not stored.HasField("timeout"):
        stored.timeout.CopyFrom(Duration(seconds=DEFAULT_TIMEOUT_S))
    if stored.effect == EFFECT_UNSPECIFIED:
        stored.effect = Effect.EFFECT_NON_IDEMPOTENT
    if stored.approval == ApprovalRule.APPROVAL_RULE_UNSPECIFIED:
        stored.approval = ApprovalRule.APPROVAL_RULE_NEVER
    stored.digest = contract_digest(stored)
    return stored


def check_words(tool: Tool, field: str) -> None:
    """Checks what a contract says in words.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    checked(f"{field}.name", tool.name, TOOL_NAME)
    checked(f"{field}.version", tool.version, VERSION)
    if not tool.description.strip() or len(tool.description) > MAX_DESCRIPTION:
        limits = f"1 to {MAX_DESCRIPTION} characters: a model chooses tools by it"
        raise InvalidRequestError("a tool needs a description", fields={f"{field}.description": limits})
    checked_endpoint(f"{field}.endpoint", tool.endpoint)
    lists = {"owner": [tool.owner], "required_scopes": tool.required_scopes, "redact": tool.redact}
    for name, texts in lists.items():
        if len(texts) > MAX_LISTED or any(len(text) > MAX_TEXT for text in texts):
            limits = f"at most {MAX_LISTED}, each of at most {MAX_TEXT} characters"
            raise InvalidRequestError(f"{name} says too much", fields={f"{field}.{name}": limits})
    for scope in tool.required_scopes:
        checked(f"{field}.required_scopes", scope, SCOPE)
    Redaction(tool.redact, f"{field}.redact")
    if tool.agent_id:
        checked(f"{field}.agent_id", tool.agent_id, AGENT_ID)


def check_numbers(tool: Tool, field: str) -> None:
    """Checks a contract's enums and quantities.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    for name, kind, value in (("effect", Effect, tool.effect), ("approval", ApprovalRule, tool.approval)):
        if value not in kind.values():
            raise InvalidRequestError(f"{name} is unknown", fields={f"{field}.{name}": ", ".join(kind.keys())})
    if tool.HasField("timeout") and not 0 < tool.timeout.ToMilliseconds() <= MAX_TIMEOUT_S * 1000:
        raise InvalidRequestError("timeout out of range", fields={f"{field}.timeout": f"up to {MAX_TIMEOUT_S} s"})
    if not 0 <= tool.cost_micros <= MAX_COST_MICROS:
        raise InvalidRequestError("cost out of range", fields={f"{field}.cost_micros": f"0..{MAX_COST_MICROS}"})


def contract_digest(tool: Tool) -> str:
    """Hashes what a caller relies on; the host may move without changing it."""
    agent = {"agent_id": tool.agent_id} if tool.agent_id else {}  # absent: contracts that were registered before it
    return digest(
        agent
        | {
            "name": tool.name,
            "version": tool.version,
            "description": tool.description,
            "input_schema": from_struct(tool.input_schema, "input_schema"),
            "output_schema": from_struct(tool.output_schema, "output_schema"),
            "effect": Effect.Name(tool.effect),
            "timeout_ms": tool.timeout.ToMilliseconds(),
            "cost_micros": str(tool.cost_micros),
            "approval": int(tool.approval) if tool.approval != ApprovalRule.APPROVAL_RULE_NEVER else 0,
            "required_scopes": sorted(tool.required_scopes),
            "redact": sorted(tool.redact),
        }
    )


def split_selector(selector: str, field: str = "selector") -> tuple[str, str]:
    """Splits `name@range` into name and range, version or alias (empty: the newest).

    Raises:
        InvalidRequestError: It is no selector.
    """
    match = SELECTOR.fullmatch(selector)
    if not match or not TOOL_NAME.fullmatch(match["name"]):
        forms = "name, name@1.2.3, name@^1 or name@alias"
        raise InvalidRequestError(f"{selector!r} selects no tool", fields={field: forms})
    return match["name"], match["range"] or ""


def checked_prefix(prefix: str) -> str:
    """Returns the beginning of names that a list is narrowed to.

    Raises:
        InvalidRequestError: No name can begin so.
    """
    return checked("name_prefix", prefix, NAME_PREFIX)


def checked_sunset(request: DeprecateToolRequest, now_ms: int) -> int:
    """Checks a deprecation and returns its time in milliseconds.

    Args:
        request: As it came.
        now_ms: The time now.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    checked("name", request.name, TOOL_NAME)
    checked("version", request.version, VERSION)
    if not request.HasField("sunset_time") or not is_time(request.sunset_time):
        hint = "is required: the time after which nobody should rely on the version"
        raise InvalidRequestError("a deprecation needs a date", fields={"sunset_time": hint})
    sunset_ms = request.sunset_time.ToMilliseconds()
    if sunset_ms <= now_ms:
        said = f"must lie in the future: {request.sunset_time.ToJsonString()} has passed"
        raise InvalidRequestError(f"sunset_time {said}", fields={"sunset_time": said})
    if request.replaced_by:
        if len(request.replaced_by) > MAX_SELECTOR:
            raise InvalidRequestError("too long", fields={"replaced_by": f"at most {MAX_SELECTOR} characters"})
        split_selector(request.replaced_by, "replaced_by")
    return sunset_ms


def check_replacement(request: DeprecateToolRequest, state: ToolState) -> None:
    """Lets a deprecation pass whose replacement is there, and another version than the one it takes the place of.

    Args:
        request: Names a replacement.
        state: How the tool stands that the replacement belongs to.

    Raises:
        InvalidRequestError: It is not; says what the selector means.
    """
    name, wanted = split_selector(request.replaced_by, "replaced_by")
    if name == request.name:  # as the selector reads once the version is deprecated
        state = replace(state, sunsets={**state.sunsets, request.version: (0, "")})
    try:
        version = state.chosen(name, wanted)
    except ToolNotFoundError as error:
        said = f"the replacement is not there: {error.message}"
        raise InvalidRequestError(said, fields={"replaced_by": error.message}) from None
    if (name, version) == (request.name, request.version):
        said = f"{request.replaced_by} means {name}@{version} itself: name another version"
        raise InvalidRequestError(said, fields={"replaced_by": said})


def is_time(time: Timestamp) -> bool:
    """Whether a timestamp lies between 1970 and the end of the year 9999."""
    return 0 <= time.seconds <= LAST_SECOND and 0 <= time.nanos < 10**9


def refuse_breaking(tool: Tool, other: str, changes: Sequence[SchemaChange]) -> None:
    """Refuses a version whose contract breaks with a neighbour that promises to be compatible.

    Args:
        tool: The version that is to be registered.
        other: The registered version that it was compared with.
        changes: From the older of the two to the newer.

    Raises:
        IncompatibleContractError: Names pointer and rule of each breaking change.
    """
    breaking: dict[str, str] = {}
    for change in changes:
        if change.breaking:
            said = f"{change.rule}: {change.message}"
            place = change.pointer or "/"
            breaking[place] = f"{breaking[place]}; {said}" if place in breaking else said
    if breaking:
        place, said = next(iter(breaking.items()))
        told = f"{tool.name}@{tool.version} breaks with {other} in {len(breaking)} places, first {place}: {said}; "
        told += "raise the major version (before 1.0.0 the minor)"
        raise IncompatibleContractError(
            told, fields=breaking, metadata={"against": other, "places": str(len(breaking))}
        )


def checked_endpoint(field: str, endpoint: str) -> None:
    """Lets an endpoint pass that a tool host may have: no address that is reserved or a metadata service.

    Raises:
        InvalidRequestError: It is none.
    """
    checked(field, endpoint, TARGET)
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        ip_address(host)
    except ValueError:
        return  # a name
    if why := refusal(host, is_allowed=True):
        raise InvalidRequestError(f"{field} {why}: say where the tool's host listens", fields={field: why})


def checked_writer(caller: Caller, tool_name: str) -> None:
    """Lets those change a tool's entry who hold the scope for its name.

    Raises:
        PermissionDeniedError: Names the scope to ask for.
    """
    scope = f"{WRITE}:{tool_name}"
    if caller.grant or not covers(caller.scopes, scope):
        who = "a task may not publish tools" if caller.grant else f"{caller.principal} may not change {tool_name}"
        raise PermissionDeniedError(f"{who}: ask for the scope {scope}", metadata={"scope": scope})
