"""Whether what callers may ask for has an end: bytes, depth, calls a second, time."""

import json

from meshwright.cli.readiness.outcome import Outcome, good, missing, unseen
from meshwright.cli.readiness.survey import Survey
from meshwright.core.errors import CredentialsMissingError

READS = "/v1/tools:checkCompatibility"
"""Takes a body, and stores nothing."""
TOO_LARGE = 413
BEYOND = 4 * 2**20 + 64 * 2**10
"""Bytes that are more than the edge takes."""
DEPTH = 20_000
PROMPT_S = 2.0
"""A refusal comes within this."""
TIMED_OUT = 504
TRIES = 3
MOMENT = "0.001"
"""Seconds in which no mesh answers by TLS what it has to look up."""


async def bodies(survey: Survey) -> Outcome:
    """Whether a body beyond the bound is refused, and at once."""
    if not survey.edge.has_key:
        raise CredentialsMissingError("who sends a body is asked first")
    body = json.dumps({"padding": "x" * BEYOND}).encode()
    answer = await survey.edge.ask("POST", READS, body)
    if answer.status != TOO_LARGE or answer.took_s > PROMPT_S:
        told = f"{len(body)} bytes are answered {answer.status} after {answer.took_s:.1f} s"
        return missing(told, answer.advice("let what stands before the edge refuse bodies beyond 4 MiB"))
    return good(f"{len(body)} bytes are answered 413 after {1000 * answer.took_s:.0f} ms")


async def depth(survey: Survey) -> Outcome:
    """Whether JSON that is nested without end is refused, and at once."""
    if not survey.edge.has_key:
        raise CredentialsMissingError("who sends a body is asked first")
    nested = b'{"candidate":{"input_schema":' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}}"
    answer = await survey.edge.ask("POST", READS, nested)
    told = f"{DEPTH} levels are answered {answer.status} after {1000 * answer.took_s:.0f} ms"
    if not 400 <= answer.status < 500 or answer.took_s > PROMPT_S:  # noqa: PLR2004 - the caller's errors
        return missing(told, answer.advice("bring the gateway to this version"))
    return good(told)


async def rates(survey: Survey) -> Outcome:
    """Whether calls are counted: an ordinary answer says so, nothing is provoked."""
    if not survey.edge.has_key:
        raise CredentialsMissingError("calls are counted by who calls")
    answer = await survey.edge.ask("GET", "/v1/agents?page_size=1")
    limit, left = (answer.headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining"))
    if not limit:
        todo = answer.advice("set MESHWRIGHT_LIMIT_PRINCIPAL and _LIMIT_TENANT, not 0")
        return missing(f"an answer {answer.status} has no x-ratelimit-limit", todo)
    return good(f"x-ratelimit-limit: {limit[:40]}, {left[:20] or '?'} left")


async def deadlines(survey: Survey) -> Outcome:
    """Whether a call ends when its time does."""
    if not survey.edge.has_key:
        raise CredentialsMissingError("who calls is asked first")
    told = list[int]()
    for _ in range(TRIES):
        answer = await survey.edge.ask("GET", "/v1/agents?page_size=1", headers={"x-request-timeout": MOMENT})
        if answer.status == TIMED_OUT:
            return good(f"a call of 1 ms is answered 504 after {1000 * answer.took_s:.0f} ms")
        told.append(answer.status)
    if set(told) != {200}:
        return unseen(f"calls of 1 ms are answered {told}", "give the key the scope agents:read, and look again")
    return missing("calls of 1 ms are answered 200 all the same", "let what stands before the edge pass headers on")
