"""Children of `meshwright dev`: started, watched, started again, never outliving their parent."""

import asyncio
import os
import signal
import sys
import time

import pytest

from meshwright.cli.child import Child
from meshwright.core.errors import SetupError

READY = 'print(\'{"target": "here:1"}\', flush=True)\n'


@pytest.fixture
def child(tmp_path):
    def make(source):
        return Child("sample", [sys.executable, "-c", source], dict(os.environ), tmp_path, tmp_path / "sample.log")

    return make


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_child_that_is_killed_runs_again_and_both_are_told(child):
    sample = child(f"import time\n{READY}time.sleep(60)")
    await sample.start()
    assert sample.target == "here:1"
    told = []
    keeper = asyncio.create_task(sample.keep(told.append))
    first = sample.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(told) == 2)
    assert told[0] == f"sample (pid {first}) ended: killed by SIGKILL"
    assert told[1] == f"sample runs again as pid {sample.pid}"
    await sample.stop()
    await keeper
    assert sample.pid == 0
    assert len(told) == 2


async def test_what_a_child_prints_is_in_its_log_and_never_blocks_it(child):
    noisy = child(
        f"print('early')\n{READY}print('x' * 1_000_000)\nprint('late', flush=True)\nimport time; time.sleep(60)"
    )
    await noisy.start()
    await until(lambda: "late" in noisy.log.read_text())
    assert "early" in noisy.log.read_text()
    await noisy.stop()


async def test_a_child_that_ends_at_once_says_why(child):
    with pytest.raises(SetupError, match=r"^the reason$"):
        await child("import sys; sys.exit('error: the reason')").start()
    silent = child("raise SystemExit(3)")
    silent.log.unlink()
    with pytest.raises(SetupError, match=r"sample ended at once: see .*sample\.log"):
        await silent.start()


async def test_a_child_that_has_run_and_says_nothing_is_told_with_its_log_and_not_as_one_that_never_ran(child):
    sample = child(f"import os, time\n{READY}time.sleep(0.2)\nos._exit(139)")
    await sample.start()
    told = []
    keeper = asyncio.create_task(sample.keep(told.append))
    first = sample.pid
    await until(lambda: told)
    assert told[0] == f"sample (pid {first}) ended: exit code 139: see {sample.log}"
    await sample.stop()
    await keeper


async def test_what_an_earlier_run_said_is_not_taken_for_the_reason(child):
    sample = child("raise SystemExit(3)")
    sample.log.write_text("error: of yesterday\n")
    with pytest.raises(SetupError, match=r"sample ended at once: see .*sample\.log"):
        await sample.start()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("error: the reason.", "the reason"),
        (
            "[2026-01-01 00:00:00.000][7][critical][main] [x.cc:1] error `cannot bind '[::]:1': taken` reading 'x'",
            "cannot bind '[::]:1': taken",
        ),
        (
            "7:M 01 Jan 2026 00:00:00.000 # Can't recover from AOF write error when fsync is 'always'. Exiting...",
            "Can't recover from AOF write error when fsync is 'always'. Exiting: is the disk full?",
        ),
    ],
)
async def test_a_reason_is_found_in_what_each_program_writes(child, line, why):
    sample = child(f"import sys; print({line!r}, 'noise', sep='\\n', file=sys.stderr); sys.exit(1)")
    with pytest.raises(SetupError) as caught:
        await sample.start()
    assert caught.value.message == why


async def test_json_that_a_child_prints_is_not_taken_for_its_ready_line(child):
    sample = child(f"print('{{\"a\": 1}}')\n{READY}import time; time.sleep(60)")
    await sample.start()
    assert sample.target == "here:1"
    assert '{"a": 1}' in sample.log.read_text()
    await sample.stop()


async def test_a_child_that_cannot_even_be_started_is_tried_again_and_nothing_ends_the_keeping(child, tmp_path):
    sample = child(f"{READY}import time; time.sleep(60)")
    await sample.start()
    told = []

    def tell(what):
        told.append(what)
        raise BrokenPipeError  # nobody listens

    keeper = asyncio.create_task(sample.keep(tell))
    folder = sample.folder
    sample.folder = tmp_path / "gone"
    os.kill(sample.pid, signal.SIGKILL)
    await until(lambda: len(told) >= 3)
    assert all("sample did not start: " in line and "No such file" in line for line in told[1:]), told
    sample.folder = folder
    await until(lambda: "runs again" in told[-1])
    await sample.stop()
    await keeper


async def test_a_child_that_ends_again_and_again_says_why_and_is_started_later_each_time(child):
    sample = child(f"import sys\n{READY}sys.exit('error: no space left')")
    await sample.start()
    told = []
    began = time.monotonic()
    keeper = asyncio.create_task(sample.keep(told.append))
    await until(lambda: len(told) >= 7)
    ends = [line for line in told if "ended" in line]
    assert all(line.endswith("ended: exit code 1: no space left") for line in ends), told
    assert time.monotonic() - began > 0.1 + 0.3 + 1
    await sample.stop()
    keeper.cancel()


async def test_the_exit_code_of_a_child_is_left_to_the_loop(child, monkeypatch):
    """A poll from elsewhere takes it away just when the child ends: a warning on stderr, and 255 as the code."""
    sample = child(f"import time\n{READY}time.sleep(60)")
    await sample.start()
    monkeypatch.setattr("subprocess.Popen.poll", lambda _: pytest.fail("polled"))
    await sample.stop()
    assert sample.pid == 0
