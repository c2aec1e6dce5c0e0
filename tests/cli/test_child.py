"""Children of `meshwright dev`: started, watched, started again, never outliving their parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshwright.cli.child import TETHER, Child
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


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_child_ends_with_its_parent_however_that_ends():
    source = f"import subprocess\nprint(subprocess.Popen([*{TETHER!r}, '/bin/sleep', '60']).pid, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        stat = Path(f"/proc/{pid}/stat")
        while "sleep" not in stat.read_text():
            time.sleep(0.01)
        parent.kill()
        ends = time.monotonic() + 10
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < ends
            time.sleep(0.01)
