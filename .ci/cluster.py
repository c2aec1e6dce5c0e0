"""What delivery does in a cluster, by kubectl: one workload's image, and where its new version stands."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from k8s.kubectl import find
from meshwright.core.errors import DeadlineExceededError, InvalidRequestError, SetupError, UnavailableError

NAMESPACE = "meshwright"
NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LOG_LINE = re.compile(r"[IWEF]\d{4} ")
CALL_S = 60
POLL_S = 2.0
ROLLOUT = "rollouts.argoproj.io"
NOT_INSTALLED = "doesn't have a resource type"
REVISIONS = ("rollout.argoproj.io/revision", "deployment.kubernetes.io/revision")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a workload.

    Attributes:
        replica_set: That runs it.
        image: With its digest.
        ready: How many of its pods are ready.
    """

    replica_set: str
    image: str
    ready: int


@dataclass(frozen=True, slots=True)
class Workload:
    """One agent or server in a cluster.

    Attributes:
        name: Of its deployment, and of its rollout where it has one.
        namespace: Where both are.
        poll_s: How long to wait before one looks again.
    """

    name: str
    namespace: str = NAMESPACE
    poll_s: float = POLL_S

    def __post_init__(self) -> None:
        """Checks names: they become words of a command line.

        Raises:
            InvalidRequestError: One is none.
        """
        for field, value in (("AGENT", self.name), ("NAMESPACE", self.namespace)):
            if not NAME.fullmatch(value):
                raise InvalidRequestError(
                    f"{field} names nothing: {value[:60]!r}", fields={field: "lower-case letters, digits, hyphens"}
                )

    def require(self) -> None:
        """Makes sure that there is such a workload, before anything is changed.

        Raises:
            SetupError: There is none.
        """
        if not self._run("get", "deployment", self.name, "--ignore-not-found", "--output=name").strip():
            raise SetupError(
                f"there is no deployment {self.name} in the namespace {self.namespace}: AGENT is one of "
                f"`kubectl -n {self.namespace} get deployments`, NAMESPACE says where it is"
            )

    def rollout(self) -> dict[str, Any] | None:
        """Returns its rollout, None where Argo Rollouts does not run it."""
        try:
            text = self._run("get", ROLLOUT, self.name, "--ignore-not-found", "--output=json")
        except UnavailableError as error:
            if NOT_INSTALLED in error.message:
                return None
            raise
        return read(text) if text.strip() else None

    def image(self) -> str:
        """Returns the image that its deployment asks for."""
        return str(self._container()["image"])

    def set_image(self, image: str) -> None:
        """Has its deployment ask for another image; its rollout or the deployment itself then begins.

        Args:
            image: With its digest.
        """
        container = self._container()["name"]
        self._run("set", "image", f"deployment/{self.name}", f"{container}={image}")

    def at_digest(self, digest: str) -> str:
        """Returns its image with another digest.

        Raises:
            InvalidRequestError: That is no digest.
        """
        if not DIGEST.fullmatch(digest):
            raise InvalidRequestError(
                "DIGEST is what a registry calls an image: sha256:...", fields={"DIGEST": "sha256: and 64 digits"}
            )
        return f"{repository(self.image())}@{digest}"

    def version(self, image: str) -> Version | None:
        """Returns the newest version that runs an image, None while there is none."""
        kind = "Rollout" if self.rollout() else "Deployment"
        found = self._run("get", "replicasets", f"--selector=app.kubernetes.io/name={self.name}", "--output=json")
        fitting = [one for one in read(found)["items"] if image in images(one) and is_of(one, kind)]
        newest = max(fitting, key=revision, default=None)
        if newest is None:
            return None
        return Version(newest["metadata"]["name"], image, newest.get("status", {}).get("readyReplicas", 0))

    def stable_image(self, rollout: dict[str, Any]) -> str:
        """Returns the image of the version that a rollout goes back to; empty: it has had none yet."""
        stable = rollout.get("status", {}).get("stableRS")
        if not stable:
            return ""
        found = read(self._run("get", "replicaset", f"{self.name}-{stable}", "--output=json"))
        return str(container_of(found, self.name)["image"])

    def patch_status(self, status: dict[str, Any]) -> None:
        """Tells Argo Rollouts what its own command line would: by the rollout's status."""
        patch = json.dumps({"status": status})
        self._run("patch", ROLLOUT, self.name, "--subresource=status", "--type=merge", f"--patch={patch}")

    def undo(self) -> None:
        """Has a deployment take its version before."""
        self._run("rollout", "undo", f"deployment/{self.name}")

    def await_deployed(self, within_s: float) -> None:
        """Waits until all pods of a deployment are of its newest version.

        Raises:
            UnavailableError: They are not in time.
        """
        words = ("rollout", "status", f"deployment/{self.name}", f"--timeout={within_s:g}s")
        self._run(*words, within_s=within_s + CALL_S)

    def await_that(self, look: Callable[[], T | None], within_s: float, what: str) -> T:
        """Looks again and again until there is something.

        Raises:
            DeadlineExceededError: There is nothing in time; `what` says what was waited for.
        """
        until = time.monotonic() + within_s
        while (found := look()) is None:
            if time.monotonic() > until:
                raise DeadlineExceededError(
                    f"{what}: not within {within_s:g} s; kubectl -n {self.namespace} describe deployment {self.name}"
                )
            time.sleep(self.poll_s)
        return found

    def _container(self) -> dict[str, Any]:
        return container_of(read(self._run("get", "deployment", self.name, "--output=json")), self.name)

    def _run(self, *words: str, within_s: float = CALL_S) -> str:
        return kubectl(f"--namespace={self.namespace}", *words, within_s=within_s)


def kubectl(*words: str, within_s: float = CALL_S) -> str:
    """Runs kubectl; returns what it prints.

    Raises:
        SetupError: It is not installed.
        UnavailableError: It fails; with its own words, which name the object.
        DeadlineExceededError: It takes too long.
    """
    program = shutil.which("kubectl") or find()  # the operator's own fits the cluster
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=within_s, check=False)
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(
            f"kubectl {words[1]} takes longer than {within_s:g} s: is the cluster there?"
        ) from None
    if done.returncode:
        raise UnavailableError(f"kubectl {' '.join(words[1:3])}: {said(done.stderr)}")
    return done.stdout


def said(stderr: str) -> str:
    """Returns what kubectl says in one line, without the log lines of its library."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return " ".join([line for line in lines if not LOG_LINE.match(line)] or lines)[:500]


def read(text: str) -> dict[str, Any]:
    """Reads an object that kubectl has printed.

    Raises:
        UnavailableError: It is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnavailableError("kubectl prints no object: is another program called so?")
    return found


def repository(image: str) -> str:
    """Returns an image's name without its tag and digest; a registry's port is no tag."""
    name = image.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def container_of(workload: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the container that runs the image of that name.

    Raises:
        SetupError: None does.
    """
    containers = workload["spec"]["template"]["spec"]["containers"]
    for container in containers:
        if repository(container["image"]).rpartition("/")[2] == name:
            return dict(container)
    raise SetupError(f"{workload['metadata']['name']} runs no image that is called {name}: call it REGISTRY/{name}")


def images(replica_set: dict[str, Any]) -> set[str]:
    """Returns the images that a replica set runs."""
    return {container["image"] for container in replica_set["spec"]["template"]["spec"]["containers"]}


def is_of(replica_set: dict[str, Any], kind: str) -> bool:
    """Whether a replica set is of a kind of workload: a deployment below a rollout has some, without pods."""
    return any(owner["kind"] == kind for owner in replica_set["metadata"].get("ownerReferences", ()))


def revision(replica_set: dict[str, Any]) -> int:
    """Returns how manieth version of its workload a replica set is."""
    told = replica_set["metadata"].get("annotations", {})
    return max((int(told[word]) for word in REVISIONS if told.get(word, "").isdigit()), default=0)
