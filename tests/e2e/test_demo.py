"""`meshwright demo`: the first thing that a newcomer sees, and nothing of it leaves this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import MESHWRIGHT, is_alive

REPO = Path(__file__).parents[2]
GUARD = """
import os, sys

def refuse(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("unix", "127.0.0.1", "::1", "localhost"):
            with open(os.environ["OUTSIDE"], "a") as file:
                file.write(f"{sys.argv} {address}\\n")
            raise OSError(f"no connection to {address} is allowed")

sys.addaudithook(refuse)
"""


def demo(*arguments, **environment):
    command = [*MESHWRIGHT, "demo", "--docs", str(REPO / "docs"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=REPO, env=os.environ | environment, check=False
    )


def test_the_demo_answers_from_the_files_and_opens_no_connection_to_the_outside(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    outside = tmp_path / "outside.txt"
    done = demo(PYTHONPATH=str(tmp_path), OUTSIDE=str(outside))
    assert done.returncode == 0, done.stderr
    assert "durability.md" in done.stdout
    first = next(line for line in done.stdout.splitlines() if line.strip())
    assert "An accepted task survives the crash of its worker" in first
    assert "model: offline" in done.stdout
    assert "completed (stop)" in done.stderr
    assert "first step after" in done.stderr
    assert not outside.exists(), outside.read_text()


def test_the_demo_survives_the_death_of_the_working_agent():
    done = demo("--kill")
    assert done.returncode == 0, done.stderr
    killed = re.search(r"kill -9 (\d+)", done.stderr)
    assert killed
    assert "taken over" in done.stderr
    assert re.search(r"■ orchestrator +completed \(stop\).*attempt 2", done.stderr)
    assert not is_alive(int(killed[1]))


def test_the_demo_makes_a_key_of_its_own_where_callers_have_to_say_who_they_are():
    done = demo("--kill", MESHWRIGHT_AUTH="keys", MESHWRIGHT_API_KEY="of another mesh")
    assert done.returncode == 0, done.stderr
    assert "completed (stop)" in done.stderr
    assert "taken over" in done.stderr
    assert "mwk_" not in done.stdout + done.stderr


def test_a_folder_that_is_not_there_is_one_line():
    command = [*MESHWRIGHT, "demo", "--docs", "/nowhere", "--question", "What?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert done.stderr.strip().startswith("error: the documents folder /nowhere")
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_documents_need_a_question_of_their_own(tmp_path):
    command = [*MESHWRIGHT, "demo", "--docs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 13
    assert done.stderr == 'error: ask something of your own files: --question "…" (make demo: Q="…")\n'


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to see every process's sockets")
def test_no_process_of_a_mesh_talks_to_another_machine(dev):
    remote = set()
    for pid in dev.facts["pids"].values():
        inodes = set()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                columns = line.split()
                if columns[9] in inodes and columns[3] != "0A":
                    remote.add(columns[2].partition(":")[0])
    assert remote
    assert remote <= {"0100007F", "0000000000000000FFFF00000100007F"}, remote


def test_whoever_runs_the_demo_is_told_where_a_model_failed_and_the_caller_is_not(tmp_path):
    done = demo("--model", "openai:small@http://127.0.0.1:9/v1", OPENAI_API_KEY="sk-1")
    told = " ".join(done.stderr.split())
    assert "the model small at http://127.0.0.1:9/v1: it cannot be reached; check that it runs" in told
    assert "failed: the model small cannot be reached: try again" in told
    assert "127.0.0.1:9" not in done.stdout
