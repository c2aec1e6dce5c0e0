"""The page of the interface, and pages of other origins that call the edge, in a real browser."""

from __future__ import annotations

import functools
import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Dev

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.conftest import Visit

CALL = """async ([url, path, body]) => {
  const sent = body ? {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body)} : {};
  try {
    const answer = await fetch(url + path, sent);
    return {status: answer.status, task: answer.headers.get('x-task-id'), json: await answer.json()};
  } catch (error) {
    return {error: error.name};
  }
}"""


async def test_the_interface_is_shown_without_scripts_and_from_nowhere_else(visit: Visit, dev: Dev) -> None:
    await visit.open(dev)
    await visit.page.get_by_role("link", name="API").click()
    await visit.page.get_by_role("heading", name="Meshwright API").wait_for()
    assert await visit.page.locator("#operations article").count() == await visit.page.locator("nav li").count()
    assert await visit.page.locator("script").count() == 0
    assert {url.split("/")[2] for url in visit.requests} == {f"127.0.0.1:{dev.port}"}
    assert visit.problems == []


async def test_a_link_leads_to_an_operation_and_on_to_its_schema(visit: Visit, dev: Dev) -> None:
    await visit.page.goto(f"{dev.url}/docs")
    await visit.page.get_by_role("navigation").get_by_role("link", name="POST /v1/tasks/{task_id}:resolve").click()
    target = visit.page.locator("article:target")
    assert await target.get_attribute("id") == "ResolveInput"
    assert "DECISION_APPROVE" in await target.locator("pre").first.inner_text()
    await target.get_by_role("link", name="ResolveInputRequestBody").click()
    assert await visit.page.locator("article:target").get_attribute("id") == "schema-ResolveInputRequestBody"
    assert visit.problems == []


async def test_the_page_fits_a_narrow_screen(visit: Visit, dev: Dev) -> None:
    await visit.page.set_viewport_size({"width": 360, "height": 740})
    await visit.page.goto(f"{dev.url}/docs")
    assert await visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Another site, on a port of its own: its page is empty."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>A site</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def friendly(tmp_path_factory: pytest.TempPathFactory, documents: Path, site: int) -> Iterator[Dev]:
    """A mesh that pages of the site at 127.0.0.1 may call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHWRIGHT_CORS_ORIGINS", f"http://127.0.0.1:{site}")
        yield from Dev(tmp_path_factory.mktemp("friendly"), ("--docs", str(documents))).run()


async def call(visit: Visit, mesh: Dev, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    return await visit.page.evaluate(CALL, [mesh.url, path, body])


async def test_a_page_of_a_listed_origin_calls_the_edge_and_reads_answers_and_errors(
    visit: Visit, friendly: Dev, site: int
) -> None:
    await visit.page.goto(f"http://127.0.0.1:{site}/")
    done = await call(visit, friendly, "/run", {"prompt": "What is 12 * 7?"})
    assert done["status"] == 200
    assert "84" in done["json"]["output"]
    assert done["task"] == done["json"]["task_id"]
    missing = await call(visit, friendly, "/v1/tasks/nothing")
    assert (missing["status"], missing["json"]["code"]) == (404, 5)


async def test_a_page_of_another_origin_reads_nothing(visit: Visit, friendly: Dev, site: int) -> None:
    await visit.page.goto(f"http://localhost:{site}/")
    for path, body in (("/run", {"prompt": "What is 12 * 7?"}), ("/openapi.json", None)):
        assert await call(visit, friendly, path, body) == {"error": "TypeError"}
