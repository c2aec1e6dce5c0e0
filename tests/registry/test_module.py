"""Authors' modules: found by name or file, and their mistakes told in one line."""

import sys

import pytest

from meshwright.core.errors import SetupError
from meshwright.registry.module import members
from meshwright.registry.tool import LocalTool

TOOL = '''
from helper_beside import ADDEND
from meshwright.registry import tool

@tool(effect="pure")
def plus(a: int) -> int:
    """Adds."""
    return a + ADDEND

other = 3
'''


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def test_a_file_is_imported_with_its_folder_and_gives_what_is_of_the_kind(tmp_path):
    (tmp_path / "helper_beside.py").write_text("ADDEND = 40\n")
    (tmp_path / "tools_of_mine.py").write_text(TOOL)
    found = members(str(tmp_path / "tools_of_mine.py"), LocalTool)
    assert list(found) == ["plus"]
    assert await found["plus"].run({"a": 2}) == 42


def test_a_module_is_imported_by_its_name():
    assert "ToolHost" in members("meshwright.registry.host", type)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (", "broken.py:1: "),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise ValueError('wrong')", "ValueError: wrong"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("from meshwright.core.errors import SetupError\nraise SetupError('as it is')", "as it is"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, text, told):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SetupError) as caught:
        members(str(tmp_path / "broken.py"), LocalTool)
    assert told in caught.value.message


@pytest.mark.parametrize("place", ["/nowhere/tools.py", "no_module_of_that_name", "/tmp"])
def test_what_is_not_there_is_told(place):
    with pytest.raises(SetupError, match=place):
        members(place, LocalTool)
