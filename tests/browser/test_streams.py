"""Streams in a real browser whose lines are cut: every sequence once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import AGENTS, Dev
from tests.browser.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshwright.core.api_key import ApiKeys
    from tests.browser.conftest import Visit

CUTS = 3
SCOPES = ("tasks:read", "tasks:write", "tasks:approve", "agents:read")
SILENT_MS = 36_000
"""Longer than a stream may bring nothing."""
FOLLOW = """(path) => {
  const source = new EventSource(path);
  window.told = {sequences: [], opened: 0, isOver: false};
  const take = (event) => {
    told.sequences.push(Number(event.lastEventId));
    told.isOver ||= event.type === 'result';
  };
  source.onopen = () => { told.opened += 1; };
  source.onmessage = take;
  source.addEventListener('result', take);
  source.onerror = () => { told.isClosed = source.readyState === EventSource.CLOSED; };
}"""
AT_REST = "() => told.isOver && told.isClosed"


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A mesh with an agent that counts, and asks nobody who is calling."""
    yield from Dev(tmp_path_factory.mktemp("counting"), ("--agent", f"{AGENTS}:counting", "--lease", "1")).run()


async def test_an_event_source_sees_every_sequence_once_through_cuts_and_crashes(visit: Visit, counting: Dev) -> None:
    async with Relay(counting.port) as relay:
        await visit.open(counting, relay.url)
        body = {"prompt": "count"}
        answer = await visit.page.request.post(f"{counting.url}/v1/agents/counting/tasks", data=body)
        task_id = (await answer.json())["task_id"]
        await visit.page.evaluate(FOLLOW, f"/v1/tasks/{task_id}/events")
        for cut in range(1, CUTS + 1):
            await visit.page.wait_for_function("count => told.sequences.length > count", arg=2 * cut)
            await visit.page.wait_for_function("count => told.opened >= count", arg=cut)
            assert relay.cut() > 0
        for name, more in (("envoy", 8), ("counting", 11)):
            await visit.page.wait_for_function("count => told.sequences.length > count", arg=more)
            os.kill(counting.facts["pids"][name], signal.SIGKILL)
        await visit.page.wait_for_function(AT_REST)
        told = await visit.page.evaluate("told")
        task = await (await visit.page.request.get(f"{counting.url}/v1/tasks/{task_id}")).json()
    assert told["sequences"] == list(range(1, task["last_sequence"] + 1))
    assert told["opened"] > CUTS + 1


async def test_the_page_sees_every_sequence_once_with_a_key_through_cuts_and_a_crash(
    visit: Visit, keyed: Dev, keys: ApiKeys
) -> None:
    key, _ = await keys.create("page", SCOPES, tenant="default")
    async with Relay(keyed.port) as relay:
        await visit.page.goto(relay.url)
        await visit.give(key)
        await visit.listed()
        await visit.ask("count", agent="counting")
        rows = visit.page.locator("#steps > li .sequence")
        for cut in range(1, CUTS + 1):
            await rows.nth(2 * cut).wait_for()
            await visit.page.locator("#connection[data-state=live]").wait_for()
            assert relay.cut() > 0
            await visit.page.locator("#connection[data-state=reconnecting]").wait_for()
        await rows.nth(9).wait_for()
        os.kill(keyed.facts["pids"]["envoy"], signal.SIGKILL)
        await visit.reached("completed")
        await visit.page.locator("#connection[data-state=ended]").wait_for()
        shown = [int(text) for text in await rows.all_inner_texts()]
    assert shown == list(range(1, len(shown) + 1))
    assert len(shown) > 20
    assert key not in " ".join(visit.requests)


async def test_the_page_opens_a_stream_anew_that_has_fallen_silent(visit: Visit, counting: Dev) -> None:
    async with Relay(counting.port) as relay:
        await visit.page.clock.install()
        await visit.open(counting, relay.url)
        await visit.ask("count", agent="counting")
        rows = visit.page.locator("#steps > li .sequence")
        await rows.nth(4).wait_for()
        relay.mute_streams()
        await visit.page.clock.fast_forward(SILENT_MS)
        await visit.reached("completed")
        await visit.page.locator("#connection[data-state=ended]").wait_for()
        shown = [int(text) for text in await rows.all_inner_texts()]
    assert shown == list(range(1, len(shown) + 1))


async def test_a_stream_whose_key_is_revoked_goes_on_with_another(visit: Visit, keyed: Dev, keys: ApiKeys) -> None:
    key, known = await keys.create("page", SCOPES, tenant="default")
    async with Relay(keyed.port) as relay:
        await visit.page.goto(relay.url)
        await visit.give(key)
        await visit.listed()
        await visit.ask("count", agent="counting")
        await visit.page.locator("#steps > li").nth(4).wait_for()
        await keys.revoke(known.key_id)
        relay.cut()
        await visit.page.get_by_role("alert").get_by_text("was revoked").wait_for()
        await visit.page.locator("#connection[data-state=refused]").wait_for()
        another, _ = await keys.create("page", SCOPES, tenant="default")
        await visit.give(another)
        await visit.reached("completed")
        await visit.page.locator("#connection[data-state=ended]").wait_for()
        shown = [int(text) for text in await visit.page.locator("#steps > li .sequence").all_inner_texts()]
    assert shown == list(range(1, len(shown) + 1))
