"""A pod: its address, its volumes and its containers, from a workload's template."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.container import Container
from k8s.rehearsal.environment import environment
from k8s.rehearsal.image import Images
from k8s.rehearsal.manifests import Manifests, Thing
from k8s.rehearsal.secrets import Secrets
from k8s.rehearsal.volumes import Volumes
from meshwright.core.errors import SetupError

GRACE_S = 30
HEARD_S = 1.5
"""So long after the end of a pod was decided, services lead to it: nodes hear of that one by one."""


@dataclass(frozen=True, slots=True)
class Node:
    """What pods run on.

    Attributes:
        folder: Takes a folder a pod.
        manifests: Where config maps stand.
        addresses: Of pods and services.
        secrets: What secrets hold.
        images: The programs.
        tell: Takes a line for people.
    """

    folder: Path
    manifests: Manifests
    addresses: Addresses
    secrets: Secrets
    images: Images
    tell: Callable[[str], None]


class Pod:
    """One pod.

    Args:
        node: Where it runs.
        name: Its own.
        template: Its workload's.
        claims: Folders of its volumes that outlive it, by name of the volume.
        address: Its own.
    """

    def __init__(self, node: Node, name: str, template: Thing, claims: dict[str, Path], address: str) -> None:
        self.name, self.address = name, address
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.is_going = False
        self._node = node
        self._spec: Thing = template["spec"]
        self._folder = node.folder / name
        self._folder.mkdir(parents=True)
        self._volumes = Volumes(self._folder / "volumes", self._spec, claims, node.manifests, node.secrets)
        self.containers = [self._container(spec) for spec in self._spec["containers"]]
        self._runs: list[asyncio.Task[None]] = []
        self.spare_s = 0.0
        self._led_until = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls: every container says so, and it is not on its way out."""
        return not self.is_going and all(container.is_ready for container in self.containers)

    @property
    def is_led_to(self) -> bool:
        """Whether a service leads to it: while it takes calls, and until all have heard that it goes."""
        return self.is_ready or asyncio.get_running_loop().time() < self._led_until

    @property
    def is_done(self) -> bool:
        """Whether every container has ended well, as those of a job do."""
        return all(container.is_done for container in self.containers)

    @property
    def pids(self) -> list[int]:
        """Its main processes that run."""
        return [container.pid for container in self.containers if container.pid]

    def measure(self) -> None:
        """Notes how much memory its containers have used."""
        for container in self.containers:
            container.measure()

    def port(self, name: str) -> int:
        """Returns the port of a name, of whichever container has it.

        Raises:
            SetupError: None has.
        """
        for container in self._spec["containers"]:
            for port in container.get("ports", ()):
                if port["name"] == name:
                    return int(port["containerPort"])
        raise SetupError(f"{self.name} has no port {name}")

    def start(self) -> None:
        """Starts its containers."""
        self._runs = [asyncio.create_task(container.run()) for container in self.containers]

    async def stop(self) -> None:
        """Ends it as a deletion does: all containers at once, within the grace period."""
        now = asyncio.get_running_loop().time()
        if self.is_ready:
            self._led_until = now + HEARD_S
        self.is_going = True
        until = now + self._spec.get("terminationGracePeriodSeconds", GRACE_S)
        spare = await asyncio.gather(*(container.stop(until) for container in self.containers))
        self.spare_s = min(spare)
        await self._gone()

    async def kill(self) -> None:
        """Ends it as a deletion by force does."""
        self.is_going = True
        for container in self.containers:
            container.kill()
        await self._gone()

    async def _gone(self) -> None:
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    def _container(self, spec: Thing) -> Container:
        paths = self._volumes.paths(spec)

        def written(text: str) -> str:
            return paths(self._node.addresses.resolved(text, self.address))

        told = environment(spec, self._node.manifests, self._node.secrets, self.address)
        program, *words = self._node.images.command(spec)
        folder = paths(spec["workingDir"]) if "workingDir" in spec else str(self._node.images.folder)
        return Container(
            spec,
            [program, *map(written, words)],  # the program is of this machine, wherever that has it
            {name: written(value) for name, value in told.items()} | self._stand_ins(spec),
            Path(folder),
            self._folder / f"{spec['name']}.log",
            address=self.address,
            is_kept=self._spec.get("restartPolicy", "Always") == "Always",
            tell=lambda what: self._node.tell(f"{self.name}/{spec['name']} {what}"),
        )

    def _stand_ins(self, spec: Thing) -> dict[str, str]:
        """Returns what stands in for a network of the pod's own, and what programs have in place of an image's."""
        told = self._node.images.environment
        told |= {"REHEARSAL_ADDRESS": self.address, "REHEARSAL_FOLDER": str(self._folder)}
        names = {entry["name"] for entry in spec.get("env", ())}
        if "MESHWRIGHT_HOST" not in names:
            told["MESHWRIGHT_HOST"] = self.address
        return told
