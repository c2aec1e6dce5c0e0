"""Announced keys: what a store that is away means for them."""

import asyncio

import pytest
import structlog

from meshwright.core import announced_keys
from meshwright.core.announced_keys import EdgeKeys
from meshwright.core.errors import StoreUnavailableError
from meshwright.core.grant import Signer
from meshwright.core.process import ended


async def test_a_key_that_cannot_be_announced_is_told_once_and_when_it_is_again(store, monkeypatch):
    monkeypatch.setattr(announced_keys, "BEAT_S", 0.02)
    keys, signer, failing, tries = EdgeKeys(store), Signer("edge-1"), asyncio.Event(), []
    announce = keys.announce

    async def unreliable(one):
        tries.append(one.key_id)
        if failing.is_set():
            raise StoreUnavailableError("away")
        await announce(one)

    monkeypatch.setattr(keys, "announce", unreliable)
    failing.set()
    with structlog.testing.capture_logs() as lines:
        keeping = asyncio.create_task(keys.keep(signer))
        async with asyncio.timeout(20):
            while len(tries) < 4:
                await asyncio.sleep(0.01)
            failing.clear()
            while await keys.find("edge-1") is None:
                await asyncio.sleep(0.01)
        await ended(keeping)
    assert [line["event"] for line in lines] == ["key_not_announced", "key_announced_again"]


@pytest.mark.parametrize("name", ["registry-1", "agent-1"])
async def test_names_of_other_processes_are_not_looked_for(store, name):
    assert await EdgeKeys(store).find(name) is None
