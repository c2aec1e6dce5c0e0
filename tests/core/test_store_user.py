"""The store's users: a whole mesh runs with them, and each can do no more than its rules say."""

import asyncio
import contextlib
import hashlib
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import redis.asyncio as redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError
from typer.testing import CliRunner

from meshwright.agents.agent import Agent
from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.agents.serving import AgentProcess
from meshwright.agents.settings import AgentSettings
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.main import app
from meshwright.core import channel
from meshwright.core.api_key import KEPT_MS, ApiKeys, place_of
from meshwright.core.api_key import LIBRARY as KEY_LIBRARY
from meshwright.core.audit import COUNT, LINES, TENANTS, AuditReader, chain_key, line_of, tenants_key
from meshwright.core.channel import Channels
from meshwright.core.codec import Codec, ContentKeys
from meshwright.core.errors import KeyRevokedError, SetupError, StoreDeniedError
from meshwright.core.revocations import Revocations
from meshwright.core.role import Role
from meshwright.core.settings import Settings
from meshwright.core.store import MESH, NOUNS, Library, Store, partition_key
from meshwright.core.store_user import (
    ADMIN,
    AGENT,
    APPENDING,
    CATALOG,
    COMMANDS,
    HOST,
    RIGHTS,
    SHARED,
    TRIMMING,
    user_of,
)
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY
from meshwright.core.valkey import EmbeddedValkey
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest
from meshwright.registry.audit_trimming import AuditTrimming
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY
from meshwright.registry.store import Ledger

REPO = Path(__file__).parents[2]
PACKAGES = ("core", "registry", "agents", "gateway")


TOOLS = """
from meshwright.registry import tool

@tool(effect="pure")
def double(number: int) -> int:
    "Doubles a number."
    return 2 * number
"""


class Guarded:
    """A Valkey whose only users are those of the ACL that the command prints."""

    def __init__(self, folder, monkeypatch):
        self.embedded = EmbeddedValkey.prepare(folder)
        self.passwords = folder / "passwords"
        printed = CliRunner().invoke(app, ["store", "acl", "--passwords", str(self.passwords)])
        assert printed.exit_code == 0, printed.output
        (folder / "users.acl").write_text(printed.output)
        command = [*self.embedded.command, "--aclfile", str(folder / "users.acl")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.monkeypatch = monkeypatch

    def url(self, user):
        name = user if isinstance(user, str) and user == ADMIN else user_of(user)
        password = (self.passwords / f"{name}.password").read_text()
        return f"unix://{name}:{password}@{self.embedded.socket}"

    def install(self, partitions=1):
        self.monkeypatch.setenv("MESHWRIGHT_STORE_ADMIN_URL", self.url(ADMIN))
        self.monkeypatch.setenv("MESHWRIGHT_PARTITIONS", str(partitions))
        done = CliRunner().invoke(app, ["store", "install"])
        assert done.exit_code == 0, (done.output, done.exception)
        self.monkeypatch.delenv("MESHWRIGHT_STORE_ADMIN_URL")
        self.monkeypatch.delenv("MESHWRIGHT_PARTITIONS")
        return done.output


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    made = Guarded(tmp_path, monkeypatch)
    yield made
    made.process.kill()
    made.process.wait()


async def test_a_whole_task_runs_with_the_users_of_its_roles(guarded, tmp_path):
    await asyncio.to_thread(guarded.install, 2)
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS)
    async with contextlib.AsyncExitStack() as stack:
        registry = RegistryProcess(Settings(store_url=guarded.url(Role.REGISTRY), drain_s=0, partitions=2))
        target = await registry.start()
        stack.push_async_callback(registry.stop)
        host = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshwright.registry.tool", str(tools)),
            env=os.environ
            | HostSettings(store_url=guarded.url(Role.TOOL), registry=target, partitions=2).environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        stack.push_async_callback(host.wait)
        stack.callback(host.terminate)
        assert b"target" in await host.stdout.readline()
        script = tmp_path / "script.yaml"
        script.write_text(
            "agents: {default: [{tool_calls: [{name: double, arguments: {number: 21}}]}, {text: It is 42.}]}"
        )
        chosen = {"store_url": guarded.url(Role.AGENT), "registry": target, "drain_s": 0, "tracing": False}
        agent = AgentProcess(
            Agent("worker", "Work.", tools=["double"]),
            AgentSettings(**chosen, model=f"scripted:{script}", partitions=2),
        )
        stack.push_async_callback(agent.stop)
        address = await agent.start()
        channels = Channels()
        stack.push_async_callback(channels.close)
        request = TaskRequest(prompt="Double 21.", session_id="s-1")
        response = await channel.unary(AgentServiceStub(channels.to(address)).RunTask, request, timeout_s=30)
    assert response.status == TASK_STATUS_COMPLETED, response
    assert response.output == "It is 42."


@pytest.mark.parametrize("role", RIGHTS)
async def test_a_user_can_do_no_more_than_its_rules_say(guarded, role):
    await asyncio.to_thread(guarded.install)
    store = Store(guarded.url(role))
    await store.open(1)
    for command in (
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", 0),
        ("EVAL", "return 1", 0),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() return 1 end)"),
        ("FUNCTION", "FLUSH"),
        ("CONFIG", "GET", "requirepass"),
        ("ACL", "LIST"),
        ("GET", "somebody:elses"),
        ("SET", "mw:{mesh}:partitions", 7),
        ("SUBSCRIBE", "all"),
    ):
        with pytest.raises(StoreDeniedError, match="meshwright store acl"):
            await store.run(command)
    await store.close()


@pytest.mark.parametrize(
    ("role", "key"),
    [
        (Role.AGENT, "mw:{mesh}:tools:names"),
        (Role.AGENT, "mw:{mesh}:leases"),
        (Role.AGENT, "mw:{mesh}:instances"),
        (Role.TOOL, "mw:{0}:task:default/default/t1"),
        (Role.TOOL, "mw:{mesh}:tools:names"),
        (Role.REGISTRY, "mw:{0}:task:default/default/t1"),
        (Role.REGISTRY, "mw:{0}:ledger:default/default/t1"),
    ],
)
async def test_a_role_does_not_reach_what_is_anothers(guarded, role, key):
    await asyncio.to_thread(guarded.install)
    client = redis.Redis.from_url(guarded.url(role), protocol=3)
    for command in (("HGETALL", key), ("DEL", key)):
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command)
    await client.aclose()


async def test_a_host_of_tools_keeps_encrypted_outcomes_and_reads_no_task(guarded):
    await asyncio.to_thread(guarded.install)
    store = Store(guarded.url(Role.TOOL), REGISTRY_LIBRARY, codec=Codec(ContentKeys({"k1": bytes(32)})))
    await store.open(1)
    ledger, holder = Ledger(store), ("default", "ann", "call-1")
    started = await ledger.begin(holder, "k", intent="i", timeout_s=5, may_rerun=False, fence=0, token="t")
    assert started == ("run", b"")
    assert await ledger.settle(holder, "k", "i", b"done") == b"done"
    with pytest.raises(StoreDeniedError):
        await store.run(("HGETALL", "mw:{0}:task:default/ann/call-1"))
    await store.close()


@pytest.mark.parametrize("role", RIGHTS)
async def test_who_has_open_streams_reads_what_was_revoked_and_the_gateway_alone_writes_it(guarded, role):
    await asyncio.to_thread(guarded.install)
    store = Store(guarded.url(role))
    await store.open(1)
    note = Revocations(store).note("a" * 12, 1)
    if role is Role.GATEWAY:
        await note
    else:
        with pytest.raises(StoreDeniedError):
            await note
    if role is Role.TOOL:
        with pytest.raises(StoreDeniedError):
            await Revocations(store).since(0)
    else:
        await Revocations(store).since(0)
    await store.close()


async def test_the_gateways_user_makes_keys_that_end_and_revokes_them(guarded):
    await asyncio.to_thread(guarded.install)
    store = Store(guarded.url(Role.GATEWAY), KEY_LIBRARY)
    await store.open()
    keys = ApiKeys(store)
    key, made = await keys.create("ci", ["tasks"], tenant="acme", life_s=60)
    assert (await keys.verify(key)).key_id == made.key_id
    (left_ms,) = await store.run(("PTTL", place_of(made.key_id)))
    assert KEPT_MS < left_ms <= KEPT_MS + 60_000
    await keys.revoke(made.key_id)
    with pytest.raises(KeyRevokedError):
        await keys.verify(key)
    (left_ms,) = await store.run(("PTTL", place_of(made.key_id)))
    assert 0 < left_ms <= KEPT_MS
    assert [one.key_id for one in await keys.all()] == [made.key_id]
    await store.close()


WRITERS = sorted(set(RIGHTS) - {Role.REGISTRY})
OTHER = "mw:{0}:audit:acme:other"


def deletions(key):
    """Lists commands that would delete, replace or move something of a key, or put something before it."""
    for command in ("DEL", "UNLINK", "GETDEL", "LPOP", "RPOP", "PERSIST", "XTRIM", "SPOP"):
        yield (command, key, *(("MAXLEN", 0) if command == "XTRIM" else ()))
    yield from (
        ("SET", key, "x"),
        ("SET", key, "x", "PX", 1),
        ("SETEX", key, 1, "x"),
        ("SETNX", key, "x"),
        ("GETSET", key, "x"),
        ("MSET", key, "x"),
        ("GETEX", key, "PX", 1),
        ("APPEND", key, "x"),
        ("SETRANGE", key, 0, "x"),
        ("SETBIT", key, 0, 1),
        ("INCRBY", key, 5),
        ("INCRBYFLOAT", key, 5),
        ("DECR", key),
        ("DECRBY", key, 5),
        ("EXPIRE", key, 1),
        ("PEXPIRE", key, 1),
        ("EXPIREAT", key, 1),
        ("PEXPIREAT", key, 1),
        ("RENAME", key, OTHER),
        ("RENAMENX", key, OTHER),
        ("RENAME", OTHER, key),
        ("COPY", OTHER, key, "REPLACE"),
        ("RESTORE", key, 0, b"x", "REPLACE"),
        ("MOVE", key, 1),
        ("MIGRATE", "127.0.0.1", 1, key, 0, 1),
        ("SORT", key, "ALPHA", "STORE", key),
        ("LTRIM", key, 1, 0),
        ("LSET", key, 0, "x"),
        ("LREM", key, 0, "x"),
        ("LINSERT", key, "BEFORE", "x", "y"),
        ("LPUSH", key, "x"),
        ("LPUSHX", key, "x"),
        ("LMOVE", key, key, "LEFT", "RIGHT"),
        ("RPOPLPUSH", key, OTHER),
        ("LMPOP", 1, key, "LEFT"),
        ("BLPOP", key, 1),
        ("SREM", key, "acme"),
        ("SMOVE", key, OTHER, "acme"),
        ("SINTERSTORE", key, OTHER),
        ("ZRANGESTORE", key, OTHER, 0, -1),
        ("BITOP", "NOT", key, OTHER),
        ("PFMERGE", key, OTHER),
        ("XADD", key, "MAXLEN", "=", 1, "*", "a", "b"),
        ("XADD", key, "*", "a", "b"),
        ("HSET", key, "a", "b"),
        ("SWAPDB", 0, 1),
        ("FLUSHDB",),
        ("EVAL", "return redis.call('DEL', KEYS[1])", 1, key),
        ("EVAL", "return redis.call('LTRIM', KEYS[1], 1, 0)", 1, key),
        ("EVAL", f"return redis.call('SET', '{key}', 'x')", 0),
    )


def audit_keys(partition):
    """Names the keys of a tenant's and of the mesh's own chain, and the list of both."""
    names = (f"{tenant}:{what}" for tenant in ("acme", "") for what in (LINES, COUNT))
    return [partition_key(partition, "audit", name) for name in (*names, TENANTS)]


async def held(client):
    """Returns all that the audit holds, and when it would end."""
    keys = [key for partition in ("0", MESH) for key in audit_keys(partition)]
    return [(key, await client.dump(key), await client.pttl(key)) for key in keys]


async def lines_written(guarded):
    """Writes lines of a tenant and of the mesh's own, in both kinds of partitions, as an admin."""
    store = Store(guarded.url(ADMIN), JOURNAL_LIBRARY)
    await store.open()
    note = JOURNAL_LIBRARY.function("note")
    for partition in ("0", MESH):
        for tenant in ("acme", ""):
            for _ in range(3):
                await store.call(note, tenants_key(partition), partition, tenant, "noted", "x", line_of("ann"))
    return store


@pytest.mark.parametrize("role", WRITERS)
async def test_whoever_writes_lines_of_the_audit_neither_deletes_nor_replaces_one(guarded, role):
    await asyncio.to_thread(guarded.install)
    admin = await lines_written(guarded)
    before = await held(admin.client)
    client = redis.Redis.from_url(guarded.url(role), protocol=3)
    for partition in ("0", MESH):
        for key in audit_keys(partition):
            for command in deletions(key):
                with pytest.raises(NoPermissionError):
                    await client.execute_command(*command)
    assert await held(admin.client) == before
    await client.aclose()
    await admin.close()


@pytest.mark.parametrize("role", [Role.TOOL, Role.AGENT])
async def test_a_writer_trims_nothing_by_the_registrys_function(guarded, role):
    await asyncio.to_thread(guarded.install)
    admin = Store(guarded.url(ADMIN), REGISTRY_LIBRARY)
    await admin.open()
    for _ in range(250):
        await Ledger(admin).refused(("acme", "ann", "t1"), line_of("ann"))
    before = await held(admin.client)
    store = Store(guarded.url(role))
    await store.open(1)
    slot = partition_key(0, "ledger", "-")
    assert await store.call(REGISTRY_LIBRARY.function("trim"), slot, 0, 0, "acme") == []
    with pytest.raises(StoreDeniedError):
        await store.call(REGISTRY_LIBRARY.function("trim"), tenants_key("0"), 0, 0, "acme")
    assert await held(admin.client) == before
    await store.close()
    await AuditTrimming(admin, 100).trim()
    assert await held(admin.client) != before
    await admin.close()


@pytest.mark.parametrize("role", WRITERS)
async def test_what_a_writer_may_do_is_done_in_its_own_partitions_alone(guarded, role):
    await asyncio.to_thread(guarded.install)
    own, other = (MESH, "0") if role is Role.GATEWAY else ("0", MESH)
    client = redis.Redis.from_url(guarded.url(role), protocol=3)
    for name, commands in APPENDING:
        for command in commands:
            arguments = {"rpush": ["x"], "sadd": ["acme"], "lindex": [0]}.get(command, [])
            key = name.replace("*", "acme")
            await client.execute_command(command, partition_key(own, "audit", key), *arguments)
            for denied in (partition_key(other, "audit", key), partition_key(own, "audit", f"{key}:other")):
                with pytest.raises(NoPermissionError):
                    await client.execute_command(command, denied, *arguments)
    await client.aclose()


async def test_the_registry_alone_trims_and_changes_nothing_else(guarded):
    await asyncio.to_thread(guarded.install)
    admin = await lines_written(guarded)
    before = await held(admin.client)
    client = redis.Redis.from_url(guarded.url(Role.REGISTRY), protocol=3)
    for partition in ("0", MESH):
        for key in audit_keys(partition):
            for command in deletions(key):
                if command[0] != "LTRIM" or not key.endswith(LINES):
                    with pytest.raises(NoPermissionError):
                        await client.execute_command(*command)
    assert await held(admin.client) == before
    assert await client.execute_command("LTRIM", audit_keys("0")[0], 1, -1)
    await client.aclose()
    await admin.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["written", "rpush", "incr", "sadd", "lindex"]),
        st.sampled_from(["acme", "beta", ""]),
        st.binary(max_size=60) | st.from_regex(rb"\A[0-9a-f]{40} [0-9]{1,20}-[0-9]{1,20} x  \Z"),
    ),
    max_size=30,
)


async def did(store, client, step, tenant, content):
    """Does what a user of a tool host may do; returns what was written by a function, as it is told."""
    match step:
        case "written":
            line = line_of("ann", tool=hashlib.sha256(content).hexdigest())
            await Ledger(store).refused((tenant, "ann", "t1"), line)
            return [(tenant, line.strip())]
        case "rpush" | "lindex":
            key = chain_key(("0", tenant), LINES)
            await client.execute_command(step, key, content if step == "rpush" else -1)
        case "incr":
            await client.execute_command("INCR", chain_key(("0", tenant), COUNT))
        case _:
            await client.sadd(tenants_key("0"), content)
    return []


async def test_whatever_a_writer_does_all_lines_stay_in_order(guarded):
    await asyncio.to_thread(guarded.install)
    admin = Store(guarded.url(ADMIN))
    await admin.open()
    store = Store(guarded.url(Role.TOOL), REGISTRY_LIBRARY)
    await store.open(1)
    client = redis.Redis.from_url(guarded.url(Role.TOOL), protocol=3)
    loop = asyncio.get_running_loop()

    async def held_against(steps):
        for key in await admin.client.keys("mw:*:audit*"):
            await admin.client.delete(key)
        written = [line for step in steps for line in await did(store, client, *step)]
        found = {tenant: await AuditReader(admin).read(tenant) for tenant in ("acme", "beta", "")}
        for tenant, lines in found.items():
            rows = await admin.client.lrange(chain_key(("0", tenant), LINES), 0, -1)
            ours = [row.decode().rpartition(" ")[2] for row in rows if b" tool_refused ann/t1 " in row]
            assert ours == [line for whose, line in written if whose == tenant]
            if ours:
                assert [one.text for one in lines if one.event == "tool_refused"] == ours, "the chain is listed, too"

    @given(STEPS)
    @settings(max_examples=40)
    def holds(steps):
        asyncio.run_coroutine_threadsafe(held_against(steps), loop).result(20)

    await asyncio.to_thread(holds)
    await client.aclose()
    await store.close()
    await admin.close()


async def test_nobody_gets_in_without_a_user(guarded):
    await asyncio.to_thread(guarded.install)
    with pytest.raises(SetupError, match="cannot be used"):
        await Store(guarded.embedded.url).open()


async def test_functions_that_are_not_of_this_version_are_told_at_the_start(guarded):
    await asyncio.to_thread(guarded.install)
    newer = Library("journal", "redis.register_function('f_VERSION', function() return 1 end)")
    store = Store(guarded.url(Role.AGENT), newer)
    with pytest.raises(SetupError, match=f"does not hold {newer.name}.*meshwright store install"):
        await store.open(1)
    await store.close()


async def test_a_store_that_nobody_has_installed_says_so(guarded):
    async with asyncio.timeout(10):
        while not guarded.embedded.socket.exists():
            await asyncio.sleep(0.02)
    store = Store(guarded.url(Role.AGENT))
    with pytest.raises(SetupError, match=r"the store is new.*meshwright store install"):
        await store.open(1)
    await store.close()


async def test_functions_that_are_lost_later_are_told_in_the_call(guarded):
    await asyncio.to_thread(guarded.install)
    library = Library("probe", "redis.register_function('f_VERSION', function() return 1 end)")
    admin = Store(guarded.url(ADMIN), library)
    await admin.open()
    store = Store(guarded.url(Role.AGENT), library)
    await store.open(1)
    assert await store.call(library.function("f"), "mw:{0}:task:x") == 1
    await admin.run(("FUNCTION", "FLUSH"))
    with pytest.raises(SetupError, match="meshwright store install"):
        await store.call(library.function("f"), "mw:{0}:task:x")
    await store.close()
    await admin.close()


def test_passwords_are_kept_and_are_nobody_elses(tmp_path):
    first, second = (CliRunner().invoke(app, ["store", "acl", "--passwords", str(tmp_path / "p")]) for _ in range(2))
    assert first.output == second.output
    for path in (tmp_path / "p").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() not in first.output
    (tmp_path / "p" / f"{ADMIN}.password").write_text("short")
    assert isinstance(
        CliRunner().invoke(app, ["store", "acl", "--passwords", str(tmp_path / "p")]).exception, SetupError
    )


def sources(suffix):
    for package in PACKAGES:
        yield from sorted((REPO / package / "meshwright" / package).rglob(f"*{suffix}"))


def test_every_command_that_the_code_uses_is_listed():
    lua = {name.lower() for path in sources(".lua") for name in re.findall(r"redis\.p?call\('(\w+)'", path.read_text())}
    asked = {
        name.lower()
        for path in sources(".py")
        if re.search(r"\bstore\.run\(", path.read_text())
        for name in re.findall(r'\(\s*"([A-Z]{3,})",', path.read_text())
    }
    by_the_client = {"fcall", "ping", "select", "function|list", "client|setinfo", "ssubscribe", "sunsubscribe"}
    audit = {command for granted in (APPENDING, TRIMMING) for _, commands in granted for command in commands}
    by_an_admin = {"config", "smembers", "type"}
    assert lua | (asked - by_an_admin) <= COMMANDS | audit
    assert lua | asked | by_the_client >= COMMANDS


def nouns_in(package):
    folder = REPO / package / "meshwright" / package
    text = "".join(path.read_text() for path in folder.rglob("*.lua"))
    return set(re.findall(r"\bkey\([^,()]+(?:\[\d+\])?, *'(\w+)'", text))


def test_functions_reach_no_noun_that_their_callers_may_not():
    assert nouns_in("registry") <= CATALOG | HOST
    assert nouns_in("agents") & CATALOG <= SHARED


def test_every_noun_is_somebodys():
    assert {noun for rights in RIGHTS.values() for _, nouns in rights for noun in nouns} == NOUNS - {
        "partitions",
        "audit",
    }
    assert {"task", "log", "ledger"} <= AGENT


async def test_a_store_behind_tls_is_reached_and_a_strangers_is_not(run_valkey, tmp_path):
    own = run_valkey(tmp_path / "data")
    authority = Authority.make(tmp_path / "certs")
    authority.issue(Wanted(Role.CLI, hosts=("localhost",)), 1)
    folder = authority.folder / "cli"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    relays = set()

    async def relay(reader, writer):
        inner = await asyncio.open_unix_connection(str(own.embedded.socket))
        relays.update({asyncio.create_task(copy(reader, inner[1])), asyncio.create_task(copy(inner[0], writer))})

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    parts = f"ssl_ca_certs={folder / AUTHORITY}&ssl_certfile={folder / CERTIFICATE}&ssl_keyfile={folder / KEY}"
    store = Store(f"rediss://localhost:{port}/0?{parts}", LIBRARY)
    await store.open(1)
    assert await store.call(LIBRARY.function("f"), "mw:{0}:task:x") == 1
    await store.close()
    stranger = Store(f"rediss://localhost:{port}/0", LIBRARY, timeout_s=1)
    with pytest.raises(SetupError, match="CERTIFICATE_VERIFY_FAILED"):
        await stranger.open(1)
    await stranger.close()
    server.close()
    for one in relays:
        one.cancel()
    await asyncio.gather(*relays, return_exceptions=True)


LIBRARY = Library("probe", "redis.register_function('f_VERSION', function() return 1 end)")


async def copy(reader, writer):
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()
