"""The listener of metrics against whoever connects: real connections, one process."""

import contextlib
import http.client
import socket
import threading
import time

import pytest

from meshwright.core.metrics_listener import MOST_CONNECTIONS, MetricsListener

PATIENCE_S = 30.0


@contextlib.contextmanager
def listening(**options):
    listener = MetricsListener("127.0.0.1", 0, **options)
    thread = listener.start()
    try:
        yield listener
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(PATIENCE_S)


def asked(listener, method="GET", path="/metrics", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", listener.server_port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@contextlib.contextmanager
def held_open(listener, many):
    with contextlib.ExitStack() as open_ones:
        made = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", listener.server_port), PATIENCE_S))
            for _ in range(many)
        ]
        for one in made:
            with contextlib.suppress(OSError):  # closed already
                one.sendall(b"GET /met")
        yield made


def is_closed(connection):
    """Waits for the listener to end a connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def until(is_so):
    ends = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_metrics_are_told_in_the_form_that_is_asked_for():
    with listening() as listener:
        status, headers, body = asked(listener)
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert b"python_info" in body
        _, headers, body = asked(listener, headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")


def test_head_tells_the_length_and_no_metrics():
    with listening() as listener:
        status, headers, body = asked(listener, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 100


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/x", "/favicon.ico", "/config", "/%6detricsx"])
def test_nothing_else_is_there(path):
    with listening() as listener:
        status, _, body = asked(listener, path=path)
        assert status == 404
        assert b"python_info" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_is_taken(method):
    with listening() as listener:
        status, headers, body = asked(listener, method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert b"python_info" not in body


def test_further_connections_are_closed_and_take_no_threads():
    with listening(request_s=10 * PATIENCE_S) as listener:
        before = threading.active_count()
        with held_open(listener, 4 * MOST_CONNECTIONS) as made:
            assert all(is_closed(one) for one in made[MOST_CONNECTIONS:])
            assert threading.active_count() - before == MOST_CONNECTIONS
        until(lambda: threading.active_count() == before)
        assert asked(listener)[0] == 200


def test_a_request_that_never_ends_is_cut_even_if_it_trickles():
    with listening(request_s=0.3) as listener, held_open(listener, MOST_CONNECTIONS) as made:
        ends = time.monotonic() + PATIENCE_S
        with contextlib.suppress(OSError):
            while time.monotonic() < ends:
                made[0].sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < ends
        assert all(is_closed(one) for one in made[1:])
        assert asked(listener)[0] == 200


def test_whoever_leaves_amid_an_answer_is_no_news(capfd):
    with listening() as listener:
        before = threading.active_count()
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", listener.server_port), PATIENCE_S) as left:
                left.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        until(lambda: threading.active_count() == before)
        assert asked(listener)[0] == 200
    assert capfd.readouterr().err == ""
