"""`meshwright tool docs`: pages of a real registry's tools, always the same, with nothing of their authors' markup."""

import asyncio
import json
import re
from typing import Annotated

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typer.testing import CliRunner

from meshwright.cli import tool_docs
from meshwright.cli.main import app
from meshwright.cli.tool_page import ToolPage, escaped, index_page, quoted, table
from meshwright.core.channel import Channels
from meshwright.core.errors import InvalidRequestError, SetupError, ToolNotFoundError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import SchemaChange, Tool
from meshwright.registry import tool
from meshwright.registry.client import RegistryClient


@tool(name="sums.add", version="1.0.0", effect="pure", timeout_s=2.5)
def add_first(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


@tool(name="sums.add", version="1.1.0", effect="pure", timeout_s=2.5)
def add(a: Annotated[float, Field(description="One | two")], b: float = 1) -> float:
    """Adds numbers, *all* of them."""
    return a + b


@tool(name="sums.add_all", effect="non_idempotent", approval="always")
def add_all() -> float:
    """Adds what there is."""
    return 0


@pytest.fixture
async def run(mesh):
    """Runs `meshwright tool docs ...` against a registry with three versions of two tools."""
    channels = Channels()
    client = RegistryClient(channels, mesh.target)
    for one in (add_first, add, add_all):
        await client.register(one.contract("127.0.0.1:7"))

    async def command(*words):
        arguments = ["tool", "docs", *map(str, words), "--edge", f"http://{mesh.target}"]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    yield command
    await channels.close()


async def test_a_page_tells_every_version_the_newest_first(run):
    page = await run("sums.add")
    assert page.startswith("# sums.add\n\nAdds numbers, \\*all\\* of them.\n\n| Version | Aliases | Deprecated |")
    assert re.findall("^## (.*)", page, re.MULTILINE) == ["1.1.0", "1.0.0"]
    assert r"| `a` | number | yes |  | One \| two |" in page
    assert "| `b` | number |  | default `1` |  |" in page
    assert "| Time for a call | 2.5 s |" in page
    assert "### Result\n\n| Result | Type | Required | Rules | Description |\n|---|---|---|---|---|\n" in page
    assert "Adds two numbers." in page
    assert "sums.add\\_all" not in page


async def test_all_tools_have_an_index_and_come_in_the_order_of_their_names(run):
    text = await run()
    assert re.findall("^# (.*)", text, re.MULTILINE) == ["Tools", "sums.add", r"sums.add\_all"]
    assert "| [sums.add](sums.add.md) | 1.1.0 | pure | Adds numbers, \\*all\\* of them. |" in text
    assert "### Arguments\n\nNone." in text
    assert await run() == text


async def test_a_folder_gets_a_file_for_each_tool_and_one_that_lists_them(run, tmp_path):
    folder = tmp_path / "made" / "for it"
    listed = await run("--folder", folder)
    names = ["_index.md", "sums.add.md", "sums.add_all.md"]
    assert listed.splitlines() == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == names
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    await run("--folder", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    await run("sums.add", "-o", "json", "--folder", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["sums.add.json"]


async def test_programs_get_the_contracts_as_json(run):
    (found,) = json.loads(await run("sums.add_all", "-o", "json"))
    assert found["name"] == "sums.add_all"
    (version,) = found["versions"]
    assert version["effect"] == "non_idempotent"
    assert version["approval"] == "always"
    assert version["arguments"]["additionalProperties"] is False
    assert version["sunset_time"] is None
    assert "127.0.0.1" not in json.dumps(found)


async def test_the_tools_that_are_named_are_told_once_and_in_order(run):
    found = json.loads(await run("sums.add_all", "sums.add", "sums.add_all", "-o", "json"))
    assert [one["name"] for one in found] == ["sums.add", "sums.add_all"]


@pytest.mark.parametrize(("name", "kind"), [("sums", ToolNotFoundError), ("../x", InvalidRequestError)])
async def test_a_tool_that_is_not_there_is_told(run, name, kind):
    with pytest.raises(kind):
        await run(name)


async def test_a_folder_that_cannot_be_written_is_told(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be written"):
        await run("--folder", tmp_path / "file")


def test_a_page_of_nothing_says_so():
    assert "No tools are registered." in index_page([])


def page_of(*changes, **fields):
    """The page of two versions that differ by changes."""
    old, new = add_first.contract(), add.contract()
    for name, value in fields.items():
        if isinstance(value, Timestamp):
            new.sunset_time.CopyFrom(value)
        elif isinstance(value, list):
            getattr(new, name).extend(value)
        else:
            setattr(new, name, value)
    return ToolPage("sums.add", [old, new], {"1.1.0": list(changes)}).markdown()


def test_what_breaks_callers_stands_first_among_the_changes():
    page = page_of(
        SchemaChange(pointer="/properties/a", rule="WIDENED", message="takes more"),
        SchemaChange(pointer="/properties/b", rule="NARROWED", breaking=True, message="takes `less`"),
    )
    assert (
        "### Changes since 1.0.0\n\n- **breaking** `/properties/b`: takes \\`less\\`\n- `/properties/a`: takes" in page
    )
    assert "None that a schema shows." in page_of()


def test_what_becomes_of_a_version_and_what_it_asks_for_stands_on_its_page():
    page = page_of(
        sunset_time=Timestamp(seconds=0),
        replaced_by="sums.plus@^2",
        aliases=["stable", "beta"],
        cost_micros=2_500,
        required_scopes=["sums"],
        redact=["", "/a"],
        owner="a|b",
    )
    assert "| 1.1.0 | beta, stable | not to be relied on after 1970-01-01T00:00:00Z: use sums.plus@^2 |" in page
    assert "| Cost of a call | US$ 0.0025 |" in page
    assert "| Scopes | sums |" in page
    assert "| Redacted in results | (all of it), /a |" in page
    assert r"| Owner | a\|b |" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# a", r"\# a"),
        ("- a\n+ b", "\\- a\n\\+ b"),
        ("1. a", r"1\. a"),
        ("12) a", r"12\) a"),
        ("    a", "a"),
        ("~~~", r"\~~~"),
        ("<b>&lt;", r"\<b\>\&lt;"),
        ("[a](b)", r"\[a\](b)"),
        ("3 of 4", "3 of 4"),
    ],
)
def test_the_markup_of_others_is_text(text, shown):
    assert quoted(text) == shown


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3)))
def test_no_text_leaves_its_cell(lines):
    text = table(("a", "b", "c"), [[escaped(one) for one in line] for line in lines])
    found = text.split("\n")
    assert len(found) == len(lines) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4 for line in found)


@given(st.text(min_size=1, max_size=50))
def test_no_description_writes_a_heading(text):
    contract = Tool()
    contract.CopyFrom(add.contract())
    contract.description = text
    page = ToolPage("sums.add", [contract], {}).markdown()
    assert len(re.findall(r"^ {0,3}#", page, re.MULTILINE)) == 4


def test_a_reader_that_goes_away_is_no_file_that_cannot_be_written(tmp_path, monkeypatch):
    def gone(_):
        raise BrokenPipeError

    monkeypatch.setattr(tool_docs, "show", gone)
    with pytest.raises(BrokenPipeError):
        tool_docs.write(tmp_path, {"a.md": "text"})
    assert (tmp_path / "a.md").read_text() == "text"
