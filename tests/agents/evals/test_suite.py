"""Suites: cases in parallel, each with its documents, verdicts in order."""

import asyncio

import pytest

from meshwright.agents import Agent
from meshwright.agents.evals.case import Case
from meshwright.agents.evals.suite import Suite, run
from meshwright.agents.library.bundle import bundled
from meshwright.core.errors import SetupError
from meshwright.registry import tool


def case(name, prompt="Go.", checks=None, **fields):
    return Case.model_validate({"id": name, "prompt": prompt, "checks": checks or {"finish": "stop"}, **fields})


async def verdicts(suite, **options):
    chosen = {"model": "offline", "judge": None, "parallel": 4, "on_end": lambda _: None}
    return await run(suite, **(chosen | options))


async def test_each_case_sees_its_own_documents(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/a.md").write_text("A fence is made of wood.")
    question = "What is a fence made of?"
    cases = [
        case("folder", question, {"contains": ["wood", "a.md"]}, docs="shared"),
        case(
            "texts",
            question,
            {"contains": ["iron", "deep/b.md"], "lacks": ["wood"]},
            docs={"deep/b.md": "A fence is made of iron."},
        ),
        case("none", question, {"matches": ["^Nothing was found"]}),
        case("again", question, {"contains": ["wood"]}, docs="shared"),
    ]
    found = await verdicts(Suite(bundled("researcher"), cases, tmp_path))
    assert [(one.case, one.failures) for one in found] == [(one.id, ()) for one in cases]


async def test_cases_run_at_once_up_to_the_bound(tmp_path):
    running, most = 0, 0

    @tool(effect="pure", name="suite.meet")
    async def meet() -> str:
        """Waits a moment for others."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            together.set()
        async with asyncio.timeout(10):
            await together.wait()
        running -= 1
        return "met"

    together = asyncio.Event()
    cases = [case(str(number), "Meet.", {"contains": ["met"]}) for number in range(6)]
    ended = []
    suite = Suite(Agent("guest", "Meet.", tools=[meet]), cases, tmp_path)
    found = await verdicts(suite, parallel=3, on_end=ended.append)
    assert [one.failures for one in found] == [()] * 6
    assert most == 3
    assert sorted(one.case for one in ended) == [one.case for one in found] == list("012345")


async def test_verdicts_hold_what_was_spent_and_said(tmp_path):
    suite = Suite(Agent("guest", "Answer."), [case("sum", "What is 2 + 3?", {"equals": "5"})], tmp_path)
    (verdict,) = await verdicts(suite)
    assert verdict.failures == ("is not '5': '2 + 3 = 5'",)
    assert (verdict.agent, verdict.output, verdict.finish, verdict.steps) == ("guest", "2 + 3 = 5", "stop", 1)
    assert verdict.tokens > 0
    assert not verdict.is_passed


class Objecting:
    """A judge that objects to everything."""

    async def objection(self, rubric, prompt, output):
        return f"{rubric} {output}"


async def test_a_judge_is_asked_where_there_is_one_and_missed_where_not(tmp_path):
    cases = [case("judged", "What is 2 + 3?", {"judge": "Rude:"}), case("plain", "What is 2 + 3?")]
    suite = Suite(Agent("guest", "Answer."), cases, tmp_path)
    judged, plain = await verdicts(suite, judge=Objecting())
    assert (judged.failures, plain.failures) == (("Rude: 2 + 3 = 5",), ())
    judged, plain = await verdicts(suite)
    assert (judged.is_passed, judged.is_judged, plain.is_judged) == (True, False, True)


async def test_a_case_that_is_refused_fails_alone(tmp_path):
    cases = [case("refused", token_budget=1), case("fine", "What is 2 + 3?")]
    refused, fine = await verdicts(Suite(Agent("guest", "Answer."), cases, tmp_path))
    assert refused.failures[0].startswith("could not be asked: ")
    assert (refused.finish, fine.failures) == ("", ())


async def test_documents_that_cannot_be_written_are_told(tmp_path):
    cases = [case("odd", docs={"a": "x", "a/b": "y"})]
    with pytest.raises(SetupError, match="the documents of case odd"):
        await verdicts(Suite(Agent("guest", "Answer."), cases, tmp_path))
