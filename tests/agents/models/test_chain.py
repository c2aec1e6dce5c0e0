"""The chain: what is tried again, when a model is left alone, which one answers instead, and what is told of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from meshwright.agents.models.candidate import Candidate, Limits, candidate
from meshwright.agents.models.chain import (
    LONGEST_WAIT_BEFORE_OTHERS_S,
    LONGEST_WAIT_S,
    MOST_TRIES,
    PAUSE_S,
    Chain,
)
from meshwright.agents.models.model import Answer, Message, OnText, Prompt, Usage
from meshwright.agents.models.openai import OpenAIModel
from meshwright.core import telemetry
from meshwright.core.breaker import FEWEST_CALLS, OPEN_S, Circuit
from meshwright.core.errors import (
    FencedError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    ResultTooLargeError,
)
from meshwright.gen.agents.v1.step_event_pb2 import NoticeKind, RunnerNotice

PROMPT = Prompt("a", "Be brief.", (Message("user", "What is Valkey?"),))


class Spoken:
    """A reply: words, then a failure if there is one."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error


def down(retry_after_s: float | None = None) -> Spoken:
    return Spoken(error=ModelUnavailableError("no answer", retry_after_s=retry_after_s))


def limited(retry_after_s: float | None = None) -> Spoken:
    return Spoken(error=RateLimitedError("slow down", retry_after_s=retry_after_s))


REJECTED = Spoken(error=ModelRejectedError("wrong key"))
HELLO = Spoken("Hel", "lo")


class Played:
    """A model that plays replies; the last one repeats."""

    def __init__(self, name: str, replies: Iterable[Spoken]) -> None:
        self.name = name
        self.provider = "played"
        self.replies = list(replies)
        self.prompts: list[Prompt] = []

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        self.prompts.append(prompt)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        for piece in reply.pieces:
            on_text(piece)
        if reply.error:
            raise reply.error
        return Answer("".join(reply.pieces), (), Usage(1, 1), self.provider, self.name)

    async def close(self) -> None:
        """Holds nothing open."""


Ask = Callable[[], Awaitable[str]]


async def unheard(notice: RunnerNotice) -> None:
    """Is told what nobody looks at."""


class Bench:
    """A chain on a clock of the test; every pause moves the clock on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.pieces: list[str] = []
        self.told: list[RunnerNotice] = []
        self.models: list[Played] = []
        self.candidates: list[Candidate] = []
        self.chain = Chain(clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def model(self, *replies: Spoken, limits: Limits | None = None) -> Played:
        model = Played(f"m{len(self.models)}", replies)
        self.models.append(model)
        self.candidates.append(candidate(model, limits=limits, clock=lambda: self.now))
        return model

    async def notice(self, notice: RunnerNotice) -> None:
        self.told.append(notice)

    async def ask(self, prompt: Prompt = PROMPT) -> Answer:
        return await self.chain.answer(self.candidates, prompt, self.pieces.append, self.notice)

    async def failure(self) -> MeshError:
        with pytest.raises(MeshError) as caught:
            await self.ask()
        return caught.value

    @property
    def kinds(self) -> list[str]:
        kinds = [NoticeKind.Name(notice.kind).removeprefix("NOTICE_KIND_") for notice in self.told]
        self.told.clear()
        return kinds

    @property
    def asked(self) -> list[int]:
        return [len(model.prompts) for model in self.models]

    @property
    def circuit(self) -> Circuit:
        return self.candidates[0].breaker.state


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestTries:
    async def test_an_answer_is_passed_on_as_it_is(self, bench: Bench) -> None:
        bench.model(HELLO)
        answer = await bench.ask()
        assert (answer.text, answer.is_degraded, bench.pieces) == ("Hello", False, ["Hel", "lo"])
        assert (bench.kinds, bench.pauses) == ([], [])

    @pytest.mark.parametrize("failure", [down(), limited()])
    async def test_a_failure_that_may_pass_is_tried_again_after_a_random_and_growing_pause(
        self, bench: Bench, failure: Spoken
    ) -> None:
        bench.model(failure, failure, HELLO)
        assert (await bench.ask()).text == "Hello"
        assert len(bench.pauses) == 2
        assert 0 <= bench.pauses[0] <= PAUSE_S
        assert 0 <= bench.pauses[1] <= 2 * PAUSE_S
        assert "played:m0 is tried again in" in bench.told[0].detail
        assert "(2 of 3)" in bench.told[0].detail
        assert bench.kinds == ["RETRIED", "RETRIED"]

    async def test_pauses_differ(self, bench: Bench) -> None:
        bench.model(down(), HELLO)
        for _ in range(8):
            bench.models[0].replies = [down(), HELLO]
            await bench.ask()
            bench.now += 60
        assert len(set(bench.pauses)) > 1

    async def test_a_model_that_keeps_failing_is_asked_three_times(self, bench: Bench) -> None:
        bench.model(down())
        failure = await bench.failure()
        assert (type(failure), failure.message) == (ModelUnavailableError, "no answer")
        assert bench.asked == [MOST_TRIES]

    async def test_a_provider_is_left_alone_as_long_as_it_asks(self, bench: Bench) -> None:
        bench.model(limited(7.5), HELLO)
        await bench.ask()
        assert bench.pauses == [7.5]

    async def test_a_long_wish_is_reported_at_once(self, bench: Bench) -> None:
        bench.model(limited(LONGEST_WAIT_S + 1))
        failure = await bench.failure()
        assert (type(failure), failure.retry_after_s) == (RateLimitedError, LONGEST_WAIT_S + 1)
        assert (bench.asked, bench.pauses) == ([1], [])

    async def test_a_refusal_for_good_is_not_repeated(self, bench: Bench) -> None:
        bench.model(REJECTED)
        assert type(await bench.failure()) is ModelRejectedError
        assert bench.asked == [1]

    async def test_a_turn_has_its_time_all_tries_and_pauses_together(self, bench: Bench) -> None:
        bench.model(limited(4), limits=Limits(timeout_s=5))
        await bench.failure()
        assert bench.asked == [2]
        assert bench.pauses == [4]

    async def test_a_model_that_does_not_answer_in_time_has_failed(self, bench: Bench) -> None:
        model = bench.model(HELLO, limits=Limits(timeout_s=0.05))

        async def stall(prompt: Prompt, on_text: OnText) -> Answer:
            bench.now += 0.05
            await asyncio.sleep(60)
            raise AssertionError

        model.answer = stall  # type: ignore[method-assign]
        failure = await bench.failure()
        assert failure.message == "the model did not answer within 0.05 s"
        assert isinstance(failure, ModelUnavailableError)

    async def test_what_is_no_failure_of_the_model_passes_through(self, bench: Bench) -> None:
        bench.model(Spoken(error=RuntimeError("a bug")))
        bench.model(HELLO)
        with pytest.raises(RuntimeError):
            await bench.ask()
        assert bench.asked == [1, 0]

    @pytest.mark.parametrize("error", [FencedError("another process owns it"), ResultTooLargeError("journal full")])
    async def test_what_notices_raise_ends_the_call(self, bench: Bench, error: MeshError) -> None:
        bench.model(down())
        bench.model(HELLO)

        async def fenced(notice: RunnerNotice) -> None:
            raise error

        with pytest.raises(type(error)):
            await bench.chain.answer(bench.candidates, PROMPT, bench.pieces.append, fenced)
        assert bench.asked == [1, 0]


class TestFallback:
    async def test_the_next_model_answers_and_the_answer_says_so(self, bench: Bench) -> None:
        bench.model(down())
        bench.model(HELLO)
        answer = await bench.ask()
        assert (answer.model, answer.is_degraded) == ("m1", True)
        assert bench.told[-1].detail == "played:m0 does not answer: no answer; played:m1 is asked instead"
        assert bench.kinds == ["RETRIED", "RETRIED", "FELL_BACK"]

    @pytest.mark.parametrize("reply", [REJECTED, limited(LONGEST_WAIT_BEFORE_OTHERS_S + 0.1)])
    async def test_nobody_waits_for_what_another_model_can_do_now(self, bench: Bench, reply: Spoken) -> None:
        bench.model(reply)
        bench.model(HELLO)
        assert (await bench.ask()).model == "m1"
        assert (bench.asked, bench.pauses, bench.kinds) == ([1, 1], [], ["FELL_BACK"])

    async def test_an_answer_without_bounds_is_not_asked_for_again(self, bench: Bench) -> None:
        bench.model(Spoken(error=ResultTooLargeError("more than 16 MiB")))
        bench.model(HELLO)
        assert (await bench.ask()).model == "m1"
        assert bench.asked == [1, 1]

    async def test_words_that_were_passed_on_are_never_asked_for_again(self, bench: Bench) -> None:
        bench.model(Spoken("Half an", error=ModelUnavailableError("broke off")))
        bench.model(HELLO)
        answer = await bench.ask()
        assert (answer.text, bench.asked) == ("Hello", [1, 1])
        assert bench.pieces == ["Half an", "Hel", "lo"]
        assert bench.kinds == ["FELL_BACK"]

    async def test_without_another_model_half_an_answer_is_a_failure(self, bench: Bench) -> None:
        bench.model(Spoken("Half an", error=ModelUnavailableError("broke off")))
        assert (await bench.failure()).message == "broke off"
        assert bench.asked == [1]

    async def test_when_nobody_answers_the_error_says_so_of_each(self, bench: Bench) -> None:
        bench.model(REJECTED)
        bench.model(limited(30))
        bench.model(limited(25))
        failure = await bench.failure()
        assert type(failure) is RateLimitedError
        assert failure.message == ("no model answers: played:m0: wrong key; played:m1: slow down; played:m2: slow down")
        assert failure.retry_after_s == 25

    async def test_when_all_refuse_the_failure_is_for_good(self, bench: Bench) -> None:
        bench.model(REJECTED)
        bench.model(REJECTED)
        assert type(await bench.failure()) is ModelRejectedError

    async def test_a_model_gets_no_more_room_than_it_has(self, bench: Bench) -> None:
        bench.model(down(), limits=Limits(max_output=100))
        bench.model(HELLO, limits=Limits(context_window=50))
        await bench.ask()
        assert [model.prompts[0].max_output_tokens for model in bench.models] == [100, 50 - 7]


class TestBreaker:
    async def test_down_open_half_open_closed(self, bench: Bench) -> None:
        bench.model(down())
        bench.model(HELLO)
        await bench.ask()
        assert (bench.circuit, bench.asked, bench.kinds) == (
            Circuit.CLOSED,
            [3, 1],
            ["RETRIED", "RETRIED", "FELL_BACK"],
        )
        await bench.ask()
        assert bench.asked == [FEWEST_CALLS, 2]
        assert (bench.circuit, bench.kinds) == (Circuit.OPEN, ["RETRIED", "BREAKER_OPEN", "FELL_BACK"])
        assert telemetry.MODEL_CIRCUIT.labels("played:m0")._value.get() == Circuit.OPEN
        await bench.ask()
        assert (bench.asked, bench.kinds) == ([FEWEST_CALLS, 3], ["FELL_BACK"])
        bench.now += OPEN_S
        await bench.ask()
        assert bench.asked == [FEWEST_CALLS + 1, 4]
        assert (bench.circuit, bench.kinds) == (Circuit.OPEN, ["BREAKER_HALF_OPEN", "BREAKER_OPEN", "FELL_BACK"])
        bench.now += OPEN_S
        bench.models[0].replies = [HELLO]
        answer = await bench.ask()
        assert (answer.model, answer.is_degraded) == ("m0", False)
        assert (bench.circuit, bench.kinds) == (Circuit.CLOSED, ["BREAKER_HALF_OPEN", "BREAKER_CLOSED"])
        assert telemetry.MODEL_CIRCUIT.labels("played:m0")._value.get() == Circuit.CLOSED
        await bench.ask()
        assert (bench.kinds, bench.asked) == ([], [FEWEST_CALLS + 3, 4])

    async def test_the_only_model_is_left_alone_too_and_the_error_says_for_how_long(self, bench: Bench) -> None:
        bench.model(down())
        await bench.failure()
        await bench.failure()
        bench.now += 1
        failure = await bench.failure()
        assert (type(failure), failure.retry_after_s) == (ModelUnavailableError, OPEN_S - 1)
        assert "left alone for 9.0 s more" in failure.message
        assert bench.asked == [FEWEST_CALLS]

    async def test_refusals_open_no_circuit(self, bench: Bench) -> None:
        bench.model(REJECTED)
        for _ in range(3 * FEWEST_CALLS):
            await bench.failure()
        assert bench.circuit is Circuit.CLOSED

    async def test_of_many_calls_at_once_one_makes_the_trial(self, bench: Bench) -> None:
        bench.model(down())
        bench.model(HELLO)
        await bench.ask()
        await bench.ask()
        bench.now += OPEN_S
        released = asyncio.Event()
        asked = bench.asked[0]

        async def slow(prompt: Prompt, on_text: OnText) -> Answer:
            bench.models[0].prompts.append(prompt)
            await released.wait()
            return Answer("Late.", (), Usage(), "played", "m0")

        bench.models[0].answer = slow  # type: ignore[method-assign]
        calls = [asyncio.create_task(bench.ask()) for _ in range(10)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 9:
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
        released.set()
        answers = await asyncio.gather(*calls)
        assert [answer.model for answer in answers].count("m0") == 1
        assert bench.asked[0] == asked + 1
        assert bench.circuit is Circuit.CLOSED

    async def test_a_trial_that_is_cancelled_makes_room_for_another(self, bench: Bench) -> None:
        bench.model(down())
        await bench.failure()
        await bench.failure()
        bench.now += OPEN_S
        entered = asyncio.Event()

        async def stall(prompt: Prompt, on_text: OnText) -> Answer:
            entered.set()
            await asyncio.sleep(60)
            raise AssertionError

        played = bench.models[0].answer
        bench.models[0].answer = stall  # type: ignore[method-assign]
        call = asyncio.create_task(bench.ask())
        await entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        bench.models[0].answer = played  # type: ignore[method-assign]
        bench.models[0].replies = [HELLO]
        assert (await bench.ask()).text == "Hello"


class TestOverHttp:
    @pytest.fixture
    async def asked(self, openai_server: Any) -> AsyncIterator[Ask]:
        """Asks a server of chat completions by a chain of one, and returns the answer's text."""
        model = OpenAIModel("small", openai_server.url, "")
        chain = Chain(pause_s=0.01)

        async def ask() -> str:
            return (await chain.answer([candidate(model)], PROMPT, lambda _: None, unheard)).text

        yield ask
        await model.close()

    async def test_a_failing_server_is_asked_again_and_then_answers(self, openai_server: Any, asked: Ask) -> None:
        openai_server.fails(500)
        openai_server.says("Here.")
        assert await asked() == "Here."
        assert len(openai_server.requests) == 2

    async def test_a_server_that_keeps_failing_is_asked_three_times(self, openai_server: Any, asked: Ask) -> None:
        openai_server.fails(503, headers={"retry-after": "0"})
        with pytest.raises(ModelUnavailableError, match="small failed"):
            await asked()
        assert len(openai_server.requests) == MOST_TRIES

    async def test_a_rate_limit_is_waited_for_as_long_as_the_server_asks(self, openai_server: Any, asked: Ask) -> None:
        openai_server.fails(429, headers={"retry-after-ms": "150"})
        openai_server.says("Here.")
        began = time.monotonic()
        assert await asked() == "Here."
        assert time.monotonic() - began >= 0.15

    async def test_a_rate_limit_that_lasts_long_is_reported_at_once(self, openai_server: Any, asked: Ask) -> None:
        openai_server.fails(429, "slow down", headers={"retry-after": "60"})
        with pytest.raises(RateLimitedError, match="slow down") as limit:
            await asked()
        assert (limit.value.retry_after_s, len(openai_server.requests)) == (60, 1)

    async def test_a_stream_that_breaks_off_before_any_text_is_asked_for_again(
        self, openai_server: Any, asked: Ask
    ) -> None:
        openai_server.streams(openai_server.chunk({"role": "assistant", "content": ""}), is_done=False, is_cut=True)
        openai_server.says("Here.")
        assert await asked() == "Here."


REPLIES: Callable[[], st.SearchStrategy[Any]] = lambda: st.one_of(  # noqa: E731 - drawn anew for each model
    st.just(HELLO),
    st.just(REJECTED),
    st.builds(down, st.one_of(st.none(), st.floats(0, 40))),
    st.builds(limited, st.one_of(st.none(), st.floats(0, 40))),
    st.just(Spoken("Half", error=ModelUnavailableError("broke off"))),
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(REPLIES(), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 6))
def test_whatever_fails_a_call_ends_in_its_time_and_shows_no_models_words_twice(
    scripts: list[list[Spoken]], calls: int
) -> None:
    async def run() -> None:
        bench = Bench()
        for script in scripts:
            bench.model(*script)
        for _ in range(calls):
            began, before = bench.now, bench.asked
            bench.pieces.clear()
            bench.told.clear()
            answer = None
            with contextlib.suppress(ModelUnavailableError, RateLimitedError, ModelRejectedError):
                answer = await bench.ask()
            tries = [now - then for now, then in zip(bench.asked, before, strict=True)]
            assert max(tries) <= MOST_TRIES
            assert bench.now - began <= sum(one.limits.timeout_s for one in bench.candidates)
            assert bench.pieces.count("Hel") <= 1
            assert bench.pieces.count("Half") <= len(scripts)
            fallbacks = bench.kinds.count("FELL_BACK")
            if answer:
                assert "".join(bench.pieces).endswith("Hello")
                assert answer.is_degraded == (fallbacks > 0)
                assert answer.model == f"m{fallbacks}"
            else:
                assert fallbacks == len(scripts) - 1

    asyncio.run(run())


async def test_each_try_is_logged_at_debug_with_how_it_ended_and_none_of_its_words(bench: Bench) -> None:
    bench.model(down(), HELLO)
    with structlog.testing.capture_logs() as told:
        await bench.ask()
    assert [(line["log_level"], line["event"], line["model"], line.get("outcome")) for line in told] == [
        ("debug", "model_asked", "played:m0", None),
        ("debug", "model_answered", "played:m0", "MODEL_UNAVAILABLE"),
        ("debug", "model_asked", "played:m0", None),
        ("debug", "model_answered", "played:m0", "OK"),
    ]
    assert all(set(line) <= {"log_level", "event", "model", "outcome", "ms"} for line in told)
