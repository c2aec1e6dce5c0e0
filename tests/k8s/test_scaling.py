"""Agents are scaled by what their processes count: the queries, asked of Prometheus's own tool."""

import pytest
import yaml
from prometheus_client import REGISTRY

from meshwright.agents.library.bundle import BUNDLED
from meshwright.agents.settings import AgentSettings
from meshwright.core import telemetry
from tests.k8s.objects import named
from tests.operate.promtool import needs_promtool, promtool


@pytest.fixture(scope="module", params=BUNDLED)
def scaler(overlays, request):
    return named(overlays["prod"], "ScaledObject", request.param)


def trigger(scaler):
    (only,) = scaler["spec"]["triggers"]
    return only["metadata"]


def sees(scaler, folder, ready, running):
    """Holds that a scaler sees all tasks, of its own agent alone.

    Args:
        ready: What each instance tells of the queue, by version.
        running: Tasks that each instance runs.
    """
    name = scaler["metadata"]["name"]

    def series(metric, at, value, labels=""):
        return {"series": f'{metric}{{agent="{name}",instance="{at}"{labels}}}', "values": str(value)}

    told = [series("meshwright_tasks_running", at, many) for at, many in enumerate(running)]
    for version, many in ready.items():
        told += [series("meshwright_tasks_ready", at, many, f',version="{version}"') for at in range(2)]
    told.append({"series": 'meshwright_tasks_running{agent="another",instance="9"}', "values": "99"})
    seen = sum(ready.values()) + sum(running)
    asked = {"expr": trigger(scaler)["query"], "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": seen}]}
    file = folder / "scaler.yaml"
    file.write_text(yaml.safe_dump({"tests": [{"input_series": told, "promql_expr_test": [asked]}]}))
    code, said = promtool("test", "rules", str(file))
    assert code == 0, said


@needs_promtool
@pytest.mark.parametrize(
    ("ready", "running"),
    [({"": 0}, []), ({"": 5}, []), ({"": 16}, [8, 8]), ({"1": 3, "2": 4}, [1]), ({"": 0}, [8, 8, 8, 7])],
)
def test_an_agent_has_instances_for_tasks_that_wait_and_for_those_that_run(scaler, tmp_path, ready, running):
    """Else those that work would be taken for spare as soon as nothing waits any more, and cut."""
    sees(scaler, tmp_path, ready, running)


def test_an_instance_is_there_for_as_many_tasks_as_it_runs_at_once(scaler):
    assert int(trigger(scaler)["threshold"]) == AgentSettings.model_fields["concurrency"].default


def test_what_is_asked_is_what_processes_count():
    telemetry.TASKS_READY.labels("judged", "").set(3)
    telemetry.TASKS_RUNNING.labels("judged").set(2)
    assert REGISTRY.get_sample_value("meshwright_tasks_ready", {"agent": "judged", "version": ""}) == 3
    assert REGISTRY.get_sample_value("meshwright_tasks_running", {"agent": "judged"}) == 2
