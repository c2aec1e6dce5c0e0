"""JSON Schema of protobuf messages, by proto3's JSON mapping with the fields' own names. Pure."""

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

JsonSchema = dict[str, Any]
LONG: JsonSchema = {"type": "string", "pattern": "^-?[0-9]{1,19}$"}
UNSIGNED_LONG: JsonSchema = {"type": "string", "pattern": "^[0-9]{1,20}$"}
NUMBER: JsonSchema = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
BASE64: JsonSchema = {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/_-]*={0,2}$"}
INTEGER: JsonSchema = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
UNSIGNED: JsonSchema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
SCALARS: dict[int, JsonSchema] = {
    FieldDescriptor.TYPE_DOUBLE: NUMBER,
    FieldDescriptor.TYPE_FLOAT: NUMBER,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: BASE64,
    FieldDescriptor.TYPE_INT32: INTEGER,
    FieldDescriptor.TYPE_SINT32: INTEGER,
    FieldDescriptor.TYPE_SFIXED32: INTEGER,
    FieldDescriptor.TYPE_UINT32: UNSIGNED,
    FieldDescriptor.TYPE_FIXED32: UNSIGNED,
    FieldDescriptor.TYPE_INT64: LONG,
    FieldDescriptor.TYPE_SINT64: LONG,
    FieldDescriptor.TYPE_SFIXED64: LONG,
    FieldDescriptor.TYPE_UINT64: UNSIGNED_LONG,
    FieldDescriptor.TYPE_FIXED64: UNSIGNED_LONG,
}
WELL_KNOWN: dict[str, JsonSchema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
    },
}
WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
MAP_KEYS: dict[int, JsonSchema] = {
    FieldDescriptor.CPPTYPE_BOOL: {"enum": ["true", "false"]},
    FieldDescriptor.CPPTYPE_STRING: {},
}
NULL = "google.protobuf.NullValue"


def message_schema(message: Descriptor) -> JsonSchema:
    """Builds the schema of a message as JSON; messages within it are in `$defs`.

    Returns:
        Of type object, unless the message is a well-known type that is written otherwise.
    """
    if message.full_name in WELL_KNOWN or message.full_name in WRAPPERS:
        return dict(written_otherwise(message))
    definitions: dict[str, JsonSchema] = {}
    pending, root = [message], message.full_name
    while pending:
        one = pending.pop()
        if one.full_name not in definitions:
            definitions[one.full_name] = object_schema(one, root)
            pending.extend(messages_in(one))
    schema = definitions.pop(root)
    return schema | ({"$defs": definitions} if definitions else {})


def messages_in(message: Descriptor) -> list[Descriptor]:
    """Lists the messages of a message's fields that need a definition of their own."""
    entries = [map_entry(field) for field in message.fields]
    fields = [entry.fields_by_name["value"] for entry in entries if entry]
    fields += [field for field, entry in zip(message.fields, entries, strict=True) if not entry]
    inner = [field.message_type for field in fields if field.message_type]
    return [one for one in inner if one.full_name not in WELL_KNOWN and one.full_name not in WRAPPERS]


def written_otherwise(message: Descriptor) -> JsonSchema:
    """Returns the schema of a well-known type."""
    if message.full_name in WRAPPERS:
        return SCALARS[message.fields_by_name["value"].type]
    return WELL_KNOWN[message.full_name]


def object_schema(message: Descriptor, root: str) -> JsonSchema:
    """Builds the schema of one message, others referred to by name."""
    schema: JsonSchema = {
        "type": "object",
        "properties": {field.name: field_schema(field, root) for field in message.fields},
        "additionalProperties": False,
    }
    if required := [field.name for field in message.fields if field.is_required]:
        schema["required"] = required
    if choices := [at_most_one(one) for one in message.oneofs if len(one.fields) > 1]:
        schema["allOf"] = choices
    return schema


def at_most_one(oneof: OneofDescriptor) -> JsonSchema:
    """Builds the rule that at most one field of a oneof is there."""
    present = [{"required": [field.name]} for field in oneof.fields]
    return {"oneOf": [*present, {"not": {"anyOf": present}}]}


def field_schema(field: FieldDescriptor, root: str) -> JsonSchema:
    """Builds the schema of a field, lists and maps included."""
    if entry := map_entry(field):
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        names = MAP_KEYS.get(key.cpp_type, {"pattern": "^-?[0-9]{1,20}$"})
        entries: JsonSchema = {"type": "object", "additionalProperties": value_schema(value, root)}
        return entries | ({"propertyNames": names} if names else {})
    one = value_schema(field, root)
    return {"type": "array", "items": one} if field.is_repeated else one


def value_schema(field: FieldDescriptor, root: str) -> JsonSchema:
    """Builds the schema of one value of a field."""
    if field.enum_type:
        return enum_schema(field.enum_type)
    message = field.message_type
    if message is None:
        return SCALARS[field.type]
    if message.full_name in WELL_KNOWN or message.full_name in WRAPPERS:
        return written_otherwise(message)
    return {"$ref": "#" if message.full_name == root else f"#/$defs/{message.full_name}"}


def enum_schema(enum: EnumDescriptor) -> JsonSchema:
    """Builds the schema of an enum: its names, and where it is open, numbers that only the other side knows."""
    if enum.full_name == NULL:
        return {"type": "null"}
    names: JsonSchema = {"enum": [value.name for value in enum.values]}
    return names if enum.is_closed else {"anyOf": [names, {"type": "integer"}]}


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """Returns the message of a map's entries; None: the field is no map."""
    message = field.message_type
    return message if message and message.GetOptions().map_entry else None
