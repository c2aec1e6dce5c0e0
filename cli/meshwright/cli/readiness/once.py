"""What several items need and is asked for once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from meshwright.core.errors import MeshError

T = TypeVar("T")


class Once(Generic[T]):
    """Finds something out when it is first asked; all others get the same answer, or the same error.

    Args:
        find: Finds it out.
    """

    def __init__(self, find: Callable[[], Awaitable[T]]) -> None:
        self._find = find
        self._turn = asyncio.Lock()
        self._found: list[T] = []
        self._error: MeshError | None = None

    async def __call__(self) -> T:
        """Returns what was found.

        Raises:
            MeshError: Why nothing was.
        """
        async with self._turn:
            if self._error:
                raise self._error
            if not self._found:
                try:
                    self._found.append(await self._find())
                except MeshError as error:
                    self._error = error
                    raise
        return self._found[0]
