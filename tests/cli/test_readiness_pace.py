"""The readiness list of a mesh that takes few requests."""

import asyncio
import time
from dataclasses import replace

import pytest

from meshwright.cli.readiness import checklist, pace
from meshwright.cli.readiness.checklist import looked_at
from meshwright.cli.readiness.outcome import State
from meshwright.cli.readiness.peer import Answer
from meshwright.cli.readiness.survey import Survey
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    OverloadedError,
    QueueFullError,
    RateLimitedError,
)
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as directory
from tests.cli.liar import (
    ELSEWHERE,
    Liar,
    Reply,
    at,
    card,
    failing,
    health,
    look,
    of,
    raw,
    target,
)

TOO_MANY = failing(429, RateLimitedError("too many requests: slow down"))


def refused(request):
    """Says in the way of the request that it was too many."""
    is_grpc = request.headers.get("content-type") == "application/grpc"
    return Reply(200, b"", {"grpc-status": "8"}) if is_grpc else TOO_MANY


def each_once():
    """Refuses each request when it is first made."""
    seen = []

    def twist(request, good):
        if request in seen:
            return None
        seen.append(request)
        return refused(request)

    return twist


async def test_a_mesh_that_takes_few_requests_is_asked_again_and_lacks_nothing(public, tls, monkeypatch):
    monkeypatch.setattr(pace, "PAUSE_S", 0.02)
    monkeypatch.setattr("meshwright.cli.readiness.identity.secrets.token_hex", lambda many: "0" * 2 * many)
    liar = Liar(each_once())
    async with liar.serving(tls) as url, Liar().serving() as prometheus:
        lines = await looked_at(target(url, public.folder, prometheus=prometheus), Stores())
    lacking = {f"{line.group}: {line.name}": line.outcome for line in lines if line.outcome.state is not State.OK}
    assert lacking.keys() == ELSEWHERE, lacking


async def test_a_mesh_that_takes_no_request_is_not_seen(public, tls, monkeypatch):
    monkeypatch.setattr(pace, "PAUSE_S", 0.02)
    monkeypatch.setattr(pace, "PATIENCE_S", 0.1)
    async with Liar(lambda request, _: refused(request)).serving(tls) as url:
        lines = await looked_at(target(url, public.folder), Stores())
    seen = [line for line in lines if line.group != "transport" or line.name == "HSTS"]
    assert [line for line in seen if line.outcome.state is not State.UNSEEN] == []
    assert any("too many requests; it was waited for 0 s" in line.outcome.seen for line in seen)


async def test_a_mesh_that_takes_too_few_requests_for_a_minute_is_not_seen(public, tls, monkeypatch):
    monkeypatch.setattr(checklist, "TOTAL_S", 4.0)
    async with Liar(at("/v1/agents", TOO_MANY)).serving(tls) as url:
        lines = await looked_at(target(url, public.folder), Stores())
    (found,) = [line.outcome for line in lines if line.name == "agents' instances"]
    assert (found.state, found.seen) == (
        State.UNSEEN, "nothing is known after 4 s: the mesh takes few requests"
    ), found  # fmt: skip


def first_of(*twists):
    return lambda request, good: next(filter(None, (twist(request, good) for twist in twists)), None)


async def test_an_agent_that_could_not_be_asked_hides_none_that_is_ill(public, tls, monkeypatch):
    monkeypatch.setattr(pace, "PATIENCE_S", 0)
    cards = of(directory.ListAgentsResponse(agents=[card(), card(agent_id="other")]))
    busy = at("/v1/agents/other/health", TOO_MANY)
    ill = at("/v1/agents/clerk/health", of(health(status=3)))
    for twists, state in (([busy], State.UNSEEN), ([busy, ill], State.MISSING)):
        async with Liar(first_of(*twists, at("/v1/agents", cards))).serving(tls) as url:
            found = await look("contract: agents", target(url, public.folder))
        assert (found.state, "other" in found.seen) == (state, False), found


async def test_all_requests_wait_for_as_long_as_the_server_says(public, tls):
    times = []

    def twist(request, good):
        times.append(time.monotonic())
        return replace(TOO_MANY, headers={"retry-after": "1"}) if len(times) == 1 else None

    async with Liar(twist).serving(tls) as url:
        survey = Survey(target(url, public.folder), Stores())
        first = asyncio.create_task(survey.edge.ask("GET", "/ready"))
        while not survey.edge.pace.is_slowed:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(first, *(survey.edge.ask("GET", "/ready") for _ in range(3)))
    assert [answer.status for answer in answers] == [200] * 4
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("told", ["3600", "9" * 400])
async def test_a_server_that_is_not_to_be_asked_for_an_hour_is_not_waited_for(public, tls, told):
    async with Liar(lambda *_: replace(TOO_MANY, headers={"retry-after": told})).serving(tls) as url:
        with pytest.raises(RateLimitedError, match="it answers 429 RATE_LIMITED: too many requests"):
            await Survey(target(url, public.folder), Stores()).edge.ask("GET", "/ready")


@pytest.mark.parametrize(
    ("answer", "is_too_many"),
    [
        (TOO_MANY, True),
        (failing(429, OverloadedError("full")), True),
        (Reply(429, b"<html>"), True),
        (failing(429, QueueFullError("full")), False),
        (Reply(200, b"", {"grpc-status": "8"}), True),
        (Reply(200, b"", {"grpc-status": "12"}), False),
        (Reply(413, b"", {"grpc-status": "8"}), False),
        (Reply(503), False),
    ],
)
def test_only_a_request_that_came_too_soon_is_made_again(answer, is_too_many):
    assert Answer(answer.status, answer.headers, answer.body, 0.1).is_too_many is is_too_many


async def test_at_most_eight_requests_are_open_at_once(public, tls):
    now, most = [0], [0]

    async def counting(reader, writer):
        now[0] += 1
        most[0] = max(most[0], now[0])
        await reader.read(2**16)
        await asyncio.sleep(0.02)
        now[0] -= 1

    async with raw(tls, counting) as url:
        survey = Survey(target(url, public.folder), Stores())
        asked = (survey.edge.ask("GET", f"/{number}") for number in range(40))
        await asyncio.gather(*asked, return_exceptions=True)
    assert most[0] == pace.AT_ONCE
