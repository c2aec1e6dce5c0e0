"""The cluster: everything that the manifests ask for, on this machine."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.image import Images
from k8s.rehearsal.manifests import Manifests, Thing, name_of, rendered, selects, write_tree
from k8s.rehearsal.pod import Node, Pod
from k8s.rehearsal.secrets import PUBLIC, Secrets
from k8s.rehearsal.service import Service
from k8s.rehearsal.workload import Workload
from meshwright.core.role import Role

EDGE, EDGE_PORT = "gateway", "https"


class Cluster:
    """What the overlay `rehearsal` asks for; use it as an asynchronous context.

    Args:
        folder: Its own, empty; takes all files.
        tell: Takes a line for people.
        replicas: Other numbers of pods than the manifests want, by workload, as `kubectl scale` sets them.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None], replicas: Mapping[str, int] | None = None) -> None:
        self.manifests = Manifests(rendered(write_tree(folder)))
        self._addresses = Addresses()
        for service in self.manifests.of_kind("Service"):
            self._addresses.of(name_of(service))
        for certificate in self.manifests.of_kind("Certificate"):
            if certificate["spec"]["issuerRef"]["name"] == PUBLIC:
                for host in certificate["spec"]["dnsNames"]:
                    self._addresses.alias(host, EDGE)
        self.secrets = Secrets(folder / "secrets", self.manifests, self._addresses)
        images = Images(folder / "images")
        node = Node(folder / "pods", self.manifests, self._addresses, self.secrets, images, tell)
        self.workloads = {
            name_of(one): Workload(node, scaled(one, replicas or {}))
            for one in self.manifests.of_kind("Deployment", "StatefulSet", "Job")
        }
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts everything at once, as `kubectl apply` does, and waits until all of it is ready."""
        async with contextlib.AsyncExitStack() as ends:
            for service in self.manifests.of_kind("Service"):
                if service["spec"].get("clusterIP") != "None":
                    await self._serve(service, ends)
            for workload in self.workloads.values():
                ends.push_async_callback(workload.stop)
                workload.fill()
            await asyncio.gather(*(workload.wait() for workload in self.workloads.values()))
            self._ends = ends.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Ends everything, whatever happened."""
        await self._ends.aclose()

    async def _serve(self, service: Thing, ends: contextlib.AsyncExitStack) -> None:
        (behind,) = (
            self.workloads[name_of(one)]
            for one in self.manifests.of_kind("Deployment", "StatefulSet")
            if selects(service["spec"], one)
        )
        if behind.kind == "StatefulSet":
            return  # its one pod stands at the service's address
        port = service["spec"]["ports"][0]["targetPort"]
        behind.fill()
        number = behind.pods[0].port(port)
        served = Service(self._addresses.of(name_of(service)), port, lambda: behind.led_to)
        await served.start(number)
        ends.push_async_callback(served.stop)

    @property
    def edge_url(self) -> str:
        """Where clients call."""
        port = self.workloads[EDGE].pods[0].port(EDGE_PORT)
        return f"https://{self._addresses.of(EDGE)}:{port}"

    @property
    def store_url(self) -> str:
        """The store's address, for who makes API keys."""
        return self.secrets.store_url(Role.GATEWAY)

    @property
    def pods(self) -> Sequence[Pod]:
        """All pods that ever ran."""
        return [pod for workload in self.workloads.values() for pod in workload.all_pods]


def scaled(manifest: Thing, replicas: Mapping[str, int]) -> Thing:
    """Returns a manifest with another number of pods, where one is wanted."""
    name = name_of(manifest)
    return {**manifest, "spec": {**manifest["spec"], "replicas": replicas[name]}} if name in replicas else manifest
