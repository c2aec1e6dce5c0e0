"""Tests of a guardrail: it looks at text, and needs no mesh."""

import pytest
from no_prices import NoPrices

from meshwright.agents.guardrails import Subject


@pytest.mark.parametrize(("text", "left"), [("It costs $5.", "It costs ?5."), ("Nothing.", "")])
def test_amounts_are_taken_out(text: str, left: str) -> None:
    assert NoPrices().check(Subject("output", text)).text == left
