"""Pods of the rehearsal are started, probed, rolled, evicted and stopped as in a cluster."""

import asyncio
import math
import time
from pathlib import Path

import pytest

from k8s.rehearsal.workload import portion
from tests.k8s.toys import SERVES, Toys, budget, container, deployment, until

SLOW = "cd $FOLDER; sleep 0.3; touch ready; exec sleep 100"


async def test_a_pod_is_ready_only_by_its_probe(tmp_path):
    async with Toys(tmp_path, deployment(container("cd $FOLDER; sleep 0.5; touch ready; exec sleep 100"))) as toys:
        (pod,) = toys.workload.pods
        assert pod.is_ready
        next(tmp_path.rglob("ready")).unlink()
        await until(lambda: not pod.is_ready)


async def test_a_container_that_dies_is_started_again(tmp_path):
    script = "cd $FOLDER; [ -f once ] && { touch ready; exec sleep 100; }; touch once; exit 3"
    async with Toys(tmp_path, deployment(container(script))) as toys:
        assert toys.workload.pods[0].containers[0].restarts == 1
    assert "ended with 3" in toys.heard[0]


async def test_a_container_that_does_not_answer_for_its_life_is_killed_and_started_again(tmp_path):
    alive = {"exec": {"command": ["test", "-f", "alive"]}, "periodSeconds": 0.1, "failureThreshold": 2}
    script = "cd $FOLDER; touch ready alive; exec sleep 100"
    async with Toys(tmp_path, deployment(container(script, livenessProbe=alive))) as toys:
        next(tmp_path.rglob("alive")).unlink()
        (one,) = toys.workload.pods[0].containers
        await until(lambda: one.restarts == 1 and one.is_ready)
    assert any("does not answer its probe" in what for what in toys.heard)


async def test_other_probes_wait_for_the_one_of_the_start(tmp_path):
    started = {"exec": {"command": ["test", "-f", "started"]}, "periodSeconds": 0.1, "failureThreshold": 100}
    never = {"exec": {"command": ["false"]}, "periodSeconds": 0.05, "failureThreshold": 1}
    script = "cd $FOLDER; touch ready; sleep 0.5; touch started; exec sleep 100"
    toys = Toys(tmp_path, deployment(container(script, startupProbe=started, livenessProbe=never)))
    toys.workload.fill()
    await until(lambda: list(tmp_path.rglob("ready")))
    assert not toys.workload.ready
    assert not toys.heard
    await until(lambda: toys.heard)
    assert list(tmp_path.rglob("started"))
    await toys.workload.stop()


async def test_what_a_container_has_started_ends_with_it(tmp_path):
    async with Toys(tmp_path, deployment(container(f"sleep 77 & echo $! > $FOLDER/child; {SERVES}"))) as toys:
        child = int(next(tmp_path.rglob("child")).read_text())
        await toys.workload.kill(toys.workload.pods[0])
        await until(lambda: is_gone(child))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


async def test_a_pod_is_told_before_it_has_to_stop(tmp_path):
    before = {"preStop": {"exec": {"command": ["sh", "-c", "echo before; sleep 0.3"]}}}
    script = "trap 'echo stops; exit 0' TERM; cd $FOLDER; touch ready; while true; do sleep 0.05; done"
    async with Toys(tmp_path, deployment(container(script, lifecycle=before))) as toys:
        (pod,) = toys.workload.pods
        await pod.stop()
        assert toys.printed(pod).split() == ["before", "stops"]
        assert 3 < pod.spare_s < 5
        assert not pod.is_ready


async def test_services_lead_to_a_pod_for_a_moment_after_its_end_was_decided(tmp_path):
    script = "trap '' TERM; cd $FOLDER; touch ready; while true; do sleep 0.05; done"
    async with Toys(tmp_path, deployment(container(script), grace_s=100)) as toys:
        (pod,) = toys.workload.pods
        assert toys.workload.led_to == [pod]
        going = asyncio.create_task(pod.stop())
        await until(lambda: pod.is_going)
        assert not pod.is_ready
        assert toys.workload.led_to == [pod]
        await until(lambda: not toys.workload.led_to)
        await pod.kill()
        await going


async def test_nobody_is_led_to_a_pod_that_was_killed(tmp_path):
    async with Toys(tmp_path, deployment(container(SERVES))) as toys:
        (pod,) = toys.workload.pods
        await pod.kill()
        assert toys.workload.led_to == []


async def test_a_pod_that_does_not_stop_in_its_time_is_killed(tmp_path):
    script = "trap '' TERM; cd $FOLDER; touch ready; while true; do sleep 0.05; done"
    async with Toys(tmp_path, deployment(container(script), grace_s=1)) as toys:
        started = time.monotonic()
        await toys.workload.pods[0].stop()
        assert 1 <= time.monotonic() - started < 10
    assert "grace period is over" in toys.heard[0]


@pytest.mark.parametrize(
    ("strategy", "least", "most"),
    [(None, 2, 3), ({"maxSurge": 0, "maxUnavailable": 1}, 1, 2), ({"maxSurge": "100%", "maxUnavailable": 0}, 2, 4)],
)
async def test_a_roll_keeps_within_surge_and_unavailability(tmp_path, strategy, least, most):
    async with Toys(tmp_path, deployment(container(SLOW), replicas=2, strategy=strategy)) as toys:
        old = {pod.name for pod in toys.workload.pods}
        assert await toys.watched(toys.workload.roll()) == (least, most)
        assert len(toys.workload.ready) == 2
        assert not old & {pod.name for pod in toys.workload.pods}


@pytest.mark.parametrize("spec", [{"maxUnavailable": 1}, {"minAvailable": 1}, {"minAvailable": "50%"}])
async def test_eviction_keeps_the_budget(tmp_path, spec):
    async with Toys(tmp_path, deployment(container(SLOW), replicas=2), budget(**spec)) as toys:
        least, _ = await toys.watched(toys.workload.empty())
        assert least == 1


async def test_without_a_budget_all_pods_go_at_once(tmp_path):
    async with Toys(tmp_path, deployment(container(SLOW), replicas=2)) as toys:
        least, _ = await toys.watched(toys.workload.empty())
        assert least == 0


async def test_another_pod_takes_the_place_of_one_that_was_killed(tmp_path):
    async with Toys(tmp_path, deployment(container(SERVES))) as toys:
        (before,) = toys.workload.pods
        await toys.workload.kill(before)
        (after,) = toys.workload.ready
        assert (before.address == after.address, before.name == after.name) == (False, False)
        assert before.pids == []


async def test_a_pod_of_a_stateful_set_has_address_and_volume_of_the_one_before(tmp_path):
    script = "touch /data/$(ls /data | wc -l); cd $FOLDER; touch ready; exec sleep 100"
    one = container(script)
    one["volumeMounts"].append({"name": "data", "mountPath": "/data"})
    manifest = deployment(one, kind="StatefulSet")
    manifest["spec"] |= {"serviceName": "toy", "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}
    async with Toys(tmp_path, manifest) as toys:
        (before,) = toys.workload.pods
        await toys.workload.roll()
        (after,) = toys.workload.ready
        assert before is not after
        assert before.address == after.address
        (claim,) = tmp_path.rglob("claims/toy/data")
        assert {path.name for path in claim.iterdir()} == {"0", "1"}


async def test_a_job_is_done_once_it_has_ended_well(tmp_path):
    script = "cd $FOLDER; [ -f once ] && exit 0; touch once; exit 1"
    one = container(script)
    del one["readinessProbe"]
    async with Toys(tmp_path, deployment(one, kind="Job", restart="OnFailure")) as toys:
        (pod,) = toys.workload.pods
        assert pod.is_done
        assert pod.containers[0].restarts == 1


async def test_the_most_memory_of_a_container_is_known_after_its_end(tmp_path):
    script = "cd $FOLDER; touch ready; exec python -c 'import time; held = bytes(range(256)) * 2**17; time.sleep(100)'"
    async with Toys(tmp_path, deployment(container(script))) as toys:
        (pod,) = toys.workload.pods
        (one,) = pod.containers
        await until(lambda: one.peak_kib > 2**15)
        await pod.stop()
        assert 2**15 < one.peak_kib < 2**17
        assert one.memory_limit == "64Mi"


@pytest.mark.parametrize(
    ("said", "whole", "up", "down"), [("25%", 2, 1, 0), ("50%", 2, 1, 1), (1, 2, 1, 1), (0, 5, 0, 0)]
)
def test_shares_of_pods_are_rounded_as_kubernetes_does(said, whole, up, down):
    assert (portion(said, whole, math.ceil), portion(said, whole, math.floor)) == (up, down)
