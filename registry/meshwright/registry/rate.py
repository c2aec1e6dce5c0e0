"""Rates of tools, as the settings spell them. Pure."""

import re
from dataclasses import dataclass

RATE = re.compile(r"\s*(\*|[a-z][a-z0-9_.]*(?:\.\*)?)\s*=\s*(\d+(?:\.\d+)?)(?::(\d{1,6}))?\s*")
MINUTE_US = 60_000_000
MOST_A_MINUTE = 1_000_000
BURST_SHARE = 6
"""Where no burst is named, what ten seconds allow may come at once."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate as the store counts it.

    Attributes:
        interval_us: Between two calls at a steady pace.
        burst: Calls that may come at once after a rest.
    """

    interval_us: int
    burst: int


def rates(text: str) -> dict[str, Rate]:
    """Reads `NAME=RATE[:BURST],...`; a name may end in `.*`, or be `*`.

    Raises:
        ValueError: It cannot be read.
    """
    found: dict[str, Rate] = {}
    for part in text.split(",") if text.strip() else []:
        match = RATE.fullmatch(part)
        if not match or not 0 < float(match[2]) <= MOST_A_MINUTE or match[3] == "0":
            raise ValueError(f"write TOOL=CALLS A MINUTE[:BURST],..., each of them above 0; not {part.strip()!r}")
        a_minute = float(match[2])
        found[match[1]] = Rate(round(MINUTE_US / a_minute), int(match[3] or max(1, a_minute // BURST_SHARE)))
    return found


def covers(pattern: str, tool: str) -> bool:
    """Whether a pattern means a tool."""
    return pattern == tool or (pattern.endswith("*") and tool.startswith(pattern[:-1]))
