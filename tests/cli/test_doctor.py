"""`meshwright doctor` and `meshwright check-config`: each thing that is missing is told, and only what is missing."""

import subprocess

import pytest
import redis
from typer.testing import CliRunner

from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.main import app
from meshwright.cli.production import is_plain_abroad
from meshwright.core.errors import SetupError
from meshwright.core.role import Role
from meshwright.core.store_user import ADMIN, user_of
from meshwright.core.tls import KEY
from meshwright.core.valkey import EmbeddedValkey


@pytest.fixture
def environment(monkeypatch, valkey):
    """Sets the mesh's variables: `environment(tls_dir=...)`; the store is a real one."""

    def set_all(**values):
        for name, value in ({"store_url": valkey.url} | values).items():
            monkeypatch.setenv("MESHWRIGHT_" + name.upper(), str(value))

    set_all()
    return set_all


def doctor(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture
def certs(tmp_path):
    authority = Authority.make(tmp_path / "certs")
    for role in (Role.GATEWAY, Role.EDGE):
        authority.issue(Wanted(role), 90)
    folder = authority.folder
    return authority, {
        "tls_dir": folder / "gateway",
        "envoy_tls_dir": folder / "edge",
        "edge_tls_dir": folder / "edge",
    }


def test_what_runs_on_one_machine_is_not_broken(environment):
    done = doctor()
    assert (done.exit_code, done.output) == (0, "nothing is broken; for production: --production\n")


def test_a_mesh_of_one_machine_lacks_what_production_needs(environment):
    environment(insecure="true", reflection="true", log_level="debug", drain_s="0")
    done = doctor("--production")
    assert done.exit_code == 1
    for told in (
        "MESHWRIGHT_AUTH",
        "MESHWRIGHT_TLS_DIR",
        "MESHWRIGHT_EDGE_TLS_DIR",
        "MESHWRIGHT_INSECURE",
        "MESHWRIGHT_REFLECTION",
        "MESHWRIGHT_LOG_LEVEL",
        "MESHWRIGHT_DRAIN_S",
        "meshwright store acl",
        "set maxmemory",
    ):
        assert told in done.output, done.output
    assert all(": " in line and "; " in line for line in done.output.splitlines())


def test_certificates_are_held_against_time_and_who_reads_them(environment, certs):
    authority, folders = certs
    environment(**folders)
    done = doctor("--production")
    assert "expires" not in done.output
    assert "MESHWRIGHT_TLS_DIR" not in done.output
    assert "development authority" in done.output
    authority.issue(Wanted(Role.GATEWAY), 13)
    (authority.folder / "edge" / KEY).chmod(0o644)
    done = doctor("--production")
    assert f"{authority.folder / 'gateway'}: its certificate expires in 12 days" in done.output
    assert f"chmod o-rwx,g-w {authority.folder / 'edge' / KEY}" in done.output


def test_certificates_that_stop_a_start_are_broken_anywhere(environment, certs):
    _, folders = certs
    environment(**folders)
    (folders["tls_dir"] / KEY).unlink()
    done = doctor()
    assert done.exit_code == 1
    assert str(folders["tls_dir"] / KEY) in done.output


def test_a_store_that_does_not_answer_is_told(environment, tmp_path):
    environment(store_url=f"unix://{tmp_path}/nobody.sock")
    done = doctor("--production")
    assert done.exit_code == 1
    assert "cannot be used" in done.output


@pytest.mark.parametrize("url", ["redis://[::1", "nothing", "redis://192.0.2.1:port", ""])
def test_an_address_of_a_store_that_is_none_is_told(environment, url):
    environment(store_url=url)
    done = doctor("--production")
    assert done.exit_code == 1
    assert "MESHWRIGHT_STORE_URL is no address of a store" in done.output


def test_a_store_elsewhere_in_plain_text_is_told():
    assert is_plain_abroad("redis://store.example:6379/0")
    assert not any(map(is_plain_abroad, ("redis://127.0.0.1", "rediss://store.example", "unix:///a.sock")))


def test_a_store_that_writes_late_is_told(environment, tmp_path):
    embedded = EmbeddedValkey.prepare(tmp_path)
    command = [*embedded.command, "--appendfsync", "everysec"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        environment(store_url=embedded.url)
        done = doctor()
        process.terminate()
    assert done.exit_code == 1
    assert "appendfsync always" in done.output


def test_a_store_with_users_and_functions_lacks_nothing(environment, tmp_path):
    embedded = EmbeddedValkey.prepare(tmp_path)
    printed = CliRunner().invoke(app, ["store", "acl", "--passwords", str(tmp_path / "passwords")])
    (tmp_path / "users.acl").write_text(printed.output)
    command = [*embedded.command, "--aclfile", str(tmp_path / "users.acl"), "--maxmemory", "1gb"]

    def url(user):
        return f"unix://{user}:{(tmp_path / 'passwords' / f'{user}.password').read_text()}@{embedded.socket}"

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        environment(store_url=url(user_of(Role.AGENT)))
        before = doctor("--production").output
        environment(store_url=url(user_of(Role.AGENT)), store_admin_url=url(ADMIN))
        CliRunner().invoke(app, ["store", "install"])
        after = doctor("--production").output
        process.terminate()
    assert "it does not hold mw_journal_" in before
    assert "MESHWRIGHT_STORE_ADMIN_URL" in before
    assert "store:" not in after, after


def check_config():
    return CliRunner().invoke(app, ["check-config"])


def test_envoy_is_asked_about_the_configuration(environment, certs):
    _, folders = certs
    done = check_config()
    assert (done.exit_code, done.output) == (
        0,
        "Envoy takes it: 127.0.0.1:8080 in plain text, services by plain text\n",
    )
    environment(**folders)
    done = check_config()
    assert (done.exit_code, done.output) == (0, "Envoy takes it: 127.0.0.1:8080 in TLS, services by mTLS\n")


def test_a_configuration_that_envoy_refuses_is_told(environment):
    environment(edge_host="no address", insecure="true", auth="keys")
    done = check_config()
    assert isinstance(done.exception, SetupError)
    assert "Envoy refuses its configuration" in done.exception.message


def test_a_setting_that_does_not_fit_is_told(environment):
    environment(edge_port="70000")
    done = check_config()
    assert isinstance(done.exception, SetupError)
    assert "MESHWRIGHT_EDGE_PORT" in done.exception.message


def test_nothing_is_written_into_a_store_that_is_looked_at(environment, valkey):

    client = redis.Redis.from_url(valkey.url)
    client.flushall()
    client.function_flush()
    doctor("--production")
    assert (client.dbsize(), client.function_list()) == (0, [])
    client.close()
