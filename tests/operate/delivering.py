"""The modules of .ci, as their scripts import one another, and a delivery by them of an agent's versions."""

import contextlib
import importlib
import json
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs

from k8s.components.rollouts import canary
from tests.operate.api_server import serving

REPO = Path(__file__).parents[2]
sys.path.append(str(REPO / ".ci"))
cluster, delivery, images, prometheus, workflows = (
    importlib.import_module(name) for name in ("cluster", "delivery", "images", "prometheus", "workflows")
)
NAME = "researcher"
DIGESTS = {
    "stable": "sha256:" + "0" * 64,
    "good": "sha256:" + "1" * 64,
    "bad": "sha256:" + "2" * 64,
    "idle": "sha256:" + "3" * 64,
}


def image(what, name=NAME):
    return f"registry.example:5000/mesh/{name}@{DIGESTS[what]}"


def delivering(asked, name=NAME, **told):
    workload = cluster.Workload(name, poll_s=0.02)
    return delivery.Delivery(workload, asked, **({"interval_s": 0.1, "ready_s": 10.0, "settled_s": 10.0} | told))


class Told(BaseHTTPRequestHandler):
    """Answers queries as the server's `answer` says: (status, body), or a function that writes."""

    def do_POST(self):
        query = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())["query"][0]
        self.server.asked.append((query, self.headers.get("authorization")))
        status, body, *headers = self.server.answer(query)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            for part in [body] if isinstance(body, bytes) else body:
                self.wfile.write(part)
                self.wfile.flush()

    def log_message(self, *words):
        """Says nothing."""


def vector(*values):
    series = [{"metric": {}, "value": [1.0, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}}).encode()


@contextlib.contextmanager
def answering(answer, **told):
    """Serves what says such answers; yields a client of it, and the list of what it was asked."""
    asked = []
    with serving(Told, answer=answer, asked=asked) as url:
        yield prometheus.Prometheus(url, **({"timeout_s": 2.0, "pause_s": 0.01} | told)), asked


def quiet(query):
    return 200, vector("7") if query.endswith(f">= {canary.ENOUGH}") else vector()
