"""How an agent's process comes into a mesh: it waits for the registry, and is let in where it fits."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.agents.agent import Agent
from meshwright.core.errors import AuthDiffersError
from meshwright.registry.tool import tool
from tests.conftest import Mesh

ACCOUNTANT = Path(__file__).parents[2] / "examples/accountant.py"
NOBODY = "127.0.0.1:9"


@tool(effect="pure")
def double(number: int) -> int:
    """Doubles a number."""
    return 2 * number


@pytest.fixture
async def asking(store, tmp_path):
    """A mesh that wants to know who is calling."""
    mesh = Mesh(store.url, tmp_path, auth="keys")
    await mesh.open()
    yield mesh
    await mesh.close()


@pytest.mark.parametrize("tools", [[], [double]], ids=["alone", "with tools"])
async def test_an_agent_that_lets_anybody_in_does_not_join_a_mesh_that_asks_who_is_calling(asking, tools):
    with pytest.raises(AuthDiffersError, match="MESHWRIGHT_AUTH=none"):
        await asking.agent(Agent("clerk", "You answer.", tools=tools), model="offline", auth="none")
    joined = await asking.agent(Agent("teller", "You answer.", tools=tools), model="offline")
    assert [card.agent_id for card in await joined.registry.list_agents()] == ["teller"]


async def test_an_agent_that_asks_may_join_a_mesh_that_does_not_yet(mesh):
    joined = await mesh.agent(Agent("clerk", "You answer."), model="offline", auth="keys")
    assert [card.agent_id for card in await joined.registry.list_agents()] == ["clerk"]


async def test_an_agent_without_a_registry_says_at_once_what_it_waits_for_and_ends_in_order(store):
    settings = {"MESHWRIGHT_STORE_URL": store.url, "MESHWRIGHT_REGISTRY": NOBODY, "MESHWRIGHT_MODEL": "offline"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshwright.agents", f"{ACCOUNTANT}:agent"),
        env=os.environ | settings,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    async with asyncio.timeout(30):
        said = json.loads(await process.stderr.readline())
        process.terminate()
        rest = await process.stderr.read()
        await process.wait()
    assert (said["event"], said["target"]) == ("waits_for_registry", NOBODY)
    assert (process.returncode, rest) == (0, b"")
