"""Whether tools say what they take, are not about to go, and work; and what guards the agents that use them."""

import asyncio
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.cli.readiness.outcome import Outcome, counted, few, good, missing
from meshwright.cli.readiness.survey import MOST_AGENTS, Survey
from meshwright.core.errors import MeshError, ToolNotFoundError
from meshwright.gen.agents.v1.agent_service_pb2 import HealthResponse
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Tool

OUTSIDE = "outside"
"""Stands in `callable_by` for callers that are no agents."""


async def contracts(survey: Survey) -> Outcome:
    """Whether every tool says what it does and what it takes."""
    tools = await survey.tools()
    bare = [tool.name for tool in tools if not (tool.description and tool.digest and takes_an_object(tool))]
    if bare:
        return missing(f"without description or schema: {few(bare)}", "register them with a contract (docs/tools.md)")
    if not tools:
        return good("no tool is registered")
    typed = sum(bool(tool.output_schema.fields) for tool in tools)
    return good(f"{counted(len(tools), 'tool')} with a schema of arguments, {typed} with one of results")


def takes_an_object(tool: Tool) -> bool:
    """Whether a tool's schema of its arguments is one."""
    return tool.input_schema.fields["type"].string_value == "object" if "type" in tool.input_schema.fields else False


async def deprecated(survey: Survey) -> Outcome:
    """Whether an agent uses a version of a tool that is about to go, or one that nobody has."""
    cards = await survey.cards()
    uses = sorted({(selector, card.agent_id) for card in cards for selector in card.tools})[:MOST_AGENTS]
    tools = await asyncio.gather(*(resolved(survey, selector) for selector, _ in uses))
    going = [
        f"{agent} uses {told}"
        for (selector, agent), tool in zip(uses, tools, strict=True)
        if (told := unreliable(selector, tool))
    ]
    if going:
        return missing(few(going, 3), "move these agents to a version that stays (docs/tools.md)")
    return good(f"{counted(len({selector for selector, _ in uses}), 'tool')} used, none of them deprecated")


async def resolved(survey: Survey, selector: str) -> Tool | None:
    """Finds the version that a selector means; None: there is none."""
    name, _, version = selector.partition("@")
    path = f"/v1/tools/{quote(name, safe='')}" + (f"?version={quote(version, safe='')}" if version else "")
    try:
        return await survey.edge.read(path, Tool())
    except ToolNotFoundError:
        return None


def unreliable(selector: str, tool: Tool | None) -> str:
    """Says why a tool may not be relied on; empty: it may."""
    if tool is None:
        return f"{selector}, which is not registered"
    if not tool.HasField("sunset_time") or tool.sunset_time == Timestamp():
        return ""
    instead = f", instead: {tool.replaced_by}" if tool.replaced_by else ""
    return f"{tool.name} {tool.version}, which goes {json_format.MessageToDict(tool.sunset_time)}{instead}"


async def breakers(survey: Survey) -> Outcome:
    """Whether what agents depend on is called, and not left alone for having failed."""
    healths = await survey.healths()
    seen = [told for told in healths.values() if isinstance(told, HealthResponse)]
    all_breakers = [(told.agent_id, one) for told in seen for one in told.dependencies if one.breaker]
    opened = [f"{agent}: {one.name} is {one.breaker}" for agent, one in all_breakers if one.breaker != "closed"]
    if opened:
        return missing(few(opened), "see docs/runbooks/circuit-open.md")
    if healths and not seen:
        raise next(told for told in healths.values() if isinstance(told, MeshError))
    return good(f"{counted(len(all_breakers), 'breaker')} of models, none open")


async def guardrails(survey: Survey) -> Outcome:
    """Whether every agent that takes prompts from outside looks at them."""
    outer = [card for card in await survey.cards() if is_outer(card)]
    bare = [card.agent_id for card in outer if not card.guardrails]
    if bare:
        return missing(f"none: {few(bare)}", "leave `guardrails` of these agents as it is (docs/guardrails.md)")
    least = min((len(card.guardrails) for card in outer), default=0)
    return good(f"{counted(len(outer), 'agent')} open to callers, each with {least} guardrails or more")


def is_outer(card: AgentCard) -> bool:
    """Whether callers that are no agents may give it tasks."""
    return not card.callable_by or OUTSIDE in card.callable_by


async def budgets(survey: Survey) -> Outcome:
    """Whether a tenant's spending of a day has an end."""
    cards = [card for card in await survey.cards() if is_outer(card)]
    free = [card.agent_id for card in cards if not card.tenant_day_budget_micros]
    if free:
        return missing(
            f"no budget of a tenant's day: {few(free)}", "set MESHWRIGHT_BUDGET_TENANT_DAY_MICROS for agents"
        )
    most = max((card.tenant_day_budget_micros for card in cards), default=0)
    return good(f"a tenant's day costs at most US$ {most / 1_000_000:,.2f}")


async def prices(survey: Survey) -> Outcome:
    """Whether every model has a price: of one that has none, nobody sees what it costs."""
    cards = await survey.cards()
    free = sorted({name for card in cards for name in card.unpriced_models})
    if free:
        return missing(f"without a price: {few(free)}", "write their prices into MESHWRIGHT_PRICES (docs/budgets.md)")
    return good(f"{counted(len({name for card in cards for name in card.models}), 'model')}, none without a price")
