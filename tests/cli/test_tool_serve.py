"""`meshwright tool serve` and `tool call` as processes, against a running registry."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import textwrap

import pytest

from meshwright.cli import ports
from meshwright.cli.mesh import FACTS, Mesh, MeshPlan
from meshwright.cli.tool_serve import local_mesh, placed
from meshwright.core.errors import SetupError
from meshwright.registry.settings import HostSettings

MESHWRIGHT = [sys.executable, "-m", "meshwright.cli.main"]
TOOLS = """
import asyncio
from meshwright.registry import tool

@tool(name="sums.add", effect="pure")
def add(a: int, b: int = 1) -> int:
    "Adds."
    return a + b

@tool(name="sums.wait", effect="idempotent", version="2.0.0")
async def wait(seconds: float) -> str:
    "Waits."
    print("waits", flush=True)
    await asyncio.sleep(seconds)
    return "waited"
"""


@pytest.fixture
def tools(tmp_path):
    file = tmp_path / "sums.py"
    file.write_text(TOOLS)
    return str(file)


@pytest.fixture
async def data(mesh, tmp_path):
    """The data folder of a mesh that runs."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / FACTS).write_text(json.dumps({"registry": mesh.target, "store": mesh.url}))
    return folder


@contextlib.asynccontextmanager
async def started(*words, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESHWRIGHT_")} | variables
    process = await asyncio.create_subprocess_exec(
        *MESHWRIGHT,
        "tool",
        *map(str, words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(*words, given="", **variables):
    """Runs a command to its end; returns exit code, stdout and stderr."""
    async with started(*words, **variables) as process:
        async with asyncio.timeout(30):
            out, err = await process.communicate(given.encode())
    return process.returncode, out.decode(), err.decode()


async def ready(process):
    async with asyncio.timeout(30):
        return json.loads(await process.stdout.readline())


async def test_tools_are_served_to_the_local_mesh_until_sigterm_and_calls_may_end(mesh, data, tools):
    edge = ("--edge", f"http://{mesh.target}")
    async with started("serve", tools, "--data", data) as host:
        facts = await ready(host)
        assert facts["tools"] == "sums.add@1.0.0, sums.wait@2.0.0"
        assert facts["registry"] == mesh.target
        assert facts["pid"] == host.pid
        assert await run("call", "sums.add", '{"a": 1}', *edge) == (0, "2\n", "")
        assert facts["target"] in (await run("list", *edge))[1]
        waiting = asyncio.create_task(run("call", "sums.wait", '{"seconds": 0.5}', *edge))
        assert await host.stdout.readline() == b"waits\n"
        host.send_signal(signal.SIGTERM)
        assert await waiting == (0, '"waited"\n', "")
        async with asyncio.timeout(20):
            assert await host.wait() == 0


async def test_a_registry_may_be_named_with_the_store_beside_it(mesh, tools):
    async with started("serve", tools, "--registry", mesh.target, MESHWRIGHT_STORE_URL=mesh.url) as host:
        assert (await ready(host))["registry"] == mesh.target


async def test_arguments_come_from_a_file_or_from_standard_input(mesh, data, tools, tmp_path):
    edge = ("--edge", f"http://{mesh.target}")
    (tmp_path / "a.json").write_text('{"a": 40, "b": 2}')
    async with started("serve", tools, "--data", data) as host:
        await ready(host)
        assert (await run("call", "sums.add", f"@{tmp_path / 'a.json'}", *edge))[1] == "42\n"
        assert (await run("call", "sums.add", "-", *edge, given='{"a": 41}'))[1] == "42\n"
        code, out, err = await run("call", "sums.add", '{"a": "x", "b": "y"}', *edge)
    assert (code, out) == (13, "")
    assert err.splitlines() == [
        "error: the arguments do not fit",
        '  /a: type: "x" is not of type "integer"',
        '  /b: type: "y" is not of type "integer"',
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("{", 13, "cannot be read"),
        ("[]", 13, "must be a JSON object"),
        ('{"a": 1, "a": 2}', 13, 'has the key "a" twice'),
        ("@nowhere.json", 19, "nowhere.json cannot be read: No such file"),
        ("@", 19, "cannot be read"),
        ("@/", 19, "cannot be read"),
    ],
)
async def test_arguments_that_cannot_be_read_are_one_line(arguments, code, told):
    done = await run("call", "sums.add", arguments, "--edge", "http://127.0.0.1:9")
    assert done[:2] == (code, "")
    assert re.fullmatch("error: [^\n]+\n", done[2])
    assert told in done[2]


async def test_standard_input_is_bounded():
    _, _, err = await run("call", "sums.add", "-", "--edge", "http://127.0.0.1:9", given="[" * 300_000)
    assert "at most 262144 bytes" in err


async def one_line(*words, code=19, **variables):
    """Runs `tool serve`, which does not start; returns the one line in which it says why."""
    ended, out, err = await run("serve", *words, **variables)
    assert (ended, out) == (code, "")
    assert re.fullmatch("error: [^\n]+\n", err), err
    return err


async def test_a_port_in_use_is_one_line(data, tools):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in await one_line(tools, "--data", data, "--port", port)


async def test_a_contract_that_is_another_is_one_line_and_no_tool_of_that_host_is_registered(
    data, mesh, tools, tmp_path
):
    async with started("serve", tools, "--data", data) as host:
        await ready(host)
    other = tmp_path / "other.py"
    other.write_text(TOOLS.replace("Waits.", "Waits for long.").replace("sums.add", "sums.plus"))
    assert "sums.wait@2.0.0 is another contract: raise the version" in await one_line(other, "--data", data, code=16)
    assert "sums.plus" not in (await run("list", "--edge", f"http://{mesh.target}"))[1]


async def test_a_registry_that_is_away_is_one_line(tools, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"127.0.0.1:{closed.getsockname()[1]}"
    told = await one_line(tools, "--data", tmp_path, "--registry", target, code=24)
    assert f"no registry answers at {target}: start a mesh with `meshwright dev`" in told


async def test_a_store_that_is_away_is_one_line(mesh, tools, tmp_path):
    url = f"unix://{tmp_path}/none.sock"
    assert "the store at" in await one_line(tools, "--registry", mesh.target, MESHWRIGHT_STORE_URL=url)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "holds no tools: decorate functions with @tool"),
        ("x = (", "'(' was never closed"),
        ("import nowhere", "cannot be imported: ModuleNotFoundError"),
        ("from meshwright.registry import tool\n@tool\ndef f() -> int:\n    return 1", "needs a description"),
        (None, "is not a file"),
    ],
)
async def test_mistakes_of_an_author_are_one_line(data, tmp_path, source, told):
    file = tmp_path / "mine.py"
    if source is not None:
        file.write_text(textwrap.dedent(source))
    assert told in await one_line(file, "--data", data)


async def test_two_files_may_not_hold_one_tool(data, tools, tmp_path):
    twin = tmp_path / "twin.py"
    twin.write_text(TOOLS)
    assert "two tools are called sums.add@1.0.0" in await one_line(tools, twin, "--data", data)


async def test_a_mesh_of_this_machine_is_found_by_its_data_folder_while_it_runs(tmp_path):
    plan = MeshPlan(port=ports.reserve("127.0.0.1", set()), data=tmp_path, docs=None, model="offline", bundled=())
    local = Mesh(plan, None, print)
    await local.start()
    try:
        facts = local.facts()
        assert local_mesh(tmp_path) == {"registry": facts["registry"], "store": facts["store"]}
        assert (tmp_path / FACTS).stat().st_mode & 0o777 == 0o600
    finally:
        await local.stop()
    assert local_mesh(tmp_path) == {}


def test_where_no_mesh_runs_a_registry_has_to_be_named(tmp_path):
    with pytest.raises(SetupError, match="start one with `meshwright dev`, or name a registry"):
        placed(HostSettings(), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"registry": "a:1"}', "\x00\xff"])
def test_facts_that_cannot_be_read_are_told(tmp_path, text):
    (tmp_path / FACTS).write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupError, match="cannot be read: start the mesh"):
        local_mesh(tmp_path)


def test_what_is_said_wins_over_the_local_mesh_whose_store_is_no_other_registrys(tmp_path):
    (tmp_path / FACTS).write_text(json.dumps({"registry": "here:1", "store": "unix:///here"}))
    own = placed(HostSettings(), tmp_path)
    assert (own.registry, own.store_url) == ("here:1", "unix:///here")
    assert placed(HostSettings(registry="here:1"), tmp_path).store_url == "unix:///here"
    assert placed(HostSettings(store_url="redis://there"), tmp_path).store_url == "redis://there"
    other = placed(HostSettings(registry="there:1"), tmp_path)
    assert other.store_url == HostSettings().store_url
    with pytest.raises(SetupError, match="must be host:port"):
        HostSettings.load(registry="there")


async def test_a_contract_that_breaks_its_callers_is_refused_with_all_its_places(data, tools, tmp_path):
    async with started("serve", tools, "--data", data) as host:
        await ready(host)
    changed = TOOLS.replace('version="2.0.0"', 'version="2.1.0"').replace("seconds: float", "seconds: int, why: str")
    other = tmp_path / "other.py"
    other.write_text(changed)
    code, out, err = await run("serve", other, "--data", data)
    assert (code, out) == (19, "")
    first, *places = err.splitlines()
    assert "sums.wait@2.1.0 breaks with 2.0.0 in 2 places" in first
    assert [place.split(":")[0].strip() for place in places] == [
        "/input_schema/properties/seconds/type",
        "/input_schema/required/1",
    ]


async def test_of_very_many_places_the_first_are_told(data, tmp_path):
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    head = 'from meshwright.registry import tool\n\n@tool(name="many.all", effect="pure", version="1.{}.0")\n'
    body = "def every({}) -> int:\n    'Takes much.'\n    return 1\n"
    old.write_text(head.format(0) + body.format(", ".join(f"a{n}: int" for n in range(30))))
    new.write_text(head.format(1) + body.format(", ".join(f"a{n}: str" for n in range(30))))
    async with started("serve", old, "--data", data) as host:
        await ready(host)
    code, _, err = await run("serve", new, "--data", data)
    assert code == 19
    assert "in 30 places" in err
    assert 5 < len(err.splitlines()) < 30
    assert "\n  and more: `meshwright tool diff` shows all\n" in err
