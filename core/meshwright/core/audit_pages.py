"""Reading a chain's list page by page, while others add to its end and the registry trims its beginning."""

from collections.abc import AsyncIterator, Callable

from meshwright.core.store import Store

PAGE = 1_000
"""Lines that are read in one round trip."""


class ChainPages:
    """Goes through a list from some place on.

    A list has no cursor that stays where it is: what is trimmed moves all the rest. So each page begins with the line
    that was read last, and where another stands there, it is looked for nearer to the beginning.

    Args:
        store: Where it is.
        key: Of the list.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._at = 0
        self._last: bytes | None = None

    async def go_back(self, is_wanted: Callable[[bytes], bool]) -> None:
        """Goes from the end to before the first page in which something is wanted, seen from there."""
        (begin,) = await self._store.run(("LLEN", self._key))
        while begin > 0:
            begin = max(0, begin - PAGE)
            page = await self._page(begin)
            if not any(map(is_wanted, page)):
                if page:
                    self._at, self._last = begin + len(page), page[-1]
                return

    async def texts(self) -> AsyncIterator[bytes]:
        """Yields what is behind the place that it is at, those that come meanwhile included."""
        while page := await self._next():
            for text in page:
                yield text

    async def _next(self) -> list[bytes]:
        """Returns the next page; an empty one: this is the end."""
        if self._last is None:
            page = await self._page(0)
        else:
            page = await self._page(self._at - 1)
            page = page[1:] if page[:1] == [self._last] else await self._found()
        if page:
            self._at, self._last = self._at + len(page), page[-1]
        return page

    async def _found(self) -> list[bytes]:
        """Looks for the line that was read last, and returns what follows it; it is gone: all that there is."""
        end = self._at
        while end > 0:
            begin = max(0, end - PAGE)
            page = await self._page(begin)
            for index in range(len(page) - 1, -1, -1):
                if page[index] == self._last:
                    self._at = begin + index + 1
                    return page[index + 1 :] or await self._page(self._at)
            end = begin
        self._at = 0
        return await self._page(0)

    async def _page(self, begin: int) -> list[bytes]:
        """Reads one."""
        page: list[bytes]
        (page,) = await self._store.run(("LRANGE", self._key, begin, begin + PAGE - 1))
        return page
