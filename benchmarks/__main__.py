"""`python -m benchmarks smoke|full`: measures, writes `benchmarks/results/`, and holds smoke against the baseline."""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc

from benchmarks import (
    arguments,
    catalog,
    codec,
    context,
    durable,
    edge,
    flat,
    guardrails,
    idle,
    report,
    startup,
    toolstep,
    unary,
    watchers,
)
from benchmarks.findings import TOLERANCE, Finding
from benchmarks.parts import BenchmarkError, Scene, Stage
from benchmarks.rounds import Effort

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
RESULTS = HERE / "results"
"""The full run's are committed, those of smoke stay here under `local/`."""
ATTEMPTS = 2
"""A finding beyond the baseline is measured once more: what the machine did meanwhile does not come twice."""

Benchmark = Callable[[Scene, Effort], Awaitable[list[Finding]]]
BENCHMARKS: dict[str, Benchmark] = {
    "unary": unary.run,
    "durable": durable.run,
    "watchers": watchers.run,
    "idle": idle.run,
    "edge": edge.run,
    "tool_step": toolstep.run,
    "arguments": arguments.run,
    "codec": codec.run,
    "context": context.run,
    "guardrails": guardrails.run,
    "catalog": catalog.run,
    "startup": startup.run,
    "flat": flat.run,  # last: it fills the store
}


async def measure(names: Sequence[str], effort: Effort) -> list[Finding]:
    """Runs benchmarks one after the other on one stage."""
    findings: list[Finding] = []
    kind = "full" if effort.is_full else "smoke"
    async with Stage() as stage:
        if not stage.cores.are_apart:
            say("server and load generator share a core: figures are not worth much")
        mesh = await stage.mesh("main")
        scene = Scene(stage, mesh, await stage.agent("agent", mesh))
        for name in names:
            started = time.monotonic()
            fresh = await BENCHMARKS[name](scene, effort)
            for one in fresh:
                say(f"  {one.name}: {one.median:.2f} ({min(one.ratios):.2f}-{max(one.ratios):.2f}) {one.verdict}")
            say(f"{name}: {time.monotonic() - started:.0f} s")
            findings += fresh
            report.write(RESULTS if effort.is_full else RESULTS / "local", kind, findings, stage.cores)
        print(report.table(findings), "\nNot equal:\n", report.inequalities(findings), sep="\n")
    return findings


def say(text: str) -> None:
    """Tells how it goes."""
    print(text, file=sys.stderr, flush=True)


def chosen() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("kind", choices=("smoke", "full"))
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this benchmark; may be repeated")
    parser.add_argument("--record", action="store_true", help="write what was measured as the baseline")
    parser.add_argument("--slack", type=float, default=TOLERANCE, help="how many times its baseline a ratio may be")
    parser.add_argument("--seed", type=int, help="of orders and arrivals; default: another one every time")
    return parser.parse_args()


def main() -> int:
    """Runs the benchmarks; 1: a ratio has drifted beyond its baseline, or nothing true was measured."""
    options = chosen()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    say(f"seed {seed}")
    is_full = options.kind == "full"
    effort = Effort(rounds=7 if is_full else 5, scale=3 if is_full else 1, is_full=is_full, rng=random.Random(seed))
    names = [name for name in BENCHMARKS if not options.only or name in options.only]
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    lines: list[str] = []
    for _ in range(ATTEMPTS):
        try:
            findings = asyncio.run(measure(names, effort))
        except (BenchmarkError, grpc.aio.AioRpcError, TimeoutError) as error:
            say(f"error: {error!r}")
            return 1
        if options.record:
            fresh = {one.name: round(one.median, 3) for one in findings if one.is_gated}
            BASELINE.write_text(json.dumps(dict(sorted((baseline | fresh).items())), indent=1) + "\n")
            return 0
        lines = report.drifted(findings, baseline, options.slack)
        if not lines or is_full:
            return 0
        say("beyond the baseline, measured once more:\n  " + "\n  ".join(lines))
    say("error: slower than recorded:\n  " + "\n  ".join(lines))
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
