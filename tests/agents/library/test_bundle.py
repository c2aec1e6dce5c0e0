"""What ships: agents that are folders of the same parts, each with a set that it passes offline."""

from importlib import import_module
from importlib.resources import as_file, files

import pytest

from meshwright.agents.evals.case import read_set
from meshwright.agents.evals.suite import Suite, run
from meshwright.agents.library.bundle import BUNDLED, bundled

FOLDER = files("meshwright.agents.library")


@pytest.mark.parametrize("name", BUNDLED)
def test_an_agent_is_a_folder_of_the_same_parts(name):
    agent = bundled(name)
    assert agent.name == name
    prompts = import_module(f"meshwright.agents.library.{name}.prompts")
    assert (agent.instructions, agent.description) == (prompts.INSTRUCTIONS, prompts.DESCRIPTION)
    parts = {entry.name for entry in (FOLDER / name).iterdir()}
    assert {"agent.py", "prompts.py", "policy.py", "evals.jsonl"} <= parts
    assert ("tools.py" in parts) == bool(agent.local_tools)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_tool_has_a_rule_of_its_own_and_every_delegate_ships(name):
    agent = bundled(name)
    assert set(agent.approvals) == {pin.partition("@")[0] for pin in agent.selectors}
    assert set(agent.delegates) <= set(BUNDLED) - {name}


@pytest.mark.parametrize("name", BUNDLED)
async def test_its_set_passes_offline(name):
    with as_file(FOLDER) as library:
        folder = library / name
        suite = Suite(bundled(name), read_set(folder / "evals.jsonl"), folder)
        verdicts = await run(suite, model="offline", judge=None, parallel=4, on_end=lambda _: None)
    assert len(verdicts) >= 3
    assert {verdict.case: verdict.failures for verdict in verdicts if verdict.failures} == {}
