"""The tally: what clients were told, held against the evidence of what was done."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from meshwright.cli.chaos.evidence import ANSWERED, Evidence
from meshwright.cli.chaos.job import LATE, RISKY, UNKNOWN, Job
from meshwright.cli.chaos.rig import Kill, Told
from meshwright.cli.chaos.scenario import Row
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TAKEN_OVER, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED

NAMED = 3
"""How many names a complaint lists."""


class Witness(Protocol):
    """What has seen jobs being disturbed: a rig, or whatever else keeps the same record."""

    evidence: Evidence
    told: list[Told]
    kills: list[Kill]


@dataclass(slots=True)
class Tally:
    """What became of all jobs of a rig.

    Attributes:
        accepted: Tasks that the mesh took.
        lost: Of them, those that did not end with the right answer.
        doubled: Effects that were made more than once: "job step tool".
        missing: Effects that were reported as made, but were not.
        gaps: Jobs whose stream was not exactly 1, 2, 3 ….
        repeated: Model answers beyond one a step.
        unknown: Calls whose outcome nobody knew.
        late: Calls that took longer than they may.
        takeovers: Seconds from a kill to the takeover of each task that the process had.
    """

    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    repeated: int = 0
    unknown: int = 0
    late: int = 0
    takeovers: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, rig: Witness) -> "Tally":
        """Adds up what a rig has seen."""
        tally = cls()
        for _ in rig.evidence.fresh():
            pass
        for told in filter(lambda told: told.is_accepted, rig.told):
            tally._add(told, rig)
        answers = rig.evidence.counted(ANSWERED)
        tally.repeated = answers.total() - len(answers)
        tally.doubled = list(doubled(rig))
        return tally

    def _add(self, told: Told, rig: Witness) -> None:
        self.accepted += 1
        result, name = told.result, told.job.name
        if result is None or result.status != TASK_STATUS_COMPLETED or not told.job.is_right(result.output):
            self.lost.append(f"{name} ({ending(told)})")
        else:
            self.unknown += result.output.count(UNKNOWN)
            self.late += result.output.count(LATE)
            if UNKNOWN not in result.output and LATE not in result.output:
                self.missing.extend(missing(told.job, rig))
        if [event.sequence for event in told.events] != list(range(1, len(told.events) + 1)):
            self.gaps.append(name)
        for job, at in takeovers(told):
            self._add_takeover(job, at, rig)

    def _add_takeover(self, job: str, at: float, rig: Witness) -> None:
        """Measures from the death of the process that worked on the job before."""
        before = [trace.pid for trace in rig.evidence.of(job) if trace.at < at]
        deaths = [kill.at for kill in rig.kills if before and kill.pid == before[-1] and kill.at < at]
        if deaths:
            self.takeovers.append(at - deaths[-1])

    def report(self, row: Row, kills: int, bound_s: float) -> None:
        """Writes the figures that every scenario has and checks what must always hold."""
        row.figures |= {
            "accepted": str(self.accepted),
            "lost": str(len(self.lost)),
            "doubled": str(len(self.doubled)),
            "answers repeated": str(self.repeated),
            "outcomes unknown": str(self.unknown),
            "calls late": str(self.late),
            "stream gaps": str(len(self.gaps)),
        }
        row.check(not self.lost, f"accepted tasks were lost: {some(self.lost)}")
        row.check(not self.doubled, f"effects were doubled: {some(self.doubled)}")
        row.check(not self.missing, f"effects that were reported are missing: {some(self.missing)}")
        row.check(not self.gaps, f"streams had gaps or repetitions: {some(self.gaps)}")
        row.check(self.repeated <= kills, f"{self.repeated} model answers were repeated by {kills} kills")
        if self.takeovers:
            longest = max(self.takeovers)
            row.figures["takeover p50"] = f"{statistics.median(self.takeovers):.1f} s"
            row.figures["takeover max"] = f"{longest:.1f} s"
            row.check(longest <= bound_s, f"a takeover took {longest:.1f} s, more than {bound_s:.1f} s")


def some(names: list[str]) -> str:
    """Lists the first few of many."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def ending(told: Told) -> str:
    """Says how a lost task ended."""
    if told.result is None:
        last = told.events[-1].WhichOneof("event") if told.events else "nothing"
        return f"no end, last {last}" + (f", {told.refusal.message}" if told.refusal else "")
    return told.result.error.message or f"answered {told.result.output!r}"


def doubled(rig: Witness) -> Iterator[str]:
    """Lists effects that were made twice: two runs of a risky one, two keys of one that may be repeated."""
    for (job, step, what), times in rig.evidence.counted(*RISKY).items():
        if times > 1:
            yield f"{job} {step} {what}"
    marks = {(trace.job, trace.step, trace.key) for trace in rig.evidence.traces if trace.what == "mark"}
    seen: set[tuple[str, int]] = set()
    for job, step, _ in sorted(marks):
        if (job, step) in seen:
            yield f"{job} {step} mark"
        seen.add((job, step))


def missing(job: Job, rig: Witness) -> Iterator[str]:
    """Lists effects of a job that its right answer claims, but of which there is no trace."""
    for member in job.family:
        done = {(trace.what, trace.step) for trace in rig.evidence.of(member.name)}
        for step, word in enumerate(member.plan):
            if word != "ask" and (word, step) not in done:
                yield f"{member.name} {step} {word}"


def takeovers(told: Told) -> Iterator[tuple[str, float]]:
    """Lists when a job, or its child, was taken over, in seconds since the epoch."""
    for event in told.events:
        inner: StepEvent = event
        name = told.job.name
        while inner.HasField("child"):
            inner, name = inner.child.event, told.job.child.name
        if inner.HasField("notice") and inner.notice.kind == NOTICE_KIND_TAKEN_OVER:
            yield name, inner.time.ToMicroseconds() / 1_000_000
