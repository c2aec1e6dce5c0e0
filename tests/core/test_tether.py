"""Programs that end with the process that started them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshwright.core.tether import TETHER


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_child_ends_with_its_parent_however_that_ends():
    command = f"[*{TETHER!r}, str(os.getpid()), '/bin/sleep', '60']"
    source = f"import os, subprocess\nprint(subprocess.Popen({command}).pid, flush=True)\ninput()"
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


def test_a_child_whose_parent_ended_before_it_began_does_not_begin():
    done = subprocess.run([*TETHER, "1", "/bin/echo", "runs"], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (1, "")
