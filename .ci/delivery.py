"""Delivers one image: a new version beside the old one, judged by the alerts, then promoted or rolled back.

`python .ci/delivery.py canary NAME DIGEST` starts the new version, looks at it, and says what is to become of it.
`python .ci/delivery.py promote NAME [DIGEST]` has it take over; with a digest that version, whatever runs.
`python .ci/delivery.py rollback NAME [DIGEST]` takes it back; with a digest to that version.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cluster import NAMESPACE, Version, Workload
from prometheus import Prometheus

from k8s.components.monitoring.alerts import ALERTS, RUNBOOKS
from k8s.components.rollouts import canary
from meshwright.core.errors import DeadlineExceededError, MeshError, SetupError

READY_S = 300.0
"""For a new version's first pod."""
SETTLED_S = 600.0
"""For all pods, once it is decided."""
CUT_OFF = 130
PAGES = {alert.name: f"{RUNBOOKS}/{alert.runbook}.md" for group in ALERTS.values() for alert in group}


class Verdict(Enum):
    """What is to become of a new version."""

    BEGUN = "begun"
    """Nothing is known yet, and there is something to roll back."""
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    UNDECIDED = "undecided"
    """Somebody has to look: it is neither promoted nor rolled back."""


EXITS = {Verdict.PROMOTE: 0, Verdict.ROLLBACK: 1, Verdict.UNDECIDED: 3}


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and why."""

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery.

    Attributes:
        workload: What is delivered.
        prometheus: Where its metrics are.
        interval_s: Between two looks.
        ready_s: For the first pod of a new version.
        settled_s: For all of them.
    """

    workload: Workload
    prometheus: Prometheus
    interval_s: float = canary.INTERVAL_S
    ready_s: float = READY_S
    settled_s: float = SETTLED_S

    def try_out(self, digest: str) -> Decision:
        """Starts a version and judges it.

        Raises:
            MeshError: The cluster does not do it; nothing is decided.
        """
        image = self.workload.at_digest(digest)
        if self.workload.image() == image:
            if self.is_settled(image):
                return Decision(Verdict.PROMOTE, f"{image} is what {self.workload.name} runs already")
        elif before := self.before():
            return before
        else:
            self.workload.set_image(image)
        tell(Verdict.BEGUN, f"{self.workload.name} starts {image}")
        try:
            started = self.workload.await_that(
                lambda: self.with_pods(image), self.ready_s, f"no pod of {image} is ready"
            )
        except DeadlineExceededError as error:
            return Decision(Verdict.ROLLBACK, error.message)
        return self.judge(started)

    def is_settled(self, image: str) -> bool:
        """Whether nothing is under way: a delivery that was left undecided is judged when it is begun anew."""
        rollout = self.workload.rollout()
        return rollout is None or self.workload.stable_image(rollout) == image

    def before(self) -> Decision | None:
        """Looks whether the new version can be judged at all: not while alerts of the whole agent fire already."""
        try:
            firing = self.firing(canary.of_agent(self.workload.name))
        except MeshError as error:
            return Decision(Verdict.UNDECIDED, f"nothing was started: {error.message}")
        if firing:
            why = f"nothing was started, {told(firing)} before it: end that, or `make promote` the digest unjudged"
            return Decision(Verdict.UNDECIDED, why)
        return None

    def with_pods(self, image: str) -> Version | None:
        """Returns the version that runs an image once one of its pods is ready."""
        found = self.workload.version(image)
        return found if found and found.ready else None

    def judge(self, version: Version) -> Decision:
        """Looks at a version several times, an interval apart, as the analysis of Argo Rollouts does."""
        alerts = canary.of_version(self.workload.name, version.replica_set)
        for look in range(1, canary.LOOKS + 1):
            time.sleep(self.interval_s)
            if aborted := self.aborted():
                return Decision(Verdict.ROLLBACK, aborted)
            try:
                firing = self.firing(alerts)
            except MeshError as error:
                return Decision(Verdict.UNDECIDED, error.message)
            print(f"look {look} of {canary.LOOKS}: {told(firing) if firing else 'no alert fires'}", flush=True)
            if firing:
                return Decision(Verdict.ROLLBACK, f"{told(firing)} for {version.replica_set}")
        return self.enough(version)

    def firing(self, alerts: dict[str, str]) -> list[str]:
        """Returns the names of the alerts that fire."""
        return [name for name, expression in alerts.items() if self.prometheus.ask(expression)]

    def aborted(self) -> str:
        """Says why Argo Rollouts has taken the version back already; empty: it has not."""
        rollout = self.workload.rollout()
        status = rollout.get("status", {}) if rollout else {}
        return f"Argo Rollouts has aborted it: {status.get('message', 'no reason')}" if status.get("abort") else ""

    def enough(self, version: Version) -> Decision:
        """Decides about a version of which no alert has fired: it has to have done something."""
        is_agent = self.workload.name not in ("registry", "gateway")
        try:
            known = self.prometheus.ask(canary.evidence(version.replica_set, is_agent=is_agent))
        except MeshError as error:
            return Decision(Verdict.UNDECIDED, error.message)
        if known:
            return Decision(Verdict.PROMOTE, f"no alert fired in {canary.LOOKS} looks")
        what = "ended tasks" if is_agent else "served calls"
        why = f"no alert fired, but it has {what} fewer than {canary.ENOUGH} times as far as Prometheus knows"
        return Decision(Verdict.UNDECIDED, f"{why}: give it some and look again, or `make promote`, or `make rollback`")

    def promote(self, digest: str) -> None:
        """Has the newest version take over, or one by its digest; returns once all pods are of it.

        Raises:
            MeshError: They are not, in time.
        """
        if digest:
            self.workload.set_image(self.workload.at_digest(digest))
        image = self.workload.image()
        if self.workload.rollout() is None:
            self.workload.await_deployed(self.settled_s)
            return
        name = self.workload.name
        version = self.workload.await_that(lambda: self.noticed(image), self.ready_s, f"{name} has not begun {image}")
        if not self.is_settled(image):
            self.workload.patch_status({"promoteFull": True})
        self.settle(version.replica_set)

    def noticed(self, image: str) -> Version | None:
        """Returns the version that runs an image once Argo Rollouts says so: before, it forgets a promotion."""
        found, rollout = self.workload.version(image), self.workload.rollout() or {}
        current = f"{self.workload.name}-{rollout.get('status', {}).get('currentPodHash')}"
        return found if found and found.replica_set == current else None

    def rollback(self, digest: str) -> None:
        """Takes the newest version back, to the one before or to one by its digest; returns once all pods are of that.

        Raises:
            MeshError: They are not, in time, or there is none.
        """
        rollout = self.workload.rollout()
        if digest:
            self.promote(digest)
        elif rollout is None:
            self.workload.undo()
            self.workload.await_deployed(self.settled_s)
        else:
            image = self.workload.stable_image(rollout)
            if not image or image == self.workload.image():
                why = "name the version before: `make rollback DIGEST=sha256:...`"
                raise SetupError(f"{self.workload.name} is in no rollout, or has no version before; {why}")
            self.workload.patch_status({"abort": True})
            self.workload.set_image(image)
            self.settle(f"{self.workload.name}-{rollout['status']['stableRS']}")

    def settle(self, replica_set: str) -> None:
        """Waits until a rollout has come to its end with one version.

        Raises:
            DeadlineExceededError: It has not in time.
        """
        name = self.workload.name

        def look() -> bool | None:
            status = (self.workload.rollout() or {}).get("status", {})
            return (status.get("phase") == "Healthy" and f"{name}-{status.get('stableRS')}" == replica_set) or None

        self.workload.await_that(look, self.settled_s, f"{name} is not healthy with {replica_set}")


def told(firing: list[str]) -> str:
    """Says which alerts fire, and where to read on."""
    return ", ".join(f"{name} fires ({PAGES[name]})" for name in firing)


def tell(verdict: Verdict, why: str) -> None:
    """Says a verdict: to whoever reads, and to the workflow's next steps, the last word counts."""
    print(f"{verdict.value}: {why}", flush=True)
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a") as file:
            file.write(f"verdict={verdict.value}\n")


@contextmanager
def credentials() -> Iterator[None]:
    """Shows kubectl the credentials that a workflow has in CLUSTER_CONFIG: in a file that nobody else reads.

    Raises:
        SetupError: Nothing names a cluster.
    """
    text = os.environ.pop("CLUSTER_CONFIG", "")
    if not text:
        if not has_cluster():
            raise SetupError("no cluster is named: set KUBECONFIG to the path of a kubeconfig that is there")
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:  # made with mode 0600
        file.write(text)
        file.flush()
        os.environ["KUBECONFIG"] = file.name
        yield


def has_cluster() -> bool:
    """Whether kubectl would find a cluster by itself: by a kubeconfig, or as it runs inside of one."""
    told = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    is_inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    return is_inside or any(Path(path).is_file() for path in told.split(os.pathsep))


def delivery(name: str) -> Delivery:
    """Builds the delivery that the environment tells of.

    Raises:
        InvalidRequestError: That is no name of an agent or server.
        SetupError: PROMETHEUS_URL is no address.
    """
    told_of = os.environ
    workload = Workload(name, told_of.get("NAMESPACE") or NAMESPACE)
    return Delivery(
        workload, Prometheus(told_of.get("PROMETHEUS_URL") or canary.PROMETHEUS, told_of.get("PROMETHEUS_TOKEN", ""))
    )


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("canary", "promote", "rollback"))
    parser.add_argument("name", help="agent or server")
    parser.add_argument("digest", nargs="?", default="", help="sha256:...")
    options = parser.parse_args()
    try:
        with credentials():
            return act(delivery(options.name), options.act, options.digest)
    except MeshError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: cut off; `make rollback` takes back what was started", file=sys.stderr)
        return CUT_OFF


def act(one: Delivery, what: str, digest: str) -> int:
    """Does one act; returns the exit code: of a canary, its verdict.

    Raises:
        MeshError: It cannot be done.
    """
    one.workload.require()
    if what == "canary":
        decision = one.try_out(digest)
        tell(decision.verdict, decision.why)
        return EXITS[decision.verdict]
    if what == "promote":
        one.promote(digest)
    else:
        one.rollback(digest)
    print(f"{one.workload.name} runs {one.workload.image()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
