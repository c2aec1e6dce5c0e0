"""Identifiers: how they look, how they are made, how a child's is told from its root's."""

import hashlib
import os
import re
import time

from meshwright.core.errors import InvalidRequestError

CALLER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[a-z0-9]{1,32})?")
AGENT_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
TOOL_NAME = re.compile(r"(?=.{1,64}\Z)[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
NUMBER = "(0|[1-9][0-9]*)"
MARK = "(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
BUILD = "[0-9A-Za-z-]+"
VERSION = re.compile(rf"(?=.{{1,64}}\Z){NUMBER}\.{NUMBER}\.{NUMBER}(-{MARK}(\.{MARK})*)?(\+{BUILD}(\.{BUILD})*)?")
TARGET = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
"""host:port; an IPv6 address stands in brackets."""


def checked(field: str, value: str, pattern: re.Pattern[str]) -> str:
    """Returns the value.

    Raises:
        InvalidRequestError: It does not look as the pattern says.
    """
    if not pattern.fullmatch(value):
        raise InvalidRequestError(
            f"{field} is not valid: it must match {pattern.pattern}", fields={field: f"must match {pattern.pattern}"}
        )
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
