"""Envoy's files: true to the directory, replaced whole, nothing stale."""

import asyncio

import structlog
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse

from meshwright.core.channel import AGED
from meshwright.core.errors import UnavailableError
from meshwright.core.process import ended
from meshwright.gateway import serving
from meshwright.gateway.clusters import MAX_REQUESTS
from meshwright.gateway.config import CDS
from meshwright.gateway.discovery import ALL, EnvoyFiles, endpoints_file
from meshwright.gateway.serving import GatewayProcess
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint


def card(name, *targets, draining=()):
    endpoints = [Endpoint(instance_id=target, target=target, draining=target in draining) for target in targets]
    return AgentCard(agent_id=name, endpoints=endpoints)


def clusters(folder):
    response = DiscoveryResponse().parse((folder / CDS).read_bytes())
    return {resource.unpack().name for resource in response.resources}


def ports(folder, cluster):
    response = DiscoveryResponse().parse((folder / endpoints_file(cluster)).read_bytes())
    (resource,) = response.resources
    assignment = resource.unpack()
    return [
        endpoint.endpoint.address.socket_address.port_value
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]


def test_every_agent_has_a_cluster_and_all_of_them_share_one(tmp_path):
    files = EnvoyFiles(tmp_path)
    assert files.update({"a": card("a", "127.0.0.1:1", "127.0.0.1:2"), "b": card("b", "127.0.0.1:3")})
    assert clusters(tmp_path) == {"agent-a", "agent-b", ALL}
    assert ports(tmp_path, "agent-a") == [1, 2]
    assert ports(tmp_path, ALL) == [1, 2, 3]


def test_what_the_files_say_already_is_not_written_again(tmp_path):
    files = EnvoyFiles(tmp_path)
    agents = {"a": card("a", "127.0.0.1:1")}
    assert files.update(agents)
    before = (tmp_path / CDS).stat().st_ino
    assert not files.update(agents)
    assert (tmp_path / CDS).stat().st_ino == before


def test_an_agent_that_is_gone_leaves_no_file(tmp_path):
    files = EnvoyFiles(tmp_path)
    files.update({"a": card("a", "127.0.0.1:1"), "b": card("b", "127.0.0.1:2")})
    files.update({"b": card("b", "127.0.0.1:2")})
    assert clusters(tmp_path) == {"agent-b", ALL}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [CDS, endpoints_file("agent-b"), endpoints_file(ALL)]
    )


def test_a_draining_instance_gets_no_new_calls(tmp_path):
    EnvoyFiles(tmp_path).update({"a": card("a", "127.0.0.1:1", "127.0.0.1:2", draining={"127.0.0.1:1"})})
    assert ports(tmp_path, "agent-a") == [2]


def test_an_agent_has_room_for_many_watches(tmp_path):
    EnvoyFiles(tmp_path).update({"a": card("a", "127.0.0.1:1")})
    for resource in DiscoveryResponse().parse((tmp_path / CDS).read_bytes()).resources:
        (threshold,) = resource.unpack().circuit_breakers.thresholds
        assert (threshold.max_requests, threshold.max_pending_requests) == (MAX_REQUESTS, MAX_REQUESTS)


def test_an_endpoint_that_is_no_address_is_left_out_and_costs_the_others_nothing(tmp_path):
    targets = ("some.host:80", "127.0.0.1:1", "[::1]:2", "localhost:3", "127.0.0.1:99999")
    EnvoyFiles(tmp_path).update({"a": card("a", *targets), "b": card("b", "127.0.0.1:4")})
    assert ports(tmp_path, "agent-a") == [1, 2]
    assert ports(tmp_path, ALL) == [1, 4, 2]
    response = DiscoveryResponse().parse((tmp_path / endpoints_file("agent-a")).read_bytes())
    endpoints = response.resources[0].unpack().endpoints[0].lb_endpoints
    assert [one.endpoint.address.socket_address.address for one in endpoints] == ["127.0.0.1", "::1"]


async def test_a_directory_that_stays_away_is_told_once_and_not_at_each_try(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "RETRY_S", 0.01)
    gateway = GatewayProcess(GatewaySettings(registry="127.0.0.1:1", port=0, auth="none", tracing=False))
    tries, follow = [], gateway._follow

    async def noted(*arguments):
        tries.append(arguments)
        await follow(*arguments)

    monkeypatch.setattr(gateway, "_follow", noted)
    with structlog.testing.capture_logs() as told:
        watching = asyncio.create_task(gateway._watch(EnvoyFiles(tmp_path)))
        async with asyncio.timeout(10):
            while len(tries) < 5:
                await asyncio.sleep(0.01)
        await ended(watching)
    await gateway.stop()
    assert [line["event"] for line in told] == ["directory_away"]


async def test_a_connection_that_the_registry_ends_for_its_age_is_no_news(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "RETRY_S", 0.01)
    gateway = GatewayProcess(GatewaySettings(registry="127.0.0.1:1", port=0, auth="none", tracing=False))

    async def ends(*_):
        raise UnavailableError(AGED)

    monkeypatch.setattr(gateway, "_follow", ends)
    with structlog.testing.capture_logs() as told:
        watching = asyncio.create_task(gateway._watch(EnvoyFiles(tmp_path)))
        async with asyncio.timeout(10):
            while len(told) < 3:
                await asyncio.sleep(0.01)
        await ended(watching)
    await gateway.stop()
    assert {(line["event"], line["log_level"]) for line in told} == {("watches_anew", "debug")}
