"""A chain of models: each is tried again where that can help, left alone while its circuit is open, then the next."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from meshwright.agents import spans
from meshwright.agents.models.candidate import Candidate
from meshwright.agents.models.model import Answer, OnText, Prompt
from meshwright.core import telemetry
from meshwright.core.breaker import Circuit
from meshwright.core.errors import (
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    ResultTooLargeError,
)
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_BREAKER_CLOSED,
    NOTICE_KIND_BREAKER_HALF_OPEN,
    NOTICE_KIND_BREAKER_OPEN,
    NOTICE_KIND_FELL_BACK,
    NOTICE_KIND_RETRIED,
    NoticeKind,
    RunnerNotice,
)

log = structlog.get_logger("models")
MOST_TRIES = 3
"""Times that one model is tried for one call, the first one included."""
PAUSE_S = 1.0
"""Upper bound of the random pause before the second try; the third one's is twice as long."""
LONGEST_WAIT_S = 20.0
"""A provider that asks for a longer pause gets no second try for this call."""
LONGEST_WAIT_BEFORE_OTHERS_S = 2.0
"""The same where another model stands ready."""

OnNotice = Callable[[RunnerNotice], Awaitable[None]]
"""Takes what the chain did, when it does it."""
FAILURES = (ModelUnavailableError, RateLimitedError, ResultTooLargeError, ModelRejectedError)
"""What a model may fail with, that which leaves the most open first; whatever else is raised is not the model's."""


class Failed(Exception):  # noqa: N818 - carries an error, and tells it from those that notices may raise
    """A model has failed.

    Attributes:
        error: As the model raised it.
    """

    def __init__(self, error: MeshError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Turn:
    """One model's turn for one call.

    Attributes:
        candidate: Whose.
        prompt: What it is asked.
        on_text: Takes its words.
        on_notice: Takes what is done for it.
        longest_wait_s: How long a pause may be that its provider asks for.
        ends: When its time is over, on the chain's clock.
        has_spoken: Words of it were passed on.
    """

    candidate: Candidate
    prompt: Prompt
    on_text: OnText
    on_notice: OnNotice
    longest_wait_s: float
    ends: float
    has_spoken: bool = False

    def pass_on(self, text: str) -> None:
        """Takes a piece of text."""
        self.has_spoken = True
        self.on_text(text)

    async def tell(self, kind: NoticeKind.ValueType, words: str) -> None:
        """Tells what is done with the model."""
        await self.on_notice(RunnerNotice(kind=kind, detail=f"{self.candidate.name} {words}"))


class Chain:
    """Asks models one after the other until one answers.

    Args:
        pause_s: Upper bound of the random pause before the second try; the third one's is twice as long.
        clock: Returns seconds that never go back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        *,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._sleep = sleep

    async def answer(
        self, candidates: Sequence[Candidate], prompt: Prompt, on_text: OnText, on_notice: OnNotice
    ) -> Answer:
        """Returns the answer of the first model that gives one.

        Once a model's words were passed on it is not asked again for the same call: the next model's words begin anew,
        after a notice of the kind FELL_BACK.

        Args:
            candidates: In this order, at least one.
            prompt: What is asked.
            on_text: Takes each piece of text while a model writes.
            on_notice: Takes what was done about failures, at once; whatever it raises ends the call.

        Raises:
            ModelUnavailableError: No model answers, or the only one is left alone after failures.
            RateLimitedError: The provider asks to slow down.
            ResultTooLargeError: No model keeps within the bounds of an answer.
            ModelRejectedError: Every model refuses the request for good.
        """
        failures: list[tuple[Candidate, MeshError]] = []
        for place, candidate in enumerate(candidates, 1):
            wait_s = LONGEST_WAIT_S if place == len(candidates) else LONGEST_WAIT_BEFORE_OTHERS_S
            ends = self._clock() + candidate.limits.timeout_s
            turn = Turn(candidate, candidate.fitted(prompt), on_text, on_notice, wait_s, ends)
            try:
                answer = await self._answered(turn)
            except Failed as failed:
                failures.append((candidate, failed.error))
                if place < len(candidates):
                    telemetry.MODEL_FALLBACKS.labels(candidate.name).inc()
                    words = f"does not answer: {failed}; {candidates[place].name} is asked instead"
                    await turn.tell(NOTICE_KIND_FELL_BACK, words)
            else:
                return replace(answer, is_degraded=True) if failures else answer
        raise failure_of(failures)

    async def _answered(self, turn: Turn) -> Answer:
        """Tries one model as often as that can help."""
        for number in range(2, MOST_TRIES + 1):
            try:
                return await self._tried(turn)
            except Failed as failed:
                if not self._may_help(turn, failed.error):
                    raise
                wait_s = self._wait_s(turn, failed.error, number)
                words = f"is tried again in {wait_s:.1f} s ({number} of {MOST_TRIES}): {failed}"
            await turn.tell(NOTICE_KIND_RETRIED, words)
            await self._sleep(wait_s)
        return await self._tried(turn)

    def _may_help(self, turn: Turn, error: MeshError) -> bool:
        """Whether another try makes sense: the failure may pass, soon enough, and nobody has read anything yet."""
        if not error.is_retryable or turn.has_spoken:
            return False
        wait_s = error.retry_after_s or 0.0
        is_soon = wait_s <= turn.longest_wait_s and wait_s < turn.ends - self._clock()
        return is_soon and turn.candidate.breaker.state is Circuit.CLOSED

    def _wait_s(self, turn: Turn, error: MeshError, number: int) -> float:
        """Returns the pause before a try: what the provider asks for, else a random one within the model's turn.

        Args:
            turn: The model's.
            error: What the try before failed with.
            number: The try's, from 2 on; the bound of the random pause doubles with each.
        """
        if error.retry_after_s is not None:
            return error.retry_after_s
        pause_s = random.uniform(0, self._pause_s * 2 ** (number - 2))  # noqa: S311 - no secret
        return min(pause_s, turn.ends - self._clock())

    async def _tried(self, turn: Turn) -> Answer:
        """Tries once, unless the circuit is open."""
        candidate, breaker = turn.candidate, turn.candidate.breaker
        epoch = breaker.enter()
        if epoch is None:
            left_s = breaker.retry_after_s
            often = f"has failed too often lately ({breaker.cause})"
            message = f"{candidate.name} {often}: it is left alone for {left_s:.1f} s more"
            raise Failed(ModelUnavailableError(message, retry_after_s=left_s))
        is_trial = breaker.state is Circuit.ON_TRIAL
        try:
            if is_trial:
                await turn.tell(NOTICE_KIND_BREAKER_HALF_OPEN, "was left alone, and is tried by this one call")
            answer = await self._timed(turn)
        except Failed as failed:
            telemetry.MODEL_TRIES.labels(candidate.name, failed.error.reason).inc()
            breaker.record(epoch, is_failure=failed.error.is_retryable)
            if breaker.state is Circuit.OPEN:
                alone = f"is left alone for {breaker.retry_after_s:.1f} s after {breaker.cause}"
                await turn.tell(NOTICE_KIND_BREAKER_OPEN, f"{alone}: {failed}")
            raise
        else:
            telemetry.MODEL_TRIES.labels(candidate.name, "OK").inc()
            breaker.record(epoch, is_failure=False)
            if is_trial:
                await turn.tell(NOTICE_KIND_BREAKER_CLOSED, "answers again")
            return answer
        finally:
            breaker.leave(epoch)

    async def _timed(self, turn: Turn) -> Answer:
        """Asks the provider once, and says when, and how that ended."""
        name, began = turn.candidate.name, time.perf_counter()
        log.debug("model_asked", model=name)
        outcome = "CANCELLED"
        try:
            answer = await self._asked(turn)
            telemetry.MODEL_SECONDS.labels(name).observe(time.perf_counter() - began)
        except Failed as failed:
            outcome = failed.error.reason
            raise
        else:
            outcome = "OK"
            return answer
        finally:
            log.debug("model_answered", model=name, outcome=outcome, ms=round((time.perf_counter() - began) * 1000))

    async def _asked(self, turn: Turn) -> Answer:
        """Asks the provider once, within what is left of the model's turn."""
        try:
            limit, asked = Limit(max(0.0, turn.ends - self._clock())), turn.candidate
            with limit, spans.model(asked.name, asked.model, turn.prompt) as current:
                answer = await asked.model.answer(turn.prompt, turn.pass_on)
                spans.answered(current, answer)
                return answer
        except TimeoutError:
            message = f"the model did not answer within {turn.candidate.limits.timeout_s:g} s"
            raise Failed(ModelUnavailableError(message)) from None
        except FAILURES as error:
            raise Failed(error) from None


def failure_of(failures: Sequence[tuple[Candidate, MeshError]]) -> MeshError:
    """Returns what a chain fails with: the only failure, or one for all of the kind that leaves the most open."""
    if len(failures) == 1:
        return failures[0][1]
    kind = next(kind for kind in FAILURES if any(isinstance(error, kind) for _, error in failures))
    told = "; ".join(f"{candidate.name}: {error.message}" for candidate, error in failures)
    waits = [error.retry_after_s for _, error in failures if error.retry_after_s is not None]
    return kind(f"no model answers: {told}", retry_after_s=min(waits, default=None))
