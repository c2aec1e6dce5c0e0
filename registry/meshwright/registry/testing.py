"""Tests for tools: the chain that a call passes in a mesh, without a mesh."""

import asyncio
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core.canonical import digest
from meshwright.core.errors import MeshError, SetupError, TaskTimeoutError
from meshwright.core.grant import approval_of
from meshwright.core.scope import EVERYTHING
from meshwright.core.store import Store
from meshwright.core.tether import tethered
from meshwright.core.valkey import EmbeddedValkey
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.arguments import read_arguments
from meshwright.registry.host import ToolHost
from meshwright.registry.outcome import failed
from meshwright.registry.store import LIBRARY, Ledger
from meshwright.registry.tool.hosted import HostedTool

TEXT = json.JSONEncoder(ensure_ascii=False)
Report = tuple[float, str]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What became of a call.

    Attributes:
        key: Idempotency key under which it was made.
        error: Why it failed or was refused, as it reaches a caller; None: it did not.
        progress: Reports that a watcher was shown, oldest first: share (0..1, or negative: unknown) and message.
        is_replayed: The ledger answered: the tool did not run for this call.
        attempts: How often the tool was tried; 0: the call was refused before. Of a replayed call: how often then.
        result_json: Result as JSON text, redacted; empty where there is an error.
    """

    key: str
    error: MeshError | None
    progress: tuple[Report, ...]
    is_replayed: bool
    attempts: int
    result_json: str

    @property
    def result(self) -> Any:
        """What the caller gets, as JSON data.

        Raises:
            MeshError: The call has no result: `error`.
        """
        if self.error is not None:
            raise self.error
        return json.loads(self.result_json)

    @property
    def failure(self) -> str:
        """The failure word for word as a model reads it; empty: there is none."""
        if self.error is None:
            return ""
        return TEXT.encode({"error": {"reason": self.error.reason, "message": self.error.message}})


class ToolBench:
    """A tool host with one tool, and a store of its own that ends with it; needs `meshwright[local]`.

    It is the host of a mesh, part for part: grant, schema, approval, circuit, ledger, attempts, timeout, size, result
    schema and redaction are the mesh's own. No registry is asked, and nothing listens on a network.

    Args:
        tool: What is tested.
    """

    def __init__(self, tool: HostedTool) -> None:
        self._tool = tool
        self._pin = f"{tool.name}@{tool.version}"
        self._host: ToolHost | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts.

        Raises:
            SetupError: It cannot be a tool, or there is no Valkey to run.
        """
        if not structlog.is_configured():  # what is said at debug is for those who ask for it
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="meshwright-", ignore_cleanup_errors=True))
            store = Store(start_store(stack, Path(folder)), LIBRARY)
            stack.push_async_callback(store.close)
            self._host = ToolHost([self._tool], Ledger(store))  # a tool that is none is told before anybody waits
            await store.open()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._host = None
        await self._stack.aclose()

    async def call(
        self,
        arguments: dict[str, Any] | str | None = None,
        *,
        key: str = "",
        tenant: str = "default",
        principal: str = "tester",
        agent_id: str = "tester",
        task_id: str = "task",
        deadline_s: float | None = None,
        is_tainted: bool = False,
        is_approved: bool = False,
        scopes: Sequence[str] = (EVERYTHING,),
        session_id: str = "",
    ) -> ToolCall:
        """Calls the tool as an agent does.

        Args:
            arguments: An object, or the JSON text of one; by default an empty one.
            key: Idempotency key, which counts within tenant, principal and task; by default a new one.
            tenant: Whose call it is.
            principal: Who asked for the task.
            agent_id: Agent that calls.
            task_id: Task that calls.
            deadline_s: Seconds that the task has left: a call that runs then is broken off; 0 or less: it is out of
                time; None: it has no end.
            is_tainted: Content that others wrote has entered the task's conversation.
            is_approved: A person has allowed exactly this call.
            scopes: Scopes of whoever asked for the task; by default all.
            session_id: Session of the task; by default none.

        Returns:
            Its result, or why it failed or was refused.

        Raises:
            SetupError: The bench was not entered: write `async with`.
        """
        if self._host is None:
            raise SetupError("the bench is not running: write `async with ToolBench(tool) as bench`")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        grant = Grant(
            tenant=tenant,
            principal=principal,
            agent_id=agent_id,
            task_id=task_id,
            root_task_id=task_id,
            tools=[self._pin],
            tainted=is_tainted,
            scopes=scopes,
            session_id=session_id,
            deadline=None if deadline_s is None else in_seconds(deadline_s),
        )
        chosen = key or secrets.token_hex(16)
        try:
            grant.approved.extend([approval_of(chosen, self._intent(text))] if is_approved else [])
        except MeshError as error:
            return told(chosen, failed(error), (), attempts=0)
        return await self._made(self._host, grant, text, chosen, deadline_s)

    async def _made(self, host: ToolHost, grant: Grant, text: str, key: str, deadline_s: float | None) -> ToolCall:
        """Makes a call, which ends with its task."""
        reports: list[Report] = []
        left_s = deadline_s if deadline_s and deadline_s > 0 else None  # one that is over is refused by the host
        try:
            async with asyncio.timeout(left_s):
                outcome = await host.invoke(
                    grant, self._pin, text, key, on_progress=lambda share, message: reports.append((share, message))
                )
        except MeshError as error:
            return told(key, failed(error), tuple(reports), attempts=0)
        except TimeoutError:
            late = TaskTimeoutError(f"the task is out of time: the call was broken off after {left_s:g} s")
            return told(key, failed(late), tuple(reports), attempts=1)
        return told(key, outcome, tuple(reports), attempts=1)

    def _intent(self, text: str) -> str:
        return digest([self._tool.name, self._tool.version, read_arguments(text)])


def in_seconds(seconds: float) -> Timestamp:
    """Returns a time from now on."""
    at = Timestamp()
    at.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return at


def start_store(stack: AsyncExitStack, folder: Path) -> str:
    """Starts a Valkey in a folder, which ends with the stack or with this process; returns its URL.

    Raises:
        SetupError: None is installed.
    """
    valkey = EmbeddedValkey.prepare(folder)
    stack.callback(shutil.rmtree, valkey.socket.parent, ignore_errors=True)  # may be outside of the folder
    process = subprocess.Popen(  # noqa: S603 - our own command
        tethered(*valkey.command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.kill)  # nothing in it is wanted any more
    return valkey.url


def told(key: str, outcome: Outcome, progress: tuple[Report, ...], *, attempts: int) -> ToolCall:
    """Reads an outcome; `attempts` counts where it does not say how many there were."""
    error = MeshError.from_status(outcome.error) if outcome.HasField("error") else None
    if "attempts" in outcome.annotations:
        attempts = int(outcome.annotations.fields["attempts"].number_value)
    return ToolCall(key, error, progress, outcome.replayed, attempts, outcome.result_json)
