"""Toy workloads: small shell programs as pods, to see what a kubelet and controllers do to them."""

import asyncio
import time

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.image import Images
from k8s.rehearsal.manifests import Manifests
from k8s.rehearsal.pod import Node
from k8s.rehearsal.secrets import Secrets
from k8s.rehearsal.workload import Workload

READY = {"exec": {"command": ["test", "-f", "ready"]}, "periodSeconds": 0.1}
SERVES = "cd $FOLDER; touch ready; exec sleep 100"


def container(script, **more):
    """A container that runs a shell script, which has a folder of its own: ready once a file `ready` is in it."""
    return {
        "name": "toy",
        "command": ["sh", "-c", script],
        "workingDir": "/own",
        "env": [{"name": "FOLDER", "value": "/own"}],
        "readinessProbe": READY,
        "resources": {"limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": "own", "mountPath": "/own"}],
        **more,
    }


def deployment(*containers, replicas=1, grace_s=5, kind="Deployment", strategy=None, restart="Always", **volumes):
    labels = {"app": "toy"}
    volumes = [{"name": "own", "emptyDir": {}}, *({"name": name, **volume} for name, volume in volumes.items())]
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": list(containers),
            "volumes": volumes,
            "terminationGracePeriodSeconds": grace_s,
            "restartPolicy": restart,
        },
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    if strategy:
        spec["strategy"] = {"rollingUpdate": strategy}
    return {"kind": kind, "metadata": {"name": "toy"}, "spec": spec}


def budget(**spec):
    return {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "toy"},
        "spec": {**spec, "selector": {"matchLabels": {"app": "toy"}}},
    }


class Toys:
    """One workload of toys, and what was told of it."""

    def __init__(self, folder, manifest, *others):
        self.heard = []
        manifests, addresses = Manifests([manifest, *others]), Addresses()
        secrets = Secrets(folder / "secrets", manifests, addresses)
        self.node = Node(folder / "pods", manifests, addresses, secrets, Images(folder / "images"), self.heard.append)
        self.workload = Workload(self.node, manifest)

    async def __aenter__(self):
        self.workload.fill()
        await self.workload.wait()
        return self

    async def __aexit__(self, *failure):
        await self.workload.stop()

    def printed(self, pod):
        return (self.node.folder / pod.name / "toy.log").read_text()

    async def watched(self, acting):
        """Waits for something, and returns the fewest ready pods and the most pods that there were meanwhile."""
        task, seen = asyncio.ensure_future(acting), []
        while not task.done():
            seen.append((len(self.workload.ready), len(self.workload.pods)))
            await asyncio.sleep(0.01)
        await task
        return min(ready for ready, _ in seen), max(pods for _, pods in seen)


async def until(is_so, patience_s=10):
    """Waits until something is so, and fails where it does not become so."""
    ends = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < ends, "it did not become so"
        await asyncio.sleep(0.02)
