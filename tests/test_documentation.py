"""What the documents say is true: snippets are the files they name, commands exist, links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshwright.agents.agent import load
from meshwright.cli.main import app

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md")), *sorted(REPO.glob("[A-Z]*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_are_the_files_that_they_name(page):
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        name, _, body = snippet.partition("\n")
        file = REPO / name.removeprefix("# ")
        assert ast.dump(without_docstring(body)) == ast.dump(without_docstring(file.read_text())), name


def without_docstring(source):
    tree = ast.parse(source)
    first = tree.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        del tree.body[0]
    return tree


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_fits_and_names_the_commands_that_exist():
    readme = (REPO / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    makefile = (REPO / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in set(re.findall(r"meshwright ((?:task |agent |tool )?[a-z-]+)", readme)):
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command


def test_the_agent_of_the_readme_has_twelve_lines_and_loads():
    file = REPO / "examples/accountant.py"
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith('"""')]
    assert len(lines) <= 12
    agent = load(f"{file}:agent")
    assert agent.name == "accountant"
    assert agent.local_tools[0].contract().name == "add_vat"
