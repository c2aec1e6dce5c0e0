"""Alerts, dashboards and documents against what a mesh really tells of itself."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import redis
import yaml
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse, RateLimitResponseCode
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from k8s.components.monitoring.alerts import ALERTS, ROLES, groups, recorded
from k8s.components.monitoring.dashboards import DASHBOARDS
from meshwright.core import telemetry
from tests.e2e.conftest import Dev
from tests.operate.promql import OF_SCRAPES, read
from tests.operate.promtool import needs_promtool, promtool
from tests.ports import free_ports

HERE = Path(__file__).parent
REPO = HERE.parents[1]
STAFF = ("clerk", "teller", "careful", "slow")
MADE = {"up", *(rule["record"] for rule in recorded())}
"""What Prometheus itself makes."""
CONNECTIONS, CALLS_A_SECOND = 60, 50
"""What the edge takes: less than is tried."""
DOCUMENTED = (REPO / "docs/monitoring.md").read_text()
FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXPRESSIONS = [
    *((alert.name, alert.expression) for alerts in ALERTS.values() for alert in alerts),
    *((rule["record"], rule["expr"]) for rule in recorded()),
    *(
        (f"{page.name}: {panel.title}", expression)
        for page in DASHBOARDS
        for panel in page.panels
        for expression, _ in panel.queries
    ),
    *(
        (page.stem, line)
        for page in sorted((REPO / "docs/runbooks").glob("*.md"))
        for line in "".join(FENCE.findall(page.read_text())).splitlines()
        if not line.startswith(("meshwright ", "kubectl "))
    ),
]
NOT_SEEN = {("what", "task")}
"""Values that alerts ask for and that this mesh has no cause to tell."""


@pytest.fixture(scope="module")
def shared_limits():
    """A rate limit service, until it is stopped."""
    limits = SharedLimits()
    yield limits
    limits.stop()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, shared_limits):
    """A mesh whose processes all tell their metrics."""
    folder = tmp_path_factory.mktemp("operated")
    prices, hooks = folder / "prices.yaml", folder / "hooks.yaml"
    prices.write_text("staff.yaml: {input: 1000000, output: 1000000}\n")
    port, nobodys = free_ports(2)
    place = f"127.0.0.1:{nobodys}"
    hooks.write_text(
        f"webhooks: [{{name: crm, url: 'http://{place}/', allow: ['{place}'], secrets: [{{env: HOOK_SECRET}}]}}]\n"
    )
    agents = [part for name in STAFF for part in ("--agent", f"{HERE / 'staff.py'}:{name}")]
    tools = ("--tools", str(HERE.parent / "e2e/letters.py"))
    running = Dev(folder, port, *agents, *tools, "--lease", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHWRIGHT_METRICS_PORT", "0")
        patch.setenv("MESHWRIGHT_LIMIT_SERVICE", shared_limits.target)
        patch.setenv("MESHWRIGHT_LIMIT_ADDRESS", str(CALLS_A_SECOND))
        patch.setenv("MESHWRIGHT_MAX_CONNECTIONS", str(CONNECTIONS))
        patch.setenv("MESHWRIGHT_PRICES", str(prices))
        patch.setenv("MESHWRIGHT_WEBHOOKS", str(hooks))
        patch.setenv("HOOK_SECRET", "whsec_" + "a" * 32)
        try:
            yield running.start()
        finally:
            running.stop()


class SharedLimits:
    """A rate limit service that lets all calls through.

    Attributes:
        target: Where it is.
    """

    def __init__(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details):
        assert details.method == "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        passes = bytes(RateLimitResponse(overall_code=RateLimitResponseCode.OK))
        return grpc.unary_unary_rpc_method_handler(lambda *_: passes)

    def stop(self):
        self._server.stop(0).wait(10)


def uncounted_at_the_edge(mesh, shared_limits):
    """Has the edge count together with others, and then alone, until it has told of both."""
    for name in ("envoy_cluster_ratelimit_ok", "envoy_cluster_ratelimit_error"):
        ends = time.monotonic() + 20
        while f"\n{name}{{" not in scraped(mesh.facts["internal"]):
            assert time.monotonic() < ends, name
            assert answered(mesh) in {200, 429}
        shared_limits.stop()


def submit(mesh, agent, task_id, **body):
    answer = mesh.request("POST", f"/v1/agents/{agent}/tasks", {"prompt": "Go.", "task_id": task_id} | body)
    assert answer.status == 202, answer.body


def comes_to(mesh, task_id, **facts):
    ends = time.monotonic() + 20
    while not facts.items() <= (task := mesh.request("GET", f"/v1/tasks/{task_id}").json).items():
        assert time.monotonic() < ends, task
        time.sleep(0.05)


def scraped(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        return response.read().decode()


def refused_at_the_edge(mesh):
    """Makes more calls and more connections than the edge takes, until it has counted both."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS + 5):
            stack.enter_context(socket.create_connection(("127.0.0.1", mesh.port), timeout=10))
        seen_in_envoy(mesh, "envoy_listener_downstream_global_cx_overflow")
    ends = time.monotonic() + 20
    while answered(mesh) != 429:
        assert time.monotonic() < ends
    seen_in_envoy(mesh, "envoy_http_local_rate_limit_rate_limited")


def answered(mesh):
    """Returns the status of one call; 0: connections that were too many are not closed yet."""
    try:
        return mesh.request("GET", "/v1/agents").status
    except OSError:
        return 0


def seen_in_envoy(mesh, name):
    ends = time.monotonic() + 20
    while f"\n{name}{{" not in scraped(mesh.facts["internal"]):
        assert time.monotonic() < ends, name


def places(mesh):
    """Finds where the processes that run tell their metrics, by service: the last line of each log counts."""
    lines = {}
    for path in (mesh.folder / "data/logs").glob("*.log"):
        for line in path.read_text().splitlines():
            if '"metrics_served"' in line:
                lines[path.stem] = json.loads(line)
    assert {line["service"] for line in lines.values()} >= {"registry", "gateway", "tool-host", *STAFF}
    return {line["service"]: f"http://127.0.0.1:{line['port']}" for line in lines.values()}


@pytest.fixture(scope="module")
def told(mesh, shared_limits):
    """What all processes tell after all that may happen has happened, as text."""
    submit(mesh, "slow", "long")
    submit(mesh, "careful", "held")
    submit(mesh, "clerk", "sums")
    submit(mesh, "clerk", "short", max_steps=1)
    submit(mesh, "teller", "first")
    comes_to(mesh, "held", status="TASK_STATUS_INPUT_REQUIRED")
    with redis.Redis.from_url(mesh.facts["store"]) as store:  # as a task stands that took five workers down
        store.hset("mw:{0}:task:default/default/held", "poison", 1)
        store.sadd("mw:{0}:ending", "default/default/held")
    mesh.finished("first")
    submit(mesh, "teller", "again")
    comes_to(mesh, "long", steps_used=1)
    os.kill(mesh.facts["pids"]["slow"], signal.SIGKILL)
    for task_id in ("again", "sums", "short", "held", "long"):
        mesh.finished(task_id)
    late = mesh.request("POST", "/v1/agents/slow/run", {"prompt": "Go."}, x_request_timeout="0.2")
    assert late.status == 504, late.body
    uncounted_at_the_edge(mesh, shared_limits)
    refused_at_the_edge(mesh)
    return [scraped(mesh.facts["internal"]), *(scraped(place) for place in places(mesh).values())]


@pytest.fixture(scope="module")
def series(told):
    """By name, the labels of all series."""
    found = {}
    for text in told:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name if f"\n{sample.name}" in text else sample.name.removesuffix("_total")  # Envoy's
                found.setdefault(name, []).append(sample.labels)
    return found


def declared():
    """All metrics that processes of the mesh make."""
    known = (getattr(one, "_metric", one) for one in vars(telemetry).values())
    return [one for one in known if isinstance(one, MetricWrapperBase)]


def name_of(metric):
    return metric._name + ("_total" if metric._type == "counter" else "")


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_what_is_read_is_told(series, where, expression):
    reads = read(expression)
    assert reads.chosen, "reads nothing"
    for name, matchers in reads.chosen:
        if name in MADE:
            continue
        assert name in series, name
        labels = {label for one in series[name] for label in one} | OF_SCRAPES
        assert {label for label, _, _ in matchers} | reads.grouped <= labels, name
        for label, kind, value in matchers:
            if kind == "=" and (label, value) not in NOT_SEEN and label not in OF_SCRAPES:
                assert any(one.get(label) == value for one in series[name]), f"{name}: {label}={value}"


@needs_promtool
def test_what_is_read_is_promql(tmp_path):
    chosen = [expression.replace("$__rate_interval", "5m").replace("$agent", ".*") for _, expression in EXPRESSIONS]
    rules = [{"record": f"checked:{number}", "expr": expression} for number, expression in enumerate(chosen)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    code, said = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert code == 0, said


def test_every_metric_has_a_series(series):
    missing = {name_of(one) for one in declared() if one._type != "histogram"} - set(series)
    assert missing == set()
    assert {f"{one._name}_count" for one in declared() if one._type == "histogram"} <= set(series)


def test_every_process_tells_of_its_event_loop(told):
    for text in told[1:]:
        assert re.search(r"^meshwright_event_loop_lag_seconds_count [1-9]", text, re.MULTILINE)


@needs_promtool
def test_what_is_told_is_well_formed(told):
    for text in told[1:]:
        own = "\n".join(line for line in text.splitlines() if re.match(r"(# \w+ )?meshwright_", line)) + "\n"
        code, said = promtool("check", "metrics", given=own)
        assert (code, said) == (0, "")
    code, said = promtool("check", "metrics", given=told[0])
    assert code in {0, 3}, said  # 3: names that others would choose otherwise; Envoy's are as they are


def test_every_metric_is_documented_as_it_is():
    rows = [
        f"| `{name_of(one)}` | {one._type} | {', '.join(f'`{label}`' for label in one._labelnames)} | "
        f"{one._documentation} |"
        for one in declared()
    ]
    assert re.findall(r"^\| `meshwright_.*$", DOCUMENTED, re.MULTILINE) == rows


def test_every_alert_and_dashboard_is_documented():
    for group in groups():
        for rule in group["rules"]:
            assert "alert" not in rule or f"`{rule['alert']}`" in DOCUMENTED, rule
    for page in DASHBOARDS:
        assert f"dashboard-{page.name}.json" in DOCUMENTED


@pytest.fixture
def prometheus(mesh, told, tmp_path):
    """A Prometheus that scrapes the mesh as the documentation has it; returns what asks it."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed: `make test-operate` installs it")
    (told_config,) = re.findall(r"```yaml\n(# prometheus\.yml\n.*?)```", DOCUMENTED, re.DOTALL)
    config = yaml.safe_load(told_config)
    (job,) = config["scrape_configs"]
    found = places(mesh)
    roles = {"registry": ["registry"], "gateway": ["gateway"], "agent": STAFF}
    here = {role: [found[name].removeprefix("http://") for name in names] for role, names in roles.items()}
    here["edge"] = [mesh.facts["internal"].removeprefix("http://")]
    for group in job["static_configs"]:
        group["targets"] = here.pop(group["labels"]["mesh_role"])
    assert here == {}
    job["scrape_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(REPO / "k8s/components/monitoring/prometheus-rules.yaml", tmp_path)
    code, said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert code == 0, said
    (port,) = free_ports(1)
    arguments = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
    with subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield lambda expression: asked(port, expression)
        process.terminate()


def asked(port, expression):
    """Asks Prometheus; returns its series."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as response:
        return json.loads(response.read())["data"]["result"]


def test_a_real_prometheus_scrapes_all_and_takes_every_expression(prometheus):
    ends = time.monotonic() + 30
    up = []
    while len(up) < len(STAFF) + 3 or {one["value"][1] for one in up} != {"1"}:
        assert time.monotonic() < ends, up
        with contextlib.suppress(OSError):  # it starts
            up = prometheus('up{mesh_role!=""}')
        time.sleep(0.1)
    assert {one["metric"]["mesh_role"] for one in up} == set(ROLES)
    alerts = {alert.name: prometheus(alert.expression) for members in ALERTS.values() for alert in members}
    missing = {"MeshwrightTargetDown", "MeshwrightRoleAbsent", "MeshwrightRestarts", "MeshwrightEdgeMemory"}
    assert {name: told for name, told in alerts.items() if told and name in missing} == {}
