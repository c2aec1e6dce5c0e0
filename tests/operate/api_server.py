"""An API server with one workload in it, as far as kubectl asks for it: a deployment, its replica sets, its rollout."""

import contextlib
import copy
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

NAMESPACE = "meshwright"
SEEN_AFTER = 12
"""How often a rollout is read before its controller has noticed a new template."""
SELECTOR = "app.kubernetes.io/name"
GROUPS = {
    "apps/v1": [("deployments", "Deployment"), ("replicasets", "ReplicaSet")],
    "argoproj.io/v1alpha1": [("rollouts", "Rollout"), ("rollouts/status", "Rollout")],
}


def hash_of(image):
    return hashlib.sha256(image.encode()).hexdigest()[:10]


class Cluster:
    """What is in the cluster, and what its controllers make of a change.

    Attributes:
        begins: Whether pods of a new version become ready.
        changes: Bodies of all patches, with what each was about.
        asked: What would have to be allowed: (group, resource, verb).
    """

    def __init__(self, name, image, *, is_rolled=True):
        self.name, self.begins, self.changes, self.asked = name, True, [], set()
        containers = [{"name": "envoy", "image": "proxy.example:5000/envoy:v1"}, {"name": "main", "image": image}]
        labels = {SELECTOR: name}
        self.deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE, "generation": 1, "resourceVersion": "1", "uid": "d"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        }
        self.replica_sets = []
        self.rollout = (
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Rollout",
                "metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": "1"},
                "spec": {},
                "status": {"stableRS": hash_of(image), "currentPodHash": hash_of(image), "phase": "Healthy"},
            }
            if is_rolled
            else None
        )
        self.run_newest()

    @property
    def image(self):
        return self.deployment["spec"]["template"]["spec"]["containers"][1]["image"]

    def run_newest(self):
        """Does what controllers do once the deployment's template has changed."""
        kinds = [("Deployment", "deployment.kubernetes.io/revision", not self.rollout)]
        if self.rollout:
            kinds.append(("Rollout", "rollout.argoproj.io/revision", True))
        for kind, annotation, runs in kinds:
            suffix = hash_of(self.image) if runs else "0" + hash_of(self.image)
            name, later = f"{self.name}-{suffix}", str(len(self.replica_sets) + 1)
            known = [one for one in self.replica_sets if one["metadata"]["name"] == name]
            template = copy.deepcopy(self.deployment["spec"]["template"])
            if known:
                known[0]["metadata"]["annotations"][annotation] = later
                continue
            template["metadata"]["labels"]["pod-template-hash"] = suffix
            owner = {"apiVersion": "v1", "kind": kind, "name": self.name, "uid": "d", "controller": True}
            metadata = {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner], "uid": name}
            metadata |= {"annotations": {annotation: later}, "labels": template["metadata"]["labels"]}
            is_ready = runs and (self.begins or len(self.replica_sets) < 2)
            self.replica_sets.append(
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "metadata": metadata,
                    "spec": {
                        "replicas": int(runs),
                        "template": template,
                        "selector": {"matchLabels": {SELECTOR: self.name}},
                    },
                    "status": {"replicas": 1, "readyReplicas": int(is_ready)},
                }
            )
        self.unseen = SEEN_AFTER

    def see(self):
        """Has Argo Rollouts notice a new template after some while; it forgets what it was told of the one before."""
        self.unseen -= 1
        if self.unseen == 0:
            self.rollout["status"].pop("promoteFull", None)
            self.roll()

    def roll(self):
        """Does what Argo Rollouts does once template or status have changed."""
        if self.rollout:
            status = self.rollout["status"]
            if self.unseen <= 0:
                status["currentPodHash"] = hash_of(self.image)
            if self.unseen <= 0 and status.pop("promoteFull", False):
                status["stableRS"] = status["currentPodHash"]
            is_stable = status["stableRS"] == status["currentPodHash"]
            if is_stable:
                status.pop("abort", None)
            status["phase"] = "Healthy" if is_stable else "Degraded" if status.get("abort") else "Paused"

    def patch(self, path, body):
        self.changes.append((path.rpartition(NAMESPACE + "/")[2], body))
        if "/rollouts/" in path:
            self.rollout["status"].update(body["status"])
            self.roll()
            return self.rollout
        if isinstance(body, list):  # a JSON patch, as `rollout undo` makes one
            for one in body:
                if one["path"] == "/spec/template":
                    self.deployment["spec"]["template"] = one["value"]
        else:
            for change in body["spec"]["template"]["spec"]["containers"]:
                for container in self.deployment["spec"]["template"]["spec"]["containers"]:
                    if container["name"] == change["name"]:
                        container.update(change)
        self.run_newest()
        return self.deployment

    def get(self, path):
        """Returns what a path leads to, None where there is nothing."""
        discovered = self.discovered(path)
        if discovered:
            return discovered
        below = path.partition(f"/namespaces/{NAMESPACE}/")[2]
        if below.startswith("rollouts") and self.rollout:
            self.see()
        if below == "replicasets":
            return {"apiVersion": "apps/v1", "kind": "ReplicaSetList", "metadata": {}, "items": self.replica_sets}
        if below == "deployments":
            metadata = {"resourceVersion": "1"}
            return {"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": metadata, "items": [self.deployment]}
        known = {f"replicasets/{one['metadata']['name']}": one for one in self.replica_sets}
        known |= {f"deployments/{self.name}": self.deployment}
        known |= {f"rollouts/{self.name}{what}": self.rollout for what in ("", "/status")}
        return known.get(below)

    def discovered(self, path):
        groups = {name: kinds for name, kinds in GROUPS.items() if "argoproj" not in name or self.rollout is not None}
        if path == "/api":
            return {"kind": "APIVersions", "versions": []}
        if path == "/apis":
            versions = [{"groupVersion": name, "version": name.partition("/")[2]} for name in groups]
            listed = [
                {"name": one["groupVersion"].partition("/")[0], "versions": [one], "preferredVersion": one}
                for one in versions
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        for name, kinds in groups.items():
            if path == f"/apis/{name}":
                listed = [
                    {
                        "name": plural,
                        "singularName": kind.lower(),
                        "namespaced": True,
                        "kind": kind,
                        "verbs": ["get", "list", "patch", "watch"],
                    }
                    for plural, kind in kinds
                ]
                return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.note(path, "watch" if "watch=" in query else "get")
        if "watch=" in query:
            self.answer(400, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400})
            return
        found = self.server.cluster.get(path)
        self.answer(200 if found else 404, found or missing(path))

    def do_PATCH(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.note(self.path.partition("?")[0], "patch")
        self.answer(200, self.server.cluster.patch(self.path.partition("?")[0], body))

    def note(self, path, verb):
        group, below = path.removeprefix("/apis/").partition("/")[0], path.partition(f"/{NAMESPACE}/")[2].split("/")
        if below[0]:
            verb = "list" if verb == "get" and len(below) == 1 else verb
            self.server.cluster.asked.add((group, "/".join([below[0], *below[2:]]), verb))

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        """Says nothing."""


def missing(path):
    told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
    return told | {"message": f"{path} not found"}


@contextlib.contextmanager
def serving(handler, **told):
    """Serves HTTP on a free port of loopback; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for name, value in told.items():
        setattr(server, name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def credentials(url):
    """Returns the text of a kubeconfig."""
    cluster, user = {"name": "c", "cluster": {"server": url}}, {"name": "u", "user": {}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    kinds = {"apiVersion": "v1", "kind": "Config", "current-context": "x"}
    return yaml.safe_dump(kinds | {"clusters": [cluster], "users": [user], "contexts": [context]})
