"""Which schemas a provider can enforce: subsets of JSON Schema."""

from typing import Any

from meshwright.agents.models.model import JsonObject

DEEPEST = 10
"""Levels of a schema that can be enforced."""
MOST_PROPERTIES = 5_000
MOST_CHOICES = 1_000

_KEYWORDS = frozenset(
    """
    $defs $ref additionalProperties anyOf const description enum exclusiveMaximum exclusiveMinimum format items maximum
    maxItems minimum minItems multipleOf pattern properties required title type
    """.split()  # noqa: SIM905 - reads better than a list of quoted words
)
_DESCRIBED = frozenset({"default", "examples", "maxLength", "minLength", "uniqueItems"})
"""Keywords that do not change which members an object has; where they cannot be enforced, they are told in words."""


def is_strict(schema: JsonObject) -> bool:
    """Whether OpenAI's strict mode takes a schema: only its keywords, and objects that name and require all members."""
    parts = _parts(schema)
    if parts is None or schema.get("type") != "object" or "anyOf" in schema:
        return False
    properties = sum(len(part.get("properties", ())) for part in parts)
    choices = sum(len(part.get("enum", ())) for part in parts)
    return properties <= MOST_PROPERTIES and choices <= MOST_CHOICES and all(map(_is_plain, parts))


def is_closed(schema: JsonObject) -> bool:
    """Whether a schema may be enforced with all objects closed: each names the members that it may have."""
    parts = _parts(schema)
    return parts is not None and schema.get("type") == "object" and all(map(_is_named, parts))


def _parts(schema: JsonObject) -> list[JsonObject] | None:
    """Lists a schema and all schemas in it; None: it goes too deep, or holds what is no object."""
    parts: list[JsonObject] = []
    level: list[Any] = [schema]
    for _ in range(DEEPEST + 1):
        if not all(isinstance(part, dict) for part in level):
            return None
        parts += level
        level = [inner for part in level for inner in _inside(part)]
        if not level:
            return parts
    return None


def _inside(part: JsonObject) -> list[Any]:
    named = [inner for keyword in ("properties", "$defs") for inner in _values(part.get(keyword, {}))]
    listed = part.get("anyOf", [])
    items = [part["items"]] if "items" in part else []
    return [*named, *(listed if isinstance(listed, list) else [listed]), *items]


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _is_plain(part: JsonObject) -> bool:
    if not _KEYWORDS.issuperset(part):
        return False
    kinds = part.get("type", "")
    if not ("properties" in part or kinds == "object" or (isinstance(kinds, list) and "object" in kinds)):
        return True
    shuts = part.get("additionalProperties") is False
    return shuts and set(part.get("required", ())) == set(part.get("properties", {}))


def _is_named(part: JsonObject) -> bool:
    if not (_KEYWORDS | _DESCRIBED).issuperset(part) or isinstance(part.get("type"), list):
        return False
    if not {"type", "$ref", "anyOf", "enum", "const"}.intersection(part):
        return False
    is_open = bool(part.get("additionalProperties", False)) or "properties" not in part
    return part.get("type") != "object" or not is_open
