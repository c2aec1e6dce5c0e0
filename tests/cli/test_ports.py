"""Ports that a mesh picks: free ones, and never those that another mesh has picked a moment ago."""

import os
import socket
import subprocess
import sys

import pytest

from meshwright.cli import ports
from meshwright.core.errors import SetupError

HOST = "127.0.0.1"


@pytest.fixture
def few(monkeypatch):
    """Leaves ten ports to pick from, each with nobody on it."""
    first = next(number for number in range(20_000, 31_900, 10) if all(map(is_quiet, range(number, number + 10))))
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 9)
    monkeypatch.setattr(ports, "CLAIMS", claims := {})
    yield first
    for claimed in claims.values():
        os.close(claimed)


def is_quiet(port):
    if not ports.is_free(HOST, port):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def picked_elsewhere(first, count):
    """Has another process pick ports; returns it and them. It holds them until its input ends."""
    code = (
        "import sys; from meshwright.cli import ports\n"
        f"ports.FIRST, ports.LAST, taken = {first}, {first + 9}, set()\n"
        f"print(*(ports.reserve({HOST!r}, taken) for _ in range({count})), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, set(map(int, process.stdout.readline().split()))


def test_what_another_process_has_picked_is_not_picked_again_until_that_one_has_ended(few):
    process, theirs = picked_elsewhere(few, 5)
    assert len(theirs) == 5
    taken = set()
    ours = {ports.reserve(HOST, taken, wish=one) for one in theirs}
    assert len(ours) == 5
    assert not ours & theirs
    process.communicate("")
    assert ports.reserve(HOST, taken, wish=min(theirs)) == min(theirs)


def test_a_port_that_was_picked_can_be_listened_on(few):
    with socket.create_server((HOST, ports.reserve(HOST, set()))) as server:
        assert not ports.is_free(*server.getsockname())


def test_a_range_that_is_used_up_is_told(few):
    taken = set()
    for _ in range(10):
        ports.reserve(HOST, taken)
    with pytest.raises(SetupError, match=f"no free port between {few} and {few + 9}"):
        ports.reserve(HOST, taken)


def test_old_claims_are_given_up(few, monkeypatch):
    monkeypatch.setattr(ports, "MOST_CLAIMS", 3)
    taken = set()
    for _ in range(6):
        ports.reserve(HOST, taken)
    assert len(ports.CLAIMS) == 3
    assert sum(map(is_quiet, taken)) == 3
