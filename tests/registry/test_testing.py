"""The bench: a tool behind the mesh's own chain, without a mesh."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.wording import failure_text
from meshwright.core.errors import InvalidRequestError, MeshError, SetupError, ToolFailedError
from meshwright.registry import Retryable, current_invocation, tool
from meshwright.registry.testing import ToolBench

REPO = Path(__file__).parents[2]
RUNS: list[object] = []


@pytest.fixture(autouse=True)
def _no_runs_before():
    RUNS.clear()


@tool(effect="pure")
def double(n: int) -> int:
    """Doubles."""
    return 2 * n


@tool(effect="non_idempotent", timeout_s=5)
async def pay(n: int = 0, wait_s: float = 0) -> str:
    """Pays."""
    RUNS.append(n)
    await asyncio.sleep(wait_s)
    if n < 0:
        raise ValueError("negative")
    return f"paid {n}"


@tool(effect="idempotent")
def put(failures: int = 1) -> int:
    """Writes, after failures that pass."""
    RUNS.append(failures)
    if len(RUNS) <= failures:
        raise Retryable("busy")
    return len(RUNS)


@tool(effect="pure", timeout_s=0.05)
async def stall() -> str:
    """Never comes back."""
    await asyncio.sleep(30)
    return "back"


@tool(effect="pure")
def lie() -> int:
    """Promises a number."""
    return "text"  # type: ignore[return-value]


@tool(effect="pure")
def climb() -> int:
    """Reports."""
    for step in range(3):
        current_invocation().progress(step / 2, f"step {step}")
    return 3


@tool(effect="non_idempotent", approval="always")
def send(to: str) -> str:
    """Sends."""
    RUNS.append(to)
    return to


@tool(effect="pure")
def who() -> dict[str, str]:
    """Says for whom it runs."""
    call = current_invocation()
    return {"tenant": call.tenant, "principal": call.principal, "task": call.task_id, "key": call.key}


@pytest.mark.parametrize("arguments", [{"n": 2}, '{"n": 2}'])
async def test_a_result_is_json_data(arguments):
    async with ToolBench(double) as bench:
        call = await bench.call(arguments)
    assert (call.result, call.error, call.failure, call.attempts) == (4, None, "", 1)


@pytest.mark.parametrize("arguments", [None, {"n": "x"}, {"n": 1, "m": 2}, "{", '{"n": 1, "n": 2}', "[]"])
async def test_arguments_that_do_not_fit_never_reach_the_tool(arguments):
    async with ToolBench(pay if arguments == "[]" else double) as bench:
        call = await bench.call(arguments)
    assert isinstance(call.error, InvalidRequestError)
    assert call.attempts == 0
    with pytest.raises(InvalidRequestError):
        _ = call.result


@pytest.mark.parametrize(
    ("tested", "arguments", "reason"),
    [
        (pay, {"n": -1}, "TOOL_FAILED"),
        (stall, {}, "DEADLINE_EXCEEDED"),
        (lie, {}, "TOOL_RESULT_INVALID"),
        (send, {"to": "bob"}, "APPROVAL_REQUIRED"),
    ],
)
async def test_a_failure_is_told_as_a_model_reads_it(tested, arguments, reason):
    async with ToolBench(tested) as bench:
        call = await bench.call(arguments)
    assert call.error.reason == reason
    assert json.loads(call.failure)["error"] == {"reason": reason, "message": call.error.message}
    assert call.failure == failure_text(call.error)


async def test_a_key_runs_once_within_its_task_and_its_holder():
    async with ToolBench(pay) as bench:
        calls = [await bench.call({"n": 1}, key="k", **place) for place in ({}, {}, {"task_id": "b"}, {"tenant": "b"})]
        other = await bench.call({"n": 2}, key="k")
    assert [call.result for call in calls] == ["paid 1"] * 4
    assert [call.is_replayed for call in calls] == [False, True, False, False]
    assert len(RUNS) == 3
    assert isinstance(other.error, InvalidRequestError)
    assert "idempotency_key" in other.error.fields


async def test_two_calls_at_once_under_one_key_are_one():
    async with ToolBench(pay) as bench:
        calls = await asyncio.gather(*(bench.call({"wait_s": 0.05}, key="k") for _ in range(3)))
    assert len(RUNS) == 1
    assert sorted(call.is_replayed for call in calls) == [False, True, True]


async def test_without_a_key_every_call_is_another():
    async with ToolBench(pay) as bench:
        first, second = await bench.call(), await bench.call()
    assert first.key != second.key
    assert len(RUNS) == 2


async def test_a_failure_is_remembered_as_a_result_is():
    async with ToolBench(pay) as bench:
        first, again = await bench.call({"n": -1}, key="k"), await bench.call({"n": -1}, key="k")
    assert first.failure == again.failure
    assert again.is_replayed
    assert len(RUNS) == 1


async def test_what_may_be_repeated_is_tried_again():
    async with ToolBench(put) as bench:
        call = await bench.call({"failures": 1}, key="k")
        again = await bench.call({"failures": 1}, key="k")
        assert (call.result, call.attempts) == (2, 2)
        assert (again.attempts, again.is_replayed) == (2, True)
        RUNS.clear()
        given_up = await bench.call({"failures": 9})
    assert isinstance(given_up.error, ToolFailedError)
    assert given_up.attempts == len(RUNS) == 3


async def test_progress_is_what_a_watcher_is_shown():
    async with ToolBench(climb) as bench:
        call = await bench.call()
    assert call.progress[-1] == (1, "step 2")
    assert 1 <= len(call.progress) <= 3


async def test_a_caller_holds_all_scopes_unless_it_is_said_which():
    @tool(name="mail.read", effect="pure", required_scopes=["mail:read"])
    def read() -> str:
        """Reads."""
        return current_invocation().session_id

    async with ToolBench(read) as bench:
        allowed = await bench.call(session_id="s-1")
        refused = await bench.call(scopes=["mail:send"])
    assert allowed.result == "s-1"
    assert refused.error.metadata["scopes"] == "mail:read"


async def test_a_call_runs_once_a_person_has_allowed_exactly_it():
    async with ToolBench(send) as bench:
        refused = await bench.call({"to": "bob"})
        allowed = await bench.call({"to": "bob"}, is_approved=True)
    assert refused.error.reason == "APPROVAL_REQUIRED"
    assert allowed.result == "bob"
    assert RUNS == ["bob"]


async def test_the_test_says_who_calls_and_when_the_task_ends():
    async with ToolBench(who) as bench:
        call = await bench.call(tenant="acme", principal="ada", task_id="t-1", key="k", deadline_s=5)
        late = await bench.call(deadline_s=0)
    assert call.result == {"tenant": "acme", "principal": "ada", "task": "t-1", "key": "k"}
    assert late.error.reason == "TASK_TIMEOUT"


async def test_a_call_that_runs_when_the_task_ends_is_broken_off():
    begun = asyncio.Event()

    @tool(effect="pure")
    async def endless() -> str:
        """Never ends."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async with ToolBench(endless) as bench:
        call = await bench.call(deadline_s=0.2)
    assert begun.is_set()
    assert (call.error.reason, call.attempts) == ("TASK_TIMEOUT", 1)
    assert "after 0.2 s" in call.failure


async def test_a_bench_that_was_not_entered_says_so():
    with pytest.raises(SetupError, match="async with"):
        await ToolBench(double).call({"n": 1})


async def test_what_cannot_be_a_tool_is_told_at_the_start():
    @tool
    def undocumented(n: int) -> int:
        return n

    with pytest.raises(SetupError, match="needs a description"):
        async with ToolBench(undocumented):
            pass


@pytest.mark.parametrize("name", ["short", "x" * 60])
async def test_nothing_is_left_behind(tmp_path, monkeypatch, name):
    """A socket's path may be too long for the folder of the data: then it lies elsewhere."""
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    before = set(Path("/tmp").glob("meshwright-*")), children(os.getpid())
    async with ToolBench(pay) as bench:
        assert (await bench.call()).result == "paid 0"
        assert list((tmp_path / name).iterdir())
        assert children(os.getpid()) > before[1]
    assert list((tmp_path / name).iterdir()) == []
    assert (set(Path("/tmp").glob("meshwright-*")), children(os.getpid())) == before


def children(parent):
    """Process ids of the stores that a process runs."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(parent)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in listed if "valkey" in line}


async def test_the_store_ends_with_a_process_that_is_killed(tmp_path):
    code = f"""
    import asyncio, os, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from meshwright.registry import tool
    from meshwright.registry.testing import ToolBench
    @tool
    def pay() -> int:
        "Pays."
        return os.getppid()
    async def main():
        async with ToolBench(pay) as bench:
            await bench.call()
            print("ready", flush=True)
            await asyncio.sleep(60)
    asyncio.run(main())
    """
    environment = os.environ | {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": "/tmp"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "ready\n"
        listed = children(process.pid)
        process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(10):
        while any(is_running(pid) for pid in listed):
            await asyncio.sleep(0.02)
    assert listed


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists)


async def test_whatever_is_sent_a_call_answers():
    async with ToolBench(pay) as bench:

        async def answered(text, key):
            call = await bench.call(text, key=key)
            assert isinstance(call.error, MeshError) != bool(call.result_json)

        loop = asyncio.get_running_loop()

        @given(
            st.text(max_size=60) | st.dictionaries(st.sampled_from("nx"), VALUES).map(json.dumps), st.text(max_size=9)
        )
        @settings(max_examples=100, deadline=None)
        def check(text, key):
            asyncio.run_coroutine_threadsafe(answered(text, key), loop).result(10)

        await asyncio.to_thread(check)


def test_the_example_of_the_documents_passes_as_an_author_runs_it(tmp_path):
    for name in ("tools.py", "test_tools.py"):
        shutil.copy(REPO / "examples" / name, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tools.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
