"""Checks every criterion of the lab and prints a line for each; without --url in a mesh that it starts and stops."""

import argparse
import os
import signal
import sys
from contextlib import nullcontext

from criteria import CRITERIA, Trial, verdict, wait
from edge import Edge, RefusedError
from mesh import running

from meshwright.core.errors import MeshError, SetupError

LONGEST_S = 3600.0
"""That agents may take to come."""


def check(edge: Edge, agent: str, wait_s: float) -> int:
    """Prints a line for each criterion; returns 0 where all of them hold, else 1."""
    wait(edge, agent, wait_s)
    try:
        edge.patient("GET", "/health")
    except RefusedError as error:
        raise SetupError(f"{error}: start a mesh as the lab's README says, or name another edge with --url") from None
    trial = Trial(edge, agent)
    unmet = 0
    for criterion in CRITERIA:
        is_met, seen = verdict(criterion, trial)
        unmet += not is_met
        print(f"{'ok' if is_met else 'FAILED':8}{criterion.__name__:12}{seen}", flush=True)
    print(f"{len(CRITERIA) - unmet} of {len(CRITERIA)} criteria hold at {edge.url}")
    return 1 if unmet else 0


def seconds(text: str) -> float:
    """Reads how long to wait.

    Raises:
        argparse.ArgumentTypeError: It is no such time.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not 0 <= found <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no time to wait: write seconds, 0 to {LONGEST_S:g}")
    return found


def main() -> int:
    """Does what the command line says; 2: there is no mesh to check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="", help="edge of a mesh that is running; its key: MESHWRIGHT_API_KEY")
    parser.add_argument("--agent", default="coordinator", help="the agent that is held against the criteria")
    parser.add_argument("--model", default="offline", help="of the mesh that is started")
    parser.add_argument("--wait", type=seconds, default=0, help="seconds that the agents may take to come")
    options = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    key, authority = os.environ.get("MESHWRIGHT_API_KEY", ""), os.environ.get("MESHWRIGHT_EDGE_CA", "")
    try:
        with nullcontext(options.url) if options.url else running(options.model) as url:
            return check(Edge(url, key, authority), options.agent, options.wait)
    except (MeshError, RefusedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # nobody reads any more; Python would try once again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    raise SystemExit(main())
