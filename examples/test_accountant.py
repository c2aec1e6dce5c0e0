"""Tests of the accountant, in a mesh of its own."""

import pytest
from accountant import agent

from meshwright.agents.testing import AgentBench

pytestmark = pytest.mark.asyncio


async def test_tax_is_calculated_and_not_guessed() -> None:
    async with AgentBench(agent, model="offline") as bench:
        played = await bench.ask("What is 250 net with a rate of 0.07?")
    assert played.output == "267.5"
    assert [(call.tool, call.arguments) for call in played.calls] == [("add_vat", {"net": 250, "rate": 0.07})]
