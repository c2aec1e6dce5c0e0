"""What Envoy remembers of callers: it spares questions, and changes nothing else."""

import asyncio
import http.client
import json
import subprocess

import pytest

from meshwright.core.api_key import KNOWN_MS
from meshwright.core.identity import IDENTITY_KEY
from meshwright.core.interceptors import Guard
from meshwright.gateway.config import ADMIN

KNOWN_S = KNOWN_MS / 1000
QUESTION = {"agent_id": "clerk", "prompt": "What is 2 + 2?"}


def answered(folder, how):
    """How often the gateway's process has said who is calling, `ok`, or that nobody may, `denied`."""
    name = f"http.edge.ext_authz.{how}"
    url = f"http://envoy/stats?format=json&filter={name}$"
    read = ("curl", "-sS", "--unix-socket", folder / "envoy" / ADMIN, url)
    found = json.loads(subprocess.run(read, capture_output=True, check=True, timeout=10).stdout)
    return sum(one["value"] for one in found["stats"] if one.get("name") == name)


def burst(port, calls):
    """Calls on one connection, as fast as it goes; returns statuses and bodies."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    found = []
    for path, headers in calls:
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        found.append((answer.status, answer.read()))
    connection.close()
    return found


async def test_a_busy_caller_is_asked_about_once_in_a_while(edge, tmp_path):
    key = await edge.key("*")
    before = answered(tmp_path, "ok")
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.to_thread(burst, edge.port, [("/v1/tasks", [("x-api-key", key)])] * 100)
    spans = (loop.time() - began) / KNOWN_S
    assert {status for status, _ in answers} == {200}
    assert 1 <= answered(tmp_path, "ok") - before <= spans + 2
    await asyncio.sleep(KNOWN_S)
    before = answered(tmp_path, "ok")
    await asyncio.to_thread(burst, edge.port, [("/v1/tasks", [("x-api-key", key)])])
    assert answered(tmp_path, "ok") - before == 1


async def test_callers_who_take_turns_are_never_taken_for_each_other(edge):
    keys = [await edge.key("*", tenant=tenant) for tenant in ("one", "two", "three")]
    tasks = [(await edge.ask("POST", "/run", QUESTION, x_api_key=key)).json["task_id"] for key in keys]
    calls = [(f"/v1/tasks/{task}", [("authorization", f"Bearer {key}")]) for key in keys for task in tasks] * 20
    answers = await asyncio.to_thread(burst, edge.port, calls)
    expected = [200 if caller == owner else 404 for caller in range(3) for owner in range(3)] * 20
    assert [status for status, _ in answers] == expected


async def test_a_good_key_does_not_make_a_bad_one_good(edge):
    good, revoked = await edge.key("*"), await edge.key("*")
    await edge.keys.revoke(revoked.split("_")[1])
    bad = good[:-1] + ("0" if good[-1] != "0" else "1")
    calls = [[("x-api-key", good)], [("x-api-key", bad)], [], [("x-api-key", revoked)]]
    calls += [[("x-api-key", good), ("x-api-key", bad)], [("x-api-key", ""), ("authorization", f"Bearer {good}")]]
    answers = await asyncio.to_thread(burst, edge.port, [("/v1/tasks", headers) for headers in calls * 10])
    assert [status for status, _ in answers] == [200, 401, 401, 401, 401, 200] * 10


async def test_what_was_refused_is_asked_about_every_time(edge, tmp_path):
    calls = [("/v1/tasks", [("x-api-key", f"mwk_{'0' * 12}_{'0' * 64}")])] * 5
    before = answered(tmp_path, "denied")
    assert {status for status, _ in await asyncio.to_thread(burst, edge.port, calls)} == {401}
    assert answered(tmp_path, "denied") - before == 5


@pytest.mark.parametrize("held", ["x-api-key", "authorization"])
async def test_a_service_never_sees_what_a_caller_has_shown(edge, monkeypatch, held):
    seen = []
    served = Guard.service

    def noted(guard, details):
        if details.method.startswith("/agents.v1."):
            seen.append(dict(details.invocation_metadata))
        return served(guard, details)

    monkeypatch.setattr(Guard, "service", noted)
    key = await edge.key("*")
    value = key if held == "x-api-key" else f"Bearer {key}"
    answers = await asyncio.to_thread(burst, edge.port, [("/v1/tasks", [(held, value)])] * 10)
    assert ({status for status, _ in answers}, len(seen)) == ({200}, 10)
    for headers in seen:
        assert IDENTITY_KEY in headers
        assert not {"x-api-key", "authorization"} & set(headers)
        assert key.split("_")[2] not in str(headers)
