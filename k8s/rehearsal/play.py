"""The play: everything is rolled, emptied and killed in turn, while calls are under way."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k8s.rehearsal.cluster import Cluster
from k8s.rehearsal.figures import Figures, figures
from k8s.rehearsal.load import Load
from k8s.rehearsal.workload import Workload
from meshwright.cli.chaos.rig import Kill

STATELESS = ("registry", "gateway", "tools", "helper", "trader")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, in this order.

    Attributes:
        steady_s: Seconds in which nothing is disturbed.
        rolled: Workloads that are rolled, one after the other.
        emptied: Workloads whose pods are evicted, all at the same time.
        killed: Workloads of which one pod is killed, one after the other.
        replicas: Other numbers of pods than the manifests want.
    """

    steady_s: float
    rolled: tuple[str, ...]
    emptied: tuple[str, ...]
    killed: tuple[str, ...]
    replicas: Mapping[str, int] = field(default_factory=dict)


FULL = Plan(20, (*STATELESS, "store"), STATELESS, (*STATELESS, "store") * 2)
SHORT = Plan(3, ("helper",), (), ("trader", "store"), {"registry": 1, "gateway": 1, "tools": 1, "helper": 1})


async def play(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Figures:
    """Plays it on a cluster of its own.

    Args:
        plan: What is done.
        folder: New and short: sockets lie in it.
        tell: Takes a line for people.

    Raises:
        SetupError: Something could not be started, or did not become ready again.
    """
    started = time.monotonic()
    cluster = Cluster(folder, tell, plan.replicas)
    async with cluster:
        up_s = time.monotonic() - started
        tell(f"everything is ready after {up_s:.1f} s")
        async with Load(cluster, folder) as load:
            await disturbed(plan, cluster, load, tell)
        for pod in cluster.pods:
            pod.measure()
    return figures(load, cluster, up_s)


async def disturbed(plan: Plan, cluster: Cluster, load: Load, tell: Callable[[str], None]) -> None:
    """Goes through the phases."""

    def chosen(names: Iterable[str]) -> list[Workload]:
        return [cluster.workloads[name] for name in names]

    async with load.phase("steady"):
        await asyncio.sleep(plan.steady_s)
    for workload in chosen(plan.rolled):
        tell(f"roll {workload.name}")
        async with load.phase(f"roll {workload.name}"):
            await workload.roll()
    if plan.emptied:
        tell("empty all nodes")
        async with load.phase("empty all nodes"):
            await asyncio.gather(*(workload.empty() for workload in chosen(plan.emptied)))
    for workload in chosen(plan.killed):
        tell(f"kill {workload.name}")
        async with load.phase(f"kill {workload.name}"):
            pod = await load.busy(workload.pods)
            load.kills += [Kill(pod.name, pid, time.time()) for pid in pod.pids]
            await workload.kill(pod)
