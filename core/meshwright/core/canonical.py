"""JSON at the contract's border: numbers that survive, canonical form, digests."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import rfc8785
from google.protobuf import struct_pb2
from google.protobuf.message import Message

from meshwright.core.errors import InvalidRequestError

LARGEST = 2**53
SCALARS = (str, int, float)
PLAIN = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def from_struct(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """Turns a Struct into JSON; integral doubles become ints.

    Raises:
        InvalidRequestError: An integral number of magnitude 2^53 or more lost digits on its way; names its pointer.
    """
    return {key: from_value(value, field, f"/{escaped(key)}") for key, value in sorted(struct.fields.items())}


def from_value(value: struct_pb2.Value, field: str, pointer: str = "") -> Any:
    """Turns a Value into JSON, as `from_struct` does."""
    match value.WhichOneof("kind"):
        case "struct_value":
            items = sorted(value.struct_value.fields.items())  # a map has no order of its own
            return {key: from_value(item, field, f"{pointer}/{escaped(key)}") for key, item in items}
        case "list_value":
            return [from_value(item, field, f"{pointer}/{i}") for i, item in enumerate(value.list_value.values)]
        case "number_value":
            return from_number(value.number_value, field, pointer)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def from_number(number: float, field: str, pointer: str) -> float | int:
    """Returns an int where the number is integral."""
    if not math.isfinite(number) or (number.is_integer() and abs(number) >= LARGEST):
        raise InvalidRequestError(
            f"{field}{pointer} is not exact: send integers of 2^53 and beyond as strings",
            fields={field: f"{pointer or '/'}: number out of the exact range"},
        )
    return int(number) if number.is_integer() else number


def to_struct(value: dict[str, Any]) -> struct_pb2.Struct:
    """Turns a JSON object into a Struct; integers beyond 2^53 become strings, since a double would change them."""
    struct = struct_pb2.Struct()
    if value:
        struct.update(printable(value))
    return struct


def to_value(value: Any) -> struct_pb2.Value:
    """Turns any JSON value into a Value, as `to_struct` does."""
    match printable(value):
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool() as truth:
            return struct_pb2.Value(bool_value=truth)
        case str() as text:
            return struct_pb2.Value(string_value=text)
        case dict() as items:
            return struct_pb2.Value(struct_value=to_struct(items))
        case list() as items:
            values = struct_pb2.ListValue()
            values.extend(items)
            return struct_pb2.Value(list_value=values)
        case number:
            return struct_pb2.Value(number_value=number)


def printable(value: Any) -> Any:
    """Replaces integers that a double cannot hold by their decimal text."""
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGEST:
        return str(value)
    return value


def canonical(value: Any) -> bytes:
    """Writes JSON in its one canonical form (RFC 8785)."""
    if is_plain(value):  # the same bytes, written in C
        return PLAIN.encode(value).encode()
    return rfc8785.dumps(printable(value))


def is_plain(value: Any) -> bool:
    """Whether Python's own JSON is the canonical one: exact integers, and keys that every encoding sorts alike."""
    if isinstance(value, str) or value is None:
        return True
    if isinstance(value, int):
        return -LARGEST < value < LARGEST
    if isinstance(value, dict):
        return all(isinstance(key, str) and key.isascii() and is_plain(item) for key, item in value.items())
    return isinstance(value, list) and all(map(is_plain, value))


def digest(value: Any) -> str:
    """Hashes JSON: SHA-256 over its canonical form, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def message_digest(message: Message) -> str:
    """Hashes a protobuf message by what is set in it, so that it hashes alike however it came; unknown fields aside."""
    return digest(plain(message))


def plain(value: Any) -> Any:
    """Turns a message into JSON as it is in memory: enums and 64-bit numbers stay numbers."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Message):
        return {field.name: plain(item) for field, item in value.ListFields()}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def escaped(key: str) -> str:
    """Escapes a JSON Pointer segment (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
