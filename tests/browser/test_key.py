"""Who is calling: the page asks for an API key, keeps it for itself, and says plainly what is wrong with one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from meshwright.core.errors import KeyExpiredError

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

    from meshwright.core.api_key import ApiKeys
    from tests.browser.conftest import Dev, Scheme, Visit

QUESTION = "What is 2 + 2?"
KEPT = "[location.href, document.cookie, JSON.stringify(localStorage), document.body.innerHTML]"
ALL = ("tasks:read", "tasks:write", "tasks:approve", "agents:read")


async def made(keys: ApiKeys, *scopes: str, **more: Any) -> tuple[str, str]:
    """Makes a key; returns it and its name in the store."""
    key, known = await keys.create("page", scopes, tenant="default", **more)
    return key, known.key_id


async def verified_for(keys: ApiKeys, key: str, within_s: float) -> None:
    """Looks at a key until it is refused."""
    async with asyncio.timeout(within_s):
        while True:
            await keys.verify(key)
            await asyncio.sleep(0.05)


async def problem(visit: Visit, words: str) -> None:
    """Waits until the page says what is wrong with the key."""
    await visit.page.get_by_role("alert").get_by_text(words).wait_for()


async def test_a_key_is_asked_for_and_given_by_keyboard_alone(visit: Visit, keyed: Dev, keys: ApiKeys) -> None:
    key, key_id = await made(keys, *ALL)
    await visit.page.goto(keyed.url)
    await problem(visit, "This mesh asks who is calling.")
    assert await visit.page.evaluate("document.activeElement.id") == "key"
    described = await visit.page.get_by_label("API key").get_attribute("aria-describedby")
    assert "key-problem" in (described or "")
    visit.problems.clear()  # the browser's own lines about 401
    await visit.page.keyboard.type(key)
    await visit.page.keyboard.press("Enter")
    await visit.page.locator("#access").wait_for(state="hidden")
    assert await visit.page.evaluate("document.activeElement.id") == "question"
    await visit.listed()
    await visit.ask(QUESTION)
    await visit.reached("completed")
    assert "4" in await visit.text("#answer")
    await visit.page.reload()
    await visit.reached("completed")
    assert await visit.page.locator("#access").is_hidden()
    await visit.page.get_by_role("button", name="Key", exact=True).click()
    assert f"mwk_{key_id}…" in await visit.text("#key-used")
    assert visit.problems == []


async def test_a_key_stands_in_no_address_and_stays_in_its_tab(visit: Visit, keyed: Dev, keys: ApiKeys) -> None:
    key, _ = await made(keys, *ALL)
    await visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await visit.page.goto(keyed.url)
    await visit.give(key)
    await visit.listed()
    await visit.ask(QUESTION)
    await visit.reached("completed")
    await visit.page.get_by_role("button", name="Copy as curl").last.click()
    await visit.page.get_by_role("button", name="Copied").wait_for()
    command = await visit.page.evaluate("navigator.clipboard.readText()")
    assert '-H "authorization: Bearer $MESHWRIGHT_API_KEY"' in command
    secret = key.rpartition("_")[2]
    kept = await visit.page.evaluate(
        "[location.href, document.cookie, JSON.stringify(localStorage), document.body.innerHTML]"
    )
    assert secret not in " ".join([command, *kept, *visit.requests])
    assert await visit.page.get_by_label("API key").input_value() == ""
    other = await visit.page.context.new_page()
    await other.goto(keyed.url)
    await other.get_by_role("alert").get_by_text("This mesh asks who is calling.").wait_for()


async def test_what_is_wrong_with_a_key_is_told_in_plain_words(visit: Visit, keyed: Dev, keys: ApiKeys) -> None:
    revoked, key_id = await made(keys, *ALL)
    await keys.revoke(key_id)
    expired, _ = await made(keys, *ALL, life_s=1)
    with pytest.raises(KeyExpiredError):
        await verified_for(keys, expired, within_s=10)
    await visit.page.goto(keyed.url)
    for key, words in (
        ("two words", "one word"),
        ("mwk_5", "does not know that key"),
        (expired, "has expired"),
        (revoked, "was revoked"),
    ):
        await visit.give(key)
        await problem(visit, words)
        assert await visit.page.evaluate("document.activeElement.id") == "key"
    good, _ = await made(keys, *ALL)
    await visit.give(good)
    await visit.page.locator("#access").wait_for(state="hidden")
    await visit.listed()


async def test_a_scope_that_is_missing_is_named(visit: Visit, keyed: Dev, keys: ApiKeys) -> None:
    key, _ = await made(keys, "tasks:read", "agents:read")
    await visit.page.goto(keyed.url)
    await visit.give(key)
    await visit.listed()
    await visit.ask(QUESTION)
    await visit.page.locator("#notice.bad", has_text="the key lacks the scope tasks:write").wait_for()
    assert await visit.page.get_by_label("Question").input_value() == QUESTION
    await visit.page.locator("#access").wait_for(state="hidden")


async def test_a_key_that_is_revoked_meanwhile_costs_nothing_that_was_typed(
    visit: Visit, keyed: Dev, keys: ApiKeys
) -> None:
    key, key_id = await made(keys, *ALL)
    await visit.page.goto(keyed.url)
    await visit.give(key)
    await visit.listed()
    await keys.revoke(key_id)
    await visit.ask(QUESTION)
    await problem(visit, "was revoked")
    assert await visit.page.get_by_label("Question").input_value() == QUESTION
    another, _ = await made(keys, *ALL)
    await visit.give(another)
    await visit.page.locator("#access").wait_for(state="hidden")
    await visit.page.get_by_role("button", name="Ask", exact=True).click()
    await visit.reached("completed")


async def test_a_key_that_is_forgotten_takes_along_what_was_read_with_it(
    visit: Visit, keyed: Dev, keys: ApiKeys
) -> None:
    key, _ = await made(keys, *ALL)
    await visit.page.goto(keyed.url)
    await visit.give(key)
    await visit.listed()
    await visit.ask(QUESTION)
    await visit.reached("completed")
    await visit.page.get_by_role("button", name="Key", exact=True).click()
    await visit.page.get_by_role("button", name="Forget key").click()
    await problem(visit, "This mesh asks who is calling.")
    assert await visit.page.locator("#task").is_hidden()
    assert await visit.page.locator("#recent a").count() == 0
    assert await visit.page.evaluate("Object.values(sessionStorage).some((value) => value.includes('mwk_'))") is False


async def test_a_mesh_that_asks_nobody_shows_nothing_of_keys(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    assert await visit.page.locator("#access").is_hidden()
    assert await visit.page.get_by_role("button", name="Key", exact=True).count() == 0


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_question_for_a_key_fits_narrow_and_wide_screens(
    browser: Browser, keyed: Dev, width: int, scheme: Scheme, tmp_path: Path
) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(keyed.url)
    await page.get_by_label("API key").fill(f"mwk_{'0' * 12}_{'0' * 64}")
    await page.get_by_role("button", name="Use key").click()
    await page.get_by_role("alert").get_by_text("does not know that key").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.screenshot(path=tmp_path / "page.png", full_page=True)
    await context.close()
