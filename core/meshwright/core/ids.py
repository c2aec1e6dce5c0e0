"""Identifiers: how they look, how they are made, how a child's is told from its root's."""

import hashlib
import os
import re
import time
from dataclasses import dataclass

from meshwright.core.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Form:
    """How an identifier looks.

    Attributes:
        expression: For programs.
        words: For people: what it consists of.
    """

    expression: re.Pattern[str]
    words: str

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """Matches a whole text."""
        return self.expression.fullmatch(text)

    def validated(self, text: str) -> str:
        """Returns a text that looks so: what a model of pydantic checks a field by.

        Raises:
            ValueError: It looks otherwise; says how it should.
        """
        if not self.fullmatch(text):
            raise ValueError(f"must be {self.words}")
        return text


NUMBER = "(0|[1-9][0-9]*)"
MARK = "(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
BUILD = "[0-9A-Za-z-]+"
CALLER_ID = Form(re.compile(r"[A-Za-z0-9_-]{1,64}"), "1 to 64 letters, digits, _ or -")
TASK_ID = Form(
    re.compile(r"[A-Za-z0-9_-]{1,64}(\.[a-z0-9]{1,32})?"),
    "1 to 64 letters, digits, _ or -, and for a child a dot with 1 to 32 small letters or digits",
)
AGENT_ID = Form(re.compile(r"[a-z][a-z0-9-]{0,62}"), "1 to 63 small letters, digits or -, a letter first")
TOOL_NAME = Form(
    re.compile(r"(?=.{1,64}\Z)[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*"),
    "1 to 64 small letters, digits or _ in parts joined by dots, each with a letter first: docs.search",
)
VERSION = Form(
    re.compile(rf"(?=.{{1,64}}\Z){NUMBER}\.{NUMBER}\.{NUMBER}(-{MARK}(\.{MARK})*)?(\+{BUILD}(\.{BUILD})*)?"),
    "a semantic version of at most 64 characters: 1.2.0",
)
TARGET = Form(
    re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}"),
    "host:port, an IPv6 address in brackets",
)


LAST_PORT = 65_535


def host_and_port(text: str) -> str:
    """Returns an address: what a setting of pydantic is checked by.

    Raises:
        ValueError: It is none; says how one looks.
    """
    port = TARGET.validated(text).rpartition(":")[2]
    if not 0 < int(port) <= LAST_PORT:
        raise ValueError(f"must have a port from 1 to {LAST_PORT}")
    return text


def checked(field: str, value: str, form: Form) -> str:
    """Returns the value.

    Raises:
        InvalidRequestError: It does not look as the form says.
    """
    if not form.fullmatch(value):
        raise InvalidRequestError(f"{field} must be {form.words}", fields={field: f"must be {form.words}"})
    return value


def uuid7() -> str:
    """Makes a UUIDv7 (RFC 9562): sortable by its creation time in milliseconds."""
    bits = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 7 << 76
    bits = bits & ~(0b11 << 62) | 0b10 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def child_id(root: str, parent: str, step: int, call_id: str) -> str:
    """Names the child that a call makes; the same call after a crash names the same child."""
    return f"{root}.{digest(parent, str(step), call_id)[:20]}"


def root_of(task_id: str) -> str:
    """Returns the root's id: a child is `<root>.<suffix>`."""
    return task_id.partition(".")[0]


def call_key(task_id: str, step: int, call_id: str) -> str:
    """Makes a tool call's idempotency key; the same after a crash."""
    return digest("call", task_id, str(step), call_id)[:40]


def digest(*parts: str) -> str:
    """Hashes text parts (SHA-256, hex) so that no two lists of parts collide."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()
