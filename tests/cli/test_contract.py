"""`meshwright tool diff` and `tool check`: contracts from files, modules and a running mesh; the gate of a folder."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshwright.cli.contract import MAX_FILE, committed
from meshwright.cli.main import app
from meshwright.core.channel import dial
from meshwright.gen.registry.v1.tool_registry_service_pb2 import RegisterToolRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry.tool import tool

REPO = Path(__file__).parents[2]
MODULE = '''
"""Tools of a test."""

from meshwright.registry import tool


@tool(effect="pure", version="{version}")
def add({parameters}) -> {result}:
    """{doc}"""
    return a
'''


def run(*arguments):
    return CliRunner().invoke(app, ["tool", *map(str, arguments)])


@pytest.fixture
def module(tmp_path):
    """Writes a module with one tool; each has a name of its own, as imported modules do."""
    made = 0

    def write(version="1.0.0", parameters="a: int", result="int", doc="Adds."):
        nonlocal made
        made += 1
        path = tmp_path / f"tools_{tmp_path.name.replace('-', '_')}_{made}.py"
        path.write_text(MODULE.format(version=version, parameters=parameters, result=result, doc=doc))
        return path

    return write


def states(result):
    return [(one["tool"], one["state"]) for one in json.loads(result.stdout)]


# diff


def test_a_compatible_pair_of_modules_exits_with_0_and_tells_the_changes(module):
    done = run("diff", f"{module()}:add", f"{module(parameters='a: int, b: int = 0')}:add")
    assert done.exit_code == 0, done.output
    assert re.search(r"PROPERTY_ADDED +/input_schema/properties/b +no", done.stdout)


def test_a_breaking_pair_exits_with_1_and_is_told_as_json(module):
    done = run("diff", f"{module()}:add", f"{module(parameters='a: int, b: int')}:add", "-o", "json")
    assert done.exit_code == 1
    changes = json.loads(done.stdout)
    assert {key: changes[0][key] for key in ("pointer", "rule", "breaking")} == {
        "pointer": "/input_schema/required/1",
        "rule": "REQUIRED_PROPERTY_ADDED",
        "breaking": True,
    }
    assert changes[0]["message"]


def test_files_of_json_and_yaml_are_read_alike(module, tmp_path):
    assert run("check", "--write", tmp_path / "contracts", module()).exit_code == 0
    written = tmp_path / "contracts/add/1.0.0.json"
    other = tmp_path / "new.yaml"
    other.write_text(
        """
        name: add
        version: 2.0.0
        description: Adds.
        effect: EFFECT_PURE
        input_schema: {type: object, properties: {a: {type: [integer, string]}}, required: [a]}
        output_schema: &any {title: Integer, type: integer}
        """
    )
    done = run("diff", written, other, "-o", "jsonl")
    assert done.exit_code == 0, done.output
    assert "TYPE_WIDENED" in {json.loads(line)["rule"] for line in done.stdout.splitlines()}
    assert run("diff", other, written).exit_code == 1


async def test_a_version_at_a_mesh_is_read_through_the_edge(mesh, module):
    @tool(effect="pure", name="add")
    def add(a: int) -> int:
        """Adds."""
        return a

    async with dial(mesh.target) as channel:
        await ToolRegistryServiceStub(channel).RegisterTool(RegisterToolRequest(tool=add.contract("host:1")), timeout=5)
    edge = ("--edge", f"http://{mesh.target}")
    same = await asyncio.to_thread(run, "diff", "add@1.0.0", f"{module()}:add", *edge)
    assert same.exit_code == 0, same.output
    broken = await asyncio.to_thread(run, "diff", "add", f"{module(parameters='b: int')}:add", *edge)
    assert broken.exit_code == 1
    missing = await asyncio.to_thread(run, "diff", "add@7.0.0", "add", *edge)
    assert (missing.exit_code, "registered versions are 1.0.0" in missing.stderr) == (2, True)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
UNREADABLE = {
    "no JSON": (".json", "{", "holds no contract"),
    "no UTF-8": (".json", b"\xff\xfe{", "holds no contract"),
    "no YAML": (".yaml", "a: [", "holds no contract"),
    "no object": (".json", "[]", "is no object"),
    "an unknown field": (".json", '{"nonsense": 1}', "nonsense"),
    "a wrong field": (".json", '{"name": "a", "version": "1"}', "tool.version"),
    "a date": (".yaml", "name: 2020-01-01", "date"),
    "too large": (".json", " " * (MAX_FILE + 1), "has more than"),
    "too deep": (".json", "[" * 200_000, "holds no contract"),
    "deep": (".json", '{"a":' + "[" * 100 + "]" * 100 + "}", "goes too far"),
    "a bomb of aliases": (".yaml", BOMB, "goes too far"),
    "a loop of aliases": (".yaml", "a: &a [*a]", "goes too far"),
    "no schema": (
        ".json",
        '{"name": "a", "version": "1.0.0", "description": "x", "input_schema": {"type": "object", "required": 1}}',
        "tool.input_schema",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_holds_no_contract_exits_with_2_and_one_line(case, tmp_path):
    suffix, content, said = UNREADABLE[case]
    path = tmp_path / f"contract{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("diff", path, path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_what_is_not_there_exits_with_2(tmp_path, module):
    for place in (tmp_path / "none.json", f"{tmp_path}/none.py:add", "no.such.module:add", f"{module()}:subtract"):
        done = run("diff", place, place)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output


# check


def test_new_versions_are_told_and_written(module, tmp_path):
    folder, tools = tmp_path / "contracts", module()
    told = run("check", folder, tools, "-o", "json")
    assert (told.exit_code, states(told), folder.exists()) == (1, [("add@1.0.0", "new")], False)
    written = run("check", "--write", folder, tools, "-o", "json")
    assert (written.exit_code, states(written)) == (0, [("add@1.0.0", "written")])
    same = run("check", folder, tools, "-o", "jsonl")
    assert (same.exit_code, json.loads(same.stdout)["state"]) == (0, "same")
    stored = json.loads((folder / "add/1.0.0.json").read_text())
    assert not {"endpoint", "digest"} & stored.keys()


def test_another_contract_at_the_same_version_fails_with_the_pointer(module, tmp_path):
    run("check", "--write", tmp_path / "c", module())
    changed = run("check", "--write", tmp_path / "c", module(parameters="a: int, b: int = 0"))
    assert changed.exit_code == 1
    assert "a version never changes: raise it" in changed.stdout
    assert "/input_schema/properties/b" in changed.stdout
    assert committed(tmp_path / "c")["add"]["1.0.0"].input_schema["properties"].fields.keys() == {"a"}


def test_a_breaking_change_needs_a_new_major_version(module, tmp_path):
    folder = tmp_path / "c"
    run("check", "--write", folder, module())
    breaking = run("check", "--write", folder, module("1.1.0", "a: int, b: int"))
    assert breaking.exit_code == 1
    assert re.search(r"add@1\.1\.0 +breaking +against 1\.0\.0: raise the major version", breaking.stdout)
    assert "/input_schema/required/1" in breaking.stdout
    assert not (folder / "add/1.1.0.json").exists()
    assert run("check", "--write", folder, module("1.1.0", "a: int, b: int = 0")).exit_code == 0
    assert run("check", "--write", folder, module("2.0.0", "a: int, b: int")).exit_code == 0
    assert set(committed(folder)["add"]) == {"1.0.0", "1.1.0", "2.0.0"}


def test_a_version_between_two_others_must_fit_both(module, tmp_path):
    folder = tmp_path / "c"
    run("check", "--write", folder, module("1.0.0"))
    run("check", "--write", folder, module("1.2.0", "a: int, b: int = 0"))
    between = run("check", folder, module("1.1.0", "a: int, c: int = 0"), "-o", "json")
    assert between.exit_code == 1
    (finding,) = json.loads(between.stdout)
    assert (finding["state"], finding["against"]) == ("breaking", "1.2.0")


def test_a_pre_release_may_break_since_no_range_chooses_it(module, tmp_path):
    run("check", "--write", tmp_path / "c", module("1.0.0"))
    assert run("check", "--write", tmp_path / "c", module("1.1.0-rc.1", "b: str")).exit_code == 0


def test_a_tool_that_is_gone_is_told_and_fails_nothing(module, tmp_path):
    run("check", "--write", tmp_path / "c", module())
    done = run("check", tmp_path / "c", REPO / "examples/accountant.py", "-o", "json")
    assert states(done) == [("add_vat@1.0.0", "new"), ("add@1.0.0", "gone")]


def test_what_cannot_be_checked_exits_with_2(module, tmp_path):
    folder = tmp_path / "c"
    empty = tmp_path / "empty_of_tools.py"
    empty.write_text("")
    assert (run("check", folder, empty).exit_code, run("check", folder, "no.such").exit_code) == (2, 2)
    twice = run("check", folder, module(), module(parameters="b: str"))
    assert (twice.exit_code, "defined twice" in twice.stderr) == (2, True)
    run("check", "--write", folder, module())
    (folder / "add/1.0.0.json").rename(folder / "add/1.0.1.json")
    misnamed = run("check", folder, module())
    assert (misnamed.exit_code, "name it add/1.0.0.json" in misnamed.stderr) == (2, True)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run("check", "--write", blocked, module()).exit_code == 2


def test_the_tools_of_this_repository_are_committed():
    line = re.search(r"^TOOLS := (.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert line
    done = run("check", REPO / "contracts", *(str(REPO / m) if m.endswith(".py") else m for m in line[1].split()))
    assert done.exit_code == 0, done.output
    sources = [*(REPO / "agents").rglob("*.py"), *(REPO / "examples").rglob("*.py")]
    declaring = {path.relative_to(REPO) for path in sources if re.search("^ *@tool", path.read_text(), re.MULTILINE)}
    assert {
        Path(one) if one.endswith(".py") else Path("agents", *one.split(".")).with_suffix(".py")
        for one in line[1].split()
    } == declaring


DECLARED = """
tools:
  - name: city.weather
    version: {version}
    description: Says how warm it is.
    effect: pure
    input_schema:
      type: object
      properties: {{city: {{type: string}}, day: {{type: {day}}}}}
      required: [city]
      additionalProperties: false
    output_schema: {{type: object}}
    backend: {{http: {{url: "https://weather.example/v1/{{city}}?day={{day}}"}}}}
"""


@pytest.fixture
def declare(tmp_path):
    def write(name, version="1.0.0", day="integer"):
        (tmp_path / name).write_text(DECLARED.format(version=version, day=day))
        return tmp_path / name

    return write


def test_declared_tools_are_compared_by_file_and_name(declare, module):
    old, new = declare("old.yaml"), declare("new.yml", "1.1.0", "number")
    assert run("diff", f"{old}:city.weather", f"{new}:city.weather").exit_code == 0
    back = run("diff", f"{new}:city.weather", f"{old}:city.weather", "-o", "json")
    assert back.exit_code == 1
    assert json.loads(back.stdout)[0]["pointer"] == "/input_schema/properties/day/type"
    none = run("diff", f"{old}:city.none", f"{new}:city.weather")
    assert none.exit_code == 2
    assert "has no tool city.none: it has city.weather, city.weather@1.0.0" in none.output
    assert run("diff", f"{old}:city.weather@1.0.0", f"{new}:city.weather@1.1.0").exit_code == 0
    assert run("diff", f"{old.parent / 'no.yaml'}:a", f"{new}:city.weather").exit_code == 2


def test_declared_tools_pass_the_same_gate_as_others(declare, module, tmp_path):
    folder = tmp_path / "contracts"
    assert run("check", "--write", folder, declare("a.yaml"), module()).exit_code == 0
    assert set(committed(folder)) == {"city.weather", "add"}
    changed = run("check", folder, declare("a.yaml", day="string"), module(), "-o", "json")
    assert changed.exit_code == 1
    assert states(changed)[-1] == ("city.weather@1.0.0", "changed")
    bare = tmp_path / "bare.yaml"
    bare.write_text("tools: 5")
    assert run("check", folder, bare).exit_code == 2
