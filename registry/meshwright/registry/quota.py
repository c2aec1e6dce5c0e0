"""Quota: how often each tenant may call a tool, exact across hosts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.core.errors import ToolRateLimitedError
from meshwright.registry.store import QuotaStore

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


class Quota:
    """Counts calls by tool and tenant; a tool without a rate is not counted.

    Args:
        store: Where they are counted.
        limits: Rates by tool name, by `prefix.*`, or by `*` for all tools; the longest that fits counts.
    """

    def __init__(self, store: QuotaStore, limits: Mapping[str, Rate]) -> None:
        self._store = store
        self._limits = limits
        self._found: dict[str, Rate | None] = {}

    def rate(self, tool: str) -> Rate | None:
        """Returns the rate of a tool; None: it has none."""
        if tool not in self._found:
            ways = (name for name in self._limits if covers(name, tool))
            best = max(ways, key=lambda name: (name == tool, len(name)), default=None)
            self._found[tool] = self._limits[best] if best else None
        return self._found[tool]

    async def take(self, tenant: str, tool: str) -> None:
        """Counts a call.

        Raises:
            ToolRateLimitedError: The tenant has made too many; says when the next one may come.
            StoreUnavailableError: It cannot be counted: it is not made.
        """
        rate = self.rate(tool)
        if rate is None:
            return
        wait_us = await self._store.take(tenant, tool, rate.interval_us, rate.burst)
        if wait_us:
            told = f"{tool} may be called {MINUTE_US / rate.interval_us:g} times a minute: wait {wait_us / 1e6:.2f} s"
            raise ToolRateLimitedError(told, metadata={"tool": tool}, retry_after_s=wait_us / 1e6)


def covers(pattern: str, tool: str) -> bool:
    """Whether a pattern means a tool."""
    return pattern == tool or (pattern.endswith("*") and tool.startswith(pattern[:-1]))


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
