"""Workloads: a deployment keeps its pods, rolls and lets them be evicted as Kubernetes' controllers do."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from k8s.rehearsal.manifests import Thing, name_of
from k8s.rehearsal.pod import Node, Pod
from meshwright.core.errors import SetupError

LOOK_S = 0.05
PROGRESS_S = 600
QUARTER = "25%"
EVICT_S = 1.0
"""`kubectl drain` asks again after 5 s where a budget refuses."""


class Workload:
    """The pods of a Deployment, a StatefulSet or a Job.

    Args:
        node: Where they run.
        manifest: Its own.
    """

    def __init__(self, node: Node, manifest: Thing) -> None:
        self.name = name_of(manifest)
        self.kind = str(manifest["kind"])
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []
        self._node, self._manifest = node, manifest
        self._spec: Thing = manifest["spec"]
        self._started = 0
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def replicas(self) -> int:
        """How many pods are wanted."""
        return int(self._spec.get("replicas", 1))

    @property
    def ready(self) -> list[Pod]:
        """The pods that take calls."""
        return [pod for pod in self.pods if pod.is_ready]

    @property
    def led_to(self) -> list[Pod]:
        """The pods that a service leads to."""
        return [pod for pod in self.all_pods if pod.is_led_to]

    @property
    def is_whole(self) -> bool:
        """Whether all that is wanted is there; of a job, whether it has ended well."""
        if self.kind == "Job":
            return any(pod.is_done for pod in self.pods)
        return len(self.pods) == len(self.ready) == self.replicas

    @property
    def all_pods(self) -> Iterator[Pod]:
        """Yields all that ever ran."""
        yield from (*self.gone, *self.pods)

    def fill(self) -> None:
        """Starts pods until there are as many as are wanted."""
        while len(self.pods) < self.replicas:
            self._add()

    def _add(self) -> Pod:
        """Starts a pod; one of a StatefulSet has the name, the address and the volumes of the one before."""
        number, self._started = self._started, self._started + 1
        if self.kind == "StatefulSet":
            address, claims = self._node.addresses.of(str(self._spec["serviceName"])), self._claims()
        else:
            address, claims = self._node.addresses.new(), {}
        pod = Pod(self._node, f"{self.name}-{number}", self._spec["template"], claims, address)
        pod.start()
        self.pods.append(pod)
        return pod

    def _claims(self) -> dict[str, Path]:
        claims = {one["metadata"]["name"]: one for one in self._spec.get("volumeClaimTemplates", ())}
        folders = {name: self._node.folder / "claims" / self.name / name for name in claims}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def _dismiss(self, pod: Pod) -> asyncio.Task[None]:
        """Lets a pod go; it is not counted any more while it takes its leave."""
        self.pods.remove(pod)
        self.gone.append(pod)
        leaving = asyncio.create_task(pod.stop())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    async def roll(self) -> float:
        """Replaces every pod, as after an `apply` of another image.

        Returns:
            Seconds until all new pods were ready and all old ones were gone.
        """
        started = time.monotonic()
        if self.kind == "StatefulSet":
            for pod in list(self.pods):
                await self._dismiss(pod)
                self._add()
                await self.wait()
        else:
            await self._roll_over(list(self.pods))
        await asyncio.gather(*self._leaving)
        return time.monotonic() - started

    async def _roll_over(self, old: list[Pod]) -> None:
        """Surges and retires: never more pods than surge allows, never fewer ready ones than unavailability does."""
        strategy: Thing = self._spec.get("strategy", {}).get("rollingUpdate", {})
        most = self.replicas + portion(strategy.get("maxSurge", QUARTER), self.replicas, math.ceil)
        least = self.replicas - portion(strategy.get("maxUnavailable", QUARTER), self.replicas, math.floor)
        async with self._patience():
            while old:
                while len(self.pods) < most and len(self.pods) - len(old) < self.replicas:
                    self._add()
                spare = len(self.ready) - least
                for pod in sorted(old, key=lambda one: one.is_ready):  # those that are of no use go first
                    if not pod.is_ready or spare > 0:
                        spare -= pod.is_ready
                        old.remove(pod)
                        self._dismiss(pod)
                await asyncio.sleep(LOOK_S)
        self.fill()
        await self.wait()

    def _patience(self) -> asyncio.Timeout:
        return asyncio.timeout(self._spec.get("progressDeadlineSeconds", PROGRESS_S))

    async def wait(self) -> None:
        """Waits until all that is wanted is there.

        Raises:
            SetupError: It did not come; says where to look.
        """
        try:
            async with self._patience():
                while not self.is_whole:  # noqa: ASYNC110 - pods change by themselves
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise SetupError(f"{self.name} did not become ready: see the logs in {self._node.folder}") from None

    def may_evict(self) -> bool:
        """Whether the budget lets one more pod go."""
        budget = self._node.manifests.budget(self._manifest)
        if budget is None:
            return True
        healthy, spec = len(self.ready), budget["spec"]
        if "minAvailable" in spec:
            return healthy - portion(spec["minAvailable"], self.replicas, math.ceil) > 0
        return healthy - (self.replicas - portion(spec["maxUnavailable"], self.replicas, math.ceil)) > 0

    async def empty(self) -> float:
        """Evicts every pod, as when all nodes are emptied: asks again where the budget refuses.

        Returns:
            Seconds until all of them were gone and their successors were ready.
        """
        started = time.monotonic()
        for pod in list(self.pods):
            async with self._patience():
                while not self.may_evict():  # noqa: ASYNC110 - pods change by themselves
                    await asyncio.sleep(EVICT_S)
            self._dismiss(pod)
            self.fill()
        await self.wait()
        await asyncio.gather(*self._leaving)
        return time.monotonic() - started

    async def kill(self, pod: Pod) -> float:
        """Ends one of its pods by force, as when its node is lost; another one takes its place.

        Returns:
            Seconds until all that is wanted was ready again.
        """
        started = time.monotonic()
        self.pods.remove(pod)
        self.gone.append(pod)
        await pod.kill()
        self.fill()
        await self.wait()
        return time.monotonic() - started

    async def stop(self) -> None:
        """Ends everything by force: what was to be seen has been seen."""
        await asyncio.gather(*(pod.kill() for pod in self.all_pods))
        await asyncio.gather(*self._leaving, return_exceptions=True)


def portion(said: int | str, whole: int, rounded: Callable[[float], int]) -> int:
    """Reads a number of pods, or a share of them in percent."""
    return rounded(whole * int(said[:-1]) / 100) if isinstance(said, str) else said
