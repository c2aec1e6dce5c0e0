"""Files of tools for a mesh: checked before anything starts, named by their files."""

import pytest

from meshwright.cli.tool_files import check, named
from meshwright.core.errors import SetupError

TOOL = """
from meshwright.registry import tool

@tool(name="{name}")
def work() -> int:
    "Works."
    return 1
"""


@pytest.fixture
def file(tmp_path):
    def write(place, name):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(TOOL.format(name=name))
        return str(path)

    return write


def test_files_of_different_tools_pass(file):
    check([file("a.py", "a"), file("b.py", "b")])


def test_a_tool_in_two_files_names_both(file):
    one, other = file("a.py", "same"), file("b.py", "same")
    with pytest.raises(SetupError, match=rf"same@1.0.0 is in {one} and in {other}"):
        check([one, other])


def test_what_is_no_tool_is_told(file):
    with pytest.raises(SetupError, match="Not A Name"):
        check([file("a.py", "Not A Name")])


def test_processes_are_named_by_their_files_and_no_two_alike():
    assert named(["x/calc.py", "y/calc.py", "calc.yaml", "z/calc.py"]) == [
        ("calc.py", "x/calc.py"),
        ("calc.py-1", "y/calc.py"),
        ("calc.yaml", "calc.yaml"),
        ("calc.py-3", "z/calc.py"),
    ]
