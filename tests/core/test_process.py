"""Life of a service process: one ready line, one line for an error, an end when it is told."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from meshwright.core.process import ended

LIMIT_S = 20


@contextlib.contextmanager
def running(body: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a service whose main function has this body."""
    code = f"""
import asyncio, os, sys, time
from meshwright.core import process
from meshwright.core.errors import SetupError, UnavailableError
async def main(running):
{textwrap.indent(textwrap.dedent(body), "    ")}
process.run(main)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("SetupError('port 1 is in use: choose another one')", "error: port 1 is in use: choose another one\n"),
        ("UnavailableError('two\\n\\n  lines')", "error: two lines\n"),
    ],
)
def test_an_error_of_ours_is_one_line_and_exit_1(error, line):
    with running(f"raise {error}") as child:
        out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out, err) == (1, "", line)


def test_a_bug_is_not_hidden():
    with running("raise ZeroDivisionError") as child:
        _, err = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 1
    assert "ZeroDivisionError" in err


def test_readiness_is_one_line_of_json():
    with running("running.ready(target='127.0.0.1:7', port=7)") as child:
        out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, err) == (0, "")
    assert json.loads(out) == {"target": "127.0.0.1:7", "port": 7, "pid": child.pid}
    assert out.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_service_drain_and_exit_0(number):
    body = """
        running.ready()
        await running.stopping.wait()
        await asyncio.sleep(0.1)
        print("drained")
    """
    with running(body) as child:
        child.stdout.readline()
        child.send_signal(number)
        out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out, err) == (0, "drained\n", "")


def test_a_service_that_still_starts_is_stopped_at_once():
    body = """
        print("starting", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up")
    """
    with running(body) as child:
        child.stdout.readline()
        start = time.monotonic()
        child.terminate()
        out, err = child.communicate(timeout=LIMIT_S)
    assert time.monotonic() - start < 20
    assert (child.returncode, out, err) == (0, "cleaned up\n", "")


def test_an_error_while_stopping_is_told():
    with running("running.ready()\nawait running.stopping.wait()\nraise SetupError('could not drain')") as child:
        child.stdout.readline()
        child.terminate()
        _, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, err) == (1, "error: could not drain\n")


async def test_tasks_that_are_ended_have_ended():
    trace = []

    async def work(name):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            trace.append(name)

    tasks = [asyncio.create_task(work(name)) for name in "ab"]
    await asyncio.sleep(0)
    await ended(*tasks)
    assert sorted(trace) == ["a", "b"]
    assert all(task.cancelled() for task in tasks)
    await ended()
