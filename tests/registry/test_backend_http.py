"""Tools that are HTTP services: what is sent, what comes back, and what never shows."""

import asyncio
import base64
import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote, unquote

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.call import DEADLINE
from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    EgressRefusedError,
    InvalidRequestError,
    MeshError,
    ResultTooLargeError,
    ToolFailedError,
)
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry.backends.http import HttpTool
from meshwright.registry.backends.url_template import parsed_template
from meshwright.registry.invocation import INVOCATION, Invocation
from meshwright.registry.tool.hosted import HostedTool

CANARY = "canary-7f3a/9+secret=="


def schema(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


@pytest.fixture
def http(declared):
    """Makes an HTTP tool of a service: `http(service, "/path/{x}", input_schema=...)`."""

    def make(service, path, *, secrets=None, effect="pure", timeout_s=5.0, **fields):
        names = ("input_schema", "output_schema", "name", "approval")
        outer = {name: fields.pop(name) for name in names if name in fields}
        options = {"url": f"http://{service.place}{path}", "allow": [service.place]} | fields
        outer.setdefault("input_schema", schema())
        (tool,) = declared({"http": options}, secrets=secrets, effect=effect, timeout_s=timeout_s, **outer)
        return tool

    return make


def sent(service):
    """Returns the last request: first line, headers, body."""
    head, _, body = service.requests[-1].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body


async def test_arguments_fill_path_and_query_and_the_answer_is_the_result(outside, answered, http):
    service = await outside(answered('{"data": {"degrees": [21, 22]}}'))
    tool = http(
        service,
        "/v1/cities/{city}/weather?units=metric&days={days}&tag={tags}&near=at:{lat},{lon}&hint={hint}",
        input_schema=schema(
            "city", city=TEXT, days=NUMBER, tags={"type": "array"}, lat={"type": "number"}, lon=NUMBER, hint=TEXT
        ),
        result_pointer="/data/degrees/1",
    )
    arguments = {"city": "São Paulo/7?&#", "days": 3, "tags": ["a b", "c&d=e"], "lat": 1.5, "lon": -2}
    assert await tool.run(arguments) == 22
    first, headers, body = sent(service)
    path = "/v1/cities/S%C3%A3o%20Paulo%2F7%3F%26%23/weather"
    query = "units=metric&days=3&tag=a%20b&tag=c%26d%3De&near=at:1.5,-2"
    assert first == f"GET {path}?{query} HTTP/1.1"
    assert body == b""
    assert "idempotency-key" not in headers  # it only reads


async def test_the_rest_of_the_arguments_is_the_body_and_the_key_names_the_call(outside, answered, http, invocation):
    service = await outside(answered("", "204 No Content"))
    tool = http(
        service,
        "/orders/{id}",
        method="POST",
        effect="non_idempotent",
        input_schema=schema("id", id=TEXT, note=TEXT, lines={"type": "array"}),
        headers={"X-Api-Version": "2"},
    )
    assert await tool.run({"id": "7", "note": "für dich", "lines": [{"sku": "a"}]}) is None
    first, headers, body = sent(service)
    assert first == "POST /orders/7 HTTP/1.1"
    assert json.loads(body) == {"note": "für dich", "lines": [{"sku": "a"}]}
    assert (headers["content-type"], headers["x-api-version"]) == ("application/json", "2")
    assert headers["idempotency-key"].startswith(f"{invocation.key}-")


async def test_the_key_of_a_call_is_the_same_again_and_differs_between_tenants(outside, answered, http, invocation):
    service = await outside(answered("null"))
    tool = http(service, "/", method="PUT", effect="idempotent")
    keys = []
    for tenant, principal in (("acme", "alice"), ("acme", "alice"), ("beta", "alice"), ("acme", "bob")):
        INVOCATION.set(Invocation(tenant, principal, "task-1", "key-1"))
        await tool.run({})
        keys.append(sent(service)[1]["idempotency-key"])
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_one_argument_may_be_the_body(outside, answered, http):
    service = await outside(answered("null"))
    tool = http(service, "/", method="PATCH", body_argument="patch", input_schema=schema(patch={}))
    await tool.run({"patch": [1, {"a": None}]})
    assert json.loads(sent(service)[2]) == [1, {"a": None}]
    await tool.run({})
    assert sent(service)[2] == b""


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "../admin",
        "a/../b",
        "..\\admin",
        "a/./b",
        " .. ",
        "a\x00b",
        "a\r\nb",
        ["x"],
        {"a": 1},
        None,
    ],
)
async def test_a_value_that_would_change_the_path_is_refused_and_nothing_is_sent(outside, answered, http, value):
    service = await outside(answered("null"))
    tool = http(service, "/items/{id}/parts", input_schema=schema("id", id={}))
    with pytest.raises(InvalidRequestError, match="id does not fit"):
        await tool.run({"id": value})
    assert service.connections == 0


@pytest.mark.parametrize("value", ["x" * 9_000, ["x"] * 101, ["x" * 100] * 100, "\u20ac" * 1_000])
async def test_arguments_that_are_too_long_for_a_url_are_refused(outside, answered, http, value):
    service = await outside(answered("null"))
    tool = http(service, "/?q={q}", input_schema=schema(q={}))
    with pytest.raises(InvalidRequestError, match=r"too long for a URL|too many items"):
        await tool.run({"q": value})
    assert service.connections == 0


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_no_value_changes_host_path_or_query(value):
    template = parsed_template("https://api.example/v1/{a}/x{a}y?q={a}&fixed=1")
    try:
        url = template.filled({"a": value})
    except InvalidRequestError:
        return
    head, _, query = url.partition("?")
    scheme, _, host, version, first, second = head.split("/")
    assert (scheme, host, version) == ("https:", "api.example", "v1")
    assert url.isascii()
    assert not set(url) & set(" #\\\r\n")
    text = "true" if value is True else "false" if value is False else str(value)
    assert (unquote(first), unquote(second)) == (text, f"x{text}y")
    assert query == f"q={quote(text, safe='')}&fixed=1"


async def test_text_is_a_result_where_it_is_declared(outside, answered, http):
    service = await outside(answered(b"caf\xc3\xa9 \xff"))
    assert await http(service, "/", result="text").run({}) == "café \ufffd"


@pytest.mark.parametrize(
    ("body", "fields", "told"),
    [
        ("<html>", {}, "is no JSON"),
        ('{"a": NaN}', {}, "is no JSON"),
        ("[" * 100_000, {}, "is no JSON"),
        ("1" * 5_000, {}, "is no JSON"),
        ('{"a": 1}', {"result_pointer": "/b"}, "has nothing at /b"),
        ("[1]", {"result_pointer": "/7"}, "has nothing at /7"),
        ("[1]", {"result_pointer": "/-"}, "has nothing at /-"),
        ("1", {"result_pointer": "/a"}, "has nothing at /a"),
    ],
)
async def test_an_answer_that_cannot_be_read_is_told(outside, answered, http, body, fields, told):
    service = await outside(answered(body))
    with pytest.raises(ToolFailedError, match=told):
        await http(service, "/", **fields).run({})


@pytest.mark.parametrize(
    "status",
    [
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "422 Unprocessable",
        "302 Found",
    ],
)
async def test_a_refusal_is_data_that_a_model_can_act_on(outside, answered, http, status):
    service = await outside(answered("no city\n  of that   name " + "x" * 5_000, status))
    with pytest.raises(ToolFailedError, match=f"answered {status[:3]}: no city of that name x") as caught:
        await http(service, "/").run({})
    assert not caught.value.is_retryable
    assert len(caught.value.message) < 700
    assert caught.value.metadata == {"http_status": status[:3]}


@pytest.mark.parametrize(
    "status",
    [
        "408 Request Timeout",
        "409 Conflict",
        "425 Too Early",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ],
)
async def test_what_may_pass_may_be_tried_again(outside, answered, http, status):
    service = await outside(answered("later", status, Retry_After="7"))
    with pytest.raises(BackendUnavailableError, match=f"answered {status[:3]}: later") as caught:
        await http(service, "/").run({})
    assert caught.value.is_retryable
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(("redact", "is_told"), [((), True), (("/secret",), False)])
async def test_a_refusal_says_nothing_of_the_answer_where_something_is_redacted(
    outside, answered, http, redact, is_told
):
    service = await outside(answered('{"secret": "4711"}', "404 Not Found"))
    with pytest.raises(ToolFailedError, match="answered 404") as caught:
        await replace(http(service, "/"), redact=redact).run({})
    assert ("4711" in caught.value.message) == is_told


async def test_a_broken_call_with_effects_says_that_it_may_have_had_them(outside, answered, http, invocation):
    service = await outside(answered("", "500 Oh"))
    with pytest.raises(BackendUnavailableError, match="it may have had its effect"):
        await http(service, "/", method="POST", effect="non_idempotent").run({})


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("0", 0), ("99999999", 3_600), ("soon", None), ("-1", None), ("", None), ("9" * 5_000, None), ("²", None)],
)
async def test_a_wish_to_wait_is_bounded(outside, answered, http, said, seconds):
    head = answered("", "503 Busy", Retry_After=said.encode().decode("latin-1"))
    service = await outside(head)
    with pytest.raises(BackendUnavailableError) as caught:
        await http(service, "/").run({})
    assert caught.value.retry_after_s == seconds


async def test_a_wish_to_wait_may_be_a_date(outside, answered, http):
    service = await outside(
        answered("", "503 Busy", Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=60)))
    )
    with pytest.raises(BackendUnavailableError) as caught:
        await http(service, "/").run({})
    assert 50 < (caught.value.retry_after_s or 0) <= 60


async def test_a_pure_call_has_no_more_time_than_its_caller(outside, http):
    async def silent(writer):
        await asyncio.sleep(30)

    tool = http(await outside(silent), "/")
    began = time.monotonic()
    token = DEADLINE.set(began + 0.3)
    with pytest.raises(DeadlineExceededError):
        await tool.run({})
    DEADLINE.reset(token)
    assert time.monotonic() - began < 20


async def test_an_answer_beyond_the_declared_size_is_refused(outside, answered, http):
    service = await outside(answered('"' + "x" * 2_000 + '"'))
    with pytest.raises(ResultTooLargeError):
        await http(service, "/", max_bytes=1_000).run({})


async def test_a_tool_without_an_allowance_calls_nothing_next_door(outside, answered, http):
    service = await outside(answered("null"))
    with pytest.raises(EgressRefusedError):
        await http(service, "/", allow=[]).run({})
    assert service.connections == 0


def mirrors(text):
    """Spells a secret in the ways in which services send it back."""
    encoded = base64.b64encode(text.encode()).decode()
    return [text, quote(text, safe=""), encoded, encoded.rstrip("="), text.encode().hex(), text.upper()]


async def everything_that_shows(tool, caught, caplog):
    """Collects every text that leaves a call: errors, reprs, logs."""
    shown = [repr(tool), str(tool), repr(vars(tool)), repr(tool.contract()), caplog.text]
    for error in caught:
        shown += [repr(error), str(error), repr(vars(error)), str(error.to_status()), repr(error.__cause__)]
    return "\n".join(shown)


@pytest.mark.parametrize("spelled", mirrors(CANARY))
async def test_a_secret_is_sent_and_appears_in_no_log_error_result_or_repr(
    outside, answered, http, monkeypatch, caplog, spelled
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CANARY_KEY", CANARY)
    bodies = iter(
        [
            answered(json.dumps({"echo": f"you sent {spelled}", spelled: [spelled]})),
            answered(f"wrong key {spelled}" + "x" * 600, "401 Unauthorized"),
            answered(f"busy {spelled}", "503 Busy"),
            answered("", "302 Found", Location=f"http://169.254.169.254/{quote(spelled, safe='')}"),
            answered(f"not json {spelled}"),
            b"HTTP/1.1 2OO " + spelled.encode() + b"\r\n\r\n",
        ]
    )
    service = await outside(lambda _: next(bodies))
    secrets = {"CANARY": {"env": "CANARY_KEY", "places": [service.place]}}
    headers = {"Authorization": {"secret": "CANARY", "prefix": "Bearer "}}
    tool = http(service, "/", secrets=secrets, headers=headers, redirects=1)
    with structlog.testing.capture_logs() as logged:
        result = await tool.run({})
        caught = []
        for _ in range(5):
            with pytest.raises(MeshError) as error:
                await tool.run({})
            caught.append(error.value)
    assert all(f"Authorization: Bearer {CANARY}".encode() in one for one in service.requests)
    assert result == {"echo": "you sent [secret]", "[secret]": ["[secret]"]}
    shown = await everything_that_shows(tool, caught, caplog) + repr(logged)
    for mirror in mirrors(CANARY):
        assert mirror.lower() not in shown.lower()


async def test_a_call_through_a_host_is_checked_and_settled(outside, answered, http, hosting, registry):
    service = await outside(answered('{"id": 7}'))
    tool = http(
        service,
        "/orders",
        method="POST",
        effect="non_idempotent",
        input_schema=schema("sku", sku=TEXT),
        output_schema=schema("id", id=NUMBER),
        name="orders.create",
    )
    assert isinstance(tool, HttpTool)
    assert isinstance(tool, HostedTool)
    hosted = await hosting(tool)
    grant = Grant(tenant="acme", principal="alice", task_id="task-1", tools=["orders.create@1.0.0"])
    with pytest.raises(InvalidRequestError):
        await hosted.host.invoke(grant, "orders.create@1.0.0", "{}", "key-1")
    first = await hosted.host.invoke(grant, "orders.create@1.0.0", '{"sku": "a"}', "key-1")
    again = await hosted.host.invoke(grant, "orders.create@1.0.0", '{"sku": "a"}', "key-1")
    assert (first.result_json, again.result_json, again.replayed) == ('{"id": 7}', '{"id": 7}', True)
    assert service.connections == 1
