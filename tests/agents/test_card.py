"""An agent's card: what it tells the mesh of its guardrails, its tenants' budget and its models' prices."""

from meshwright.agents.agent import Agent
from meshwright.agents.guardrails.policy import DEFAULT
from meshwright.agents.serving import AgentProcess
from meshwright.agents.settings import AgentSettings


async def test_a_card_names_guardrails_budget_and_models_without_a_price(tmp_path):
    settings = AgentSettings(model="openai:my-own@http://127.0.0.1:9/v1", budget_tenant_day_micros=7)
    card = AgentProcess(Agent("clerk", "You answer."), settings).card
    assert list(card.guardrails) == [rule.name for rule in DEFAULT]
    assert card.tenant_day_budget_micros == 7
    assert list(card.unpriced_models) == list(card.models) == ["openai:my-own"]


async def test_an_agent_without_any_tells_none(tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("my-own: {input: 0, output: 0}")
    settings = AgentSettings(model="openai:my-own@http://127.0.0.1:9/v1", prices=str(prices))
    card = AgentProcess(Agent("clerk", "You answer.", guardrails=()), settings).card
    assert (list(card.guardrails), card.tenant_day_budget_micros, list(card.unpriced_models)) == ([], 0, [])
