"""Arguments of a tool call taken from the words of a prompt, where that can be done honestly."""

import json
import re
from collections.abc import Iterator
from typing import Any

from meshwright.agents.models.model import JsonObject

SHORTEST_NAME = 3
"""Letters from which a parameter's name beside a number (`20 sides`) says that the number is meant for it."""

_QUOTED = re.compile(r'"([^"\n]+)"|“([^“”\n]+)”|`([^`\n]+)`|(?<![^\s(])\'([^\'\n]+)\'(?![^\s).,;:!?])')
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_AFTER_COLON = re.compile(r":\s+(?=\S)")
_BETWEEN = re.compile(r"[,;\n]|\band\b", re.IGNORECASE)
_NOTHING = object()


class Clues:
    """What a prompt offers to fill arguments with; each quoted text and each number is given away once."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(task)]
        self._unquoted = _QUOTED.sub(" ", task)
        self._numbers = [_number(match.group()) for match in _NUMBER.finditer(self._unquoted)]

    def arguments(self, parameters: JsonObject) -> tuple[JsonObject, list[str]]:
        """Fills a tool's parameters.

        Required ones are filled from a JSON object in the prompt, else by type: the only string takes the quoted text,
        else what follows a colon, else the whole prompt; several strings take quoted texts or `name: value`; numbers
        come in order, an enum by the word that is in the prompt, an array from the list in it. Optional ones are
        filled only where the prompt names them.

        Args:
            parameters: JSON Schema of type object.

        Returns:
            The arguments, and the names of required parameters that nothing in the prompt stands for.
        """
        properties = {name: _resolved(schema, parameters) for name, schema in _properties(parameters).items()}
        required = [name for name in parameters.get("required", []) if name in properties]
        if (given := self._object(properties)) and set(required) <= given.keys():
            return given, []
        named = {name: self._named(name, schema) for name, schema in properties.items()}
        strings = [name for name in required if _is_free_text(properties[name])]
        values = {name: value for name, value in named.items() if value is not _NOTHING}
        for name in [name for name in required if name not in values]:
            values[name] = (
                self._text(name, is_only=len(strings) == 1) if name in strings else self._next(properties[name])
            )
        filled = {name: value for name, value in values.items() if value is not _NOTHING}
        return filled, [name for name in required if name not in filled]

    def _object(self, properties: dict[str, JsonObject]) -> JsonObject:
        """Reads a JSON object that stands in the prompt."""
        start = self._task.find("{")
        if start < 0:
            return {}
        try:
            value, _ = json.JSONDecoder().raw_decode(self._task, start)
        except (ValueError, RecursionError):
            return {}
        return {name: value[name] for name in value if name in properties}

    def _named(self, name: str, schema: JsonObject) -> Any:
        """Finds the value that the prompt gives under the parameter's own name, or an enum's own word."""
        if "enum" in schema:
            return self._choice(schema["enum"])
        spoken = re.escape(name).replace("_", "[ _]")
        if schema.get("type") == "boolean":
            match = re.search(rf"\b{spoken}\s*[=:]\s*(?:(true|yes|on)|false|no|off)\b", self._task, re.IGNORECASE)
            return bool(match.group(1)) if match else _NOTHING
        if schema.get("type") not in {"integer", "number"}:
            return _NOTHING
        number = _NUMBER.pattern
        patterns = [rf"\b{spoken}\s*[=:]\s*({number})"]
        if len(name) >= SHORTEST_NAME:
            patterns += [rf"\b{spoken}\s+(?:is\s+|of\s+)?({number})", rf"({number})\s+{spoken}\b"]
        for pattern in patterns:
            if match := re.search(pattern, self._unquoted, re.IGNORECASE):
                return self._taken(_number(match.group(1)), schema)
        return _NOTHING

    def _taken(self, number: float, schema: JsonObject) -> Any:
        if number in self._numbers and _fits(number, schema):
            self._numbers.remove(number)
            return number
        return _NOTHING

    def _text(self, name: str, *, is_only: bool) -> Any:
        spoken = re.escape(name).replace("_", "[ _]")
        if not is_only and (match := re.search(rf"\b{spoken}\s*[=:]\s*([^,;\n]+)", self._unquoted, re.IGNORECASE)):
            given = match.group(1).strip()
            return given or (self._quoted.pop(0) if self._quoted else _NOTHING)
        if self._quoted:
            return self._quoted.pop(0)
        return (self._after_colon() or self._task.strip() or _NOTHING) if is_only else _NOTHING

    def _after_colon(self) -> str:
        colon = _AFTER_COLON.search(self._task)
        return self._task[colon.end() :].strip() if colon else ""

    def _next(self, schema: JsonObject) -> Any:
        """Takes the next value of a type that is not free text."""
        kind = schema.get("type")
        if "const" in schema or "default" in schema:
            return schema.get("const", schema.get("default"))
        if kind in {"integer", "number"}:
            number = next((number for number in self._numbers if _fits(number, schema)), None)
            return _NOTHING if number is None else self._taken(number, schema)
        return self._list(schema.get("items", {})) if kind == "array" else _NOTHING

    def _list(self, schema: JsonObject) -> Any:
        if schema.get("type") in {"integer", "number"}:
            values: list[Any] = [number for number in self._numbers if _fits(number, schema)]
            self._numbers = [number for number in self._numbers if not _fits(number, schema)]
        elif "enum" in schema:
            values = [value for value in schema["enum"] if self._choice([value]) is not _NOTHING]
        else:
            listed = (item.strip() for item in _BETWEEN.split(self._after_colon()))
            values = self._quoted or [item for item in listed if item]
            self._quoted = []
        return values or _NOTHING

    def _choice(self, values: list[Any]) -> Any:
        """Picks the value whose word stands first in the prompt."""
        places = [(place, index) for index, value in enumerate(values) if (place := self._place(str(value))) >= 0]
        return values[min(places)[1]] if places else _NOTHING

    def _place(self, word: str) -> int:
        spoken = re.escape(word).replace("_", "[ _-]")
        match = re.search(rf"(?<!\w){spoken}(?!\w)", self._task, re.IGNORECASE)
        return match.start() if match else -1


def _properties(parameters: JsonObject) -> dict[str, Any]:
    properties = parameters.get("properties", {})
    return properties if isinstance(properties, dict) else {}


def _resolved(schema: Any, root: JsonObject) -> JsonObject:
    """Follows a local reference and drops `null` from a choice of types."""
    if not isinstance(schema, dict):
        return {}
    if str(schema.get("$ref", "")).startswith("#/$defs/"):
        return _resolved(root.get("$defs", {}).get(schema["$ref"].removeprefix("#/$defs/")), {})
    options = [option for option in _options(schema) if option.get("type") != "null"]
    merged = {**schema, **_resolved(options[0], root)} if options else dict(schema)
    if isinstance(merged.get("type"), list):
        merged["type"] = next((kind for kind in merged["type"] if kind != "null"), "null")
    if isinstance(merged.get("items"), dict):
        merged["items"] = _resolved(merged["items"], root)
    return merged


def _options(schema: JsonObject) -> Iterator[JsonObject]:
    for option in schema.get("anyOf") or schema.get("oneOf") or []:
        if isinstance(option, dict):
            yield option


def _is_free_text(schema: JsonObject) -> bool:
    return schema.get("type", "string") == "string" and not schema.keys() & {"enum", "const"}


def _number(text: str) -> float:
    value = float(text.replace(",", ""))
    return int(value) if value.is_integer() and "." not in text else value


def _fits(number: float, schema: JsonObject) -> bool:
    """Tells whether a number is of the type and within the bounds that a schema gives."""
    is_whole = isinstance(number, int) or number.is_integer()
    low, high = schema.get("minimum", number), schema.get("maximum", number)
    return (is_whole or schema.get("type") != "integer") and low <= number <= high
