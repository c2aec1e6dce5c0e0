"""A new version in a cluster: judged by the alerts of a real Prometheus, promoted, rolled back, or left to somebody."""

import contextlib
import json
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from k8s.components.rollouts import canary
from meshwright.core.errors import (
    UnavailableError,
)
from tests.operate.api_server import hash_of
from tests.operate.delivering import (
    DIGESTS,
    NAME,
    REPO,
    answering,
    delivering,
    delivery,
    image,
    prometheus,
    quiet,
    vector,
)
from tests.ports import free_ports

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: `make test-operate` installs it"
)
REPOSITORY = "registry.example:5000/mesh/researcher"
PODS = {"good": ("20", "0", "0"), "bad": ("20", "0.5", "0"), "idle": ("0", "0", "0")}
START_S = 30


@contextlib.contextmanager
def pod(agent, *words):
    """Runs a pod; yields the port of its metrics."""
    command = [sys.executable, "-m", "tests.operate.pod", agent, *words]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = next((line for line in process.stdout if "metrics_served" in line), "{}")
            yield json.loads(line)["port"]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A real Prometheus that scrapes pods of a good, a bad and an idle version, and a planner that gives tasks up."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_ports(1)[0]
    with contextlib.ExitStack() as running:
        pods = {f"{NAME}-{hash_of(image(what))}-x1": running.enter_context(pod(NAME, *PODS[what])) for what in PODS}
        pods["planner-0-x1"] = running.enter_context(pod("planner", "10", "0", "3"))
        static = [{"targets": [f"127.0.0.1:{told}"], "labels": {"pod": name}} for name, told in pods.items()]
        jobs = [{"job_name": "pods", "static_configs": static}]
        config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        process = running.enter_context(subprocess.Popen(command, cwd=folder))
        running.callback(process.kill)
        asked = prometheus.Prometheus(f"http://127.0.0.1:{port}")
        wanted = [
            f'rate(meshwright_tasks_ended_total{{pod="{name}"}}[5m])'
            for name in pods
            if hash_of(image("idle")) not in name
        ]
        until = time.monotonic() + START_S
        while not all(answered(asked, one) for one in wanted):
            assert time.monotonic() < until, "nothing is scraped"
            time.sleep(0.2)
        yield asked


def answered(asked, expression):
    try:
        return asked.ask(expression)
    except UnavailableError:
        return []


# ---- a real Prometheus


@needs_prometheus
class TestVersions:
    def test_a_good_one_is_promoted(self, scraped, in_cluster, capsys):
        one, made = delivering(scraped), in_cluster()
        decision = one.try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.PROMOTE, decision.why
        assert made.rollout["status"]["stableRS"] == hash_of(image("stable"))
        one.promote("")
        assert made.rollout["status"]["stableRS"] == hash_of(image("good"))
        assert capsys.readouterr().out.count("no alert fires") == canary.LOOKS

    def test_a_bad_one_is_rolled_back_at_the_first_look(self, scraped, in_cluster):
        one, made = delivering(scraped), in_cluster()
        decision = one.try_out(DIGESTS["bad"])
        assert decision.verdict is delivery.Verdict.ROLLBACK
        assert "MeshwrightTasksFail fires (docs/runbooks/tasks-fail.md)" in decision.why
        one.rollback("")
        assert made.image == image("stable")
        assert made.rollout["status"] == {
            "stableRS": hash_of(image("stable")),
            "currentPodHash": hash_of(image("stable")),
            "phase": "Healthy",
        }
        assert ("rollouts/researcher/status", {"status": {"abort": True}}) in made.changes

    def test_one_that_does_nothing_is_left_to_somebody(self, scraped, in_cluster):
        one, made = delivering(scraped), in_cluster()
        decision = one.try_out(DIGESTS["idle"])
        assert decision.verdict is delivery.Verdict.UNDECIDED
        assert "make promote" in decision.why
        assert made.image == image("idle")

    def test_none_is_started_while_an_alert_of_the_agent_fires(self, scraped, in_cluster):
        made = in_cluster("planner")
        decision = delivering(scraped, "planner").try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.UNDECIDED
        assert "MeshwrightDeadLetters fires" in decision.why
        assert made.changes == []


# ---- a Prometheus that says what it is told to


class TestDecisions:
    def test_an_alert_at_any_look_takes_a_version_back(self, in_cluster):
        in_cluster()
        looks = {"LoopLag": 0}

        def answer(query):
            if "event_loop_lag" not in query:
                return quiet(query)
            looks["LoopLag"] += 1
            return 200, vector("0.4") if looks["LoopLag"] == canary.LOOKS else vector()

        with answering(answer) as (asked, _):
            decision = delivering(asked).try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.ROLLBACK
        assert looks["LoopLag"] == canary.LOOKS

    def test_nothing_is_started_while_prometheus_is_away(self, in_cluster):
        made = in_cluster()
        asked = prometheus.Prometheus(f"http://127.0.0.1:{free_ports(1)[0]}", pause_s=0.01)
        decision = delivering(asked).try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.UNDECIDED
        assert "PROMETHEUS_URL" in decision.why
        assert made.changes == []

    @pytest.mark.parametrize("broken", [(503, b""), (200, vector("NaN")), (200, b"[]")])
    def test_a_prometheus_that_goes_away_meanwhile_leaves_it_to_somebody(self, in_cluster, broken):
        made = in_cluster()

        def answer(query):
            return broken if "pod=~" in query else quiet(query)

        with answering(answer) as (asked, _):
            decision = delivering(asked).try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.UNDECIDED
        assert made.image == image("good")

    def test_pods_that_do_not_become_ready_are_taken_back(self, in_cluster):
        made = in_cluster()
        made.begins = False
        with answering(quiet) as (asked, _):
            decision = delivering(asked, ready_s=0.3).try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.ROLLBACK
        assert "no pod of" in decision.why

    def test_what_argo_rollouts_has_aborted_is_taken_back(self, in_cluster):
        made = in_cluster()

        def answer(query):
            if "pod=~" in query:
                made.rollout["status"] |= {"abort": True, "message": "metric MeshwrightTasksFail assessed Failed"}
            return quiet(query)

        with answering(answer) as (asked, _):
            decision = delivering(asked).try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.ROLLBACK
        assert "assessed Failed" in decision.why

    def test_what_runs_already_is_not_started_anew(self, in_cluster):
        made = in_cluster()
        with answering(quiet) as (asked, queries):
            decision = delivering(asked).try_out(DIGESTS["stable"])
        assert decision.verdict is delivery.Verdict.PROMOTE
        assert (made.changes, queries) == ([], [])

    def test_one_that_was_left_undecided_is_judged_when_it_is_delivered_anew(self, in_cluster):
        made = in_cluster()
        with answering(lambda _: (200, vector())) as (asked, _):
            for _ in range(2):
                decision = delivering(asked).try_out(DIGESTS["good"])
                assert decision.verdict is delivery.Verdict.UNDECIDED
        assert [place for place, _ in made.changes] == ["deployments/researcher"]

    def test_only_the_image_of_that_name_changes(self, in_cluster):
        made = in_cluster()
        with answering(quiet) as (asked, _):
            delivering(asked).try_out(DIGESTS["good"])
        told = {one["name"]: one["image"] for one in made.deployment["spec"]["template"]["spec"]["containers"]}
        assert told == {"envoy": "proxy.example:5000/envoy:v1", "main": image("good")}


class TestServers:
    """A registry or a gateway has no rollout: all its pods are replaced, watched, and put back."""

    def test_a_good_one_stays(self, in_cluster):
        made = in_cluster("registry", is_rolled=False)
        with answering(quiet) as (asked, queries):
            one = delivering(asked, "registry")
            assert one.try_out(DIGESTS["good"]).verdict is delivery.Verdict.PROMOTE
            one.promote("")
        assert made.image == image("good", "registry")
        assert "meshwright_calls_total" in queries[-1][0]

    def test_a_bad_one_is_put_back(self, in_cluster):
        made = in_cluster("registry", is_rolled=False)

        def answer(query):
            return 200, vector("0.5") if "UNAVAILABLE" in query and "pod=~" in query else vector()

        with answering(answer) as (asked, _):
            one = delivering(asked, "registry")
            assert one.try_out(DIGESTS["good"]).verdict is delivery.Verdict.ROLLBACK
            one.rollback("")
        assert made.image == image("stable", "registry")
