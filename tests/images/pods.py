"""Pods of the rendered manifests as containers of podman: each restricted as its manifest says."""

import ipaddress
import os
import subprocess
import time

import yaml

from k8s.rehearsal.environment import environment
from k8s.rehearsal.manifests import name_of
from k8s.rehearsal.pod import GRACE_S
from k8s.rehearsal.volumes import Volumes
from tests.images.podman import OTHERS, asked, inspected, podman

NETWORK = "meshwright-test"
FIRST = 10
START_S = 180
ULIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
"""Podman's own are more than a machine may have that is no root's own."""


class Network:
    """A network of podman's, in which every workload has an address."""

    def __init__(self):
        self._names = {}
        podman("network", "create", NETWORK)
        (found,) = yaml.safe_load(podman("network", "inspect", NETWORK))
        self._subnet = ipaddress.ip_network(found["subnets"][0]["subnet"])

    def of(self, name):
        """The address of a name."""
        return self._names.setdefault(name, str(self._subnet[FIRST + len(self._names)]))

    def alias(self, name, other):
        """Gives a name the address of another one."""
        self._names[name] = self.of(other)

    @property
    def hosts(self):
        """All names, as lines of /etc/hosts."""
        return [f"--add-host={name}:{address}" for name, address in self._names.items()]

    def remove(self):
        podman("network", "rm", "--force", "--time=0", NETWORK)


class Pod:
    """The one pod of a workload."""

    def __init__(self, workload, folder, network, manifests, secrets, images):
        self.name, self._images, self._network = name_of(workload), images, network
        self.spec = workload["spec"]["template"]["spec"]
        self._manifests, self._secrets = manifests, secrets
        claims = {name_of(one): folder / name_of(one) for one in workload["spec"].get("volumeClaimTemplates", ())}
        for claim in claims.values():
            claim.mkdir(parents=True)
        self._volumes = Volumes(folder, self.spec, claims, manifests, secrets)
        for path in (folder, *folder.rglob("*")):  # as a kubelet does it for fsGroup
            os.chown(path, -1, self.spec["securityContext"]["fsGroup"])
            if path.is_dir():
                path.chmod(0o2775)

    @property
    def containers(self):
        """What its containers are called, the first one's network first."""
        return [f"{NETWORK}-{self.name}-{spec['name']}" for spec in self.spec["containers"]]

    def start(self):
        """Starts its containers, all in one network."""
        first = self.containers[0]
        place = ["--network", NETWORK, "--ip", self._network.of(self.name), *self._network.hosts]
        for name, spec in zip(self.containers, self.spec["containers"], strict=True):
            where = place if name == first else ["--network", f"container:{first}"]
            podman("run", "--detach", "--name", name, *where, *self._restrictions(spec), *self._told(spec))

    def _restrictions(self, spec):
        of_pod, own = self.spec["securityContext"], spec["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        return [
            *("--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges", *ULIMITS),
            *(f"--cap-drop={one}" for one in own["capabilities"]["drop"]),
            *(f"--user={of_pod['runAsUser']}", f"--group-add={of_pod['fsGroup']}"),
            f"--memory={spec['resources']['limits']['memory'].removesuffix('i').lower()}",
        ]

    def _told(self, spec):
        told = environment(spec, self._manifests, self._secrets, self._network.of(self.name))
        place = self._volumes.paths(spec)
        mounts = [
            f"--volume={place(one['mountPath'])}:{one['mountPath']}:{'ro' if one.get('readOnly') else 'rw'}"
            for one in spec.get("volumeMounts", ())
        ]
        folder = [f"--workdir={spec['workingDir']}"] if "workingDir" in spec else []
        words = [*spec.get("command", ()), *spec.get("args", ())]
        image = self._images.get(spec["image"].rpartition(":")[0], OTHERS)
        command = ["--entrypoint", words[0], image, *words[1:]]
        return [*(f"--env={name}={value}" for name, value in told.items()), *mounts, *folder, *command]

    def is_ready(self):
        """Whether it takes calls, as its health command says, or has ended well, where it is a job."""
        if self._images.get(self.spec["containers"][0]["image"].rpartition(":")[0]) is None:
            return state(self.containers[0])["Running"]
        if self.spec.get("restartPolicy", "Always") == "Always":
            return asked("healthcheck", "run", self.containers[0]).returncode == 0
        return state(self.containers[0])["Status"] == "exited" and state(self.containers[0])["ExitCode"] == 0

    def wait(self):
        """Waits until it is ready."""
        ends = time.monotonic() + START_S
        while not self.is_ready():
            assert time.monotonic() < ends, self.log
            time.sleep(0.5)

    def stop(self):
        """Ends it as a kubelet does, what goes before included; returns its exit codes."""
        for name, spec in zip(self.containers, self.spec["containers"], strict=True):
            if before := spec.get("lifecycle", {}).get("preStop", {}).get("exec"):
                podman("exec", name, *before["command"])
        podman("stop", f"--time={self.spec.get('terminationGracePeriodSeconds', GRACE_S)}", *reversed(self.containers))
        return [state(name)["ExitCode"] for name in self.containers]

    def remove(self):
        """Ends it by force, and forgets it."""
        for name in reversed(self.containers):
            podman("rm", "--force", "--time=0", "--ignore", name)

    @property
    def log(self):
        """What its containers have printed."""
        return "\n".join(podman("logs", name, stderr=subprocess.STDOUT) for name in self.containers)


def state(name):
    """What podman says of a container."""
    return inspected(name)["State"]
