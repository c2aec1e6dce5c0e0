"""Pages of a list: nothing is read twice or left out while its end grows and its beginning is trimmed."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core import audit_pages
from meshwright.core.audit_pages import ChainPages
from meshwright.core.store import Store

KEY = "mw:{0}:audit:acme:lines"


def test_what_is_left_is_read_once_and_in_order(valkey, monkeypatch):
    monkeypatch.setattr(audit_pages, "PAGE", 4)

    @given(
        st.integers(0, 30),
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 9)), max_size=6),
        st.integers(-1, 30),
    )
    @settings(max_examples=60)
    def holds(many, changes, since):
        asyncio.run(read_while_it_changes(valkey.url, many, changes, since))

    holds()


async def read_while_it_changes(url, many, changes, since):
    """Reads numbers; `changes`: after how many that were read how many go and come; `since`: from which on, -1: all."""
    store = Store(url)
    await store.open()
    await store.client.flushall()
    first, following = 0, 0

    async def add(more):
        nonlocal following
        if more:
            await store.client.rpush(KEY, *range(following, following + more))
        following += more

    await add(many)
    pages = ChainPages(store, KEY)
    if since >= 0:
        await pages.go_back(lambda text: int(text) >= since)
    read, due = [], list(changes)
    async for text in pages.texts():
        read.append(int(text))
        while due and due[0][0] <= len(read):
            _, gone, more = due.pop(0)
            gone = min(gone, following - first)
            await store.client.ltrim(KEY, gone, -1)
            first += gone
            await add(more)
    await store.close()
    assert read == sorted(set(read))
    missing = set(range(max(since, 0), following)) - set(read)
    assert all(number < first for number in missing), "only what was trimmed may be missing"
