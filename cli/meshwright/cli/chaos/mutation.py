"""Mutations: seeded generators of bytes, JSON, requests and schemas that no honest client sends."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Draw = random.Random
MOST_BYTES = 64 * 2**10
WORDS: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**31, 2**63, -(2**63), 1e308, "", " ", "\x00", "🜁" * 40, "a" * 5_000, "../../etc/passwd",
    "%00", "{}", "[]", [], {}, [[]], {"": {}}, "NaN", "1e999", "9" * 400, "\u202e", "'; --", "${x}", "-1s", "1e9s",
)  # fmt: skip


# Bytes of a message.


def flipped(wire: bytes, draw: Draw) -> bytes:
    """Flips a few bits."""
    changed = bytearray(wire or b"\x00")
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(wire: bytes, draw: Draw) -> bytes:
    """Ends too early."""
    return wire[: draw.randrange(len(wire) + 1)]


def spliced(wire: bytes, draw: Draw) -> bytes:
    """Repeats a part of itself somewhere else, up to many times."""
    start, place = draw.randrange(len(wire) + 1), draw.randrange(len(wire) + 1)
    part = wire[start : start + draw.randint(1, 40)] * draw.choice((1, 2, 50, 500))
    return (wire[:place] + part + wire[place:])[:MOST_BYTES]


def noise(_wire: bytes, draw: Draw) -> bytes:
    """Is no message at all."""
    return draw.randbytes(draw.randint(0, 300))


def field_of_noise(wire: bytes, draw: Draw) -> bytes:
    """Appends a field of any number and wire type, well formed or not."""
    number, kind = draw.choice((1, 2, 3, 5, 9, 15, 16, 100, 2**28)), draw.randrange(8)
    body = draw.randbytes(draw.randint(0, 20))
    size = draw.choice((len(body), 2**31 - 1, 2**35, 2**63))
    return wire + varint(number << 3 | kind) + (varint(size) if kind == 2 else b"") + body  # noqa: PLR2004


def nested(wire: bytes, draw: Draw) -> bytes:
    """Wraps itself as a field of itself, again and again."""
    number = draw.randint(1, 16)
    for _ in range(draw.choice((3, 30, 99, 101, 300))):
        wire = varint(number << 3 | 2) + varint(len(wire)) + wire
    return wire[:MOST_BYTES]


def varint(value: int) -> bytes:
    """Writes a number as protobuf does."""
    written = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


WIRES: tuple[Callable[[bytes, Draw], bytes], ...] = (flipped, cut, spliced, noise, field_of_noise, nested)


def mutated_wire(wire: bytes, draw: Draw) -> bytes:
    """Mutates the bytes of a message once or twice."""
    for _ in range(draw.randint(1, 2)):
        wire = draw.choice(WIRES)(wire, draw)
    return wire


# JSON.


def deep(draw: Draw) -> Any:
    """Nests lists or objects."""
    value: Any = 1
    for _ in range(draw.choice((5, 40, 120, 400))):
        value = [value] if draw.random() < 0.5 else {"a": value}  # noqa: PLR2004
    return value


def mutated_value(value: Any, draw: Draw) -> Any:
    """Changes one place of a JSON value."""
    if isinstance(value, dict) and value and draw.random() < 0.8:  # noqa: PLR2004
        name = draw.choice(list(value))
        rest = {key: one for key, one in value.items() if key != name}
        spelled = draw.choice((name, name, name, name.upper(), name + "\x00", ""))
        return rest | {spelled: mutated_value(value[name], draw)}
    return deep(draw) if draw.random() < 0.1 else draw.choice(WORDS)  # noqa: PLR2004


def mutated_json(value: Any, draw: Draw) -> bytes:
    """Writes a JSON value with a mistake in what it says or in how it is written."""
    text = json.dumps(mutated_value(value, draw) if draw.random() < 0.8 else value).encode()  # noqa: PLR2004
    kind = draw.randrange(6)
    if kind == 0:
        return cut(text, draw)
    if kind == 1:
        return flipped(text, draw)
    if kind == 2:  # noqa: PLR2004
        return text[:-1] + b"," + text[1:]  # every name twice
    if kind == 3:  # noqa: PLR2004
        return b'{"prompt":' + b"[" * draw.choice((200, 5_000, 60_000))
    return text


# Requests to the edge.


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def wire(self, authority: str) -> bytes:
        """Writes it as HTTP/1.1, for one connection."""
        head = [f"{self.method} {self.path} HTTP/1.1", f"host: {authority}", "connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method == "POST":
            head.append(f"content-length: {len(self.body)}")
        return "\r\n".join((*head, "", "")).encode("latin-1", "replace") + self.body


SEGMENTS = ("x", "%00", "%2e%2e", "a" * 300, "%f0%9f", "..", "-", "0", "run", "%2F", "a:b", ":cancel", "a b", "ü")
QUERIES = ("", "?", "?x=1", "?page_size=-1", "?page_size=x", "?after_sequence=99999999999", "?statuses=9&statuses=x",
           "?created_after=0", "?page_token=%ff", "?a.b.c=1", "?" + "a=1&" * 300)  # fmt: skip
HEADERS = (
    ("x-agent-id", "nobody"), ("x-agent-id", "../x"), ("x-agent-id", "a" * 3_000), ("last-event-id", "x" * 200),
    ("last-event-id", "-1"), ("idempotency-key", "k" * 2_000), ("idempotency-key", "ü"), ("grpc-timeout", "x"),
    ("content-type", "text/plain"), ("content-type", "application/grpc"), ("accept", "text/event-stream"),
    ("x-a-bin", "!!!"), ("grpc-encoding", "x"), ("grpc-previous-rpc-attempts", "x"), ("traceparent", "00-zz-zz-zz"),
    ("x-mesh-grant-bin", "AAAA"), ("origin", "http://other"), ("te", "x"),
)  # fmt: skip


def mutated_request(method: str, path: str, body: Any, draw: Draw) -> Request:
    """Mutates body, path, query, headers or method of a request."""
    content = json.dumps(body).encode() if body is not None else b""
    headers = [("content-type", "application/json")] if body is not None else []
    kind = draw.randrange(8)
    if kind == 0:
        parts = path.split("/")
        parts[draw.randrange(1, len(parts))] = draw.choice(SEGMENTS)
        path = "/".join(parts).replace(" ", "%20")
    elif kind == 1:
        path += draw.choice(QUERIES)
    elif kind == 2:  # noqa: PLR2004
        headers.append(draw.choice(HEADERS))
    elif kind == 3:  # noqa: PLR2004
        method = draw.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"))
    elif body is not None:
        content = mutated_json(body, draw)
    else:
        path += draw.choice(QUERIES)
    return Request(method, path, tuple(headers), content)


# Schemas.


def hostile_schema(draw: Draw, trap: str) -> dict[str, Any]:
    """Makes a schema that costs whoever compiles it, or applies it, time, memory or a request to `trap`."""
    many = draw.choice((10, 100, 1_000, 5_000))
    makers: Sequence[Callable[[], dict[str, Any]]] = (
        lambda: {"type": "string", "pattern": draw.choice(("(a+)+$", "(a|aa)+$", "(.*a){25}", "^(([a-z])+.)+$"))},
        lambda: {"pattern": draw.choice(("(a{1000}){1000}", r"\p{L}{900}", "(?=a)b", "(", "a" * 2_000, "(a?){200}"))},
        lambda: {"$ref": draw.choice((f"http://{trap}/schema", f"http://{trap}#/a", f"//{trap}/x", "file:///etc/hosts"))},
        lambda: {"$id": f"http://{trap}/", "properties": {"a": {"$ref": "b.json"}}},
        lambda: {"$schema": f"http://{trap}/meta", "type": "object"},
        lambda: {"properties": {"a": {"$dynamicRef": f"http://{trap}/schema#x"}}},
        lambda: {"properties": {"a": {"enum": list(range(many))}}},
        lambda: {"properties": {"a": {"uniqueItems": True, "items": {"enum": [[n] for n in range(many)]}}}},
        lambda: {"properties": {f"p{n}": {"pattern": f"(a{n}+)+"} for n in range(min(many, 200))}},
        lambda: bomb(min(many, 60)),
        lambda: {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        lambda: chained(min(many, 400)),
        lambda: {"allOf": [{"anyOf": [{"oneOf": [{"const": n} for n in range(10)]}] * 10}] * 10},
        lambda: {"properties": mutated_value({"a": {"type": "string"}, "b": {"items": {"$ref": "#"}}}, draw)},
    )  # fmt: skip
    return draw.choice(makers)()


def bomb(levels: int) -> dict[str, Any]:
    """Doubles the work at every level."""
    parts: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(1, levels + 1):
        parts[f"d{level}"] = {"allOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
    return {"$defs": parts, "$ref": f"#/$defs/d{levels}"}


def chained(levels: int) -> dict[str, Any]:
    """Nests schemas in schemas."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema
