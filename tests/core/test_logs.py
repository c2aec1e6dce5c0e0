"""The log of a process: set up once, so in a process of its own; its levels change while it runs."""

import json
import os
import subprocess
import sys
import time

import pytest

from meshwright.core import logs
from meshwright.core.errors import SetupError
from meshwright.core.settings import Settings

KEY = "mwk_0123456789ab_" + "0f" * 32
PASSWORD = "correct horse battery"
PROCESS = """
import asyncio, gc, logging, sys, threading, warnings
import structlog
from meshwright.core import logs, tracing
from meshwright.core.process import run
from meshwright.core.settings import Settings
from meshwright.core.store import Store

KEY, PASSWORD = sys.argv[1:]
log = structlog.get_logger("call")

class Closes:
    def __del__(self):
        raise ValueError(f"closed with {KEY}")

def fails():
    secret = "local-value"
    raise ValueError(f"the key {KEY} is no good")

async def main(process):
    settings = Settings()
    tracing.configure(settings, "probe", "probe-1")
    logs.configure(settings, "probe", "probe-1")
    Store(f"redis://user:{PASSWORD}@localhost:1/0")
    log.debug("unseen")
    with structlog.contextvars.bound_contextvars(task_id="t1"), tracing.span("outside"):
        log.info("told", tool="t@1", many=3, detail=f"AUTH {PASSWORD}")
    log.info("stranger", prompt="Dear diary", detail={"a": KEY})
    try:
        fails()
    except ValueError:
        log.exception("caught", error_id="e1")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("said %s and %s", "this\\nthat", KEY)
    try:
        fails()
    except ValueError:
        logging.getLogger("some.library").exception("gave up")
    logging.getLogger("some.library").warning("%d", "no number")
    warnings.warn(f"old: {PASSWORD}")
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    Closes()
    gc.collect()
    asyncio.get_running_loop().call_exception_handler({"message": f"lost {KEY}"})
    fails()

run(main)
"""


@pytest.fixture(scope="module")
def ended():
    return subprocess.run(
        [sys.executable, "-c", PROCESS, KEY, PASSWORD],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=os.environ | {"MESHWRIGHT_LOG_LEVEL": "info,runner=debug"},
    )


@pytest.fixture(scope="module")
def lines(ended):
    return [json.loads(line) for line in ended.stderr.splitlines()]


@pytest.fixture(scope="module")
def said(lines):
    return {line["event"]: line for line in lines}


def test_whatever_happens_in_a_process_is_lines_of_json(ended, lines):
    assert ended.returncode == 1
    assert all((line["service"], line["instance"]) == ("probe", "probe-1") for line in lines)
    assert all(line["timestamp"].endswith("Z") and line["logger"] and line["level"] for line in lines)


def test_a_line_names_its_logger_its_trace_and_its_task(said):
    told = said["told"]
    assert (told["level"], told["logger"], told["task_id"], told["many"]) == ("info", "call", "t1", 3)
    assert (len(told["trace_id"]), len(told["span_id"])) == (32, 16)
    assert not {"trace_id", "span_id", "task_id"} & set(said["stranger"])


def test_what_is_below_its_level_is_left_out_and_of_libraries_all_but_warnings(said):
    assert not {"unseen", "chatter"} & set(said)


def test_a_field_that_is_not_listed_is_left_out_and_named(said, ended):
    assert said["stranger"]["unlisted"] == ["prompt"]
    assert "Dear diary" not in ended.stderr


def test_no_secret_of_any_origin_is_in_a_line(ended, said):
    assert KEY not in ended.stderr
    assert PASSWORD not in ended.stderr
    assert "local-value" not in ended.stderr
    assert said["told"]["detail"] == "AUTH [secret]"
    assert said["caught"]["exception"].endswith("ValueError: the key [redacted mesh key] is no good")


def test_libraries_warnings_and_errors_are_lines_too(said):
    (heard,) = [line for line in said if line.startswith("said")]
    assert heard == "said this\nthat and [redacted mesh key]"
    assert said[heard]["logger"] == "some.library"
    assert "ValueError: the key [redacted" in said["gave up"]["exception"]
    assert [line["level"] for event, line in said.items() if "old: [secret]" in event] == ["warning"]
    assert "lost [redacted mesh key]" in said


def test_errors_that_nobody_caught_are_lines_too(lines):
    failed = [line for line in lines if line["event"] == logs.FAILED]
    assert [line["level"] for line in failed] == ["critical"] * 3
    assert ["closed with" in line["exception"] for line in failed] == [False, True, False]


def test_levels_that_cannot_be_read_are_refused_by_the_name_of_their_variable():
    with pytest.raises(SetupError, match="MESHWRIGHT_LOG_LEVEL='loud': 'loud' is no level"):
        logs.configure(Settings(log_level="loud"), "probe", "probe-1")


TALKS = """
import asyncio, logging, sys
import structlog
from meshwright.core import logs
from meshwright.core.settings import Settings

async def main():
    logs.configure(Settings.load(), "probe", "probe-1")
    log = structlog.get_logger("call")
    while True:
        log.debug("whispered")
        structlog.get_logger("tls").debug("overheard")
        structlog.get_logger("price_desk").debug("quoted")
        logging.getLogger("price_desk.cache").debug("kept")
        logging.getLogger("other").info("chatter")
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


@pytest.fixture
def talking(tmp_path):
    """A process that says something below its level all the time."""
    file = tmp_path / "log-levels"
    variables = {"MESHWRIGHT_LOG_LEVELS_FILE": str(file), "MESHWRIGHT_LOG_LEVELS_S": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", TALKS], stderr=subprocess.PIPE, text=True, env=os.environ | variables
    ) as process:
        yield process, file
        process.kill()


def first(process, event):
    """Reads lines until one tells an event; returns it, and the events before it."""
    before = set()
    for line in process.stderr:
        told = json.loads(line)
        if told["event"] == event:
            return told, before
        before.add(told["event"])
    raise AssertionError(f"{event} was never told, but {before}")


def test_levels_change_while_a_process_runs_and_end_by_themselves(talking):
    process, file = talking
    file.write_text("call=loud\n")
    told, before = first(process, "log_levels_kept")
    assert "'loud' is no level" in told["error"]
    file.write_text("call=debug\n")
    told, _ = first(process, "log_levels_read")
    began = time.monotonic()
    assert (told["levels"], before) == ("info,call=debug", set())
    _, before = first(process, "log_levels_ended")
    assert before == {"whispered"}
    assert 2 < time.monotonic() - began < 20
    file.write_text("tls=debug\n")
    first(process, "log_levels_read")
    assert first(process, "overheard")[1] == set()


def test_an_agents_own_logger_has_a_level_of_its_own_while_that_holds(talking):
    process, file = talking
    file.write_text("price_desk=debug\n")
    told, before = first(process, "log_levels_read")
    assert (told["levels"], before) == ("info,price_desk=debug", set())
    _, before = first(process, "log_levels_ended")
    assert before == {"quoted", "kept"}
    file.write_text("tls=debug\n")
    first(process, "log_levels_read")
    _, before = first(process, "log_levels_ended")
    assert before == {"overheard"}


UNHEARD = """
import sys
import structlog
from meshwright.core import logs
from meshwright.core.log_levels import Levels

logs.write_lines(Levels(), "probe", "probe-1")
sys.stdin.read()
for _ in range(9):
    structlog.get_logger("call").info("told")
print("done", flush=True)
"""


def test_a_process_goes_on_where_nobody_reads_its_log():
    with subprocess.Popen(
        [sys.executable, "-c", UNHEARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stderr.close()
        process.stderr = None
        assert process.communicate(timeout=50)[0] == "done\n"
