"""What browsers are told, by a real Envoy with the gateway's process behind it: CORS, and headers on every answer."""

import asyncio
import datetime as dt
import http.client
import json
import socket
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshwright.core.errors import SetupError
from meshwright.gateway import envoy
from meshwright.gateway.browsers import ALWAYS, ANSWER_HEADERS, UNLESS_SAID, security_headers
from meshwright.gateway.serving import GatewayProcess
from meshwright.gateway.settings import GatewaySettings
from tests.ports import free_ports

FRIEND, STRANGER = "https://app.example.com", "https://evil.example"
JSON = {"content-type": "application/json"}
START_S = 15.0


class Edge:
    """A real Envoy before a real gateway; there is nothing behind."""

    def __init__(self, folder, **settings):
        edge, internal, nobody = free_ports(3)
        self.port = edge
        self.folder = folder
        self.settings = GatewaySettings(
            folder=str(folder),
            port=0,
            edge_port=edge,
            internal_port=internal,
            registry=f"127.0.0.1:{nobody}",
            drain_s=0,
            tracing=False,
            **settings,
        )
        self.gateway = GatewayProcess(self.settings)

    async def start(self, change=None):
        await self.gateway.start()
        file = self.folder / envoy.BOOTSTRAP
        config = json.loads(file.read_text())
        if change:
            change(config["static_resources"]["listeners"][0])
        file.write_text(json.dumps(config))
        self.process = subprocess.Popen(envoy.command(), cwd=self.folder, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + START_S
        while not self.is_up():
            assert time.monotonic() < ends
            await asyncio.sleep(0.05)

    def is_up(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def stop(self):
        self.process.kill()
        self.process.wait()
        await self.gateway.stop()

    async def ask(self, method, path, body=None, headers=None, context=None):
        return await asyncio.to_thread(self._ask, method, path, body, headers or {}, context)

    def _ask(self, method, path, body, headers, context):
        if context:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = {name.lower(): value for name, value in response.getheaders()}
            return response.status, answer, response.read()
        finally:
            connection.close()

    async def raw(self, text):
        """Sends what no client would, and reads the head of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        writer.close()
        lines = head.split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)


@pytest.fixture(scope="module")
async def edge(tmp_path_factory):
    opened = Edge(tmp_path_factory.mktemp("edge"), cors_origins=f"{FRIEND} http://localhost:5173")
    await opened.start()
    yield opened
    await opened.stop()


def preflight(origin, method="POST"):
    asked = {"access-control-request-method": method, "access-control-request-headers": "content-type,x-api-key"}
    return {"origin": origin} | asked


# --- CORS


@pytest.mark.parametrize("path", ["/run", "/v1/tasks/some", "/openapi.json", "/assets/app.js"])
async def test_a_preflight_of_a_listed_origin_is_answered_by_the_edge_itself(edge, path):
    status, headers, body = await edge.ask("OPTIONS", path, headers=preflight(FRIEND))
    assert (status, body) == (200, b"")
    assert headers["access-control-allow-origin"] == FRIEND
    assert {"GET", "POST", "DELETE"} == set(headers["access-control-allow-methods"].split(", "))
    assert {"content-type", "x-api-key", "last-event-id"} <= set(headers["access-control-allow-headers"].split(", "))
    assert headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/openapi.json", 200), ("GET", "/nowhere", 404), ("GET", "/ready", 503)],
)
async def test_a_page_of_a_listed_origin_may_read_answers_and_errors(edge, method, path, status):
    got, headers, body = await edge.ask(method, path, headers={"origin": FRIEND})
    assert got == status
    assert headers["access-control-allow-origin"] == FRIEND
    assert headers["vary"] == "origin"
    if path == "/ready":
        assert json.loads(body)["message"] == "not ready: registry: does not answer"
    assert set(ANSWER_HEADERS) == set(headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{FRIEND}.evil.example", "http://app.example.com", "https://app"]
)
async def test_pages_of_other_origins_are_refused(edge, origin):
    for method, headers in (("OPTIONS", preflight(origin)), ("GET", {"origin": origin})):
        status, answer, body = await edge.ask(method, "/openapi.json", headers=headers)
        assert (status, json.loads(body)["details"][0]["reason"]) == (403, "ORIGIN_REFUSED")
        assert "access-control-allow-origin" not in answer


async def test_grpc_web_may_be_called_by_a_page(edge):
    headers = {"origin": FRIEND, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    status, answer, body = await edge.ask("POST", "/gateway.v1.EdgeService/GetOpenApi", bytes(5), headers)
    assert (status, answer["access-control-allow-origin"]) == (200, FRIEND)
    assert b"grpc-status:0" in body


async def test_without_the_setting_no_page_of_another_origin_may_call(tmp_path):
    edge = Edge(tmp_path)
    await edge.start()
    try:
        for method, headers in (("OPTIONS", preflight(FRIEND)), ("GET", {"origin": FRIEND})):
            status, answer, _ = await edge.ask(method, "/openapi.json", headers=headers)
            assert status == 403
            assert not [name for name in answer if name.startswith("access-control-")]
    finally:
        await edge.stop()


@pytest.mark.parametrize(
    "value",
    ["*", "null", "app.example.com", "https://app.example.com/", "https://App.example.com", "ftp://x", "https://*.x"],
)
def test_what_is_no_origin_is_refused_at_the_start(value, monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_CORS_ORIGINS", f"{FRIEND} {value}")
    with pytest.raises(SetupError, match=r"MESHWRIGHT_CORS_ORIGINS.*is no origin"):
        GatewaySettings.load()


# --- headers on every answer

KINDS = {
    "a direct response": ("GET", "/health", None, {}, 200),
    "a document": ("GET", "/openapi.json", None, {}, 200),
    "an unknown path": ("GET", "/nowhere", None, {}, 404),
    "an unknown query": ("GET", "/ready?bogus=1", None, {}, 400),
    "an error of a service": ("GET", "/ready", None, {}, 503),
    "nobody behind": ("GET", "/v1/tasks", None, {}, 503),
    "an unknown agent": ("POST", "/v1/agents/nobody/run", "{}", JSON, 404),
    "broken JSON": ("POST", "/run", "{", JSON, 404),
    "a wrong type": ("POST", "/run", "{}", {"content-type": "text/plain"}, 415),
    "a wrong origin": ("GET", "/health2", None, {"origin": STRANGER}, 403),
    "an escaped slash": ("GET", "/v1/tasks/a%2Fb", None, {}, 400),
    "an underscore": ("GET", "/health", None, {"a_b": "c"}, 400),
    "gRPC": ("POST", "/gateway.v1.EdgeService/GetOpenApi", bytes(5), {"content-type": "application/grpc"}, 200),
    "an error of gRPC": ("POST", "/no.Such/Method", bytes(5), {"content-type": "application/grpc"}, 200),
    "a preflight": ("OPTIONS", "/run", None, preflight(FRIEND), 200),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_answer_tells_a_browser_what_it_may_do(edge, kind):
    method, path, body, headers, status = KINDS[kind]
    got, answer, _ = await edge.ask(method, path, body, headers)
    assert got == status
    assert (ALWAYS | UNLESS_SAID).items() <= answer.items()
    assert "strict-transport-security" not in answer


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_what_cannot_be_read_is_answered_so_too(edge, text, status):
    got, answer = await edge.raw(text)
    assert got == status
    assert ALWAYS.items() <= answer.items()


@pytest.mark.parametrize("path", ["/", "/docs", "/assets/app.js", "/assets/style.css"])
async def test_a_page_says_itself_what_it_may_do(edge, path):
    status, answer, _ = await edge.ask("GET", path)
    assert status == 200
    assert ALWAYS.items() <= answer.items()
    policy = answer["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer["cache-control"] == "no-cache"


def certificate(folder):
    """Writes a key and a certificate of localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    (folder / "cert.pem").write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))


async def test_over_tls_a_browser_is_told_to_come_by_tls_alone(tmp_path):
    certificate(tmp_path)

    def with_tls(listener):
        (chain,) = listener["filter_chains"]
        chain["filters"][0]["typed_config"]["http_filters"][0] = security_headers(has_tls=True, has_origins=False)
        pair = {"certificate_chain": {"filename": "cert.pem"}, "private_key": {"filename": "key.pem"}}
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
        context = {"@type": kind, "common_tls_context": {"tls_certificates": [pair]}}
        chain["transport_socket"] = {"name": "tls", "typed_config": context}

    edge = Edge(tmp_path)
    await edge.start(with_tls)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        for path in ("/health", "/nowhere"):
            _, answer, _ = await edge.ask("GET", path, context=context)
            assert answer["strict-transport-security"] == "max-age=31536000"
    finally:
        await edge.stop()
