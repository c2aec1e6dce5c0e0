"""Figures say what clients saw, and notice each promise that was broken."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from k8s.rehearsal.client import Call
from k8s.rehearsal.figures import Memory, figures, kib, longest_gap, over, show_figures
from k8s.rehearsal.load import Phase
from meshwright.cli.chaos.evidence import Evidence, leave
from meshwright.cli.chaos.job import Job, outcome
from meshwright.cli.chaos.rig import Told
from meshwright.cli.output import Format
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskResponse


class Seen:
    """What a load has seen: one tool call and one task that went well, in one phase from 0 to 10 s."""

    def __init__(self, folder):
        self.evidence = Evidence(folder / "evidence")
        into = str(self.evidence.path)
        self.phases = [Phase("roll trader", 0.0, 10.0, 4.0)]
        self.kills = []
        book, run = Job("tool-1", into, ("mark",)), Job("run-1", into, ("send",))
        leave(into, "mark", "tool-1", 0, "k1")
        leave(into, "send", "run-1", 0, "k2")
        self.calls = [Call("tool", book, 1.0, 1.5), Call("run", run, 2.0, 5.0, Counter(UNAVAILABLE=2))]
        done = TaskResponse(status=TASK_STATUS_COMPLETED, output=run.answer([outcome("run-1", 0)]))
        events = [StepEvent(sequence=1), StepEvent(sequence=2)]
        self.told = [Told(run, events=events, result=done, is_accepted=True)]

    def in_phase(self, phase):
        return [call for call in self.calls if phase.started <= call.started < phase.ended]


@pytest.fixture
def seen(tmp_path):
    return Seen(tmp_path)


def found_in(seen):
    return figures(seen, SimpleNamespace(workloads={}), 12.0)


def test_what_went_well_breaks_no_promise(seen):
    found = found_in(seen)
    assert found.broken == []
    (phase,) = found.phases
    assert (phase.calls, phase.failures, phase.retries) == (2, {}, {"UNAVAILABLE": 2})
    assert (phase.work_s, phase.p50_s, phase.max_s, phase.gap_s) == (4.0, 3.0, 3.0, 5.0)


def failed(seen):
    seen.calls[0].failure = "GRANT_INVALID"


def lost(seen):
    seen.told[0].result = None


def wrong(seen):
    seen.told[0].result.status = TASK_STATUS_FAILED


def doubled(seen):
    leave(str(seen.evidence.path), "send", "run-1", 0, "k2")


def doubled_under_another_key(seen):
    leave(str(seen.evidence.path), "mark", "tool-1", 0, "k3")


def missing(seen):
    seen.evidence.path.write_text("")


def gap(seen):
    del seen.told[0].events[0]


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (failed, "keyed calls failed: tool-1"),
        (lost, "accepted tasks were lost: run-1"),
        (wrong, "accepted tasks were lost: run-1"),
        (doubled, "effects were doubled: run-1"),
        (doubled_under_another_key, "effects were doubled: tool-1"),
        (missing, "effects that were reported are missing: run-1"),
        (gap, "streams had gaps or repetitions: run-1"),
    ],
)
def test_a_promise_that_is_broken_is_noticed(seen, breaks, words):
    breaks(seen)
    assert any(words in broken for broken in found_in(seen).broken)


def test_the_longest_gap_counts_answers_alone_and_reaches_from_end_to_end():
    job = Job("x", "", ())
    calls = [Call("run", job, 0.0, 2.0), Call("run", job, 0.0, 5.0, failure="X"), Call("run", job, 0.0, 11.0)]
    assert longest_gap(calls, Phase("all", 0.0, 10.0)) == 8.0
    assert longest_gap([], Phase("all", 0.0, 10.0)) == 10.0


def test_who_uses_more_memory_than_the_manifest_lets_is_named():
    rows = [Memory("a/a", kib("255Mi"), kib("256Mi"), 0), Memory("b/b", kib("2Gi") + 1, kib("2Gi"), 0)]
    assert over(rows) == ["b/b 2048 MiB"]


def test_figures_are_printed_for_people_and_for_programs(seen, capsys):
    found = found_in(seen)
    show_figures(found, Format.TABLE)
    table = capsys.readouterr().out
    assert "roll trader" in table
    assert "UNAVAILABLE 2" in table
    assert "every promise was kept" in table
    show_figures(found, Format.JSON)
    assert json.loads(capsys.readouterr().out)["phases"][0]["name"] == "roll trader"
