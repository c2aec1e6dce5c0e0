"""Rules of the catalog: what a tool's contract must be, which version a selector means. Pure."""

import re

from google.protobuf.duration_pb2 import Duration

from meshwright.core.canonical import digest, from_struct
from meshwright.core.errors import InvalidRequestError, ToolNotFoundError
from meshwright.core.ids import TARGET, TOOL_NAME, VERSION, checked
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_UNSPECIFIED, ApprovalRule, Effect, Tool
from meshwright.registry.schema import Schema

MAX_DESCRIPTION = 4_096
DEFAULT_TIMEOUT_S = 30
MAX_TIMEOUT_S = 3_600
SHOWN = 10
"""Versions that an error names."""
SELECTOR = re.compile(r"(?P<name>[^@]+)(@(?P<range>\^?[0-9A-Za-z.+-]+))?")
RANGE = re.compile(r"\^([0-9]{1,20})(?:\.([0-9]{1,20}))?(?:\.([0-9]{1,20}))?")

Versions = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def checked_contract(tool: Tool) -> Tool:
    """Returns the contract as it is stored: checked, with defaults and its digest.

    Raises:
        InvalidRequestError: Names the field that is wrong.
    """
    checked("tool.name", tool.name, TOOL_NAME)
    checked("tool.version", tool.version, VERSION)
    if not tool.description.strip() or len(tool.description) > MAX_DESCRIPTION:
        limits = f"1 to {MAX_DESCRIPTION} characters: a model chooses tools by it"
        raise InvalidRequestError("a tool needs a description", fields={"tool.description": limits})
    checked("tool.endpoint", tool.endpoint, TARGET)
    for field, kind, value in (("effect", Effect, tool.effect), ("approval", ApprovalRule, tool.approval)):
        if value not in kind.values():
            raise InvalidRequestError(f"{field} is unknown", fields={f"tool.{field}": ", ".join(kind.keys())})
    input_schema = from_struct(tool.input_schema, "tool.input_schema")
    if input_schema.get("type") != "object":
        raise InvalidRequestError("arguments are an object", fields={"tool.input_schema": 'must have type "object"'})
    Schema(input_schema, "tool.input_schema")
    Schema(from_struct(tool.output_schema, "tool.output_schema"), "tool.output_schema")
    stored = Tool()
    stored.CopyFrom(tool)
    if not stored.HasField("timeout"):
        stored.timeout.CopyFrom(Duration(seconds=DEFAULT_TIMEOUT_S))
    if not 0 < stored.timeout.ToMilliseconds() <= MAX_TIMEOUT_S * 1000:
        raise InvalidRequestError("timeout out of range", fields={"tool.timeout": f"up to {MAX_TIMEOUT_S} s"})
    if stored.effect == EFFECT_UNSPECIFIED:
        stored.effect = Effect.EFFECT_NON_IDEMPOTENT
    if stored.approval == ApprovalRule.APPROVAL_RULE_UNSPECIFIED:
        stored.approval = ApprovalRule.APPROVAL_RULE_NEVER
    stored.digest = contract_digest(stored)
    return stored


def contract_digest(tool: Tool) -> str:
    """Hashes what a caller relies on; the host may move without changing it."""
    return digest(
        {
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


def precedence(version: str) -> Versions:
    """Returns the sort key of a semantic version."""
    core, _, rest = version.partition("+")[0].partition("-")
    major, minor, patch = map(int, core.split("."))
    marks = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in rest.split(".") if rest)
    return (major, minor, patch, not rest, marks)


def split_selector(selector: str) -> tuple[str, str]:
    """Splits `name@range` into name and range (empty: the newest).

    Raises:
        InvalidRequestError: It is no selector.
    """
    match = SELECTOR.fullmatch(selector)
    if not match or not TOOL_NAME.fullmatch(match["name"]):
        forms = "name, name@1.2.3 or name@^1"
        raise InvalidRequestError(f"{selector!r} selects no tool", fields={"selector": forms})
    return match["name"], match["range"] or ""


def choose(name: str, wanted: str, versions: list[str]) -> str:
    """Picks the version that a range means: exact, `^1` or `^1.2` (same major, at least that), empty: the newest.

    Pre-releases are chosen only by their exact version, or where nothing else exists.

    Raises:
        ToolNotFoundError: None fits.
    """
    ordered = sorted(versions, key=precedence)
    released = [version for version in ordered if precedence(version)[3]] or ordered
    if not wanted and released:
        return released[-1]
    if wanted in ordered:
        return wanted
    if match := RANGE.fullmatch(wanted):
        least = tuple(int(part or 0) for part in match.groups())
        fitting = [v for v in released if precedence(v)[0] == least[0] and precedence(v)[:3] >= least]
        if fitting:
            return fitting[-1]
    known = ", ".join(ordered[-SHOWN:]) or "none"
    raise ToolNotFoundError(f"no tool {name}@{wanted or 'newest'}: registered versions are {known}")
