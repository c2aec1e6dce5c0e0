"""The client that asks a Prometheus, and what answers may be."""

import contextlib
import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import (
    InvalidRequestError,
    MeshError,
    SetupError,
    UnavailableError,
)
from tests.operate.delivering import (
    answering,
    prometheus,
    vector,
)


class TestClient:
    def test_values_are_read(self):
        with answering(lambda _: (200, vector("1.5", "+Inf"))) as (asked, _):
            assert asked.ask("x") == [1.5, float("inf")]

    def test_what_fails_once_is_asked_again(self):
        answers = [(503, b"x"), (200, b"{"), (200, vector("1"))]
        with answering(lambda _: answers.pop(0)) as (asked, queries):
            assert asked.ask("x") == [1.0]
        assert len(queries) == 3

    def test_a_wrong_expression_is_asked_once(self):
        body = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}).encode()
        with answering(lambda _: (400, body)) as (asked, queries), pytest.raises(InvalidRequestError, match="char 3"):
            asked.ask("x")
        assert len(queries) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            (200, vector("NaN")),
            (200, b""),
            (200, b"<html>"),
            (200, b"null"),
            (200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'),
            (200, b'{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"1"]]}]}}'),
            (200, b'{"status":"success","data":{"result":[{"value":[1,"many"]}]}}'),
            (200, b"[" * 100_000),
            (200, [b" " * 2**16] * 32),
            (401, b""),
            (400, b"no json"),
            (500, b"[]"),
            (302, b"", ("location", "http://127.0.0.1:9/elsewhere")),
        ],
        ids=str,
    )
    def test_nothing_can_be_told_from_anything_else(self, answer):
        client = answering(lambda _: answer, token="secret")
        with client as (asked, queries), pytest.raises(UnavailableError) as told:
            asked.ask("x")
        assert len(queries) == prometheus.TRIES
        assert "secret" not in told.value.message
        assert {shown for _, shown in queries} == {"Bearer secret"}

    def test_an_answer_that_drips_ends_in_time(self):
        over = threading.Event()

        def drips():
            while not over.wait(0.05):
                yield b" "

        with answering(lambda _: (200, drips()), timeout_s=2) as (asked, _):
            began = time.monotonic()
            with pytest.raises(UnavailableError, match="too long"):
                asked.ask("x")
            over.set()
        assert time.monotonic() - began < 30

    @pytest.mark.parametrize("url", ["", "prometheus:9090", "file:///etc/passwd", "http://", "ftp://x"])
    def test_an_address_is_one_of_http(self, url):
        with pytest.raises(SetupError, match="PROMETHEUS_URL"):
            prometheus.Prometheus(url)

    @pytest.mark.parametrize(
        "url",
        ["http://me:hunter2@127.0.0.1:1", "http://me:1/hunter2@127.0.0.1", "http://x?hunter2", "http://x:hunter2"],
    )
    def test_a_password_in_the_address_is_refused_and_not_told(self, url):
        with pytest.raises(SetupError, match="PROMETHEUS_TOKEN") as caught:
            prometheus.Prometheus(url)
        assert "hunter2" not in caught.value.message

    @given(
        st.binary(max_size=200)
        | st.recursive(
            st.none() | st.floats() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["data", "result", "value"]), x),
        ).map(lambda x: json.dumps(x).encode())
    )
    def test_any_answer_is_values_or_a_typed_error(self, body):
        with contextlib.suppress(MeshError):
            assert all(isinstance(value, float) for value in prometheus.values(body))
