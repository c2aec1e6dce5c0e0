"""Versions of a tool in a running mesh, through the edge: what breaks is refused, tasks keep what they began with."""

import json
import subprocess
import sys
import time

import pytest
from google.protobuf import json_format

from meshwright.registry.module import tools
from tests.e2e.conftest import HERE, MESHWRIGHT

SOURCE = """
from meshwright.registry import tool

@tool(name="prices.of", version="{version}", effect="pure")
def of(article: str{more}) -> str:
    "Says what an article costs."
    return "12 cents, says {version}"
"""
RELEASES = {
    "1.0.0": "",
    "1.1.0": ", currency: str = 'EUR'",
    "1.2.0": ", *, currency: str",
    "2.0.0": ", *, currency: str",
}


@pytest.fixture
def release(dev, tmp_path):
    """Registers a version through the edge; one that is taken is served by a host of its own."""
    hosts = []

    def registered(version):
        file = tmp_path / f"prices_{version.replace('.', '_')}.py"
        file.write_text(SOURCE.format(version=version, more=RELEASES[version]))
        (tool,) = tools(str(file))
        contract = json_format.MessageToDict(tool.contract(), preserving_proto_field_name=True)
        answer = dev.request("POST", "/v1/tools", {"tool": contract})
        if answer.status == 200:
            hosts.append(started(*MESHWRIGHT, "tool", "serve", str(file), "--data", str(dev.folder / "data")))
        return answer

    yield registered
    for host in hosts:
        ended(host)


@pytest.fixture
def buyer(dev):
    """Starts an agent of `buyers.py` as a process of its own."""
    from meshwright.agents.settings import AgentSettings
    from meshwright.core.settings import child_environment

    agents = []

    def start(name):
        settings = AgentSettings(store_url=dev.facts["store"], registry=dev.facts["registry"], drain_s=1)
        command = [sys.executable, "-m", "meshwright.agents", f"{HERE / 'buyers.py'}:{name}"]
        agents.append(started(*command, env=child_environment(settings)))
        until(lambda: dev.request("GET", f"/v1/agents/{name}/health").status == 200)

    yield start
    for agent in agents:
        ended(agent)


def started(*command, **options):
    """Starts a process and waits until it says that it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)
    assert json.loads(process.stdout.readline())["target"]
    return process


def ended(process):
    process.terminate()
    process.wait(15)
    process.stdout.close()


def until(condition):
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


def said(dev, task_id):
    """Returns what the tool said to a task, call by call."""
    with dev.stream("GET", f"/v1/tasks/{task_id}/steps") as response:
        events = [json.loads(line) for line in response]
    results = [event["tool_result"]["result"] for event in events if "tool_result" in event]
    return [result for result in results if "cents" in result]


def bought(dev, name, task_id):
    """Has an agent buy, confirms where it asks, and returns what the tool said."""
    submit(dev, name, task_id)
    if name == "careful":
        confirm(dev, task_id)
    assert dev.finished(task_id)["output"] == "Bought."
    return said(dev, task_id)


def submit(dev, name, task_id):
    assert dev.request("POST", f"/v1/agents/{name}/tasks", {"prompt": "Buy.", "task_id": task_id}).status == 202


def confirm(dev, task_id):
    """Waits until a task is parked and lets it go on."""
    until(lambda: dev.request("GET", f"/v1/tasks/{task_id}").json["status"] == "TASK_STATUS_INPUT_REQUIRED")
    (asked,) = dev.request("GET", f"/v1/tasks/{task_id}").json["pending_inputs"]
    decision = {"input_id": asked["input_id"], "decision": "DECISION_APPROVE", "intent_digest": asked["intent_digest"]}
    assert dev.request("POST", f"/v1/tasks/{task_id}:resolve", decision).status == 200


def test_a_breaking_version_is_refused_by_its_pointer_and_tasks_keep_the_version_that_they_began_with(
    dev, release, buyer
):
    assert release("1.0.0").json["tool"]["version"] == "1.0.0"
    buyer("careful")
    submit(dev, "careful", "began-with-1-0")
    until(lambda: dev.request("GET", "/v1/tasks/began-with-1-0").json["status"] == "TASK_STATUS_INPUT_REQUIRED")

    (change,) = release("1.1.0").json["changes"]
    assert (change["rule"], change["pointer"], change["breaking"]) == (
        "PROPERTY_ADDED",
        "/input_schema/properties/currency",
        False,
    )

    refused = release("1.2.0")
    assert refused.status == 400
    info, request = refused.json["details"]
    assert (info["reason"], info["metadata"]) == ("INCOMPATIBLE_CONTRACT", {"against": "1.1.0", "places": "1"})
    (violation,) = request["field_violations"]
    assert violation["field"] == "/input_schema/required/1"
    assert violation["description"] == "REQUIRED_PROPERTY_ADDED: 'currency' must be there now"
    assert dev.request("GET", "/v1/tools/prices.of").json["version"] == "1.1.0"

    assert release("2.0.0").json.get("changes", []) == []
    buyer("modern")
    assert bought(dev, "modern", "begins-with-2") == ["12 cents, says 2.0.0"]
    assert bought(dev, "careful", "begins-with-1-1") == ["12 cents, says 1.1.0"] * 2
    confirm(dev, "began-with-1-0")
    assert dev.finished("began-with-1-0")["output"] == "Bought."
    assert said(dev, "began-with-1-0") == ["12 cents, says 1.0.0"] * 2
