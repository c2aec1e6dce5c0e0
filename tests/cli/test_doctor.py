"""`meshwright doctor` and `meshwright check-config`: each thing that is missing is told, and only what is missing."""

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time

import pytest
import redis
from typer.testing import CliRunner

from meshwright.cli import production
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.main import app
from meshwright.cli.mesh import FACTS
from meshwright.cli.production import is_plain_abroad
from meshwright.cli.readiness import contract, durability
from meshwright.cli.readiness.survey import Survey, Target
from meshwright.cli.stores import Stores
from meshwright.core.errors import SetupError
from meshwright.core.role import Role
from meshwright.core.store_user import ADMIN, user_of
from meshwright.core.tls import KEY
from meshwright.core.valkey import EmbeddedValkey
from meshwright.gateway.settings import GatewaySettings


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


def test_a_store_that_does_not_answer_is_told_once_in_the_systems_words(environment, tmp_path, monkeypatch):
    monkeypatch.setattr("meshwright.core.store.PATIENCE_S", 0)
    environment(store_url=f"unix://{tmp_path}/nobody.sock")
    done = doctor("--production")
    assert done.exit_code == 1
    (told,) = [line for line in done.output.splitlines() if "cannot be used" in line]
    why = "cannot be used: No such file or directory; no process that needs it starts"
    assert told == f"store: the store at unix://{tmp_path}/nobody.sock {why}"


@pytest.fixture
def silent():
    """A place that takes connections and says nothing; returns its port, and what counts them."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take():
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        yield server.getsockname()[1], taken
        server.shutdown(socket.SHUT_RDWR)
        taking.join(5)
    for connection in taken:
        connection.close()


@pytest.fixture
def impatient(monkeypatch):
    """Makes a store that does not answer fail soon: whoever opens it connects once."""
    monkeypatch.setattr("meshwright.core.store.PATIENCE_S", 0)
    monkeypatch.setattr("meshwright.cli.stores.STORE_S", 1)


def comes_to(taken, count):
    """Waits until so many connections were taken, and says whether it is not more."""
    ends = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < ends:
        time.sleep(0.01)
    return len(taken) == count


def test_a_store_that_does_not_answer_is_tried_once(environment, silent, impatient):
    port, taken = silent
    environment(store_url=f"redis://127.0.0.1:{port}")
    assert doctor().exit_code == 1
    assert comes_to(taken, 1)
    assert doctor("--production").exit_code == 1
    assert comes_to(taken, 2)


async def test_two_items_of_a_mesh_try_a_store_that_does_not_answer_once(silent, impatient):
    port, taken = silent
    survey = Survey(Target("http://127.0.0.1:9", store_url=f"redis://127.0.0.1:{port}"), Stores())
    errors = await asyncio.gather(contract.edges(survey), durability.audited(survey), return_exceptions=True)
    assert [type(error) for error in errors] == [SetupError, SetupError]
    assert comes_to(taken, 1)


async def test_where_no_store_is_named_it_is_said_how(tmp_path, monkeypatch):
    monkeypatch.setattr("meshwright.core.store.PATIENCE_S", 0)
    settings = GatewaySettings().model_copy(update={"store_url": f"unix://{tmp_path}/nobody.sock"})
    settings.model_fields_set.clear()
    (found,) = [one for one in await production.broken(settings, Stores()) if one.about == "store"]
    assert "set MESHWRIGHT_STORE_URL, or name the folder of a `meshwright dev` with --data" in found.todo


def test_the_store_of_a_mesh_on_this_machine_is_found_by_its_folder(environment, tmp_path, valkey, monkeypatch):
    environment(store_url=f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setattr("meshwright.core.store.PATIENCE_S", 0)
    done = doctor("--data", str(tmp_path))
    assert isinstance(done.exception, SetupError)
    assert done.exception.message.startswith(f"no mesh runs on {tmp_path}: ")
    (tmp_path / FACTS).write_text(json.dumps({"registry": "127.0.0.1:9", "store": valkey.url}))
    done = doctor("--data", str(tmp_path))
    assert (done.exit_code, done.output) == (0, "nothing is broken; for production: --production\n")
    assert doctor().exit_code == 1  # the setting's


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


@pytest.fixture
def with_users(tmp_path):
    """A store with users: a function that spells the address of one."""
    embedded = EmbeddedValkey.prepare(tmp_path)
    printed = CliRunner().invoke(app, ["store", "acl", "--passwords", str(tmp_path / "passwords")])
    (tmp_path / "users.acl").write_text(printed.output)
    command = [*embedded.command, "--aclfile", str(tmp_path / "users.acl"), "--maxmemory", "1gb"]

    def url(user):
        return f"unix://{user}:{(tmp_path / 'passwords' / f'{user}.password').read_text()}@{embedded.socket}"

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield url
        process.terminate()


def install(**settings):
    done = CliRunner().invoke(
        app, ["store", "install"], env={f"MESHWRIGHT_{k.upper()}": v for k, v in settings.items()}
    )
    assert done.exit_code == 0, done.output


def test_a_store_with_users_and_functions_lacks_nothing(environment, with_users):
    environment(store_url=with_users(user_of(Role.AGENT)))
    before = doctor()
    environment(store_url=with_users(user_of(Role.AGENT)), store_admin_url=with_users(ADMIN))
    install()
    after = doctor("--production").output
    assert before.exit_code == 1
    assert "it does not hold mw_journal_" in before.output
    assert "it does not hold mw_registry_" in before.output
    assert "store:" not in after, after


def test_what_the_gateways_user_may_not_see_keeps_no_deployment_waiting(environment, certs, with_users, monkeypatch):
    monkeypatch.setattr(production, "AUTHORITY_NAME", "another one")
    _, folders = certs
    install(store_admin_url=with_users(ADMIN))
    environment(**folders, auth="keys", store_url=with_users(user_of(Role.GATEWAY)))
    done = doctor("--production")
    assert done.exit_code == 0, done.output
    unseen, rest = done.output.splitlines()
    assert unseen.startswith("not seen: store: whether appendfsync is always")
    assert unseen.endswith("set MESHWRIGHT_STORE_ADMIN_URL for this command")
    assert rest == "nothing else is missing"
    environment(store_url=with_users(user_of(Role.GATEWAY)), store_admin_url=with_users(ADMIN))
    done = doctor("--production")
    assert (done.exit_code, done.output) == (0, "nothing is missing\n")


def test_a_store_that_keeps_what_was_deleted_is_told(environment, tmp_path):
    embedded = EmbeddedValkey.prepare(tmp_path)
    command = [*embedded.command, "--auto-aof-rewrite-percentage", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        environment(store_url=embedded.url)
        done = doctor("--production")
        process.terminate()
    assert "what was deleted stays in it" in done.output


def test_a_store_of_other_partitions_is_told(environment, tmp_path, run_valkey):
    url = run_valkey(tmp_path).url
    environment(store_url=url)
    install(partitions="4")
    done = doctor()
    assert done.exit_code == 1
    assert "store: it was installed with MESHWRIGHT_PARTITIONS=4, not 1" in done.output
    environment(store_url=url, partitions=4)
    done = doctor()
    assert done.exit_code == 0, done.output


def test_an_edge_that_answers_to_no_host_is_told_and_does_not_start(environment):
    environment(allowed_hosts="", auth="keys")
    done = doctor()
    assert done.exit_code == 1
    assert "MESHWRIGHT_ALLOWED_HOSTS is empty, so every request gets 403" in done.output
    assert isinstance(check_config().exception, SetupError)


def test_an_edge_that_answers_to_hosts_of_this_machine_alone_is_told(environment):
    environment(edge_host="0.0.0.0", auth="keys", insecure="true")
    done = doctor()
    assert done.exit_code == 1
    told = "edge: it listens on 0.0.0.0 and answers requests for localhost, 127.0.0.1, [::1] alone, others get 403"
    assert told in done.output
    checked = check_config()
    assert checked.exit_code == 0
    assert f"warning: {told}" in checked.stderr
    environment(allowed_hosts="localhost mesh.example.org")
    assert doctor().exit_code == 0


def test_a_shell_that_names_no_store_is_told_before_what_its_default_lacks(environment, monkeypatch):
    monkeypatch.setattr("meshwright.core.store.PATIENCE_S", 0)
    monkeypatch.delenv("MESHWRIGHT_STORE_URL")
    first, *rest = doctor().output.splitlines()
    assert first.startswith(
        "not seen: store: MESHWRIGHT_STORE_URL is not set, so this looks at this shell's default, redis://"
    )
    assert "doctor --production URL" in first
    assert not any("not seen" in line for line in rest)


def test_a_variable_that_is_spelled_wrongly_is_told_with_the_one_that_is_meant(environment):
    environment(limt_principal="5", docs_folder="somewhere")
    told = "settings: nobody reads MESHWRIGHT_LIMT_PRINCIPAL; MESHWRIGHT_LIMIT_PRINCIPAL may be meant"
    done = doctor()
    assert (done.exit_code, done.output.splitlines()) == (1, [told])
    assert check_config().stderr.splitlines() == [f"warning: {told}"]


@pytest.mark.parametrize("name", ["limit_service", "registry"])
def test_an_address_that_is_none_is_told_with_its_variable(environment, name):
    environment(**{name: "nohost"})
    done = check_config()
    assert isinstance(done.exception, SetupError)
    assert f"MESHWRIGHT_{name.upper()}='nohost': must be host:port" in done.exception.message


def test_a_certificate_of_another_role_is_told(environment, certs):
    _, folders = certs
    environment(**folders | {"tls_dir": folders["envoy_tls_dir"]})
    assert "this process needs gateway" in doctor().output
    assert isinstance(check_config().exception, SetupError)


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
