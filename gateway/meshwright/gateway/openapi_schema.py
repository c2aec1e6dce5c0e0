"""The contract's messages as JSON Schema 2020-12, in the JSON that the edge reads and writes. Pure.

The mapping is proto3's (https://protobuf.dev/programming-guides/json), with the contract's own field names: the edge
prints them so, and prints fields without presence always, so that answers have them all.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from meshwright.gateway.contract import comment, is_required

Json = dict[str, Any]
Element = Descriptor | EnumDescriptor
COMPONENTS = "#/components/schemas/"
STATUS = "google.rpc.Status"
KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    STATUS: {"$ref": COMPONENTS + "Status"},
}
"""Messages whose JSON is not that of their fields."""
_INT64: Json = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Json = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_INT32: Json = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Json = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1}
_NO_NUMBER: Json = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
SCALARS: dict[int, Json] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"oneOf": [{"type": "number", "format": "double"}, _NO_NUMBER]},
    FieldDescriptor.TYPE_FLOAT: {"oneOf": [{"type": "number", "format": "float"}, _NO_NUMBER]},
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), _UINT64),
}


def components(bodies: Iterable[tuple[Descriptor, frozenset[str]]], answers: Iterable[Element]) -> dict[str, Json]:
    """Returns the schemas of all messages and enums that operations speak of, by their names, sorted.

    Args:
        bodies: Messages of requests, each with the names of its fields that stand in the path.
        answers: Messages of answers, and enums of queries.

    Raises:
        ValueError: Two elements would have one name.
    """
    requested: dict[str, Element] = {}
    answered: dict[str, Element] = {}
    schemas: dict[str, Json] = {}
    for body, path in bodies:
        if path:
            schemas[body_name(body, path)] = fields_of(body, is_answer=False, without=path)
        collect(requested, [below for field in fields(body, path) if (below := element(field))] if path else [body])
    collect(answered, answers)
    for full_name, found in (answered | requested).items():
        if found.name in schemas:
            raise ValueError(f"{full_name}: another element has the name {found.name}")
        if isinstance(found, EnumDescriptor):
            schemas[found.name] = enum(found)
        else:
            schemas[found.name] = fields_of(found, is_answer=full_name not in requested)
    return dict(sorted(schemas.items()))


def body_name(message: Descriptor, path: frozenset[str]) -> str:
    """Names the schema of a request's body, from which the fields of the path are missing."""
    return message.name + "Body" * bool(path)


def collect(found: dict[str, Element], roots: Iterable[Element]) -> None:
    """Adds messages and enums, and all below them, but for those whose JSON is not that of their fields."""
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if one.full_name in found or one.full_name in KNOWN:
            continue
        found[one.full_name] = one
        if isinstance(one, Descriptor):
            waiting += [below for field in one.fields if (below := element(field))]


def element(field: FieldDescriptor) -> Element | None:
    """Returns the message or enum of a field, of a map that of its values; None: it is a scalar."""
    values = map_values(field)
    if values is not None:
        return element(values)
    found: Element | None = field.message_type or field.enum_type
    return found


def map_values(field: FieldDescriptor) -> FieldDescriptor | None:
    """Returns the field that stands for a map's values; None: the field is no map."""
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return field.message_type.fields_by_name["value"] if field.message_type and is_map else None


def fields(message: Descriptor, without: frozenset[str] = frozenset()) -> list[FieldDescriptor]:
    """Lists the fields of a message, in the contract's order, but for some."""
    return [field for field in message.fields if field.name not in without]


def fields_of(message: Descriptor, *, is_answer: bool, without: frozenset[str] = frozenset()) -> Json:
    """Returns the schema of a message; in an answer fields without presence are always there."""
    shown = fields(message, without)
    required = [field.name for field in shown if is_required(field) or (is_answer and not field.has_presence)]
    schema: Json = {"type": "object", "description": prose(message.full_name)}
    schema["properties"] = {field.name: field_schema(field) for field in shown}
    if required:
        schema["required"] = required
    if groups := [group for group in message.oneofs if len(group.fields) > 1]:
        schema["allOf"] = [at_most_one([field.name for field in group.fields]) for group in groups]
    return schema


def at_most_one(names: list[str]) -> Json:
    """Says that one of several properties is there, or none: kinds that a client does not know are none."""
    alone: list[Json] = [{"required": [name]} for name in names]
    return {"oneOf": [*alone, {"not": {"anyOf": alone}}]}


def field_schema(field: FieldDescriptor) -> Json:
    """Returns the schema of a field, with what the contract says of it."""
    values = map_values(field)
    if values is not None:
        schema: Json = {"type": "object", "additionalProperties": value_schema(values)}
    elif field.is_repeated:
        schema = {"type": "array", "items": value_schema(field)}
    else:
        schema = value_schema(field)
    said = prose(field.full_name)
    return schema | {"description": said} if said else schema


def value_schema(field: FieldDescriptor) -> Json:
    """Returns the schema of one value of a field."""
    found = field.message_type or field.enum_type
    if found is None:
        return dict(SCALARS[field.type])
    return dict(KNOWN[found.full_name]) if found.full_name in KNOWN else {"$ref": COMPONENTS + found.name}


def enum(descriptor: EnumDescriptor) -> Json:
    """Returns the schema of an enum: its values by name, each with what the contract says of it."""
    full = descriptor.full_name
    values = [f"- `{value.name}`: {prose(f'{full}.{value.name}')}" for value in descriptor.values]
    names = [value.name for value in descriptor.values]
    return {"type": "string", "description": "\n".join((prose(full), "", *values)), "enum": names}


def prose(full_name: str) -> str:
    """Returns what the contract says of an element, as CommonMark that shows it as it stands."""
    said = comment(full_name)
    return said.translate({ord(sign): f"\\{sign}" for sign in "\\<*["})
