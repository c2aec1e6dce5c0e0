"""Libraries of several versions in one store: each stays as long as a process of its version is there."""

import asyncio
import re
import signal
import subprocess
import sys
import textwrap

import pytest
import redis.asyncio as redis
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.cli import libraries
from meshwright.cli.libraries import NAME, Use, held, in_use, look, prune
from meshwright.cli.main import app
from meshwright.core import store as store_module
from meshwright.core.errors import StoreDeniedError
from meshwright.core.role import Role
from meshwright.core.store import Library, Store, label_of
from meshwright.core.store_user import ADMIN, user_of
from meshwright.core.valkey import EmbeddedValkey
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY

SOURCE = "redis.register_function('probe_VERSION', function() return '{}' end)"
OLD, NEW = Library("journal", SOURCE.format("old")), Library("journal", SOURCE.format("new"))
KEY = "mw:{0}:task:x"

PROCESS = """
import asyncio, sys
from meshwright.core.store import Library, Store

OLD = Library("journal", {source!r})

async def main():
    store = Store({url!r}, OLD)
    await store.open(1)
    print((await store.call(OLD.function("probe"), "mw:{{0}}:task:x")).decode(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print((await store.call(OLD.function("probe"), "mw:{{0}}:task:x")).decode(), flush=True)
    await store.close()

asyncio.run(main())
"""


@pytest.fixture
async def own(run_valkey, tmp_path):
    """An admin's connection to a store of this test."""
    opened = Store(run_valkey(tmp_path).url)
    await opened.open(1)
    yield opened
    await opened.close()


async def test_two_versions_side_by_side_keep_their_functions_until_they_are_gone(own):
    older, newer = Store(own.url, OLD), Store(own.url, NEW)
    await older.open(1)
    await newer.open(1)
    assert await prune(own, [NEW], await in_use(own, 0)) == []
    assert await older.call(OLD.function("probe"), KEY) == b"old"
    assert await newer.call(NEW.function("probe"), KEY) == b"new"
    await older.close()
    assert await prune(own, [NEW], await in_use(own, 0.5)) == [OLD.name]
    assert await held(own) == [NEW.name]
    assert await newer.call(NEW.function("probe"), KEY) == b"new"
    await newer.close()
    assert await prune(own, [NEW], await in_use(own, 0)) == []  # this version's stay, whoever is there


async def test_a_process_that_rests_or_is_frozen_keeps_its_functions(own):
    code = textwrap.dedent(PROCESS).format(url=own.url, source=SOURCE.format("old"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert await process.stdout.readline() == b"old\n"
    process.send_signal(signal.SIGSTOP)
    assert await prune(own, [NEW], await in_use(own, 0.5)) == []
    process.send_signal(signal.SIGCONT)
    process.stdin.write(b"\n")
    assert await process.stdout.readline() == b"old\n"
    assert await process.wait() == 0
    process.stdin.close()
    assert await prune(own, [NEW], await in_use(own, 0.5)) == [OLD.name]


async def test_a_process_whose_connections_were_cut_is_seen_again_though_it_asks_nothing(own, monkeypatch):
    monkeypatch.setattr(store_module, "SEEN_S", 0.05)
    resting = Store(own.url, OLD)
    await resting.open(1)
    await own.run(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    async with asyncio.timeout(10):
        while not (await in_use(own, 0)).many[OLD.name]:
            await asyncio.sleep(0.01)
    await resting.close()


async def test_nothing_is_deleted_while_somebody_does_not_say_what_is_used(own):
    older = Store(own.url, OLD)
    await older.open(1)
    await older.close()
    stranger = redis.Redis.from_url(own.url, driver_info=None)
    await stranger.ping()
    use = await in_use(own, 1.5)
    assert [one.partition("@")[0] for one in use.unknown] == ["default"]
    assert await prune(own, [NEW], use) == []
    assert await held(own) == [OLD.name]
    await stranger.aclose()
    assert await prune(own, [NEW], await in_use(own, 0.2)) == [OLD.name]


async def test_libraries_of_others_are_left_alone(own):
    foreign = "#!lua name=mw_other\nredis.register_function('other', function() return 1 end)"
    await own.run(("FUNCTION", "LOAD", foreign))
    assert await held(own) == []
    assert await prune(own, [], await in_use(own, 0)) == []
    assert await own.client.function_list(library="mw_other")


def test_the_libraries_of_the_mesh_have_names_that_are_known():
    assert all(NAME.fullmatch(library.name) for library in (JOURNAL_LIBRARY, REGISTRY_LIBRARY))


def test_connections_are_counted_by_what_they_say_and_admins_and_copies_not_at_all():
    use = Use()
    ours = f"lib-name={label_of([OLD, NEW])}"
    look(use, f"id=1 addr=a:1 flags=N user=mw-agent {ours} lib-ver=\nid=2 addr=a:2 flags=N user=mw-agent {ours}\n")
    look(use, f"id=1 addr=a:1 flags=N user=mw-agent {ours}\nid=3 flags=N user={ADMIN} lib-name=\nid=4 flags=S user=x\n")
    look(use, "id=5 addr=a:5 flags=N user=mw-gateway lib-name=meshwright() lib-ver=\n")
    assert (use.many, use.unknown) == ({OLD.name: 2, NEW.name: 2}, set())
    look(use, "id=6 addr=a:6 age=0 flags=N user=mw-agent lib-name=\n")  # has just come
    assert use.unknown == set()
    look(use, "id=6 addr=a:6 age=1 flags=N user=mw-agent lib-name=redis-py lib-ver=8.1.0\n")
    assert use.unknown == {"mw-agent@a:6"}


@given(st.text())
def test_no_list_of_connections_is_an_error(listed):
    look(Use(), listed)


class TestCommand:
    @pytest.fixture
    def environment(self, own, monkeypatch):
        monkeypatch.setattr(libraries, "LOOKED_S", 1.5)
        monkeypatch.setenv("MESHWRIGHT_STORE_ADMIN_URL", own.url)

    async def test_it_says_what_became_of_each(self, own, environment):
        stale = Store(own.url, OLD)
        await stale.open(1)
        await stale.close()
        running = Store(own.url, REGISTRY_LIBRARY, JOURNAL_LIBRARY)
        await running.open(1)
        would = await asyncio.to_thread(CliRunner().invoke, app, ["store", "prune", "--dry-run"])
        assert f"{OLD.name} would be deleted: nobody uses it" in would.output
        assert OLD.name in await held(own)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["store", "prune"])
        assert done.exit_code == 0, done.output
        assert f"{OLD.name} was deleted: nobody uses it" in done.output
        assert re.search(rf"{JOURNAL_LIBRARY.name} stays: \d+ connection\(s\) use it", done.output)
        assert await held(own) == sorted([JOURNAL_LIBRARY.name, REGISTRY_LIBRARY.name])
        await running.close()

    async def test_it_exits_with_1_where_it_cannot_know(self, own, environment):
        stranger = redis.Redis.from_url(own.url, driver_info=None)
        await stranger.ping()
        stale = Store(own.url, OLD)
        await stale.open(1)
        await stale.close()
        for options in ((), ("--dry-run",)):
            done = await asyncio.to_thread(CliRunner().invoke, app, ["store", "prune", *options])
            assert done.exit_code == 1
            assert f"{OLD.name} stays: it is not known whether somebody uses it" in done.output
            assert "1 connection(s) do not say what they use, nothing is deleted: default@" in done.output
        await stranger.aclose()


async def test_only_an_admin_may(tmp_path):
    embedded = EmbeddedValkey.prepare(tmp_path)
    printed = CliRunner().invoke(app, ["store", "acl", "--passwords", str(tmp_path / "passwords")])
    (tmp_path / "users.acl").write_text(printed.output)

    def url(user):
        return f"unix://{user}:{(tmp_path / 'passwords' / f'{user}.password').read_text()}@{embedded.socket}"

    with subprocess.Popen(
        [*embedded.command, "--aclfile", str(tmp_path / "users.acl")], stdout=subprocess.DEVNULL
    ) as process:
        admin, agent = Store(url(ADMIN), OLD), Store(url(user_of(Role.AGENT)), OLD)
        await admin.open(1)
        await agent.open(1)
        with pytest.raises(StoreDeniedError):
            await in_use(agent, 0)
        with pytest.raises(StoreDeniedError):
            await prune(agent, [NEW], Use())
        assert (await in_use(admin, 0)).unknown == set()
        await agent.close()
        assert await prune(admin, [NEW], Use()) == [OLD.name]
        await admin.close()
        process.terminate()
