"""Quota: how often each tenant may call a tool, exact across hosts."""

from collections.abc import Mapping

from meshwright.core.errors import ToolRateLimitedError
from meshwright.registry.rate import MINUTE_US, Rate, covers
from meshwright.registry.store import QuotaStore


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
