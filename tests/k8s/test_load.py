"""The load knows who is at work, and ends a phase when what it has met is answered."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest

from k8s.rehearsal import load as loads
from k8s.rehearsal.client import Call, is_repeated
from k8s.rehearsal.load import Load
from meshwright.cli.chaos.evidence import leave
from meshwright.cli.chaos.job import Job
from meshwright.core.errors import (
    DeadlineExceededError,
    GrantInvalidError,
    InternalError,
    OverloadedError,
    TaskCancelledError,
    UnavailableError,
)


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(loads, "SETTLED_S", 0.0)
    return Load(None, tmp_path)


def mark(load, step):
    leave(str(load.evidence.path), "mark", "run-1", step)


async def test_the_pod_that_is_at_work_is_found_and_no_evidence_is_lost(load):
    idle, busy = SimpleNamespace(pids=[1]), SimpleNamespace(pids=[os.getpid()])
    for step in range(3):
        mark(load, step)
    looking = asyncio.create_task(load.busy([idle, busy]))
    await asyncio.sleep(0)
    for step in range(3, 6):
        mark(load, step)
    assert await looking is busy
    for _ in load.evidence.fresh():
        pass
    assert [trace.step for trace in load.evidence.traces] == [0, 1, 2, 3, 4, 5]


async def test_of_pods_that_leave_no_evidence_it_is_the_oldest(load):
    mark(load, 0)
    oldest = SimpleNamespace(pids=[1])
    assert await load.busy([oldest, SimpleNamespace(pids=[2])]) is oldest


async def test_a_phase_lasts_until_the_calls_are_answered_that_its_work_has_met(load):
    met = Call("run", Job("run-1", "", ()), time.monotonic())
    load.calls.append(met)

    async def answered():
        await asyncio.sleep(0.2)
        load.calls.append(Call("run", Job("run-2", "", ()), time.monotonic()))  # one that is met by nobody
        met.ended = time.monotonic()

    answering = asyncio.create_task(answered())
    async with load.phase("kill trader") as phase:
        pass
    await answering
    assert phase.work_s < 0.1
    assert phase.ended >= met.ended
    assert [call.job.name for call in load.in_phase(phase)] == ["run-2"]


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        (UnavailableError, True),
        (OverloadedError, True),
        (InternalError, True),
        (DeadlineExceededError, True),
        (GrantInvalidError, False),
        (TaskCancelledError, False),
    ],
)
def test_a_keyed_call_is_made_again_where_that_may_help(kind, is_so):
    assert is_repeated(kind("x")) == is_so
