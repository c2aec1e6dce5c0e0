"""Agents to break: a model that plays the job in its prompt, and tools that leave evidence of every effect."""

import asyncio
import json
import secrets
from pathlib import Path

from meshwright.agents import Agent
from meshwright.agents.models.model import Answer, Call, Message, OnText, Prompt, Usage
from meshwright.cli.chaos.evidence import ANSWERED, ASKED, leave
from meshwright.cli.chaos.job import HOLD, LATE, UNKNOWN, Job, folded, outcome
from meshwright.registry import current_invocation, tool
from meshwright.registry.tool import LocalTool

NO_OUTCOME = {"OUTCOME_UNKNOWN": UNKNOWN, "DEADLINE_EXCEEDED": LATE}
HELD_S = 0.05
TIMEOUT_S = 2.0
"""Short: a call whose outcome is unknown is given up only when its time is over."""


class JobModel:
    """A model that asks for the next step of its job, and counts what it is asked and what it answers.

    Like a real one, it names each call anew: asked twice, it would not ask for the same call twice.
    """

    provider = "chaos"
    name = "job"

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Answers with the call of the next step, or at the end with what all of them brought."""
        job, step = Job.read(prompt.messages[0].text), prompt.turn
        leave(job.into, ASKED, job.name, step)
        await asyncio.sleep(job.pace_s)
        while is_held(job):  # noqa: ASYNC110 - another process says so, by a file
            await asyncio.sleep(HELD_S)
        calls = (next_call(job, step),) if step < len(job.plan) else ()
        outcomes = [heard(message) for message in prompt.messages if message.role == "tool"]
        text = "" if calls else job.answer(outcomes)
        leave(job.into, ANSWERED, job.name, step)
        return Answer(text, calls, Usage(1, 1), self.provider, self.name, "tool_calls" if calls else "stop")

    async def close(self) -> None:
        """Holds nothing open."""


def is_held(job: Job) -> bool:
    """Whether models are to wait."""
    return Path(job.into + HOLD).exists()


def next_call(job: Job, step: int) -> Call:
    """Makes the call of a step."""
    call_id, word = f"call_{secrets.token_hex(4)}", job.plan[step]
    if word == "ask":
        return Call(call_id, "ask.helper", {"prompt": job.child.prompt})
    return Call(call_id, word, {"job": job.name, "step": step, "into": job.into, "pace_s": job.pace_s})


def heard(message: Message) -> str:
    """Reads what a call brought as one word."""
    try:
        said = json.loads(message.text)
    except ValueError:  # the answer of a child, in its own words
        return folded(message.text)
    if isinstance(said, dict) and "error" in said:
        reason = str(said["error"].get("reason"))
        return NO_OUTCOME.get(reason, f"failed:{reason}")
    return str(said)


async def act(what: str, job: str, step: int, into: str, pace_s: float) -> str:
    """Does what the tools do: the effect first, so that a kill can come between it and its outcome."""
    leave(into, what, job, step, current_invocation().key)
    await asyncio.sleep(pace_s)
    return outcome(job, step)


@tool(effect="pure", timeout_s=TIMEOUT_S)
async def look(job: str, step: int, into: str, pace_s: float) -> str:
    """Looks."""
    return await act("look", job, step, into, pace_s)


@tool(effect="idempotent", timeout_s=TIMEOUT_S)
async def mark(job: str, step: int, into: str, pace_s: float) -> str:
    """Does what may be repeated with the same key."""
    return await act("mark", job, step, into, pace_s)


@tool(effect="non_idempotent", timeout_s=TIMEOUT_S)
async def send(job: str, step: int, into: str, pace_s: float) -> str:
    """Does what must not be done twice."""
    return await act("send", job, step, into, pace_s)


@tool(effect="non_idempotent", timeout_s=TIMEOUT_S)
async def post(job: str, step: int, into: str, pace_s: float) -> str:
    """Does what must not be done twice, in the process of another agent."""
    return await act("post", job, step, into, pace_s)


OWN: tuple[LocalTool, ...] = (look, mark, send)
MODEL = JobModel()
courier = Agent("courier", "Do the job, alone.", tools=OWN, model=MODEL)
helper = Agent("helper", "Do the job that another agent hands over.", tools=(*OWN, post), model=MODEL)
trader = Agent("trader", "Do the job, with a neighbour.", tools=(*OWN, "post@^1"), delegates=("helper",), model=MODEL)
