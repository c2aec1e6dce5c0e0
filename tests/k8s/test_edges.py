"""Network policies let through exactly what the mesh needs: the table of docs/kubernetes.md, and nothing else."""

import copy
import ipaddress
import re

import pytest
import yaml

from meshwright.agents.library.bundle import BUNDLED
from tests.k8s.objects import K8S, REPO, labels, of_kind, pod, ports, workloads, written

COMPONENT = "app.kubernetes.io/component"
POLICIES = [
    document
    for name in (
        "components/network-policies/deny.yaml",
        "components/network-policies/edges.yaml",
        "tools/network-policies/edges.yaml",
    )
    for document in yaml.safe_load_all((K8S / name).read_text())
]
MESH = {name: labels(workload) for name, workload in workloads(written()).items()} | {
    "ratelimit": {COMPONENT: "ratelimit"},
    "stranger": {"app.kubernetes.io/name": "stranger"},
}
"""Pods of the mesh's namespace, by workload; one of them is nobody that the mesh knows."""
OUTSIDE = {
    "prometheus": {"kubernetes.io/metadata.name": "monitoring"},
    "another-namespace": {"kubernetes.io/metadata.name": "default"},
}
"""Pods of other namespaces, by their namespace's labels."""
ADDRESSES = {
    "internet": "203.0.113.7",
    "private": "10.1.2.3",
    "home": "192.168.1.1",
    "metadata": "169.254.169.254",
    "loopback": "127.0.0.1",
}
PORTS = (22, 53, 80, 443, 5432, 6379, 7070, 7071, 7080, 7099, 8080, 8081, 8082, 8443, 9090, 9091)
"""TCP ports that are tried."""


def is_named(peer, who):
    """Tells whether one peer of a rule is somebody."""
    if "ipBlock" in peer:
        if who not in ADDRESSES:
            return False
        address = ipaddress.ip_address(ADDRESSES[who])
        block = peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(one) for one in block.get("except", ())
        )
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"]["matchLabels"]
        return "podSelector" not in peer and who in OUTSIDE and wanted.items() <= OUTSIDE[who].items()
    return who in MESH and peer["podSelector"].get("matchLabels", {}).items() <= MESH[who].items()


def rules_of(policies, kind, owner):
    """Returns the rules of a pod in one direction; None: nothing is refused."""
    mine = [
        policy["spec"]
        for policy in policies
        if policy["spec"]["podSelector"].get("matchLabels", {}).items() <= MESH[owner].items()
        and kind in policy["spec"]["policyTypes"]
    ]
    return [rule for spec in mine for rule in spec.get(kind.lower(), ())] if mine else None


def open_ports(policies, kind, owner, other):
    """Returns the ports at which the policies of a pod let a connection through, in one direction."""
    rules = rules_of(policies, kind, owner)
    if rules is None:
        return {*PORTS}
    peers = {"Ingress": "from", "Egress": "to"}[kind]
    opened = [
        {port["port"] for port in rule["ports"] if port["protocol"] == "TCP"} if "ports" in rule else {*PORTS}
        for rule in rules
        if peers not in rule or any(is_named(peer, other) for peer in rule[peers])
    ]
    return set().union(*opened) & {*PORTS}


def edges(policies):
    """Returns who can open a connection to whom: (from, to, port)."""
    everybody = [*MESH, *OUTSIDE, *ADDRESSES]
    return {
        (caller, called, port)
        for caller in everybody
        for called in everybody
        if caller != called and (caller in MESH or called in MESH)
        for port in (open_ports(policies, "Egress", caller, called) if caller in MESH else {*PORTS})
        & (open_ports(policies, "Ingress", called, caller) if called in MESH else {*PORTS})
    }


def groups(name):
    """Returns whom a name of the table stands for."""
    everybody = [*MESH, *OUTSIDE, *ADDRESSES]
    known = {"agents": BUNDLED, "anybody outside": [one for one in everybody if one not in MESH]}
    return known.get(name, [name.lower()])


def table():
    """Reads the edges out of the documentation."""
    told = (REPO / "docs/kubernetes.md").read_text()
    rows = re.findall(r"^\| ([\w, ]+) \| ([\w, ]+) \| (\d+)(?: [^|]*)? \|", told, re.MULTILINE)
    assert len(rows) >= 8
    return {
        (one, other, int(port))
        for callers, called, port in rows
        for caller in callers.split(", ")
        for target in called.split(", ")
        for one in groups(caller)
        for other in groups(target)
        if one != other
    }


def test_exactly_the_edges_of_the_table_are_open():
    assert edges(POLICIES) == table()


def test_without_policies_everything_would_be_open():
    assert len(edges([])) > 10 * len(table())


def test_a_stranger_in_the_namespace_reaches_nobody_and_is_reached_by_nobody():
    assert [edge for edge in edges(POLICIES) if "stranger" in edge] == []


@pytest.mark.parametrize("number", range(len(POLICIES)), ids=lambda number: POLICIES[number]["metadata"]["name"])
def test_each_policy_but_that_for_names_matters(number):
    rest = [policy for index, policy in enumerate(POLICIES) if index != number]
    is_for_names = POLICIES[number]["metadata"]["name"] == "names"
    assert (edges(rest) == edges(POLICIES)) == is_for_names


@pytest.mark.parametrize(
    "name",
    [
        "store",
        "registry",
        "gateway",
        "agent",
        "install",
        "ratelimit",
        "tools",
        "store-tools",
        "registry-tools",
        "agent-tools",
    ],
)
def test_a_rule_less_is_noticed(name):
    for word in ("ingress", "egress"):
        (policy,) = [one for one in POLICIES if one["metadata"]["name"] == name]
        for number in range(len(policy["spec"].get(word, ()))):
            broken = copy.deepcopy(POLICIES)
            (changed,) = [one for one in broken if one["metadata"]["name"] == name]
            changed["spec"][word].pop(number)
            assert edges(broken) != table(), (word, number)


def test_names_are_asked_of_the_clusters_own_servers_alone():
    (policy,) = [one for one in POLICIES if one["metadata"]["name"] == "names"]
    (rule,) = policy["spec"]["egress"]
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}
    ((peer),) = rule["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert peer["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


def test_every_port_in_a_policy_is_one_that_its_pods_have(overlays):
    objects = overlays["prod"]
    for policy in of_kind(objects, "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"].get("matchLabels")
        behind = {
            port
            for workload in workloads(objects).values()
            if wanted and wanted.items() <= labels(workload).items()
            for container in pod(workload)["containers"]
            for port in ports(container).values()
        }
        told = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]}
        assert told <= behind, policy["metadata"]["name"]
