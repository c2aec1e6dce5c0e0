"""A page of a list that is kept by time: the newest first, after a cursor."""

from meshwright.core.store import Store

Row = tuple[int, str]
"""When, in ms, and what: as a row of a list, and as a cursor behind which the next page begins."""


async def page_of(store: Store, key: str, before: Row | None, many: int) -> list[Row]:
    """Reads rows of a sorted set whose scores are times.

    Args:
        store: An open store.
        key: Of the sorted set.
        before: The last row of the page before; None: from the newest.
        many: How many at most.
    """
    found: list[Row] = []
    top, offset = str(before[0]) if before else "+inf", 0
    while len(found) < many:
        scope = (top, "-inf", "BYSCORE", "REV", "LIMIT", offset, many, "WITHSCORES")
        (reply,) = await store.run(("ZRANGE", key, *scope))
        rows = [(int(score), member.decode()) for member, score in reply]
        if not rows:
            break
        found += [row for row in rows if before is None or row < before]
        offset += len(rows)
    return found[:many]
