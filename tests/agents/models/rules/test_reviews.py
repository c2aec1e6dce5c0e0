"""The offline reviewer: claims and sources out of the prompt, or sources out of a search."""

import json
from typing import Any

import pytest

from meshwright.agents.library.reviewer.tools import Source, compare
from meshwright.agents.models.model import ToolSpec
from meshwright.agents.models.offline import OfflineModel
from meshwright.agents.shortening import shortened

COMPARE = ToolSpec("review.compare", "Holds claims against sources.", {"type": "object", "properties": {}})
SEARCH = ToolSpec("docs.search", "Finds passages.", {"type": "object", "properties": {}})
LEASE = "A lease lasts fifteen seconds."


def compared(arguments: dict[str, Any]) -> dict[str, Any]:
    review = compare.function(arguments["claims"], [Source(**one) for one in arguments["sources"]])
    return {
        "findings": [
            {"claim": one.claim, "verdict": one.verdict, "sentence": one.sentence, "source": one.source}
            for one in review.findings
        ]
    }


def found(arguments: dict[str, Any]) -> dict[str, Any]:
    hits = [{"id": "1", "source": "lease.md", "text": LEASE}] if "lease" in arguments["query"] else []
    return {"hits": hits}


async def test_sources_of_the_prompt_are_compared_at_once(play):
    claims = "- A lease lasts 15 seconds [old.md].\n- Bananas are yellow."
    claims = "- A lease lasts 15 seconds [old.md].\n- Bananas are yellow."
    task = f"Review these claims:\n{claims}\n\nsource: lease.md\n{LEASE}"
    played = await play(OfflineModel(), task, [(COMPARE, compared), (SEARCH, found)])
    (call,) = played.rounds[0]
    assert call.arguments == {
        "claims": ["A lease lasts 15 seconds.", "Bananas are yellow."],
        "sources": [{"source": "lease.md", "text": LEASE}],
    }
    assert f'1. supported: A lease lasts 15 seconds.\n   "{LEASE}" [lease.md]\n2. not found: Bananas' in played.text
    assert "Compared by words, numbers and negations only.\n\nSources:\n- lease.md\n\nmodel: offline" in played.text


async def test_without_sources_each_claim_is_searched_for_at_once(play):
    task = "Check whether a lease lasts nine seconds. Bananas are yellow."
    played = await play(OfflineModel(), task, [(COMPARE, compared), (SEARCH, found)])
    assert [[call.tool for call in calls] for calls in played.rounds] == [["docs.search"] * 2, ["review.compare"]]
    assert f'1. contradicted: a lease lasts nine seconds.\n   "{LEASE}" [lease.md]' in played.text
    assert "2. not found: Bananas are yellow." in played.text


async def test_the_mark_of_a_question_is_no_part_of_the_claim(play):
    task = "Is it true that a lease lasts nine seconds? "
    played = await play(OfflineModel(), task, [(COMPARE, compared), (SEARCH, found)])
    assert played.rounds[0][0].arguments["query"] == "a lease lasts nine seconds"
    assert f'1. contradicted: a lease lasts nine seconds\n   "{LEASE}" [lease.md]' in played.text


async def test_a_comparison_of_which_only_a_part_stands_is_not_quoted(play, raw):
    task = f"Review: a lease lasts.\n\nsource: lease.md\n{LEASE}"
    part = shortened(json.dumps({"findings": [{"claim": "a lease lasts " * 60}]}), 500)
    played = await play(OfflineModel(), task, [(COMPARE, lambda _: raw(part))])
    assert played.text.startswith("The tool review.compare failed: what it gave back is too long for this task")
    assert "a lease lasts a lease lasts" not in played.text


async def test_claims_for_which_there_is_no_room_are_named(play):
    claims = "\n".join(f"- Lease number {number} lasts." for number in range(2, 12))
    played = await play(OfflineModel(), f"Review:\n{claims}", [(COMPARE, compared), (SEARCH, found)], budget=4_000)
    assert 0 < len(played.rounds[0]) < 8
    assert "Not reviewed, for lack of tokens: Lease number 11 lasts." in played.text


@pytest.mark.parametrize("task", ["Review these claims:", "Please check", "Review:\n\nsource: a.md\nA lease lasts."])
async def test_a_prompt_without_claims_is_told(play, task):
    played = await play(OfflineModel(), task, [(COMPARE, compared), (SEARCH, found)])
    assert played.text.startswith("There is no claim to review")


async def test_without_sources_and_search_it_says_what_helps(play):
    played = await play(OfflineModel(), "Review: a lease lasts.", [(COMPARE, compared)])
    assert played.text.startswith("Nothing was found to review against: put sources below the claims")


async def test_a_search_that_failed_is_said(play, raw):
    tools = [(COMPARE, compared), (SEARCH, lambda _: raw("the host is gone"))]
    played = await play(OfflineModel(), "Review: a lease lasts.", tools)
    assert played.text.startswith("The tool docs.search failed: the host is gone")


async def test_a_comparison_that_failed_is_said(play, raw):
    task = f"Review: a lease lasts.\n\nsource: lease.md\n{LEASE}"
    played = await play(OfflineModel(), task, [(COMPARE, lambda _: raw("it broke"))])
    assert played.text.startswith("The tool review.compare failed: it broke")
