"""`meshwright certs`: what it writes, what it leaves alone, and that OpenSSL takes it."""

import ssl
import stat

import pytest
from cryptography import x509
from typer.testing import CliRunner

from meshwright.cli.authority import AUTHORITY_KEY, Authority, Wanted
from meshwright.cli.main import app
from meshwright.core.errors import SetupError
from meshwright.core.role import Role
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY, read


def run(*arguments):
    return CliRunner().invoke(app, ["certs", *map(str, arguments)])


def names(folder):
    certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        found.get_values_for_type(x509.UniformResourceIdentifier),
        found.get_values_for_type(x509.DNSName),
        [str(one) for one in found.get_values_for_type(x509.IPAddress)],
    )


def test_every_role_gets_a_folder_that_a_process_reads(tmp_path):
    done = run(tmp_path / "certs")
    assert done.exit_code == 0, done.output
    for role in Role:
        assert read(tmp_path / "certs" / role).role is role
    assert "spiffe://meshwright/registry" in done.output
    assert names(tmp_path / "certs/edge")[2] == ["127.0.0.1", "::1"]


def test_a_name_and_hosts_are_in_the_certificate(tmp_path):
    done = run(tmp_path, "--role", "agent", "--name", "coder", "--host", "coder.mesh", "--host", "10.0.0.7")
    assert done.exit_code == 0, done.output
    uris, hosts, addresses = names(tmp_path / "agent-coder")
    assert uris == ["spiffe://meshwright/agent/coder"]
    assert {"coder.mesh", "agent.meshwright.internal", "tool.meshwright.internal"} <= set(hosts)
    assert "coder.agent.meshwright.internal" in hosts
    assert addresses == ["10.0.0.7"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["agent-coder"]


def test_only_this_user_reads_the_files(tmp_path):
    run(tmp_path / "certs", "--role", "registry")
    for path in (tmp_path / "certs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_there_is_left_as_it_is(tmp_path):
    run(tmp_path, "--role", "registry")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    done = run(tmp_path, "--role", "registry", "--role", "edge")
    assert "there already" in done.output
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "edge" / CERTIFICATE).exists()


def test_renewal_keeps_authority_and_names_and_writes_the_rest_anew(tmp_path):
    run(tmp_path, "--role", "agent", "--name", "coder", "--host", "coder.mesh")
    authority, names_before = (tmp_path / AUTHORITY).read_bytes(), names(tmp_path / "agent-coder")
    key = (tmp_path / "agent-coder" / KEY).read_bytes()
    done = run(tmp_path, "--renew", "--days", "7")
    assert done.exit_code == 0, done.output
    assert (tmp_path / AUTHORITY).read_bytes() == authority
    assert names(tmp_path / "agent-coder") == names_before
    assert (tmp_path / "agent-coder" / KEY).read_bytes() != key
    assert read(tmp_path / "agent-coder").role is Role.AGENT


@pytest.mark.parametrize("half", [AUTHORITY, AUTHORITY_KEY])
def test_half_an_authority_is_never_written_over(tmp_path, half):
    (tmp_path / half).write_text("mine")
    with pytest.raises(SetupError, match="name another folder"):
        Authority.make(tmp_path)
    assert (tmp_path / half).read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--role", "agent", "--name", "../up"),
        ("--role", "agent", "--name", "a/b"),
        ("--role", "agent", "--role", "edge", "--name", "coder"),
        ("--name", "coder"),
        ("--host", "köln"),
        ("--renew",),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_no_certificate(tmp_path, arguments):
    done = run(tmp_path / "certs", *arguments)
    assert isinstance(done.exception, SetupError)
    assert not list(tmp_path.rglob(CERTIFICATE))


def test_openssl_takes_a_chain_from_them(tmp_path):
    authority = Authority.make(tmp_path)
    authority.issue(Wanted(Role.EDGE, hosts=("localhost",)), 1)
    context = ssl.create_default_context(cafile=tmp_path / AUTHORITY)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(tmp_path / "edge" / CERTIFICATE, tmp_path / "edge" / KEY)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(tmp_path / "edge" / CERTIFICATE, tmp_path / "edge" / KEY)
    inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(inbound, outbound, server_hostname="localhost")
    server = served.wrap_bio(outbound, inbound, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"
