"""Names of tools on a command line, held against what a real registry and its agents offer."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.agent import Agent
from meshwright.agents.context import READ_RESULT
from meshwright.agents.escalation import ASK_ESCALATION
from meshwright.agents.inputs import ASK_PERSON
from meshwright.cli import offered_tools
from meshwright.cli.edge import Edge
from meshwright.cli.offered_tools import OWN, check_offered, names_in
from meshwright.core.errors import ToolNotFoundError, UnavailableError
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard
from meshwright.registry import tool


@tool(name="docs.search", effect="pure")
def search(query: str) -> str:
    """Searches."""
    return query


@tool(name="docs.search_all", effect="pure")
def search_all(query: str) -> str:
    """Searches everywhere."""
    return query


@pytest.fixture
async def edge(mesh):
    """A mesh with an agent that has tools, and one that hands work to it."""
    await mesh.agent(Agent("finder", "Find.", tools=[search, search_all], remembers=True))
    await mesh.agent(Agent("boss", "Delegate.", delegates=["finder", "night-shift"]))
    opened = Edge(f"http://{mesh.target}")
    yield opened
    await opened.close()


async def test_tools_of_agents_and_delegates_pass_without_a_word(edge, capsys):
    await check_offered(edge, [])
    names = ["docs.search", "docs.search_all", "memory.recall", "ask.finder", "ask.night_shift", *OWN]
    await check_offered(edge, names)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "meant"), [("docs.serch", "docs.search"), ("docs", ""), ("ask.findr", "ask.finder"), ("ask.boss", "")]
)
async def test_a_name_that_nobody_has_is_refused_with_those_that_may_be_meant(edge, name, meant):
    with pytest.raises(ToolNotFoundError) as caught:
        await check_offered(edge, ["docs.search", name])
    assert f"is called {name}" in caught.value.message
    assert caught.value.fields == {"allowed_tools": name}
    if meant:
        assert (
            f"{name} (is {meant} or " in caught.value.message or f"{name} (is {meant} meant?)" in caught.value.message
        )


async def test_all_names_that_nobody_has_are_told_at_once(edge):
    with pytest.raises(ToolNotFoundError) as caught:
        await check_offered(edge, ["nothing.at_all", "docs.search", "something.else_"])
    assert "is called nothing.at_all and something.else_: " in caught.value.message


async def test_where_nobody_says_what_there_is_all_names_pass_with_a_notice(mesh, capsys):
    agent = await mesh.agent(Agent("finder", "Find.", tools=[search]))
    alone, away = Edge(f"http://{agent.server.target}"), Edge("http://127.0.0.1:1")
    for unable in (alone, away):
        await check_offered(unable, ["docs.serch"])
        said = capsys.readouterr().err
        assert said.startswith("--tool was not checked, since the mesh does not list its tools: ")
        assert said.count("\n") == 1
        await unable.close()


async def test_a_mesh_that_takes_too_long_is_not_waited_for(edge, monkeypatch, capsys):
    async def silent(_method, _request):
        await asyncio.Event().wait()

    monkeypatch.setattr(offered_tools, "CHECK_S", 0.05)
    monkeypatch.setattr(edge, "call", silent)
    await check_offered(edge, ["docs.serch"])
    assert "it did not answer within 0.05 s" in capsys.readouterr().err


async def test_a_name_is_refused_also_where_nobody_says_which_are_like_it(edge, monkeypatch):
    async def away(_mesh):
        raise UnavailableError("away")

    monkeypatch.setattr(offered_tools, "names_registered", away)
    with pytest.raises(ToolNotFoundError, match=r"is called docs\.serch: "):
        await check_offered(edge, ["docs.serch"])


def test_what_the_mesh_itself_gives_is_what_the_agents_know():
    assert {ASK_PERSON, ASK_ESCALATION, READ_RESULT} == OWN


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@given(st.lists(NAMES, max_size=5), st.lists(NAMES, max_size=5))
def test_an_agent_uses_tools_by_name_and_others_by_asking(tools, delegates):
    card = AgentCard(tools=[f"{name}@^1" for name in tools], delegates=[one.replace("_", "-") for one in delegates])
    assert names_in(card) == {*tools, *(f"ask.{one}" for one in delegates)}
