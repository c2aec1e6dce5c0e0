"""Two instances of one agent behind the edge: the second takes traffic at once; one's end costs no keyed call."""

import asyncio
import http.client
import itertools
import json
import subprocess
import sys
import threading
import time

import pytest

from meshwright.agents.settings import AgentSettings
from meshwright.core.settings import child_environment
from meshwright.gateway.config import ADMIN
from meshwright.gateway.drain import ask

SOURCE = """
from meshwright.agents import Agent
agent = Agent("twin", "Says that it is done.", model="scripted:{script}")
"""
SCRIPT = "agents: {default: [{text: Done.}]}"
LOAD_S = 3.0
CALLERS = 4


@pytest.fixture
def twin(dev, tmp_path):
    """Starts instances of one agent beside the mesh, by hand."""
    (tmp_path / "script.yaml").write_text(SCRIPT)
    (tmp_path / "twin.py").write_text(SOURCE.format(script=tmp_path / "script.yaml"))
    settings = AgentSettings(store_url=dev.facts["store"], registry=dev.facts["registry"], lease_s=2)
    command = [sys.executable, "-m", "meshwright.agents", f"{tmp_path / 'twin.py'}:agent"]
    started = []

    def start():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(settings)
        )
        started.append(process)
        return process, json.loads(process.stdout.readline())["target"]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run(dev, task_id):
    return dev.request("POST", "/v1/agents/twin/run", {"prompt": "do", "task_id": task_id}).status


def calls_of(dev, target):
    """How many calls the edge has passed on to an instance; 0: it does not know it."""
    admin = dev.folder / "data/envoy" / ADMIN
    clusters = json.loads(asyncio.run(ask(admin, "GET", "/clusters?format=json")))["cluster_statuses"]
    twin = next((one for one in clusters if one["name"] == "agent-twin"), {})
    for host in twin.get("host_statuses", ()):
        address = host["address"]["socket_address"]
        if f"{address['address']}:{address['port_value']}" == target:
            stats = {one["name"]: int(one.get("value", 0)) for one in host["stats"]}
            return stats.get("rq_success", 0)
    return 0


def until(condition, within_s):
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_second_instance_takes_traffic_within_a_second(dev, twin):
    numbers = itertools.count()
    twin()
    until(lambda: run(dev, f"twin-{next(numbers)}") == 200, 10)
    _, target = twin()

    def takes_traffic():
        run(dev, f"twin-{next(numbers)}")
        return calls_of(dev, target)

    until(takes_traffic, 1)


def keyed(dev, task_id, failures):
    """Runs a task as a client does that gives it a name: the same call again where it was cut off, for ten seconds."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            answer = dev.request("POST", "/v1/agents/twin/run", {"prompt": "do", "task_id": task_id})
        except (OSError, http.client.HTTPException):
            continue
        if answer.status == 200 and answer.json["status"] == "TASK_STATUS_COMPLETED":
            return
        if answer.status not in (502, 503):
            failures.append(answer)
            return
        time.sleep(0.05)
    failures.append(task_id)


def test_an_instance_that_is_killed_under_load_costs_no_keyed_call(dev, twin):
    (first, target), _ = twin(), twin()
    numbers = itertools.count()
    until(lambda: run(dev, f"loaded-{next(numbers)}") == 200 and calls_of(dev, target), 10)
    failures, done, stop = [], [], threading.Event()

    def call(caller):
        for number in itertools.count():
            if stop.is_set():
                return
            keyed(dev, f"load-{caller}-{number}", failures)
            done.append(number)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD_S / 3)
    before = len(done)
    first.kill()
    time.sleep(LOAD_S)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert len(done) > before > 0
