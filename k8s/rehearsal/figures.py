"""Figures: what clients saw in each phase, what each process used, and whether the promises were kept."""

import itertools
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from k8s.rehearsal.client import Call
from k8s.rehearsal.cluster import Cluster
from k8s.rehearsal.load import Load, Phase
from meshwright.cli.chaos.tally import Tally, missing, some
from meshwright.cli.output import Format, show, show_table

UNITS = {"Ki": 1, "Mi": 2**10, "Gi": 2**20}
"""KiB in a unit of Kubernetes."""


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """What clients saw in one phase.

    Attributes:
        name: What was done.
        work_s: Seconds that it took.
        calls: Begun in it.
        failures: Of them, those that were given up, by the reason.
        retries: Repetitions by the reason of the refusal, beyond those that gRPC makes by itself.
        p50_s: Half of the calls took less.
        p95_s: Nineteen of twenty took less.
        max_s: The longest call.
        gap_s: The longest time in which no call was answered.
    """

    name: str
    work_s: float
    calls: int
    failures: dict[str, int]
    retries: dict[str, int]
    p50_s: float
    p95_s: float
    max_s: float
    gap_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The most that a container used in any of its pods, and what the manifest lets it use, in KiB."""

    container: str
    peak_kib: int
    limit_kib: int
    restarts: int


@dataclass(slots=True)
class Figures:
    """Everything that a rehearsal shows.

    Attributes:
        up_s: Seconds from `apply` until everything was ready.
        phases: One row each.
        memory: One row a container.
        tasks: Accepted, lost, doubled and so on, by name.
        broken: Promises that did not hold; empty: all of them did.
    """

    up_s: float
    phases: list[PhaseFigures]
    memory: list[Memory]
    tasks: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def figures(load: Load, cluster: Cluster, up_s: float) -> Figures:
    """Adds up what a load and a cluster have seen."""
    found = Figures(up_s, [of_phase(load, phase) for phase in load.phases], memory(cluster))
    tally = Tally.of(load)
    booked = [call for call in load.calls if call.kind == "tool" and not call.failure]
    gone = [*tally.missing, *(name for call in booked for name in missing(call.job, load))]
    failed = [f"{call.job.name} ({call.failure}: {call.words})" for call in load.calls if call.failure]
    found.tasks = {
        "calls": str(len(load.calls)),
        "failed": str(len(failed)),
        "tasks accepted": str(tally.accepted),
        "tasks lost": str(len(tally.lost)),
        "effects doubled": str(len(tally.doubled)),
        "effects missing": str(len(gone)),
        "streams with gaps": str(len(tally.gaps)),
        "outcomes unknown": str(tally.unknown),
        "takeovers": str(len(tally.takeovers)),
    }
    if tally.takeovers:
        found.tasks["takeover p50"] = f"{statistics.median(tally.takeovers):.1f} s"
        found.tasks["takeover max"] = f"{max(tally.takeovers):.1f} s"
    kept = {
        "keyed calls failed": failed,
        "accepted tasks were lost": tally.lost,
        "effects were doubled": tally.doubled,
        "effects that were reported are missing": gone,
        "streams had gaps or repetitions": tally.gaps,
        "containers used more memory than they may": over(found.memory),
    }
    found.broken = [f"{promise}: {some(names)}" for promise, names in kept.items() if names]
    return found


def of_phase(load: Load, phase: Phase) -> PhaseFigures:
    """Adds up one phase."""
    calls = list(load.in_phase(phase))
    took = sorted(call.took_s for call in calls) or [0.0]
    retries: Counter[str] = sum((call.retries for call in calls), Counter())
    return PhaseFigures(
        phase.name,
        phase.work_s,
        len(calls),
        dict(Counter(call.failure for call in calls if call.failure)),
        dict(retries),
        took[len(took) // 2],
        took[len(took) * 19 // 20],
        took[-1],
        longest_gap(load.calls, phase),
    )


def longest_gap(calls: Sequence[Call], phase: Phase) -> float:
    """Returns the longest time within a phase in which no call was answered, in seconds."""
    answers = sorted(call.ended for call in calls if phase.started <= call.ended <= phase.ended and not call.failure)
    moments = [phase.started, *answers, phase.ended]
    return max(later - sooner for sooner, later in itertools.pairwise(moments))


def memory(cluster: Cluster) -> list[Memory]:
    """Lists every container's most memory."""
    rows = []
    for workload in cluster.workloads.values():
        seen = {
            container.name: [one for pod in workload.all_pods for one in pod.containers if one.name == container.name]
            for container in next(iter(workload.all_pods)).containers
        }
        rows += [
            Memory(
                f"{workload.name}/{name}",
                max(one.peak_kib for one in ones),
                kib(ones[0].memory_limit),
                sum(one.restarts for one in ones),
            )
            for name, ones in seen.items()
        ]
    return rows


def kib(quantity: str) -> int:
    """Reads a quantity of memory: 256Mi."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def over(rows: Sequence[Memory]) -> list[str]:
    """Names the containers that a cluster would have killed."""
    return [f"{one.container} {one.peak_kib // 2**10} MiB" for one in rows if one.peak_kib > one.limit_kib]


def counted(many: dict[str, int]) -> str:
    """Writes counts in one line; nothing for none."""
    return ", ".join(f"{reason} {count}" for reason, count in many.items())


def show_figures(found: Figures, form: Format) -> None:
    """Prints everything."""
    if form is not Format.TABLE:
        show(json.dumps(asdict(found), indent=2 if form is Format.JSON else None))
        return
    show_table(
        ("PHASE", "TOOK", "CALLS", "FAILED", "P50", "P95", "MAX", "LONGEST GAP", "RETRIES"),
        (
            (
                one.name,
                f"{one.work_s:.1f} s",
                str(one.calls),
                counted(one.failures),
                f"{one.p50_s:.2f} s",
                f"{one.p95_s:.2f} s",
                f"{one.max_s:.1f} s",
                f"{one.gap_s:.1f} s",
                counted(one.retries),
            )
            for one in found.phases
        ),
    )
    show("")
    show_table(
        ("CONTAINER", "MOST MEMORY", "LIMIT", "RESTARTS"),
        (
            (one.container, f"{one.peak_kib // 2**10} MiB", f"{one.limit_kib // 2**10} MiB", str(one.restarts))
            for one in found.memory
        ),
    )
    show("")
    show(f"ready after {found.up_s:.1f} s; " + ", ".join(f"{name} {value}" for name, value in found.tasks.items()))
    for promise in found.broken:
        show(f"BROKEN: {promise}")
    if not found.broken:
        show("every promise was kept")
