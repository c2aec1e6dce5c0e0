"""What the documents say is true: snippets are the files they name, commands exist, links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from typer.testing import CliRunner

from meshwright.agents.agent import load
from meshwright.cli.main import app
from meshwright.core import telemetry
from meshwright.core.access import rule_of

REPO = Path(__file__).parents[1]
PAGES = [
    REPO / "README.md",
    *sorted((REPO / "docs").rglob("*.md")),
    *sorted((REPO / "examples").rglob("*.md")),
    *sorted(REPO.glob("[A-Z]*.md")),
]


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


def told():
    """Returns every name of ours at /metrics."""
    metrics = (getattr(one, "_metric", one) for one in vars(telemetry).values())
    for metric in metrics:
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            ends = {"counter": ("_total",), "histogram": ("", "_bucket", "_sum", "_count")}.get(family.type, ("",))
            yield from (family.name + end for end in ends)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_that_are_named_exist(page):
    named = set(re.findall(r"(?<![/a-z_])meshwright_[a-z_]+", page.read_text()))
    assert named <= {*told()}


def is_run(line):
    """Tells whether a command line names a command that takes its options, and no group of commands."""
    told = CliRunner().invoke(app, [*line.split(), "--help"])
    return told.exit_code == 0 and "COMMAND [ARGS]" not in told.output


RUNBOOKS = [page for page in PAGES if page.parent.name == "runbooks"]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_commands_of_runbooks_can_be_run(page):
    lines = re.findall(r"^meshwright ([a-z].*)$", page.read_text(), re.MULTILINE)
    assert [line for line in lines if not is_run(line)] == []


def test_a_key_for_whoever_is_on_call_opens_what_the_runbooks_ask_for():
    (line,) = re.findall(
        r"^meshwright (key create --name on-call .*)$", (REPO / "docs/identity.md").read_text(), re.MULTILINE
    )
    assert is_run(line)
    scopes = re.search(r"--scopes (\S+)", line)[1].split(",")
    reading = ("GetTask", "ListTasks", "WatchTask", "CancelTask", "ResolveInput", "RetryDeadLetter", "GetCosts")
    rules = [rule_of(f"/agents.v1.TaskService/{method}") for method in reading]
    asked = {rule.scope for rule in rules} | {scope for rule in rules for scope in rule.others}
    assert asked | {"agents:read", "tools:read", "webhooks:read", "webhooks:write"} == set(scopes)


def test_on_call_is_never_sent_to_a_store_or_to_tasks_that_are_not_theirs():
    for page in RUNBOOKS:
        text = page.read_text()
        assert not re.search(r"^meshwright doctor(?! --production https://)", text, re.MULTILINE), page.name
        lists = re.findall(r"meshwright task (?:list|inbox|dead-letters list)[^`\n]*", text)
        assert all("--principal" in line for line in lists), page.name


def test_the_scrape_configuration_evaluates_as_often_as_it_scrapes():
    (text,) = re.findall(r"```yaml\n# prometheus.yml\n(.*?)```", (REPO / "docs/monitoring.md").read_text(), re.DOTALL)
    read = yaml.safe_load(text)
    assert read["global"]["evaluation_interval"] == read["scrape_configs"][0]["scrape_interval"]


def test_the_append_only_file_is_rewritten_without_valkeys_own_client(valkey):
    (code,) = re.findall(r"^python -c '(.*)'$", (REPO / "docs/encryption.md").read_text(), re.MULTILINE)
    environment = os.environ | {"MESHWRIGHT_STORE_ADMIN_URL": valkey.url}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
