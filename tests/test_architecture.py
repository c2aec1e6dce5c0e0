"""The shape of the code: layers, no cycles, one place for the environment and for keys, sizes that fit a sitting."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from meshwright.core.store import NOUNS

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "gen": set(),
    "core": {"gen"},
    "registry": {"gen", "core"},
    "agents": {"gen", "core", "registry"},
    "gateway": {"gen", "core"},
    "cli": {"gen", "core", "registry", "agents", "gateway"},
}
PACKAGES = sorted(set(MAY_IMPORT) - {"gen"})
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
LISTS = {"core/meshwright/core/errors.py"}
"""All that goes over the wire as an error stands in one list, however long that is."""


def sources(package: str, suffix: str = ".py") -> list[Path]:
    return sorted((ROOT / package / "meshwright" / package).rglob(f"*{suffix}"))


ALL_SOURCES = [path for package in PACKAGES for path in sources(package)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """Names a file as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in ALL_SOURCES}


def imported(path: Path) -> Iterator[str]:
    """Lists every module of ours that a file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("meshwright."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno} imports relatively"
            if node.module and node.module.split(".")[0] == "meshwright":
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    yield inner if inner in MODULES else node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_a_layer_imports_only_what_lies_below(package):
    allowed = MAY_IMPORT[package] | {package}
    upward = [
        f"{shown(path)} imports {module}"
        for path in sources(package)
        for module in imported(path)
        if module.split(".")[1] not in allowed
    ]
    assert upward == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_a_detour(package):
    graph = {module_of(path): {name for name in imported(path) if name in MODULES} for path in sources(package)}
    settled: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in settled:
            for name in sorted(graph.get(module, ())):
                walk(name, (*trail, module))
            settled.add(module)

    for module in sorted(graph):
        walk(module, ())


def reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
        return node.attr in ("environ", "environb", "getenv", "getenvb", "putenv")
    if isinstance(node, ast.ImportFrom) and node.module == "os":
        return any(name.name in ("environ", "environb", "getenv", "getenvb", "putenv") for name in node.names)
    return False


def test_the_environment_is_read_in_one_place():
    readers = {shown(path) for path in ALL_SOURCES if any(map(reads_environment, ast.walk(tree(path))))}
    quietens = "cli/meshwright/cli/main.py"  # gRPC, before anything is imported that could read settings
    assert readers == {"core/meshwright/core/settings.py", "core/meshwright/core/healthy.py", quietens}


def test_keys_are_spelled_in_one_place():
    files = [*ALL_SOURCES, *(path for package in PACKAGES for path in sources(package, ".lua"))]
    assert [shown(path) for path in files if re.search(r"\bmw:", path.read_text())] == ["core/meshwright/core/store.py"]


def python_nouns(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "partition_key":
            noun = node.args[1]
            assert isinstance(noun, ast.Constant), f"{shown(path)}:{node.lineno} spells a key by a variable"
            yield str(noun.value)


def lua_nouns(path: Path) -> Iterator[str]:
    text = path.read_text()
    spelled = re.findall(r"\bkey\(([^,()]*(?:\[\d+\])?), *([^,()]+)", text)
    for _, noun in spelled:
        if noun.startswith("'"):
            yield noun.strip("'")
        else:  # a loop over nouns
            (nouns,) = re.findall(rf"for _, {noun} in ipairs\(\{{([^}}]*)\}}\)", text)
            yield from re.findall(r"'(\w+)'", nouns)


def test_every_noun_of_a_key_is_listed():
    used = {noun for path in ALL_SOURCES for noun in python_nouns(path)}
    used |= {noun for package in PACKAGES for path in sources(package, ".lua") for noun in lua_nouns(path)}
    assert {"task", "log", "leases", "session", "tools"} <= used
    assert used <= NOUNS, f"not listed: {sorted(used - NOUNS)}"


def test_the_import_namespace_belongs_to_nobody():
    assert sorted(shown(path) for path in ROOT.glob("*/meshwright/__init__.py")) == []


def test_files_fit_a_sitting():
    files = [*ALL_SOURCES, *(path for package in PACKAGES for path in sources(package, ".lua"))]
    long = {shown(path): len(path.read_text().splitlines()) for path in files}
    assert {path: lines for path, lines in long.items() if lines > LONGEST_FILE and path not in LISTS} == {}


def test_functions_fit_a_screen():
    long = {}
    for path in ALL_SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long[f"{shown(path)}:{node.name}"] = lines
    assert long == {}
