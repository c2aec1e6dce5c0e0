"""The tally: it finds what is lost, doubled, missing, repeated, and a stream with a hole."""

import os
from dataclasses import dataclass, field

import pytest

from meshwright.cli.chaos.evidence import ANSWERED, Evidence, leave
from meshwright.cli.chaos.job import Job
from meshwright.cli.chaos.rig import Kill, Told
from meshwright.cli.chaos.scenario import Row
from meshwright.cli.chaos.tally import Tally
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TAKEN_OVER, RunnerNotice, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskResponse

DEATH = 1_000.0


@dataclass
class Bench:
    """What a tally reads of a rig."""

    evidence: Evidence
    told: list[Told] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def did(self, *what, job="j", key="k"):
        for step, word in enumerate(what):
            leave(str(self.evidence.path), word, job, step, key)

    def tell(self, answer="j: j.0 j.1", status=TASK_STATUS_COMPLETED, sequences=(1, 2, 3)):
        told = Told(Job("j", str(self.evidence.path), ("mark", "send")), is_accepted=True)
        told.events = [StepEvent(sequence=sequence) for sequence in sequences]
        told.result = TaskResponse(status=status, output=answer)
        self.told.append(told)
        return told

    def broken(self, kills=1):
        row = Row("")
        Tally.of(self).report(row, kills, 2.0)
        return row.broken


@pytest.fixture
def bench(tmp_path):
    return Bench(Evidence(tmp_path / "evidence"))


def test_what_went_well_breaks_nothing(bench):
    bench.did("mark", "send")
    bench.did(ANSWERED, ANSWERED)
    bench.tell()
    assert bench.broken() == []


def test_a_task_that_failed_or_answered_wrongly_is_lost(bench):
    bench.did("mark", "send")
    bench.tell(status=TASK_STATUS_FAILED)
    bench.tell(answer="j: j.0")
    assert bench.broken()[0].startswith("accepted tasks were lost: j (answered")


def test_a_task_that_was_never_accepted_is_not_lost(bench):
    bench.tell(answer="").is_accepted = False
    assert bench.broken() == []


def test_a_risky_effect_made_twice_is_doubled_with_the_same_key_too(bench):
    bench.did("mark", "send")
    bench.did("mark", "send")
    bench.tell()
    assert bench.broken() == ["effects were doubled: j 1 send"]


def test_a_repeatable_effect_is_doubled_only_under_another_key(bench):
    bench.did("mark", "send")
    bench.did("mark", key="other")
    bench.tell()
    assert bench.broken() == ["effects were doubled: j 0 mark"]


def test_an_effect_that_was_reported_but_not_made_is_missing(bench):
    bench.did("mark")
    bench.tell()
    assert bench.broken() == ["effects that were reported are missing: j 1 send"]


def test_answers_may_be_repeated_once_a_kill(bench):
    bench.did("mark", "send")
    bench.did(ANSWERED)
    bench.did(ANSWERED)
    bench.tell()
    assert bench.broken(kills=1) == []
    assert bench.broken(kills=0) == ["1 model answers were repeated by 0 kills"]


def test_a_hole_and_a_repetition_in_a_stream_are_gaps(bench):
    bench.did("mark", "send")
    bench.tell(sequences=(1, 3))
    bench.tell(sequences=(1, 1, 2))
    assert bench.broken() == ["streams had gaps or repetitions: j, j"]


def test_a_takeover_is_measured_from_the_death_of_the_worker_before(bench):
    bench.evidence.path.write_text(f"asked j 0 77 {DEATH - 1} -\n")
    bench.kills = [Kill("other", 5, DEATH + 1), Kill("courier", 77, DEATH)]
    told = bench.tell(sequences=())
    told.events = [StepEvent(sequence=1, notice=RunnerNotice(kind=NOTICE_KIND_TAKEN_OVER))]
    told.events[0].time.FromMilliseconds(int((DEATH + 2.5) * 1000))
    assert Tally.of(bench).takeovers == [2.5]
    assert "a takeover took 2.5 s, more than 2.0 s" in bench.broken()


def test_evidence_is_read_line_by_line_as_it_grows(tmp_path):
    evidence = Evidence(tmp_path / "evidence")
    leave(str(evidence.path), "mark", "j", 0, "key")
    (first,) = evidence.fresh()
    assert (first.what, first.job, first.step, first.pid, first.key) == ("mark", "j", 0, os.getpid(), "key")
    with evidence.path.open("a") as file:
        file.write("half a li")
    assert list(evidence.fresh()) == []
