"""mTLS between services: who may call whom, what is refused and what is said then, files that change."""

import asyncio
import base64
import re
import ssl
import time
from pathlib import Path

import grpc
import pytest
import structlog
from cryptography import x509
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.cli.authority import Authority, Wanted
from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import RoleRefusedError, SetupError, TlsRefusedError, UnavailableError
from meshwright.core.recurring import Recurring
from meshwright.core.role import CALLERS, Role, bearer_in, callers_of
from meshwright.core.server import Server
from meshwright.core.settings import Settings
from meshwright.core.telemetry import CERTIFICATE_EXPIRES
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY, Certificates, check_bearer, read
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

REPO = Path(__file__).parents[2]


@pytest.fixture
def authority(tmp_path):
    made = Authority.make(tmp_path / "certs")
    for role in Role:
        made.issue(Wanted(role), 1)
    return made


@pytest.fixture
async def stub():
    """Opens a stub of a target under a folder of certificates: `stub(folder, target)`."""
    opened = []

    def open_stub(folder, target):
        channels = Channels(str(folder) if folder else "")
        opened.append(channels)
        return AgentServiceStub(channels.to(target))

    yield open_stub
    for channels in opened:
        await channels.close()


async def health(stub):
    return await channel.unary(stub.Health, HealthRequest(), timeout_s=10)


@pytest.mark.parametrize("role", Role)
async def test_a_service_takes_calls_from_the_roles_of_its_table(serve, authority, stub, role):
    served = await serve(tls_dir=str(authority.folder / "agent"))
    call = health(stub(authority.folder / role, served.target))
    if role in CALLERS["agents.v1."]:
        assert (await call).agent_id == "probe"
    else:
        with pytest.raises(RoleRefusedError) as caught:
            await call
        assert caught.value.metadata == {"role": str(role), "method": "/agents.v1.AgentService/Health"}


async def test_streams_are_held_against_the_table_too(serve, authority, stub):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)

    served = await serve(steps=steps, tls_dir=str(authority.folder / "agent"))
    stranger = stub(authority.folder / "cli", served.target)
    with pytest.raises(RoleRefusedError):
        await anext(channel.stream(stranger.StreamSteps, TaskRequest(), timeout_s=5))


async def test_every_role_may_ask_whether_a_server_is_well(serve, authority):
    served = await serve(tls_dir=str(authority.folder / "agent"))
    channels = Channels(str(authority.folder / "cli"))
    answer = await HealthStub(channels.to(served.target)).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await channels.close()


async def test_a_server_of_another_role_is_not_called(serve, authority, stub):
    called = []

    async def answer(_request, _context):
        called.append(1)
        return HealthResponse()

    served = await serve(health=answer, tls_dir=str(authority.folder / "tool"))
    with pytest.raises(TlsRefusedError, match="another role"):
        await health(stub(authority.folder / "registry", served.target))
    assert called == []


async def test_a_server_that_is_refused_again_and_again_is_told_once(serve, authority, stub, monkeypatch):
    monkeypatch.setattr(channel, "TOLD", {why: Recurring() for why in channel.TOLD})
    served = await serve(tls_dir=str(authority.folder / "tool"))
    calling = stub(authority.folder / "registry", served.target)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(TlsRefusedError, match="another role"):
                await health(calling)
    assert [line["event"] for line in lines if line["event"] == "tls_refused"] == ["tls_refused"]


@pytest.mark.parametrize(("name", "is_called"), [("", True), ("coder", True), ("codex", False)])
async def test_a_service_calls_no_agent_whose_certificate_bears_another_name(serve, authority, name, is_called):
    wanted = Wanted(Role.AGENT, name)
    authority.issue(wanted, 1)
    served = await serve(tls_dir=str(authority.folder / wanted.folder))
    channels = Channels(str(authority.folder / "registry"))
    assert (await health(AgentServiceStub(channels.to(served.target)))).agent_id == "probe"
    named = AgentServiceStub(channels.to(served.target, "coder"))
    if is_called:
        assert (await health(named)).agent_id == "probe"
    else:
        with pytest.raises(TlsRefusedError, match="another role or agent"):
            await health(named)
    await channels.close()


async def test_certificates_of_another_authority_are_refused_by_both_sides(serve, authority, stub, tmp_path):
    other = Authority.make(tmp_path / "other")
    other.issue(Wanted(Role.REGISTRY), 1)
    served = await serve(tls_dir=str(authority.folder / "agent"))
    with pytest.raises(TlsRefusedError, match=r"see our ca\.pem"):
        await health(stub(other.folder / "registry", served.target))
    (other.folder / "registry" / AUTHORITY).write_bytes((authority.folder / AUTHORITY).read_bytes())
    with pytest.raises(UnavailableError, match="MESHWRIGHT_TLS_DIR"):
        await health(stub(other.folder / "registry", served.target))


async def test_plain_text_and_tls_do_not_meet(serve, authority, stub):
    over_tls, plain = await serve(tls_dir=str(authority.folder / "agent")), await serve()
    with pytest.raises(UnavailableError, match="where it speaks TLS, it refuses us"):
        await health(stub(None, over_tls.target))
    with pytest.raises(TlsRefusedError, match="it speaks plain text"):
        await health(stub(authority.folder / "registry", plain.target))


async def test_an_expired_server_is_refused_and_an_expired_process_does_not_start(serve, authority, stub):
    authority.issue(Wanted(Role.AGENT, "late"), -1)
    folder = authority.folder / "agent-late"
    with pytest.raises(SetupError, match=r"expired on .* renew it"):
        Server(Settings(tls_dir=str(folder), tracing=False), {})
    pems = ((folder / KEY).read_bytes(), (folder / CERTIFICATE).read_bytes())
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pems]))
    await server.start()
    with pytest.raises(TlsRefusedError, match="has expired"):
        await health(stub(authority.folder / "registry", f"127.0.0.1:{port}"))
    await server.stop(0)


async def test_with_certificates_a_server_leaves_loopback(authority):
    server = Server(Settings(host="0.0.0.0", tls_dir=str(authority.folder / "agent"), tracing=False, drain_s=0), {})
    await server.start()
    await server.stop()


async def test_renewal_under_load_costs_no_call_and_new_connections_show_it(serve, authority, stub):
    shown = set()

    async def answer(_request, context):
        shown.add(context.auth_context()["x509_pem_cert"][0])
        return HealthResponse()

    served = await serve(health=answer, tls_dir=str(authority.folder / "agent"))
    caller = stub(authority.folder / "registry", served.target)
    done = asyncio.Event()

    async def load():
        count = 0
        while not done.is_set():
            await health(caller)
            count += 1
        return count

    loads = [asyncio.create_task(load()) for _ in range(8)]
    for _ in range(5):
        await health(caller)
        authority.issue(Wanted(Role.AGENT), 1)
        authority.issue(Wanted(Role.REGISTRY), 1)
        fresh = (authority.folder / "registry" / CERTIFICATE).read_bytes()
        async with asyncio.timeout(10):
            while fresh.decode().split() not in [pem.decode().split() for pem in shown]:
                await health(caller)
    done.set()
    assert min(await asyncio.gather(*loads)) > 0
    assert len(shown) >= 5


async def test_a_stream_outlives_a_renewal_and_its_connection_goes_with_it(serve, authority):
    go_on = asyncio.Event()

    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        await go_on.wait()
        yield StepEvent(sequence=2)

    served = await serve(steps=steps, tls_dir=str(authority.folder / "agent"))
    channels = Channels(str(authority.folder / "registry"))
    wire = channels.to(served.target)
    caller = AgentServiceStub(wire)
    stream = channel.stream(caller.StreamSteps, TaskRequest(), timeout_s=10)
    assert (await anext(stream)).sequence == 1
    authority.issue(Wanted(Role.REGISTRY), 1)
    await health(caller)
    assert len(wire._retired) == 1
    go_on.set()
    assert [event.sequence async for event in stream] == [2]
    async with asyncio.timeout(5):
        while wire._retired:
            await asyncio.sleep(0.01)
    await channels.close()


async def test_a_server_shows_new_connections_its_new_certificate(serve, authority):
    served = await serve(tls_dir=str(authority.folder / "agent"))
    port = int(served.target.rpartition(":")[2])
    serials = set()
    for _ in range(2):
        authority.issue(Wanted(Role.AGENT), 1)
        serials.add(await shown_serial(authority, port))
    assert len(serials) == 2


async def shown_serial(authority, port):
    context = ssl.create_default_context(cafile=authority.folder / AUTHORITY)
    context.load_cert_chain(authority.folder / "edge" / CERTIFICATE, authority.folder / "edge" / KEY)
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="agent.meshwright.internal"
    )
    found = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    return found.serial_number


def test_files_that_do_not_fit_together_leave_what_was_read_before(authority):
    folder = authority.folder / "agent"
    certificates = Certificates(folder)
    before = certificates.current()
    (folder / KEY).write_bytes((authority.folder / "tool" / KEY).read_bytes())
    assert certificates.current() is before
    authority.issue(Wanted(Role.AGENT), 30)
    assert certificates.current() is not before
    assert CERTIFICATE_EXPIRES._value.get() == certificates.current().expires.timestamp() > time.time() + 29 * 86_400


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (CERTIFICATE, None, "cannot read"),
        (CERTIFICATE, b"nothing", "no certificate in PEM"),
        (KEY, b"", "no private key"),
        (AUTHORITY, b"\xff" * 100, "no certificate in PEM"),
        (AUTHORITY, b"x" * (2**20 + 1), "more than"),
    ],
)
def test_files_that_cannot_be_used_are_named(authority, file, content, told):
    path = authority.folder / "agent" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=told) as caught:
        read(authority.folder / "agent")
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@given(st.binary(max_size=300), st.sampled_from([b"CERTIFICATE", b"PRIVATE KEY", b"EC PRIVATE KEY"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_whatever_is_in_the_files_it_is_told_and_what_was_read_before_is_kept(authority, noise, kind):
    folder = authority.folder / "agent"
    certificates, before = Certificates(folder), read(folder)
    wrapped = b"-----BEGIN " + kind + b"-----\n" + base64.encodebytes(noise) + b"-----END " + kind + b"-----\n"
    for name in (CERTIFICATE, KEY, AUTHORITY):
        good = (folder / name).read_bytes()
        for bad in (noise, wrapped):
            (folder / name).write_bytes(bad)
            with pytest.raises(SetupError):
                read(folder)
            assert certificates.current().chain == before.chain
        (folder / name).write_bytes(good)


def test_a_key_of_another_certificate_is_told(authority):
    (authority.folder / "agent" / KEY).write_bytes((authority.folder / "tool" / KEY).read_bytes())
    with pytest.raises(SetupError, match="is not the key of"):
        read(authority.folder / "agent")


@given(st.lists(st.text(), max_size=4))
def test_names_that_are_not_exactly_ours_are_no_role(uris):
    ours = [uri for uri in uris if uri.startswith("spiffe://meshwright/")]
    assert bearer_in(uris) is None or len(ours) == 1


@pytest.mark.parametrize(
    ("uris", "bearer"),
    [
        (["spiffe://meshwright/agent"], (Role.AGENT, "")),
        (["spiffe://meshwright/agent/coder", "https://elsewhere"], (Role.AGENT, "coder")),
        (["spiffe://meshwright/agent/"], None),
        (["spiffe://meshwright/agents"], None),
        (["spiffe://meshwright/"], None),
        (["spiffe://meshwright.evil/agent"], None),
        (["spiffe://meshwright/agent", "spiffe://meshwright/edge"], None),
        ([], None),
    ],
)
def test_role_and_name_are_read_from_one_uri_alone(uris, bearer):
    assert bearer_in(uris) == bearer


def test_every_service_of_the_contract_has_callers_and_others_have_none():
    files = FileDescriptorSet.FromString((REPO / "gen/meshwright/gen/descriptors.binpb").read_bytes())
    services = {f"{file.package}.{service.name}" for file in files.file for service in file.service}
    assert services
    assert [name for name in services if not callers_of(f"/{name}/Any")] == []
    assert callers_of("/agents.v1x.Service/Any") == frozenset()


def test_the_documented_table_is_the_one_in_force():
    rows = re.findall(r"^\| `([\w./]+)` \| ([\w, ]+) \| [^|]+ \|$", (REPO / "docs/tls.md").read_text(), re.MULTILINE)
    documented = {name if "/" in name else name + ".": frozenset(map(Role, roles.split(", "))) for name, roles in rows}
    assert documented == CALLERS


@pytest.mark.parametrize("role", list(Role))
def test_a_process_takes_a_certificate_of_its_own_role_alone(authority, role):
    folder = authority.folder / role
    check_bearer(str(folder), role, name="any")
    other = next(one for one in Role if one is not role)
    with pytest.raises(
        SetupError, match=f"{CERTIFICATE} is a certificate of the role {role}: this process needs {other}"
    ):
        check_bearer(str(folder), other)
    check_bearer(str(folder), other, role)


def test_a_file_of_authorities_that_is_not_there_is_not_said_to_be_made_by_us(tmp_path):
    with pytest.raises(SetupError, match="name the file of the authorities") as caught:
        channel.dial_edge("mesh.example:443", str(tmp_path / "nothing"))
    assert "meshwright certs" not in caught.value.message
