"""What has to hold of any rendering: each rule takes all objects, and returns what is wrong, in words."""

import re

from meshwright.agents.serving import PAUSE_S
from meshwright.agents.worker import LAST_WORDS_S
from meshwright.core.probes import LIVENESS
from meshwright.core.server import is_loopback
from meshwright.gateway.drain import ADMIN_S, NOTICE_S
from meshwright.registry.client import TIMEOUT_S
from tests.k8s.objects import (
    REPO,
    containers,
    environment,
    labels,
    least_instances,
    named,
    of_kind,
    own_containers,
    pod,
    ports,
    process_settings,
    scaled,
    selected,
    settings_of,
    workloads,
)

FLUSH_S = 10
"""How long OpenTelemetry's exporter tries to send what is still here."""
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
MOVABLE = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
TOLD = (REPO / "docs/production.md").read_text()


def selectors(objects):
    """Whatever selects pods finds those of exactly one workload, by labels that they bear."""
    for name, workload in workloads(objects).items():
        wanted = workload["spec"].get("selector", {}).get("matchLabels", {})
        if not wanted.items() <= labels(workload).items():
            yield f"{name} does not select its own pods"
        for spread in pod(workload).get("topologySpreadConstraints", ()):
            if not spread["labelSelector"]["matchLabels"].items() <= labels(workload).items():
                yield f"{name} spreads other pods than its own"
    for one in of_kind(objects, "Service", "PodDisruptionBudget", "Rollout"):
        chosen = one["spec"]["selector"]
        wanted = chosen if one["kind"] == "Service" else chosen["matchLabels"]
        if len(selected(objects, wanted)) != 1:
            yield f"{one['kind']} {one['metadata']['name']} selects the pods of no workload, or of several"
    for one in of_kind(objects, "NetworkPolicy"):
        wanted = one["spec"]["podSelector"].get("matchLabels", {})
        if not selected(objects, wanted) and wanted != {"app.kubernetes.io/component": "ratelimit"}:
            yield f"NetworkPolicy {one['metadata']['name']} selects nobody"


def targets(objects):
    """Ports of services are ports of the pods behind them; what is scaled or rolled out is there."""
    for service in of_kind(objects, "Service"):
        behind = {
            port
            for workload in selected(objects, service["spec"]["selector"])
            for container in pod(workload)["containers"]
            for port in ports(container)
        }
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in behind:
                yield f"Service {service['metadata']['name']}: no container has the port {port['targetPort']}"
    known = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for one in objects:
        spec = one.get("spec", {})
        for word in ("scaleTargetRef", "workloadRef"):
            if word in spec and (spec[word]["kind"], spec[word]["name"]) not in known:
                yield f"{one['kind']} {one['metadata']['name']} is about a {spec[word]} that is not there"


def routes(objects):
    """Routes lead to ports that services have."""
    for route in of_kind(objects, "HTTPRoute", "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                service = named(objects, "Service", backend["name"])
                if backend["port"] not in [port["port"] for port in service["spec"]["ports"]]:
                    yield f"{route['kind']}: the service {backend['name']} has no port {backend['port']}"


def probe_ports(container, objects):
    """Returns what is wrong with the probes of one container."""
    of_container = ports(container)
    for word in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(word, {})
        if "grpc" in probe and probe["grpc"]["port"] != of_container.get("health"):
            yield f"{word} asks a port that is not called health"
        named_port = probe.get("tcpSocket", probe.get("httpGet", {})).get("port")
        if named_port and named_port not in of_container:
            yield f"{word} asks the port {named_port}, which it has not"
    settings = process_settings(objects, container)
    if settings and "health" in of_container and settings.health_port != of_container["health"]:
        yield "the port health is not MESHWRIGHT_HEALTH_PORT"


def probes(objects):
    """Every server is probed on ports that it has; a process of the mesh for two things, which differ."""
    for workload, container in containers(objects):
        name = f"{workload['metadata']['name']}/{container['name']}"
        yield from (f"{name}: {wrong}" for wrong in probe_ports(container, objects))
        if workload["kind"] == "Job" or not container.get("ports"):
            continue
        if not {"readinessProbe", "livenessProbe"} <= container.keys():
            yield f"{name} is not probed"
        elif settings_of(container):
            ready = container["readinessProbe"].get("grpc", {"service": "no grpc"}).get("service", "")
            alive = container["livenessProbe"].get("grpc", {}).get("service", "")
            started = container.get("startupProbe", {}).get("grpc", {}).get("service", "")
            if (ready, alive, started) != ("", LIVENESS, LIVENESS):
                yield f"{name}: readiness asks for {ready!r}, liveness for {alive!r}, start for {started!r}"


def is_reached(container, settings, variables):
    """Tells whether a process listens on its pod's address, or on all: by the first variable that it is given."""
    given = {entry["name"]: entry for entry in container.get("env", ())}
    chosen = next((given[name] for name in variables if name in given), {"value": settings.host})
    if "value" in chosen:
        return not is_loopback(chosen["value"])
    return chosen["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def metrics(objects):
    """Every server's metrics, and Envoy's, are on ports that are called so, where a scraper reaches them."""
    for workload, container in containers(objects):
        settings = process_settings(objects, container)
        if workload["kind"] == "Job" or settings is None:
            continue
        name = workload["metadata"]["name"]
        if ports(container).get("metrics") != settings.metrics_port:
            yield f"{name}: no port metrics is MESHWRIGHT_METRICS_PORT"
        if not is_reached(container, settings, ("MESHWRIGHT_METRICS_HOST", "MESHWRIGHT_HOST")):
            yield f"{name} tells its metrics on loopback"
        if not hasattr(settings, "internal_port"):
            continue
        if settings.internal_port not in [ports(one).get("edge-metrics") for one in pod(workload)["containers"]]:
            yield f"{name}: no port edge-metrics is MESHWRIGHT_INTERNAL_PORT"
        if not is_reached(container, settings, ("MESHWRIGHT_INTERNAL_HOST",)):
            yield f"{name}: Envoy tells its metrics on loopback"
        public = {port["targetPort"] for one in of_kind(objects, "Service") for port in one["spec"]["ports"]}
        if public & {"metrics", "edge-metrics", settings.metrics_port, settings.internal_port}:
            yield f"{name}: a service leads callers to metrics"


def stop_s(settings, container):
    """Returns how long a process may take from SIGTERM to its end: see `stop` in each serving.py."""
    if settings_of(container).__name__ == "AgentSettings":
        farewell = TIMEOUT_S + min(PAUSE_S, settings.drain_s / 3)
        tasks = LAST_WORDS_S + settings.drain_s + LAST_WORDS_S
        return farewell + tasks + settings.drain_s + FLUSH_S
    return settings.drain_s + FLUSH_S


def before_s(settings, container):
    """Returns how long a container's preStop may take."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    if "sleep" in hook:
        return hook["sleep"]["seconds"]
    return settings.drain_s + 2 * ADMIN_S if hook else 0


def listens_s(container):
    """Returns for how long an Envoy that drains takes new connections."""
    (told,) = re.findall(r"--drain-time-s (\d+)", " ".join(container.get("command", ()))) or ["0"]
    return int(told)


def grace(objects):
    """A pod's grace period is longer than preStop, drain and flush of each of its containers together.

    While Envoy takes new connections, the process beside it is there: it is asked who is calling.
    """
    for name, workload in workloads(objects).items():
        if workload["kind"] == "Job":
            continue
        spec = pod(workload)
        both = [(one, process_settings(objects, one)) for one in spec["containers"]]
        before = max(before_s(settings, one) for one, settings in both)
        stops = max((stop_s(settings, one) for one, settings in both if settings), default=0)
        if before + stops >= spec["terminationGracePeriodSeconds"]:
            yield f"{name} may take {before} + {stops} s to stop, and gets {spec['terminationGracePeriodSeconds']} s"
        sleeps = [one for one, _ in both if "sleep" in one.get("lifecycle", {}).get("preStop", {})]
        for one in sleeps:
            if before_s(None, one) < max(before_s(settings, other) for other, settings in both if settings):
                yield f"{name}/{one['name']} is stopped while it is being drained"
            stays = min(min(NOTICE_S, settings.drain_s) for _, settings in both if settings)
            if stays < (taken := listens_s(one)):
                yield f"{name}/{one['name']} takes calls for {taken} s, whom it asks is there for {stays} s"


def farewell(objects):
    """What a service leads to takes calls for a while after its end was decided: nodes hear of that one by one.

    A headless service leads nobody; agents and tool hosts leave the directory themselves.
    """
    for service in of_kind(objects, "Service"):
        if service["spec"].get("clusterIP") == "None":
            continue
        for workload in selected(objects, service["spec"]["selector"]):
            for container in pod(workload)["containers"]:
                if settings_of(container) and not container.get("lifecycle", {}).get("preStop"):
                    yield f"{workload['metadata']['name']}/{container['name']} is stopped while calls are led to it"


def settings_exist(objects):
    """Every variable that a process is given is one that it reads, with a value that it takes."""
    for workload, container in containers(objects):
        kind = settings_of(container)
        if kind is None:
            continue
        for entry in container.get("env", ()):
            if entry["name"].removeprefix("MESHWRIGHT_").lower() not in kind.model_fields:
                yield f"{workload['metadata']['name']}: {entry['name']} is nothing that it reads"
        try:
            process_settings(objects, container)
        except ValueError as error:
            yield f"{workload['metadata']['name']}: {error}"
    kinds = [kind for _, one in containers(objects) if (kind := settings_of(one))]
    for name in named(objects, "ConfigMap", "settings")["data"]:
        if not any(name.removeprefix("MESHWRIGHT_").lower() in kind.model_fields for kind in kinds):
            yield f"settings: {name} is nothing that anybody reads"


def agreed(objects):
    """Every process, and the job that loads the store's functions, is told what all must agree on."""
    told = {"configMapRef": {"name": "settings"}}
    for workload, container in containers(objects):
        if settings_of(container) and told not in container.get("envFrom", ()):
            yield f"{workload['metadata']['name']}/{container['name']} is not told the settings of all"


def references(objects):
    """Secrets and config maps that pods name are made by something here, or by hand as docs/production.md says."""
    made = {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
    made |= {one["spec"]["target"]["name"] for one in of_kind(objects, "ExternalSecret")}
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    for name, workload in workloads(objects).items():
        spec = pod(workload)
        volumes = {one["name"]: one for one in spec.get("volumes", ())}
        volumes |= {one["metadata"]["name"]: one for one in workload["spec"].get("volumeClaimTemplates", ())}
        secrets = [one["secret"]["secretName"] for one in volumes.values() if "secret" in one]
        configured = [one["configMap"]["name"] for one in volumes.values() if "configMap" in one]
        for container in own_containers(workload):
            entries = [entry["valueFrom"] for entry in container.get("env", ()) if "valueFrom" in entry]
            secrets += [entry["secretKeyRef"]["name"] for entry in entries if "secretKeyRef" in entry]
            configured += [source["configMapRef"]["name"] for source in container.get("envFrom", ())]
            for mount in container.get("volumeMounts", ()):
                if mount["name"] not in volumes:
                    yield f"{name} mounts {mount['name']}, which it has not"
        yield from (
            f"{name}: nobody makes the secret {one}" for one in secrets if one not in made and f"`{one}`" not in TOLD
        )
        yield from (f"{name}: nobody makes the config map {one}" for one in configured if one not in maps)


def restricted(objects):
    """Pods are as Kubernetes' profile `restricted` wants them, with roots that are read only, and no token."""
    for name, workload in workloads(objects).items():
        spec = pod(workload)
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} may run as root, or without seccomp"
        if not security.get("runAsGroup"):
            yield f"{name} runs in root's group"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name} gets a token of the cluster"
        has_paths = any("hostPath" in volume for volume in spec.get("volumes", ()))
        if has_paths or spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}:
            yield f"{name} shares the host"
        for container in own_containers(workload):
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if container.get("securityContext") != wanted:
                yield f"{name}/{container['name']} may do more than {wanted}"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{name}/{container['name']} may take all memory"


def disruption(objects):
    """Each server but the store and the counters has a budget: nodes can be emptied, and one instance stays."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, workload in workloads(objects).items():
        if workload["kind"] != "Deployment" or name == "ratelimit":
            continue
        mine = [one for one in budgets if one["spec"]["selector"]["matchLabels"].items() <= labels(workload).items()]
        if len(mine) != 1 or mine[0]["spec"].get("maxUnavailable", 0) < 1:
            yield f"{name} has no budget, two, or one that keeps nodes from being emptied"
        elif mine[0]["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{name}: pods that are not ready keep nodes from being emptied"
        elif (least := least_instances(objects, name)) > 1 and mine[0]["spec"]["maxUnavailable"] >= least:
            yield f"{name}: all {least} instances may be away at once"


def movable(objects):
    """An autoscaler of nodes may move what has local volumes: by itself it leaves such pods, and their nodes, alone."""
    for name, workload in workloads(objects).items():
        if workload["kind"] != "Deployment":
            continue
        local = {one["name"] for one in pod(workload).get("volumes", ()) if "emptyDir" in one}
        told = workload["spec"]["template"]["metadata"].get("annotations", {}).get(MOVABLE, "")
        if missed := local - {*told.split(",")}:
            yield f"{name} keeps its node: {sorted(missed)} are local"


def scaling(objects):
    """Nothing is scaled by two; what is scaled has no number of its own; a deployment under a rollout runs no pods."""
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    names = [scaled(one) for one in scalers]
    yield from (f"{name} is scaled by two" for name in sorted({name for name in names if names.count(name) > 1}))
    rolled = {one["spec"]["workloadRef"]["name"] for one in of_kind(objects, "Rollout")}
    for scaler in scalers:
        name, kind = scaled(scaler), scaler["spec"]["scaleTargetRef"]["kind"]
        if (kind == "Rollout") != (name in rolled):
            yield f"{name} is scaled as a {kind}"
        if name not in rolled and "replicas" in workloads(objects)[name]["spec"]:
            yield f"{name} is set back by each apply"
    for name in rolled:
        if workloads(objects)[name]["spec"].get("replicas") != 0:
            yield f"{name} runs pods beside its rollout's"


def digests(objects):
    """Images are named by digest: what was tested is what runs."""
    for workload, container in containers(objects):
        name, _, digest = container["image"].partition("@")
        if not digest.startswith("sha256:") or ":" in name.rpartition("/")[2]:
            yield f"{workload['metadata']['name']}/{container['name']} runs {container['image']}"


def addresses(objects):
    """The processes find the registry and the shared counters where their services are."""
    known = {
        f"{service['metadata']['name']}:{port['port']}"
        for service in of_kind(objects, "Service")
        for port in service["spec"]["ports"]
    }
    for workload, container in containers(objects):
        for variable in ("MESHWRIGHT_REGISTRY", "MESHWRIGHT_LIMIT_SERVICE"):
            told = environment(objects, container).get(variable)
            if told and told not in known:
                yield f"{workload['metadata']['name']}: no service is at {told}"


RULES = (
    selectors,
    targets,
    routes,
    probes,
    metrics,
    grace,
    farewell,
    settings_exist,
    agreed,
    references,
    restricted,
    disruption,
    movable,
    scaling,
    addresses,
)
