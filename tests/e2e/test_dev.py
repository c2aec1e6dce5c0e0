"""`meshwright dev`: starts everything, starts again what dies, stops everything, says what is in the way."""

import os
import signal
import socket
import subprocess
import time

import pytest

from meshwright.agents.library.bundle import BUNDLED
from meshwright.cli import ports
from tests.e2e.conftest import HERE, MESHWRIGHT, Dev, is_alive


def run(*arguments, timeout=40):
    return subprocess.run(
        [*MESHWRIGHT, *arguments], capture_output=True, text=True, timeout=timeout, cwd=HERE, check=False
    )


def until(condition, seconds=15):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["registry", "gateway", "envoy", "researcher", "letters.py", "store"])
def test_a_killed_process_comes_back_on_its_old_port(dev, name):
    before = dev.facts
    os.kill(before["pids"][name], signal.SIGKILL)
    until(lambda: dev.facts["pids"][name] not in (0, before["pids"][name]))
    assert dev.facts["agents"] == before["agents"]
    assert dev.facts["tools"] == before["tools"]
    assert dev.facts["registry"] == before["registry"]
    until(lambda: dev.request("GET", "/ready").status == 200 if name != "envoy" else is_served(dev))
    until(lambda: dev.request("POST", "/run", {"prompt": "What is 2 + 2?"}).status == 200)


def test_tools_of_a_file_are_served_by_a_host_of_their_own_also_after_it_was_killed(dev):
    def counted():
        body = {"arguments": {"text": "abc"}, "idempotency_key": "k"}
        return dev.request("POST", "/v1/tools/letters.count:invoke", body)

    assert counted().json["result"] == 3
    os.kill(dev.facts["pids"]["letters.py"], signal.SIGKILL)
    until(lambda: counted().status == 200)
    assert (dev.folder / "data/logs/letters.py.log").exists()


def is_served(dev):
    try:
        return dev.request("GET", "/ready").status == 200
    except OSError:
        return False


def test_a_task_outlives_the_agent_that_works_on_it(dev):
    task_id = dev.request("POST", "/v1/agents/slow/tasks", {"prompt": "count"}).json["task_id"]
    until(lambda: dev.request("GET", f"/v1/tasks/{task_id}").json["steps_used"] >= 1)
    os.kill(dev.facts["pids"]["slow"], signal.SIGKILL)
    task = dev.finished(task_id)
    assert task["status"] == "TASK_STATUS_COMPLETED"
    assert task["output"] == "Counted to three."
    assert task["attempt"] == 2
    assert task["steps_used"] == 4


@pytest.mark.timeout(180)  # three starts of a whole mesh
def test_levels_that_are_written_into_the_data_folder_reach_every_process(dev):
    levels, logs = dev.folder / "data/log-levels", dev.folder / "data/logs"

    def have_said(event):
        spoken = [path for path in logs.iterdir() if path.name not in ("envoy.log", "store.log")]
        return all(f'"event": "{event}"' in path.read_text() for path in spoken)

    levels.write_text("call=debug  # for a moment\n")
    until(lambda: have_said("log_levels_read"))
    levels.write_text("call=loud\n")
    until(lambda: have_said("log_levels_kept"))
    levels.unlink()


def test_sigterm_leaves_no_process_and_a_second_start_keeps_the_tasks(tmp_path, documents):
    own = Dev(tmp_path, ports.reserve("127.0.0.1", set()), "--docs", str(documents))
    own.start()
    done = own.request("POST", "/run", {"prompt": "What is 3 * 3?", "task_id": "kept"}).json
    pids = own.facts["pids"]
    assert set(pids) == {"store", "registry", "gateway", "envoy", *BUNDLED}
    assert own.stop() == 0
    assert not [name for name, pid in pids.items() if is_alive(pid)]
    assert not own.ready_file.exists()

    own.start()
    assert own.request("GET", "/v1/tasks/kept").json["output"] == done["output"]
    pids = own.facts["pids"]
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.communicate()
    own.ready_file.unlink()
    own.start()  # recovers, whatever the killed parent left behind
    assert own.request("GET", "/v1/tasks/kept").json["output"] == done["output"]
    until(lambda: not [name for name, pid in pids.items() if is_alive(pid)])
    assert own.stop() == 0


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("dev", "--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode != 0
    assert (
        done.stderr.strip()
        == f"error: port {port} is in use: choose another one with --port, or stop what listens there"
    )


def test_a_data_folder_in_use_names_the_mesh_that_uses_it(dev):
    done = run("dev", "--port", str(ports.reserve("127.0.0.1", set())), "--data", str(dev.folder / "data"))
    assert done.returncode != 0
    assert f"is in use by the mesh with pid {dev.process.pid}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--docs", "/nowhere/at/all"), "no folder that can be read"),
        (("--agent", "missing.py:agent"), "missing.py is not a file"),
        (("--agent", "agents.py:nobody"), "has no agent 'nobody'"),
        (("--agent", "{folder}/broken.py:agent"), "broken.py:1:"),
        (("--agent", "{folder}/raises.py:agent"), "ZeroDivisionError"),
        (("--tools", "missing.py"), "missing.py is not a file"),
        (("--tools", "letters.txt"), "name a .py file with @tool, or a .yaml declaration"),
        (("--tools", "{folder}/broken.py"), "broken.py:1:"),
        (("--tools", "{folder}/empty.yaml"), "empty.yaml: must be a mapping of names"),
        (("--tools", "agents.py", "--tools", "agents.py"), "two hosts cannot serve one tool"),
        (("--model", "abacus"), "there is no model 'abacus'"),
        (("--model", "scripted:/nowhere.yaml"), "/nowhere.yaml"),
        (("--data", "/proc/nothing"), "cannot be used"),
    ],
)
def test_what_cannot_work_is_one_line_and_nothing_is_left(tmp_path, arguments, said):
    (tmp_path / "broken.py").write_text("def agent(:\n")
    (tmp_path / "raises.py").write_text("agent = 1 / 0\n")
    (tmp_path / "empty.yaml").touch()
    given = [argument.format(folder=tmp_path) for argument in arguments]
    data = [] if "--data" in given else ["--data", str(tmp_path / "data")]
    done = run("dev", "--port", str(ports.reserve("127.0.0.1", set())), *data, *given)
    assert done.returncode not in (0, 2)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert said in lines[0]


def test_an_agent_without_a_store_says_so(tmp_path):
    from meshwright.agents.settings import AgentSettings
    from meshwright.core.settings import child_environment

    settings = AgentSettings(store_url=f"unix://{tmp_path / 'none.sock'}")
    command = [MESHWRIGHT[0], "-m", "meshwright.agents", f"{HERE / 'agents.py'}:slow"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=child_environment(settings), check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: the store at unix://")
    assert "Traceback" not in done.stderr
