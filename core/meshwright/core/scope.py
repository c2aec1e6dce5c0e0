"""Scopes: what somebody may do, as words between colons. Pure."""

import re
from collections.abc import Collection, Iterable

from meshwright.core.ids import Form

EVERYTHING = "*"
"""The scope that covers every other one."""
SCOPE = Form(re.compile(r"[!-~]{1,200}"), "1 to 200 visible ASCII characters")


def covers(held: Collection[str], needed: str) -> bool:
    """Whether scopes hold another one.

    A scope covers itself, what stands below it (`tools:write` covers `tools:write:docs.search`) and, where it ends in a
    dot, what begins so (`tools:write:docs.` covers it too). `*` covers everything.

    Args:
        held: What somebody has.
        needed: What is asked for.
    """
    return EVERYTHING in held or any(
        one and (one == needed or needed.startswith(f"{one}:") or (one.endswith(".") and needed.startswith(one)))
        for one in held
    )


def missing(held: Collection[str], needed: Iterable[str]) -> list[str]:
    """Returns those of the needed scopes that are not held, sorted."""
    return sorted({one for one in needed if not covers(held, one)})
