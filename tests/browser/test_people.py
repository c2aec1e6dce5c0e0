"""People in the loop: what the page asks, and what comes of their decisions."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import AGENTS, Dev

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Browser, Locator

    from tests.browser.conftest import Visit

ARGUMENTS = {"count": 2, "subject": "<img src=x onerror='window.isHacked = true'>", "to": "ann\u202e"}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A mesh whose agents ask people."""
    names = ("asking", "boss", "curious", "fragile")
    agents = [part for name in names for part in ("--agent", f"{AGENTS}:{name}")]
    yield from Dev(tmp_path_factory.mktemp("people"), (*agents, "--lease", "1")).run()


def question(visit: Visit, words: str = "") -> Locator:
    return visit.page.locator("#question-list > li", has_text=words)


async def outcome(visit: Visit, mesh: Dev, tool: str = "mail.send") -> dict[str, Any]:
    """Returns the outcome of a tool's call, as it is in the journal."""
    task_id = await visit.text("#task-id")
    lines = (await (await visit.page.request.get(f"{mesh.url}/v1/tasks/{task_id}/steps")).text()).splitlines()
    events = [json.loads(line) for line in lines]
    calls = {
        call["call_id"]: call["tool"] for one in events for call in one.get("llm_call", {}).get("planned_calls", [])
    }
    results = [one["tool_result"] for one in events if "tool_result" in one]
    return next(result for result in results if calls[result["call_id"]] == tool)


async def gone(visit: Visit) -> None:
    await visit.page.locator("#questions").wait_for(state="hidden")


async def test_an_approval_shows_what_would_run_and_lets_it_run(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Send it.", agent="asking")
    asked = question(visit, "mail.send@1.0.0")
    await asked.wait_for()
    shown = await asked.get_by_label("Arguments of mail.send@1.0.0").inner_text()
    assert json.loads(shown) == ARGUMENTS
    assert "\u202e" not in shown
    task = await (await visit.page.request.get(f"{mesh.url}/v1/tasks/{await visit.text('#task-id')}")).json()
    digest = task["pending_inputs"][0]["intent_digest"]
    assert await asked.locator("dd", has_text=digest[:12]).inner_text() == digest[:12]
    assert "in 6 days" in await asked.inner_text()
    await visit.reached("'input required'")
    await asked.get_by_label("Reason").fill("she waits for it")
    await asked.get_by_role("button", name="Approve").click()
    await visit.reached("completed")
    await gone(visit)
    assert (await outcome(visit, mesh))["result"] == "sent 2 to ann\u202e: " + ARGUMENTS["subject"]
    assert await visit.page.locator("#steps .words", has_text="approve").count() == 1
    assert any("she waits for it" in words for words in await visit.words())
    assert await visit.page.evaluate("window.isHacked") is None
    assert visit.problems == []


async def test_a_rejection_is_made_by_keyboard_alone(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Send it.", agent="asking")
    reject = question(visit).get_by_role("button", name="Reject")
    await reject.focus()
    await visit.page.keyboard.press("Enter")
    await visit.reached("completed")
    await gone(visit)
    assert (await outcome(visit, mesh))["outcome"] == "TOOL_OUTCOME_DENIED"
    assert await visit.page.evaluate("document.activeElement.id") == "title"


async def test_edited_arguments_run_instead_and_wrong_ones_are_told_in_place(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Send it.", agent="asking")
    asked = question(visit)
    await asked.get_by_text("Other arguments").click()
    field = asked.get_by_label("Arguments that run instead")
    assert json.loads(await field.input_value()) == ARGUMENTS
    edit, problem = asked.get_by_role("button", name="Edit"), asked.get_by_role("alert")
    for wrong, told in (
        ("{", "no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"to": "bob", "count": 12345678901234567890}', "loses digits"),
        ('{"to": 7}', "arguments of mail.send"),
    ):
        await field.fill(wrong)
        await edit.click()
        await problem.get_by_text(told).wait_for()
    await field.fill('{"to": "bob"}')
    await edit.click()
    await visit.reached("completed")
    assert (await outcome(visit, mesh))["result"] == "sent 1 to bob: "


async def test_questions_are_answered_one_by_one_and_what_was_typed_stays(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Ask me.", agent="curious")
    colour, number = question(visit, "Which <b>colour</b>?"), question(visit, "How many?")
    await visit.page.locator("#questions-title", has_text="2 decisions for you").wait_for()
    await number.get_by_label("Answer").fill("many")
    await colour.get_by_label("Answer").fill("42")
    await colour.get_by_role("button", name="Answer").click()
    await colour.wait_for(state="detached")
    assert await number.get_by_label("Answer").input_value() == "many"
    await number.get_by_role("button", name="Answer").click()
    await number.get_by_role("alert").get_by_text("the answer does not fit").wait_for()
    await number.get_by_label("Answer").fill("7")
    await number.get_by_role("button", name="Answer").click()
    await visit.reached("completed")
    await gone(visit)


async def test_a_question_that_somebody_else_decides_vanishes(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Send it.", agent="asking")
    await question(visit).wait_for()
    path = f"{mesh.url}/v1/tasks/{await visit.text('#task-id')}"
    (pending,) = (await (await visit.page.request.get(path)).json())["pending_inputs"]
    body = {"input_id": pending["input_id"], "decision": "DECISION_REJECT", "intent_digest": pending["intent_digest"]}
    await visit.page.request.post(f"{path}:resolve", data=body)
    await gone(visit)
    await visit.reached("completed")


async def test_a_decision_that_comes_too_late_says_so(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.page.route("**/events?*", lambda route: route.abort())  # the page does not hear of it
    await visit.ask("Send it.", agent="asking")
    await visit.page.locator("#task-id", has_text="-").wait_for()
    path = f"{mesh.url}/v1/tasks/{await visit.text('#task-id')}"
    async with asyncio.timeout(10):
        while not (task := await (await visit.page.request.get(path)).json())["pending_inputs"]:
            await asyncio.sleep(0.05)
    await visit.page.reload()
    await question(visit).wait_for()
    (pending,) = task["pending_inputs"]
    body = {"input_id": pending["input_id"], "decision": "DECISION_REJECT", "intent_digest": pending["intent_digest"]}
    await visit.page.request.post(f"{path}:resolve", data=body)
    await question(visit).get_by_role("button", name="Approve").click()
    await visit.page.locator("#decided.bad", has_text="Not decided").wait_for()
    await gone(visit)


async def test_a_child_s_question_is_decided_on_at_its_parent_and_counts_once(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    before = int(await visit.text("#inbox-count"))
    await visit.ask("Have it sent.", agent="boss")
    asked = question(visit, "mail.send")
    await asked.wait_for()
    child = await asked.get_by_role("link").get_attribute("href")
    entry = visit.page.locator(f"#inbox a[href='{child}']")
    await entry.wait_for()
    assert int(await visit.text("#inbox-count")) == before + 1
    parent = await visit.text("#task-id")
    assert await visit.page.locator(f"#inbox a[href='#task={parent}']").count() == 0
    await entry.click()
    await visit.page.locator("#fact-agent", has_text="asking").wait_for()
    await question(visit, "mail.send").wait_for()
    await visit.page.go_back()
    await visit.page.locator("#fact-agent", has_text="boss").wait_for()
    await question(visit).get_by_role("button", name="Approve").click()
    await visit.reached("completed")
    await entry.wait_for(state="detached")
    assert await visit.text("#answer") == "My people did it."
    assert await visit.page.locator(f"#recent a[href='{child}']").count() == 0
    assert visit.problems == []


async def test_a_call_of_unknown_outcome_offers_its_own_choices(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Switch it.", agent="fragile")
    asked = question(visit, "What about lamp.switch@1.0.0?")
    await asked.wait_for()
    assert await asked.get_by_role("button").all_inner_texts() == ["Retry", "Skip", "Fail"]
    await asked.get_by_role("button", name="Skip").click()
    await visit.reached("completed")
    assert (await outcome(visit, mesh, "lamp.switch"))["outcome"] == "TOOL_OUTCOME_UNKNOWN"


async def test_a_cancelled_task_asks_nothing_any_more(visit: Visit, mesh: Dev) -> None:
    await visit.open(mesh)
    await visit.ask("Send it.", agent="asking")
    await question(visit).wait_for()
    await visit.page.get_by_role("button", name="Cancel").click()
    await visit.reached("cancelled")
    await gone(visit)


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_questions_fit_narrow_and_wide_screens(
    browser: Browser, mesh: Dev, width: int, scheme: str, tmp_path: Path
) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(mesh.url)
    await page.locator("#agent option[value=asking], #agent option", has_text="asking").wait_for(state="attached")
    await page.get_by_label("Agent").select_option("asking")
    await page.get_by_label("Question").fill("Send it. " + "x" * 200)
    await page.get_by_role("button", name="Ask", exact=True).click()
    await page.get_by_text("Other arguments").click()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.screenshot(path=tmp_path / "page.png", full_page=True)
    await page.get_by_role("button", name="Cancel").click()
    await context.close()
