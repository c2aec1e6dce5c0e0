"""TLS with a real Envoy: a whole mesh behind it over mTLS, wrong roles refused, certificates renewed under load."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import warnings

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.agent import Agent
from meshwright.agents.serving import AgentProcess, serve
from meshwright.agents.settings import AgentSettings
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.edge import Edge as CommandLineEdge
from meshwright.core import channel
from meshwright.core.api_key import ApiKeys
from meshwright.core.channel import Channels, dial
from meshwright.core.errors import MeshError, NameRefusedError, RoleRefusedError, SetupError
from meshwright.core.process import Process
from meshwright.core.role import Role
from meshwright.core.settings import Settings
from meshwright.core.tls import AUTHORITY, CERTIFICATE, Certificates
from meshwright.gateway import drain, envoy, tls
from meshwright.gateway.config import ADMIN
from meshwright.gateway.serving import GatewayProcess
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.gateway.v1.edge_service_pb2 import GetReadyRequest
from meshwright.gen.gateway.v1.edge_service_pb2_grpc import EdgeServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2 import (
    AgentCard,
    AnnounceAgentRequest,
    Endpoint,
    WithdrawAgentRequest,
)
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.registry import serving as registry_serving
from meshwright.registry import tool_serving
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import DirectoryStore
from meshwright.registry.tool import tool
from tests.ports import free_ports

SCRIPT = "agents: {default: [{text: Done.}, {text: Done.}, {text: Done.}, {text: Done.}, {text: Done.}]}"


@tool(version="1.0.0")
def double(number: int) -> int:
    """Doubles a number."""
    return 2 * number


class Edge:
    """HTTP/1.1 over TLS, a connection a call."""

    def __init__(self, port, authority):
        self.port = port
        self.context = ssl.create_default_context(cafile=authority.folder / AUTHORITY)

    async def call(self, method, path, body=None, **headers):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )
        data = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", f"host: localhost:{self.port}", "connection: close"]
        lines += [f"content-length: {len(data)}", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join((*lines, "", "")).encode() + data)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest.decode()


class Secured:
    """Registry, agent, gateway and Envoy, each with a certificate of its own."""

    def __init__(self, url, folder):
        self.folder = folder
        self.url = url
        self.stack = contextlib.AsyncExitStack()
        self.authority = Authority.make(folder / "certs")
        for role in Role:
            self.authority.issue(Wanted(role, hosts=("localhost",)), 1)

    def certs(self, role):
        return str(self.authority.folder / role)

    async def start(self, *, edge_role=Role.EDGE, auth="none", agent_certs=""):
        registry = RegistryProcess(
            Settings(store_url=self.url, drain_s=0, tls_dir=self.certs(Role.REGISTRY), auth=auth)
        )
        self.registry_target = target = await registry.start()
        self.stack.push_async_callback(registry.stop)
        script = self.folder / "script.yaml"
        script.write_text(SCRIPT)
        chosen = {"store_url": self.url, "registry": target, "drain_s": 0, "tracing": False, "auth": auth}
        settings = AgentSettings(**chosen, model=f"scripted:{script}", tls_dir=agent_certs or self.certs(Role.AGENT))
        agent = AgentProcess(Agent("orchestrator", "Do it.", tools=[double]), settings)
        self.stack.push_async_callback(agent.stop)
        self.agent_target = await agent.start()
        edge, internal = free_ports(2)
        gateway = GatewayProcess(
            GatewaySettings(
                store_url=self.url,
                auth=auth,
                registry=target,
                port=0,
                edge_port=edge,
                internal_port=internal,
                folder=str(self.folder / "envoy"),
                drain_s=0,
                tls_dir=self.certs(Role.GATEWAY),
                envoy_tls_dir=self.certs(edge_role),
                edge_tls_dir=self.certs(Role.EDGE),
            )
        )
        self.stack.push_async_callback(gateway.stop)
        self.target = await gateway.start()
        self.run_envoy()
        return Edge(edge, self.authority)

    def run_envoy(self):
        log = self.stack.enter_context((self.folder / "envoy.log").open("wb"))
        process = subprocess.Popen(envoy.command(), cwd=self.folder / "envoy", stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)


async def until(edge, path, status):
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                found = await edge.call("GET", path)
                if found[0] == status:
                    return found
            await asyncio.sleep(0.05)


@pytest.fixture
async def secured(store, tmp_path):
    made = Secured(store.url, tmp_path)
    yield made
    await made.stack.aclose()


async def test_all_calls_work_over_tls(secured):
    edge = await secured.start()
    await until(edge, "/ready", 200)
    status, body = await edge.call("POST", "/run", {"prompt": "Do it."})
    assert (status, json.loads(body)["status"]) == (200, "TASK_STATUS_COMPLETED")
    status, body = await edge.call("POST", "/steps", {"prompt": "Do it."}, accept="text/event-stream")
    assert status == 200
    assert '"result"' in body
    status, body = await edge.call("POST", "/tasks", {"prompt": "Do it.", "task_id": "t-1"})
    assert (status, json.loads(body)["task_id"]) == (202, "t-1")
    assert (await edge.call("GET", "/v1/tasks/t-1"))[0] == 200
    status, body = await edge.call("GET", "/v1/agents")
    assert [agent["agent_id"] for agent in json.loads(body)["agents"]] == ["orchestrator"]
    status, body = await edge.call(
        "POST", "/v1/tools/double:invoke", {"arguments": {"number": 21}, "idempotency_key": "k-1"}
    )
    assert status == 200, body
    assert json.loads(body)["result"] == 42


async def test_api_keys_are_asked_for_over_tls(secured, store):
    edge = await secured.start(auth="keys")
    await until(edge, "/ready", 200)
    key, _ = await ApiKeys(store).create("test", ["tasks"], tenant="acme", principal="ann")
    assert (await edge.call("POST", "/run", {"prompt": "Do it."}))[0] == 401
    headers = {"x-api-key": key}
    status, body = await edge.call("POST", "/run", {"prompt": "Do it."}, **headers)
    assert (status, json.loads(body)["status"]) == (200, "TASK_STATUS_COMPLETED"), body


async def test_the_command_line_reaches_an_edge_over_tls(secured):
    edge = await secured.start()
    await until(edge, "/ready", 200)
    ca = str(secured.authority.folder / AUTHORITY)
    client = CommandLineEdge(f"https://localhost:{edge.port}", authority=ca)
    assert (await client.health("orchestrator")).agent_id == "orchestrator"
    await client.close()
    for url, authority, told in (
        (f"https://127.0.0.1:{edge.port}", "", "MESHWRIGHT_EDGE_CA"),
        (f"https://127.0.0.2:{edge.port}", ca, "no mesh answers"),
        (f"https://127.0.0.1:{edge.port}", ca, "its certificate does not name it"),
        (f"http://127.0.0.1:{edge.port}", "", "write https://"),
    ):
        client = CommandLineEdge(url, authority=authority)
        with pytest.raises(MeshError, match=told):
            await client.call(client.agents.Health, HealthRequest())
        await client.close()


async def test_grpc_clients_meet_http2_over_tls_and_old_tls_is_refused(secured):
    edge = await secured.start()
    await until(edge, "/ready", 200)
    trusted = grpc.ssl_channel_credentials((secured.authority.folder / AUTHORITY).read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{edge.port}", trusted) as channel:
        assert (await AgentServiceStub(channel).Health(HealthRequest(), timeout=10)).agent_id == "orchestrator"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        edge.context.minimum_version = edge.context.maximum_version = ssl.TLSVersion.TLSv1_1
    edge.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        await edge.call("GET", "/health")


async def test_a_client_that_says_nothing_keeps_no_connection(secured, monkeypatch):
    monkeypatch.setattr(tls, "HANDSHAKE_S", 1)
    edge = await secured.start()
    await until(edge, "/health", 200)
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_clients_plain_text_does_not_leave_the_machine_by_accident(host):
    with pytest.raises(SetupError, match="MESHWRIGHT_EDGE_TLS_DIR"):
        tls.check_transport(GatewaySettings(edge_host=host))
    tls.check_transport(GatewaySettings(edge_host=host, insecure=True))
    tls.check_transport(GatewaySettings())


def certificate_of(secured, name):
    """Makes an agent's certificate; returns its folder."""
    wanted = Wanted(Role.AGENT, name, hosts=("localhost",))
    secured.authority.issue(wanted, 1)
    return str(secured.authority.folder / wanted.folder)


async def test_envoy_calls_an_agent_whose_certificate_bears_its_name(secured):
    edge = await secured.start(agent_certs=certificate_of(secured, "orchestrator"))
    await until(edge, "/v1/agents/orchestrator/health", 200)


@pytest.mark.parametrize("answers", ["agent_target", "registry_target"])
async def test_envoy_calls_no_agent_whose_certificate_is_of_another_name_or_role(secured, store, answers):
    """The directory is told by hand here: the registry itself refuses the announcement."""
    edge = await secured.start(agent_certs=certificate_of(secured, "orchestrator"))
    await until(edge, "/v1/agents/orchestrator/health", 200)
    request = AnnounceAgentRequest(
        agent=AgentCard(agent_id="treasurer", version="1.0.0"),
        endpoint=Endpoint(instance_id="treasurer-1", target=getattr(secured, answers), public_key=bytes(32)),
    )
    await DirectoryStore(store).announce("treasurer", "treasurer-1", request.SerializeToString(), 60_000)
    refused = "cluster.agent-treasurer.ssl.fail_verify_san"
    async with asyncio.timeout(20):
        while True:
            told = await drain.ask(secured.folder / "envoy" / ADMIN, "GET", f"/stats?format=json&filter=^{refused}$")
            if any(one["value"] for one in json.loads(told)["stats"]):
                break
            await asyncio.sleep(0.05)
    status, body = await edge.call("GET", "/v1/agents/treasurer/health")
    assert status == 503, body
    assert (await edge.call("GET", "/v1/agents/orchestrator/health"))[0] == 200


async def test_the_registry_takes_no_announcement_from_who_is_not_that_agent(secured):
    await secured.start()
    for folder, refusal in (
        (certificate_of(secured, "coder"), NameRefusedError),
        (secured.certs(Role.TOOL), RoleRefusedError),
        (secured.certs(Role.GATEWAY), RoleRefusedError),
        (certificate_of(secured, "treasurer"), None),
        (secured.certs(Role.AGENT), None),
    ):
        channels = Channels(folder)
        stub = AgentDirectoryServiceStub(channels.to(secured.registry_target))
        announced = AnnounceAgentRequest(
            agent=AgentCard(agent_id="treasurer", version="1.0.0"),
            endpoint=Endpoint(instance_id="treasurer-1", target="127.0.0.1:7", public_key=bytes(32)),
            lease=Duration(seconds=60),
        )
        withdrawn = WithdrawAgentRequest(agent_id="treasurer", instance_id="treasurer-1")
        for method, request in ((stub.AnnounceAgent, announced), (stub.WithdrawAgent, withdrawn)):
            with pytest.raises(refusal) if refusal else contextlib.nullcontext():
                await channel.unary(method, request, timeout_s=10)
        await channels.close()


async def test_an_agent_with_the_certificate_of_another_does_not_start(secured):
    for folder, refusal in (
        (certificate_of(secured, "coder"), "is the certificate of coder: orchestrator needs one of its own"),
        (secured.certs(Role.CLI), "is a certificate of the role cli: this process needs agent"),
    ):
        with pytest.raises(SetupError, match=refusal):
            await serve(Agent("orchestrator", "Do it."), AgentSettings(tls_dir=folder), Process())


async def test_a_registry_and_a_tool_host_with_the_certificate_of_a_command_do_not_start(secured):
    settings = HostSettings(tls_dir=secured.certs(Role.CLI))
    for start, role in (
        (registry_serving.serve(settings, Process()), "registry"),
        (tool_serving.serve([], settings, Process()), "tool"),
    ):
        with pytest.raises(SetupError, match=f"of the role cli: this process needs {role}"):
            await start


def test_a_gateway_takes_a_certificate_of_its_own_role_alone(secured):
    envoys = secured.certs(Role.EDGE)
    tls.check_transport(GatewaySettings(tls_dir=secured.certs(Role.GATEWAY), envoy_tls_dir=envoys))
    with pytest.raises(SetupError, match="of the role agent: this process needs gateway"):
        tls.check_transport(GatewaySettings(tls_dir=secured.certs(Role.AGENT), envoy_tls_dir=envoys))


def test_advice_for_a_public_certificate_does_not_name_the_authority_for_development(tmp_path):
    with pytest.raises(SetupError, match="MESHWRIGHT_EDGE_TLS_DIR needs") as caught:
        tls.check_transport(GatewaySettings(edge_tls_dir=str(tmp_path)))
    assert "meshwright certs" not in caught.value.message


async def test_services_refuse_an_envoy_of_another_role(secured):
    edge = await secured.start()
    await until(edge, "/ready", 200)
    stranger = Certificates(secured.authority.folder / "cli")
    async with dial(secured.target, stranger) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EdgeServiceStub(channel).GetReady(GetReadyRequest(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.AGENT])
async def test_an_envoy_that_would_be_refused_everywhere_does_not_start(secured, role):
    with pytest.raises(SetupError, match="MESHWRIGHT_ENVOY_TLS_DIR"):
        await secured.start(edge_role=role)


async def test_renewal_under_load_costs_no_call(secured):
    edge = await secured.start()
    await until(edge, "/v1/agents/orchestrator/health", 200)
    done = asyncio.Event()
    failed = []

    async def load():
        count = 0
        while not done.is_set():
            status, body = await edge.call("GET", "/v1/agents/orchestrator/health")
            count += 1
            if status != 200:
                failed.append((status, body))
        return count

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(3):
        for role in Role:
            secured.authority.issue(Wanted(role, hosts=("localhost",)), 1)
        fresh = ssl.PEM_cert_to_DER_cert((secured.authority.folder / "edge" / CERTIFICATE).read_text())
        async with asyncio.timeout(10):
            while await shown(edge) != fresh:
                await asyncio.sleep(0.05)
    done.set()
    assert min(await asyncio.gather(*loads)) > 0
    assert failed == []


async def shown(edge):
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.context, server_hostname="localhost")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found
