"""`meshwright tool` against a running registry."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError
from meshwright.registry import tool
from meshwright.registry.client import RegistryClient
from meshwright.registry.store import CatalogStore


@tool(name="sums.add", version="1.2.0", effect="pure", timeout_s=2.5)
def add(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


@tool(name="sums.plus", version="2.0.0", effect="pure")
def plus(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


@pytest.fixture
async def run(mesh):
    """Runs `meshwright tool ...` and returns what it printed."""
    channels = Channels()
    client = RegistryClient(channels, mesh.target)
    await client.register(add.contract("127.0.0.1:7"))

    async def command(*words):
        arguments = ["tool", *words, "--edge", f"http://{mesh.target}"]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, catch_exceptions=True)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    yield command
    await channels.close()


async def test_a_tool_is_described_by_range_version_and_alias(run):
    shown = (await run("describe", "sums.add")).stdout
    for words in ("sums.add@1.2.0", "Adds two numbers.", "pure", "never", "2.5 s", "127.0.0.1:7", '"number"'):
        assert words in shown
    assert "deprecated" not in shown
    await run("alias", "sums.add@1.2.0", "stable")
    for name in ("sums.add@^1", "sums.add@1.2.0", "sums.add@stable"):
        described = json.loads((await run("describe", name, "-o", "json")).stdout)
        assert (described["version"], described["aliases"]) == ("1.2.0", ["stable"])
    assert "stable" in (await run("describe", "sums.add")).stdout


async def test_all_tools_are_listed_however_many_pages_they_fill(run, mesh):
    catalog = CatalogStore(mesh.registry._store)
    contract = add.contract("127.0.0.1:7")
    for number in range(230):
        contract.name = f"many.t{number:03d}"
        await catalog.register(contract.name, "1.2.0", contract.SerializeToString(), "d", "127.0.0.1:7", seen=0)
    listed = (await run("list", "-o", "jsonl")).stdout.splitlines()
    assert [json.loads(line)["name"] for line in listed] == [f"many.t{number:03d}" for number in range(230)] + [
        "sums.add"
    ]


async def test_a_version_is_deprecated_with_a_date_and_a_replacement(run, mesh):
    client = RegistryClient(channels := Channels(), mesh.target)
    await client.register(plus.contract("127.0.0.1:7"))
    await channels.close()
    shown = (await run("deprecate", "sums.add@1.2.0", "--sunset", "2030-01-31", "--use", "sums.plus@^2")).stdout
    assert "do not rely on it after 2030-01-31T00:00:00Z: use sums.plus@^2" in shown
    marked = json.loads((await run("describe", "sums.add", "-o", "jsonl")).stdout)
    assert (marked["sunset_time"], marked["replaced_by"]) == ("2030-01-31T00:00:00Z", "sums.plus@^2")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("describe", "sums.none"), "TOOL_NOT_FOUND"),
        (("describe", "sums.add@^2"), "TOOL_NOT_FOUND"),
        (("alias", "sums.add@1.2.0", "v1"), "INVALID_REQUEST"),
        (("alias", "sums.add", "stable"), "INVALID_REQUEST"),
        (("alias", "sums.add@1.3.0", "stable"), "TOOL_NOT_FOUND"),
        (("deprecate", "sums.add@1.3.0", "--sunset", "2030-01-31"), "TOOL_NOT_FOUND"),
        (("deprecate", "sums.add@1.2.0", "--sunset", "2030-01-31", "--use", "Sums"), "INVALID_REQUEST"),
        (("deprecate", "sums.add@1.2.0", "--sunset", "2030-01-31", "--use", "sums.none"), "INVALID_REQUEST"),
        (("deprecate", "sums.add@1.2.0", "--sunset", "2020-01-31"), "INVALID_REQUEST"),
    ],
)
async def test_what_cannot_be_done_is_told_with_its_reason(run, words, reason):
    with pytest.raises(MeshError) as caught:
        await run(*words)
    assert caught.value.reason == reason


async def test_a_date_that_is_none_is_refused_before_anybody_is_asked(run):
    result = await run("deprecate", "sums.add@1.2.0", "--sunset", "tomorrow")
    assert result.exit_code == 2
