"""Shared limits: what trees of tasks may spend together, as a process is told and as a task's record keeps it. Pure."""

from dataclasses import astuple, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """What trees may spend together, in millionths of a US dollar; 0: no limit.

    Attributes:
        session: All tasks of one session.
        user_day: All tasks of one principal that were accepted on one day (UTC).
        tenant_day: The same of one tenant.
        global_day: The same of the mesh.
    """

    session: int = 0
    user_day: int = 0
    tenant_day: int = 0
    global_day: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` wrote; empty: there are none."""
        return cls(*map(int, text.split()))

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self))) if self else ""

    def __bool__(self) -> bool:
        return bool(self.session or self.user_day or self.tenant_day or self.global_day)

    def raised(self, told: "SharedLimits") -> Self:
        """Returns these budgets, and no others, each as large as it is here or as `told`, whichever is more."""
        pairs = zip(astuple(self), astuple(told), strict=True)
        return type(self)(*(max(own, more) if own else 0 for own, more in pairs))
