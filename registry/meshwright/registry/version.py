"""Semantic versions: their order, ranges and aliases of them, and which one a caller means. Pure."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from meshwright.core.errors import ToolNotFoundError
from meshwright.core.ids import Form

SHOWN = 10
"""Versions that an error names."""
RANGE = re.compile(r"\^([0-9]{1,20})(?:\.([0-9]{1,20}))?(?:\.([0-9]{1,20}))?")
ALIAS = Form(
    re.compile(r"(?!v[0-9]|x\Z)[a-z][a-z0-9-]{0,31}"),
    "1 to 32 small letters, digits or -, a letter first, neither x nor v and a digit",
)
"""What cannot be taken for a version: neither `v2` nor `x`, which people read as one."""
NO_ALIASES: Mapping[str, str] = MappingProxyType({})

Numbers = tuple[int, ...]
Precedence = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


@lru_cache(maxsize=4_096)
def precedence(version: str) -> Precedence:
    """Returns the sort key of a semantic version."""
    core, _, rest = version.partition("+")[0].partition("-")
    major, minor, patch = map(int, core.split("."))
    marks = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in rest.split(".") if rest)
    return (major, minor, patch, not rest, marks)


def order(version: str) -> tuple[Precedence, str]:
    """Returns a sort key that tells all versions apart: builds of one version sort by their text."""
    return precedence(version), version


def is_release(version: str) -> bool:
    """Whether a version is no pre-release."""
    return precedence(version)[3]


def line(version: str) -> tuple[int, int]:
    """Returns among which versions a contract may not break: those of one major, before 1.0.0 those of one minor."""
    major, minor, *_ = precedence(version)
    return (major, 0) if major else (0, minor)


def neighbours(version: str, versions: Collection[str]) -> tuple[str, str]:
    """Returns the nearest releases below and above a version in its line; empty: there is none."""
    releases = sorted((one for one in versions if line(one) == line(version) and is_release(one)), key=order)
    below = [one for one in releases if order(one) < order(version)]
    above = [one for one in releases if order(one) > order(version)]
    return below[-1] if below else "", above[0] if above else ""


def bounds(wanted: str) -> tuple[Numbers, Numbers] | None:
    """Returns the least version that a range takes and the first that it does not; None: it is no range.

    `^1.2` takes what promises to stay compatible with `1.2.0`: below 2.0.0. The leftmost number that is not zero, or
    the last one given, may not change: `^0.3` ends before 0.4.0, `^0.0.4` before 0.0.5, `^0` before 1.0.0.
    """
    match = RANGE.fullmatch(wanted)
    if not match:
        return None
    given = [int(part) for part in match.groups() if part is not None]
    fixed = next((place for place, number in enumerate(given) if number), len(given) - 1)
    padding = (0,) * (3 - len(given))
    end = (*given[:fixed], given[fixed] + 1) + (0,) * (2 - fixed)
    return (*given, *padding), end


def choose(
    name: str,
    wanted: str,
    versions: Collection[str],
    *,
    aliases: Mapping[str, str] = NO_ALIASES,
    deprecated: Collection[str] = (),
) -> str:
    """Picks the version that is meant: by itself, by an alias, the newest in a range, or (empty) the newest of all.

    Pre-releases are chosen only by their exact version, or where nothing else exists; deprecated versions by a range
    only where no other one fits.

    Args:
        name: The tool, for the error.
        wanted: Version, range, alias, or empty.
        versions: What is registered.
        aliases: Version by alias.
        deprecated: Versions that are to be used no more.

    Raises:
        ToolNotFoundError: None fits.
    """
    if wanted in versions:
        return wanted
    if wanted in aliases:
        return aliases[wanted]
    ordered = sorted(versions, key=order)
    fitting = [one for one in ordered if is_release(one)] or ordered
    if wanted:
        limits = bounds(wanted)
        fitting = [one for one in fitting if limits and limits[0] <= precedence(one)[:3] < limits[1]]
    if fitting:
        return ([one for one in fitting if one not in deprecated] or fitting)[-1]
    known = ", ".join([*ordered[-SHOWN:], *sorted(aliases)[:SHOWN]]) or "none"
    raise ToolNotFoundError(f"no tool {name}@{wanted or 'newest'}: registered versions are {known}")
