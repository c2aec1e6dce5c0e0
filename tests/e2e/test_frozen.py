"""A process that is frozen: neither dead nor alive, it keeps nobody waiting."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from meshwright.agents.settings import AgentSettings
from meshwright.core.settings import child_environment
from tests.e2e.conftest import events

SOURCE = """
from meshwright.agents import Agent
agent = Agent("pair", "Takes its time.", model="scripted:{script}")
"""
SCRIPT = "agents: {default: [{text: Done., latency_ms: 15000}]}"
WATCHERS = 4
AT_MOST_S = 22.0
"""A connection is asked for a sign of life every 12 s, and has 6 s for it; less than the time of two heartbeats."""


@pytest.fixture
def pair(dev, tmp_path):
    """Starts instances of one agent beside the mesh."""
    (tmp_path / "script.yaml").write_text(SCRIPT)
    (tmp_path / "pair.py").write_text(SOURCE.format(script=tmp_path / "script.yaml"))
    settings = AgentSettings(store_url=dev.facts["store"], registry=dev.facts["registry"], lease_s=2)
    command = [sys.executable, "-m", "meshwright.agents", f"{tmp_path / 'pair.py'}:agent"]
    started = []

    def start():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(settings)
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(condition):
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_frozen_process_loses_its_watchers_and_they_go_on_at_another_one(dev, pair):
    first = pair()
    until(lambda: dev.request("GET", "/v1/agents/pair/health").status == 200)
    body, cut, seen = {"prompt": "wait", "task_id": "frozen"}, [], {number: [] for number in range(WATCHERS)}

    def watch(number):
        while not (seen[number] and "result" in seen[number][-1]):
            path, after = "/v1/agents/pair/steps", {"last_event_id": "0"}
            if seen[number]:
                path, after = "/v1/tasks/frozen/events", {"last_event_id": str(seen[number][-1]["sequence"])}
            method, sent = ("GET", None) if seen[number] else ("POST", body)
            with dev.stream(method, path, sent, accept="text/event-stream", **after) as response:
                if response.status == 200:
                    seen[number] += [event for event in events(response) if event.get("sequence")]
            cut.append(time.monotonic())
            time.sleep(0.2)

    threads = [threading.Thread(target=watch, args=(number,), daemon=True) for number in seen]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    pair()
    os.kill(first.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert max(sorted(cut)[:WATCHERS]) - frozen < AT_MOST_S
    numbers = [[event["sequence"] for event in some] for some in seen.values()]
    assert numbers == [list(range(1, len(numbers[0]) + 1))] * WATCHERS
