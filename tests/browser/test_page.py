"""What a person sees and does on the page."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Route

    from tests.browser.conftest import Dev, Scheme, Visit

QUESTION = "How long does a lease last?"
HOSTILE = "<img src=x onerror='window.isHacked = true'> & <script>window.isHacked = true</script>"


async def test_an_answer_comes_with_its_steps_and_sources(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.reached("completed")
    assert await visit.text("#title") == QUESTION
    assert "fifteen seconds" in await visit.text("#answer")
    assert "[lease.md]" in await visit.page.locator("#answer cite").all_inner_texts()
    numbers = [int(text) for text in await visit.page.locator("#steps .sequence").all_inner_texts()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(await visit.page.locator("#steps ol .agent").all_inner_texts()) == {"researcher", "summarizer"}
    assert int((await visit.text("#fact-tokens")).replace(",", "")) > 0
    assert await visit.text("#connection") == "ended"
    assert visit.problems == []


async def test_a_row_unfolds_to_arguments_and_results(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.reached("completed")
    await visit.page.locator("#steps summary", has_text="docs.search {").focus()
    await visit.page.keyboard.press("Enter")
    shown = visit.page.locator("#steps .parts pre").first
    await shown.wait_for()
    assert '"query": "' in await shown.inner_text()


async def test_a_reload_shows_the_same_task(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.reached("completed")
    places = ("#title", "#task-id", "#answer", "#fact-tokens", "#fact-time")
    before = [await visit.text(place) for place in places], await visit.words()
    await visit.page.reload()
    await visit.reached("completed")
    await visit.page.locator("#connection[data-state=ended]").wait_for()
    assert ([await visit.text(place) for place in places], await visit.words()) == before
    assert visit.problems == []


async def test_recent_tasks_open_again_and_belong_to_the_session_of_the_tab(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.reached("completed")
    first = await visit.text("#task-id")
    await visit.ask("What cannot a stale worker do?")
    await visit.page.locator("#title", has_text="stale").wait_for()
    await visit.reached("completed")
    await visit.page.locator(f"#recent a[href='#task={first}']").click()
    await visit.page.locator("#title", has_text=QUESTION).wait_for()
    await visit.page.locator("#connection[data-state=ended]").wait_for()
    assert "fifteen seconds" in await visit.text("#answer")
    listed = await (await visit.page.request.get(f"{dev.url}/v1/tasks?page_size=20")).json()
    roots = [task for task in listed["tasks"] if not task["parent_task_id"]]
    assert roots[0]["session_id"] == roots[1]["session_id"] != ""


async def test_a_killed_worker_costs_time_and_nothing_else(visit: Visit, scripted: Dev) -> None:
    await visit.open(scripted)
    await visit.ask("Take your time")
    await visit.page.locator("#steps ol .words", has_text="completed").wait_for()
    os.kill(scripted.facts["pids"]["orchestrator"], signal.SIGKILL)
    await visit.page.locator("#steps .words", has_text="taken over").wait_for()
    await visit.reached("completed")
    assert "Slow, but here it is" in await visit.text("#answer")
    assert await visit.text("#fact-attempt") == "2"
    numbers = [int(text) for text in await visit.page.locator("#steps .sequence").all_inner_texts()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert all("Failed to load resource" in problem for problem in visit.problems)


async def test_a_stream_that_is_refused_is_opened_again(visit: Visit, dev: Dev) -> None:
    refused: list[str] = []

    async def refuse_once(route: Route) -> None:
        if refused:
            await route.continue_()
        else:
            refused.append(route.request.url)
            await route.fulfill(status=503)

    await visit.page.route("**/events?*", refuse_once)
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.reached("completed")
    assert len(refused) == 1
    assert "fifteen seconds" in await visit.text("#answer")


async def serve_events(visit: Visit, *events: dict[str, Any]) -> None:
    """Has the page read these events in place of the task's own."""

    async def serve(route: Route) -> None:
        task_id = route.request.url.split("/")[-2]
        common = {"task_id": task_id, "sequence": 0, "step": 1, "attempt": 1, "time": "2026-01-01T00:00:00Z"}
        frames = [f"data: {json.dumps(common | event)}\n\n" for event in events]
        await route.fulfill(content_type="text/event-stream", body="".join(frames))

    await visit.page.route("**/events?*", serve)


async def test_text_is_joined_by_its_offset(visit: Visit, dev: Dev) -> None:
    pieces = [("Hel", 0), ("lo 🙂", 3), ("lo 🙂", 3), ("!", 7)]
    await serve_events(visit, *({"delta": {"text": text, "offset": offset}} for text, offset in pieces))
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.page.locator("#answer.draft", has_text="Hello 🙂!").wait_for()
    assert await visit.page.locator("#steps .draft").count() == 1


async def test_text_that_comes_after_its_call_is_left_out(visit: Visit, dev: Dev) -> None:
    call = {"model": "any", "text": "Done", "planned_calls": [], "latency_ms": 1}
    late = {"delta": {"text": "Do", "offset": 0}}
    await serve_events(visit, late, {"sequence": 1, "llm_call": call}, late, {"sequence": 2, "unheard_of": {"a": 1}})
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.page.locator("#steps .kind", has_text="unheard of").wait_for()
    assert await visit.page.locator("#steps .kind").all_inner_texts() == ["model", "unheard of"]


async def test_asking_again_after_a_lost_answer_is_the_same_task(visit: Visit, dev: Dev) -> None:
    sent: list[str] = []

    async def lose_the_first_answer(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or "{}")["task_id"])
        answer = await route.fetch()
        await (route.abort() if len(sent) == 1 else route.fulfill(response=answer))

    await visit.page.route("**/v1/agents/*/tasks", lose_the_first_answer)
    await visit.open(dev)
    await visit.ask(QUESTION)
    await visit.page.locator("#notice", has_text="Not accepted").wait_for()
    await visit.page.get_by_role("button", name="Ask", exact=True).click()
    await visit.reached("completed")
    assert sent == [await visit.text("#task-id")] * 2


async def test_a_refused_question_says_why_and_stays(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.page.get_by_text("Advanced").click()
    await visit.page.get_by_label("Token budget").fill("3")
    await visit.ask(QUESTION)
    await visit.page.locator("#notice.bad", has_text="token_budget must be 512..32768").wait_for()
    assert await visit.page.get_by_label("Question").input_value() == QUESTION


async def test_what_a_budget_has_cut_off_is_called_a_part_or_no_answer(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.page.get_by_text("Advanced").click()
    await visit.page.get_by_label("Max steps").fill("1")
    await visit.ask(QUESTION)
    await visit.reached("completed")
    assert await visit.text("#ending") == "Stopped at its step limit: this is a part of the answer."
    await visit.page.get_by_label("Max steps").fill("")
    await visit.page.get_by_label("Token budget").fill("512")
    await visit.ask("Think of it. " * 500)
    await visit.page.locator("#ending", has_text="tokens were used up: there is no answer.").wait_for()
    assert (await visit.text("#answer")).startswith("I stopped here: this task's budget of tokens is used up.")


async def test_a_running_task_can_be_cancelled(visit: Visit, scripted: Dev) -> None:
    await visit.open(scripted)
    await visit.ask("Take your time")
    await visit.page.locator("#steps .words", has_text="plans 1 call").first.wait_for()
    await visit.page.get_by_role("button", name="Cancel").click()
    await visit.reached("cancelled")
    assert await visit.text("#ending") == "Cancelled."
    assert await visit.page.get_by_role("button", name="Cancel").is_disabled()


async def test_hostile_words_are_shown_as_text(visit: Visit, scripted: Dev) -> None:
    await visit.open(scripted)
    await visit.ask(HOSTILE, agent="summarizer")
    await visit.reached("completed")
    assert await visit.text("#title") == HOSTILE
    assert "<img src=x onerror=" in await visit.text("#answer")
    for row in await visit.page.locator("#steps > li > details > summary").all():
        await row.click()
    await visit.page.locator("#recent a").first.click()
    await visit.page.reload()
    await visit.reached("completed")
    assert await visit.page.locator("img, main script, #task b, aside b").count() == 0
    assert await visit.page.evaluate("window.isHacked") is None
    assert visit.problems == []


async def test_nothing_leaves_the_origin_and_the_copied_command_is_complete(visit: Visit, dev: Dev) -> None:
    await visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await visit.open(dev)
    await visit.page.get_by_label("Question").fill("What's a lease?")
    await visit.page.get_by_role("button", name="Copy as curl").click()
    await visit.page.get_by_role("button", name="Copied").wait_for()
    command = await visit.page.evaluate("navigator.clipboard.readText()")
    assert f"{dev.url}/v1/agents/orchestrator/tasks" in command
    assert r"""{"prompt":"What'\''s a lease?",""" in command
    await visit.ask(QUESTION)
    await visit.reached("completed")
    assert [url for url in visit.requests if not url.startswith(f"{dev.url}/")] == []
    assert visit.problems == []


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_narrow_and_wide_screens(browser: Browser, dev: Dev, width: int, scheme: Scheme) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(dev.url)
    await page.get_by_label("Question").fill("lease " * 60 + "x" * 300)
    await page.get_by_role("button", name="Ask", exact=True).click()
    await page.locator("#connection[data-state=ended]").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await context.close()
