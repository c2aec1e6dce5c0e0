"""The page in a real browser, before a real mesh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from meshwright.cli import ports
from meshwright.core.api_key import LIBRARY, ApiKeys
from meshwright.core.store import Store

try:
    from playwright.async_api import async_playwright
except ImportError:
    async_playwright = None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, ConsoleMessage, Page

Scheme = Literal["light", "dark"]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AGENTS = Path(__file__).with_name("agents.py")
START_S, STOP_S = 45.0, 25.0
PATIENCE_MS = 20_000

DOCUMENTS = {
    "lease.md": "# Leases\n\nA lease lasts fifteen seconds, and the worker that owns a task renews it.\n",
    "fence.md": "# Fences\n\nA stale worker cannot write, because its fence is older than that of the new worker.\n",
}
SCRIPT = """
agents:
  orchestrator:
    - {text: Asking., tool_calls: [{name: ask.researcher, arguments: {prompt: "what is known?"}}]}
    - {text: "Slow, but here it is [lease.md]", latency_ms: 2500}
  researcher:
    - {text: Looking., tool_calls: [{name: docs.search, arguments: {query: lease}}]}
    - {text: Found.}
  summarizer:
    - text: |
        <img src=x onerror="window.isHacked = true"><script>window.isHacked = true</script>
        Second line [lease.md]
      tool_calls: [{name: "<b>bold</b>", arguments: {"<i>": "<img src=x onerror='window.isHacked = true'>"}}]
    - text: |
        <img src=x onerror="window.isHacked = true"><script>window.isHacked = true</script>
        Second line [<img src=x onerror='window.isHacked = true'>]

        Sources:
        - <img src=x onerror='window.isHacked = true'>
"""


@pytest.fixture(scope="session", autouse=True)
def _is_possible() -> None:
    if async_playwright is None or not CHROMIUM.exists():
        pytest.skip(f"playwright or {CHROMIUM} is missing: `make test-browser` installs both")


@dataclass
class Dev:
    """A running `meshwright dev`."""

    folder: Path
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: ports.reserve("127.0.0.1", set()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready_file(self) -> Path:
        return self.folder / "ready.json"

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def run(self) -> Iterator[Dev]:
        own = ["--port", str(self.port), "--data", str(self.folder / "data"), "--ready-file", str(self.ready_file)]
        command = [sys.executable, "-m", "meshwright.cli.main", "dev", *own, *self.arguments]
        log = self.folder / "dev.log"
        settings = os.environ | self.environment
        with (
            log.open("w") as out,
            subprocess.Popen(command, stdout=out, stderr=out, cwd=self.folder, env=settings) as process,
        ):
            try:
                ends = time.monotonic() + START_S
                while not self.ready_file.exists():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < ends, log.read_text()
                    time.sleep(0.05)
                yield self
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Iterator[Dev]:
    """A mesh with the offline model and two documents."""
    yield from Dev(tmp_path_factory.mktemp("offline"), ("--docs", str(documents))).run()


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Iterator[Dev]:
    """A mesh whose orchestrator is slow, and whose summarizer is hostile."""
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "script.yaml").write_text(SCRIPT)
    model = f"scripted:{folder / 'script.yaml'}"
    yield from Dev(folder, ("--docs", str(documents), "--model", model, "--lease", "1")).run()


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A mesh that takes API keys, with an agent that counts."""
    agents = ("--agent", f"{AGENTS}:counting")
    yield from Dev(tmp_path_factory.mktemp("keyed"), (*agents, "--lease", "1"), {"MESHWRIGHT_AUTH": "keys"}).run()


@pytest.fixture
async def keys(keyed: Dev) -> AsyncIterator[ApiKeys]:
    """The API keys of that mesh."""
    store = Store(keyed.facts["store"], LIBRARY)
    await store.open()
    yield ApiKeys(store)
    await store.close()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests."""
    assert async_playwright is not None
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        await launched.close()


@dataclass
class Visit:
    """A tab of its own, and what it did behind the user's back."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def observe(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.problems.append(said.text)

    async def open(self, mesh: Dev, url: str = "") -> None:
        await self.page.goto(url or mesh.url)
        await self.listed()

    async def listed(self) -> None:
        """Waits until the page has listed the agents."""
        await self.page.locator("#agent option", has_text="researcher").wait_for(state="attached")

    async def give(self, key: str) -> None:
        """Gives the page a key."""
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Use key").click()

    async def ask(self, question: str, agent: str = "orchestrator") -> None:
        await self.page.get_by_label("Agent").select_option(agent)
        await self.page.get_by_label("Question").fill(question)
        await self.page.get_by_role("button", name="Ask", exact=True).click()

    async def reached(self, status: str) -> None:
        await self.page.locator(f"#status[data-state={status}]").wait_for()

    async def text(self, place: str) -> str:
        return await self.page.locator(place).inner_text()

    async def words(self) -> list[str]:
        """Returns what the rows of the timeline say."""
        return await self.page.locator("#steps .words").all_inner_texts()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """A tab with nothing open yet."""
    context = await browser.new_context()
    opened = Visit(await context.new_page())
    opened.observe()
    yield opened
    await context.close()
