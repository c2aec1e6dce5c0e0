"""The workflows: valid, thin, pinned, of least rights, and one for each image, which runs for what the image holds."""

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.library.bundle import BUNDLED
from meshwright.cli.agent_new import project
from tests.operate import workflow_rules
from tests.operate.delivering import REPO, images
from tests.operate.delivering import workflows as generator
from tests.operate.workflow_rules import FOLDER, PINNED, RULES, TARGETS, matches, read, workflows

IMAGES = [image for image in images.images() if image.below]
DELIVER = "deliver.yml"
RUN = sorted({step["run"].split()[1] for one in workflows().values() for _, step in one.steps() if "run" in step})


def broken(all_, name, old, new):
    """Returns all workflows, one of them changed."""
    text = all_[name].text.replace(old, new)
    assert text != all_[name].text, old
    return all_ | {name: read(text)}


BREAKS = [
    (workflow_rules.steps_are_targets, "verify.yml", "run: make lint", "run: ruff check ."),
    (workflow_rules.steps_are_targets, "verify.yml", "run: make lint", "run: make lint && make help"),
    (workflow_rules.steps_are_targets, "verify.yml", "run: make lint", "run: make linted"),
    (workflow_rules.actions_are_pinned, "check.yml", "@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0", "@v7.0.0"),
    (workflow_rules.actions_are_pinned, "check.yml", " # v7.0.0", ""),
    (workflow_rules.actions_are_pinned, "check.yml", "@5fda3b95", "@5fda3b96"),
    (workflow_rules.actions_are_pinned, "planner.yml", "./.github/workflows/verify.yml", "./.github/workflows/v.yml"),
    (workflow_rules.actions_are_pinned, "planner.yml", "./.github", "x/mesh/.github"),
    (workflow_rules.permissions_are_least, "check.yml", "\npermissions: {}", ""),
    (workflow_rules.permissions_are_least, "check.yml", "\npermissions: {}", "\npermissions: write-all"),
    (workflow_rules.permissions_are_least, "check.yml", "    permissions: {contents: read}\n", ""),
    (workflow_rules.permissions_are_least, "check.yml", "{contents: read}", "{contents: write}"),
    (workflow_rules.permissions_are_least, "verify.yml", "{contents: read}", "{contents: read, packages: write}"),
    (workflow_rules.jobs_end, "check.yml", "    timeout-minutes: 90\n", ""),
    (workflow_rules.jobs_end, "check.yml", "timeout-minutes: 90", "timeout-minutes: 360"),
    (workflow_rules.one_at_a_time, "planner.yml", "group: planner-", "group: reviewer-"),
    (workflow_rules.one_at_a_time, "planner.yml", "${{ github.event_name == 'pull_request' }}", "true"),
    (workflow_rules.strangers_see_nothing, "planner.yml", "  pull_request:", "  pull_request_target:"),
    (workflow_rules.strangers_see_nothing, "planner.yml", " && github.ref == 'refs/heads/main'", ""),
    (workflow_rules.strangers_see_nothing, DELIVER, "    environment: production\n", ""),
    (
        workflow_rules.strangers_see_nothing,
        DELIVER,
        "      DIGEST: ${{ needs",
        "      TOKEN: ${{ secrets.CLUSTER_CONFIG }}\n      DIGEST: ${{ needs",
    ),
    (
        workflow_rules.strangers_see_nothing,
        "verify.yml",
        "run: make lint\n",
        "run: make lint\n        env: {TOKEN: '${{ secrets.CLUSTER_CONFIG }}'}\n",
    ),
    (workflow_rules.nothing_is_interpolated, "verify.yml", "run: make lint", "run: make ${{ inputs.name }}"),
    (workflow_rules.nothing_is_interpolated, "verify.yml", "inputs.name }}", "github.event.pull_request.title }}"),
    (workflow_rules.nothing_is_interpolated, "planner.yml", "-${{ github.ref }}", "-${{ github.head_ref }}"),
    (workflow_rules.checkouts_keep_no_token, "check.yml", ", persist-credentials: false", ""),
    (workflow_rules.filters_are_digests, "planner.yml", "      - core/meshwright/**\n", ""),
    (workflow_rules.filters_are_digests, "planner.yml", "core/meshwright/**", "core/**/*.py"),
    (workflow_rules.filters_are_digests, "planner.yml", "library/planner/*.py", "library/planner/**"),
    (workflow_rules.filters_are_digests, "planner.yml", "library/planner/*.py", "library/*/*.py"),
    (workflow_rules.deliveries_take_back, DELIVER, " && steps.canary.outputs.verdict != 'undecided'", ""),
    (workflow_rules.deliveries_take_back, DELIVER, "      - run: make promote\n", "      - run: make images\n"),
    (workflow_rules.deliveries_take_back, DELIVER, "    needs: image\n", ""),
    (workflow_rules.deliveries_take_back, "planner.yml", "    needs: verify\n", ""),
    (
        workflow_rules.deliveries_take_back,
        "planner.yml",
        "deliver.yml\n    with: {name: planner}",
        "deliver.yml\n    with: {name: reviewer}",
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_workflow_follows_every_rule(rule):
    assert list(rule(workflows())) == []


@pytest.mark.parametrize(("rule", "name", "old", "new"), BREAKS)
def test_a_rule_notices_what_breaks_it(rule, name, old, new):
    assert list(rule(broken(workflows(), name, old, new)))


def test_every_rule_is_broken_once():
    assert {rule for rule, *_ in BREAKS} == {*RULES}


def test_an_image_without_a_workflow_is_noticed():
    without = {name: one for name, one in workflows().items() if name != "planner.yml"}
    assert list(workflow_rules.filters_are_digests(without)) == ["planner has no workflow"]


def schema(*paths):
    """Holds files against the published schema; returns the exit code and what was said."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, done.stdout + done.stderr


def test_workflows_are_valid_by_the_published_schema(tmp_path):
    code, said = schema(*FOLDER.glob("*"))
    assert code == 0, said
    text = (FOLDER / DELIVER).read_text()
    (tmp_path / "wrong.yml").write_text(text.replace("timeout-minutes", "timeout"))
    assert schema(tmp_path / "wrong.yml")[0] == 1


def test_workflows_of_images_are_as_the_template_says():
    """`make gen` writes them anew."""
    assert {name: (FOLDER / name).read_text() for name in generator.texts()} == generator.texts()
    assert {path.name for path in FOLDER.iterdir()} == {*generator.texts(), "check.yml", "verify.yml", DELIVER}


def test_every_agent_of_the_library_and_every_server_has_a_workflow():
    folders = {path.parent.name for path in (REPO / images.LIBRARY).glob("*/agent.py")}
    assert folders == set(BUNDLED)
    assert {name.removesuffix(".yml") for name in generator.texts()} == {*BUNDLED, "registry", "gateway"}


def triggered(path):
    return {image.name for image in IMAGES if matches(path, workflows()[f"{image.name}.yml"].events["push"]["paths"])}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_change_in_one_agents_folder_triggers_one_workflow(name):
    assert triggered(f"{images.LIBRARY}/{name}/prompts.py") == {name}
    assert triggered(f"{images.LIBRARY}/{name}/evals.jsonl") == set()


def test_a_change_of_the_runtime_triggers_all_and_one_of_the_gateway_one():
    assert triggered("core/meshwright/core/errors.py") == {image.name for image in IMAGES}
    assert triggered("gateway/requirements.lock") == triggered("cli/meshwright/cli/main.py") == {"gateway"}
    assert triggered("docs/delivery.md") == triggered("tests/conftest.py") == set()


@given(st.from_regex(r"[ab*]{1,6}", fullmatch=True), st.from_regex(r"[ab/]{1,6}", fullmatch=True))
def test_a_filter_stops_at_slashes_unless_it_has_two_stars(pattern, path):
    if "**" not in pattern and "/" in path:
        assert not matches(path, [pattern])
    if pattern == "**":
        assert matches(path, [pattern])


@pytest.mark.parametrize("target", RUN)
def test_make_knows_what_each_step_does(target):
    told = {"AGENT": "planner", "DIGEST": "sha256:" + "0" * 64, "PREFIX": "registry.example/mesh", "BASE": "b"}
    command = ["make", "--dry-run", "--no-print-directory", "-o", ".venv/.dev", "-o", ".venv/.runtime", target]
    done = subprocess.run(
        command, cwd=REPO, env=os.environ | told, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert target in TARGETS
    if target in ("canary", "image", "test-agent"):
        assert '"$AGENT"' in done.stdout  # the shell reads it: what it holds is no command


@pytest.mark.parametrize("agent", ["price-desk", "", "runtime", "registry gateway", '";exit 0;"'])
def test_tests_of_no_agent_of_ours_are_refused_in_one_line(agent):
    command = ["make", "--no-print-directory", "-o", ".venv/.dev", "BIN=/nonexistent", "test-agent"]
    told = os.environ | {"AGENT": agent}
    done = subprocess.run(command, cwd=REPO, env=told, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 2
    first, of_make = done.stderr.splitlines()
    assert first.startswith("error: AGENT is one of registry, gateway, ")
    assert re.match(r"make(\[\d+\])?: ", of_make)
    assert done.stdout == ""


def test_a_new_projects_workflow_follows_the_same_rules(tmp_path):
    text = project("price-desk")[".github/workflows/check.yml"]
    one = read(text)
    (tmp_path / "check.yml").write_text(text)
    assert schema(tmp_path / "check.yml")[0] == 0
    for rule in RULES:
        if rule not in (
            workflow_rules.steps_are_targets,
            workflow_rules.filters_are_digests,
            workflow_rules.deliveries_take_back,
        ):
            assert list(rule({"check.yml": one})) == []
    ours = {line for line in (FOLDER / "check.yml").read_text().splitlines() if "uses:" in line}
    assert {line for line in text.splitlines() if "uses:" in line} == ours
    assert all(PINNED.fullmatch(line.strip(" -")) for line in ours)


def test_a_new_projects_workflow_takes_the_index_from_a_variable():
    one = read(project("price-desk")[".github/workflows/check.yml"])
    assert one.said["jobs"]["check"]["env"] == {"PIP_INDEX_URL": "${{ vars.PIP_INDEX_URL }}"}
