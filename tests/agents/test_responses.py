"""The response cache: an answer is given again where all it depends on is the same, and nothing else happened."""

import asyncio
import json
from dataclasses import dataclass

import grpc
import pytest

from meshwright.agents import responses
from meshwright.agents.agent import Agent
from meshwright.agents.guardrails.guardrail import Verdict
from meshwright.agents.models.chain import Chain
from meshwright.agents.models.model import Answer, Call, Usage
from meshwright.agents.responses import spelled
from meshwright.core import telemetry
from meshwright.core.errors import ModelUnavailableError, SetupError, StoreUnavailableError
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionRequest
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    FINISH_REASON_DEGRADED,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskRequest,
)
from meshwright.registry import tool

PROMPT = "What is the refund window?"
SECRET = "xylophone"


class Teller:
    """A model that numbers its answers; `plays` come first, an error is raised."""

    provider = "teller"

    def __init__(self, *plays, name="t-1"):
        self.name = name
        self.plays = list(plays)
        self.asked = 0

    async def answer(self, prompt, on_text):
        self.asked += 1
        play = self.plays.pop(0) if self.plays else f"Answer {self.asked}."
        if isinstance(play, Exception):
            raise play
        if isinstance(play, Answer):
            return play
        return Answer(play, (), Usage(100, 20), self.provider, self.name)

    async def close(self):
        pass


def wants(name, **arguments):
    return Answer("", (Call("c1", name, arguments),), Usage(10, 2), "teller", "t-1", "tool_calls")


@tool(effect="pure", name="look.up")
async def look_up() -> str:
    """Reads."""
    return "30 days"


@tool(effect="pure", name="look.fail")
async def look_fail() -> str:
    """Fails."""
    raise ValueError("no")


@tool(effect="idempotent", name="write.down")
async def write_down() -> str:
    """Writes."""
    return "written"


@dataclass(frozen=True)
class Rule:
    """A guardrail that does what its box says."""

    box: list
    name: str = "own"
    points: tuple = ("output",)

    def check(self, subject):
        return self.box[-1]


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(json.dumps({"t-1": {"input": 1_000_000, "output": 1_000_000}}))
    return str(path)


@pytest.fixture
def start(mesh, dial, prices):
    """Starts an agent with a cache; returns its client and its model."""

    async def started(*plays, name="clerk", model=None, **facts):
        model = model or Teller(*plays)
        agent = Agent(name, **({"instructions": "Answer.", "cache": "exact", "model": model} | facts))
        process = await mesh.agent(agent, prices=prices)
        process.router._chain = Chain(pause_s=0)
        return dial(process), model

    return started


@pytest.fixture
def submit(journal, made, becomes):
    """Has a task of another caller run, and returns its output."""

    async def submitted(task_id, *, tenant="default", principal="default", scopes=(), prompt=PROMPT):
        request = TaskRequest(prompt=prompt, agent_id="clerk", max_steps=10, token_budget=8192)
        request.timeout.FromSeconds(60)
        task = made.task(task_id, agent_id="clerk", request=request, scopes=scopes)
        object.__setattr__(task, "name", made.name(task_id, principal, tenant))
        await journal.accept(task, claim=False)

        async def has_ended():
            return (await journal.record(task.name)).state == "COMPLETED"

        await becomes(has_ended)
        return (await journal.response(task.name)).output

    return submitted


async def outputs(client, *prompts, **fields):
    return [(await client.run(prompt, **fields)).output for prompt in prompts]


async def everything(store):
    found = []
    async for key in store.client.scan_iter("*"):
        if b"{mesh}" not in key:
            dumped = await store.client.dump(key)
            found.append((key.decode(), dumped))
    return found


class TestExact:
    async def test_the_same_question_is_answered_without_a_model(self, start, kinds):
        client, model = await start()
        first = await client.run(PROMPT)
        events = await client.steps(PROMPT)
        assert model.asked == 1
        assert kinds(events) == ["started", "llm_call", "result"]
        said, again = events[-2].llm_call, events[-1].result
        assert (said.cached, said.provider, said.model, said.text) == (True, "teller", "t-1", first.output)
        assert said.routed_because == responses.BECAUSE
        assert (again.output, again.finish_reason, again.status) == (
            first.output,
            FINISH_REASON_STOP,
            TASK_STATUS_COMPLETED,
        )
        assert (first.usage.cost_micros, first.usage.model_calls) == (120, 1)
        for usage in (said.usage, again.usage, again.usage_shares[0].usage):
            assert (usage.cost_micros, usage.model_calls, usage.input_tokens, usage.output_tokens) == (0, 0, 0, 0)
            assert (usage.saved_cost_micros, usage.saved_tokens) == (120, 120)
        assert (again.steps_used, again.tokens_used, again.degraded) == (1, 0, False)
        assert (await client.get(again.task_id)).usage == again.usage

    async def test_by_default_every_question_goes_to_the_model(self, start, store):
        client, _ = await start(cache="off")
        assert await outputs(client, PROMPT, PROMPT) == ["Answer 1.", "Answer 2."]
        assert not [key async for key in store.client.scan_iter("*answer*")]

    async def test_who_wants_none_is_given_none_and_leaves_none(self, start):
        client, _ = await start()
        await client.run(PROMPT, no_cache=True)
        assert (await client.run(PROMPT)).output == "Answer 2."
        assert (await client.run(PROMPT, no_cache=True)).output == "Answer 3."
        assert (await client.run(PROMPT)).output == "Answer 2."

    async def test_an_answer_ends_with_its_time_and_is_not_renewed_by_being_given(self, start, becomes, store):
        client, _ = await start(cache_for_s=1)
        assert await outputs(client, PROMPT, PROMPT) == ["Answer 1.", "Answer 1."]

        async def is_gone():
            return not [key async for key in store.client.scan_iter("*answer*")]

        await becomes(is_gone)
        assert await outputs(client, PROMPT) == ["Answer 2."]

    @pytest.mark.parametrize(
        "other",
        [
            {"version": "1.0.1"},
            {"instructions": "Answer well."},
            {"model": Teller(name="t-2")},
            {"guardrails": ()},
            {"tools": [look_up]},
            {"output_schema": {"type": "object"}},
            {"cache_for_s": 60},
            {"cache_scope": "tenant"},
            {"context_window": 8_192},
        ],
        ids=lambda other: next(iter(other)),
    )
    async def test_another_agent_asks_another_question(self, start, mesh, store, other):
        client, model = await start()
        await client.run(PROMPT)
        await mesh.stop(mesh.agents.pop("clerk"))
        model = other.get("model") or Teller("{}", "{}")
        client, _ = await start(**(other | {"model": model}))
        await client.run(PROMPT)
        assert model.asked >= 1
        before = model.asked
        await client.run(PROMPT)
        assert model.asked == before

    @pytest.mark.parametrize(
        "fields", [{"prompt": PROMPT + " "}, {"model": "teller:t-1"}, {"allowed_tools": ["look.up"]}], ids=str
    )
    async def test_another_request_asks_another_question(self, start, fields):
        client, model = await start(tools=[look_up, write_down])
        await client.run(PROMPT)
        await client.run(**({"prompt": PROMPT} | fields))
        assert model.asked == 2

    async def test_an_answer_reaches_nobody_else(self, start, submit):
        await start()
        assert await submit("a1") == "Answer 1."
        assert await submit("b1", principal="bob") == "Answer 2."
        assert await submit("c1", tenant="acme") == "Answer 3."
        assert await submit("d1", scopes=("books.read",)) == "Answer 4."
        assert await submit("a2") == "Answer 1."
        assert await submit("b2", principal="bob") == "Answer 2."
        assert await submit("c2", tenant="acme") == "Answer 3."

    async def test_an_agent_whose_answers_are_the_same_for_all_gives_them_to_its_tenant_alone(self, start, submit):
        await start(cache_scope="tenant")
        assert await submit("a1") == "Answer 1."
        assert await submit("b1", principal="bob") == "Answer 1."
        assert await submit("c1", tenant="acme") == "Answer 2."

    async def test_within_a_session_the_whole_conversation_counts(self, start):
        client, _ = await start()
        first = await outputs(client, PROMPT, "And abroad?", session_id="s1")
        assert await outputs(client, PROMPT, "And abroad?", session_id="s2") == first
        assert await outputs(client, "And abroad?") == ["Answer 3."]

    async def test_pure_tools_may_be_used(self, start):
        client, model = await start(wants("look.up"), tools=[look_up])
        first = await client.run(PROMPT)
        again = await client.run(PROMPT)
        assert (again.output, again.tool_calls, model.asked) == (first.output, 0, 2)
        assert again.usage.saved_tokens == first.tokens_used

    async def test_hits_of_children_count_as_saved_above(self, start, mesh, dial):
        await start()
        asks = {"tool_calls": [{"name": "ask.clerk", "arguments": {"prompt": PROMPT}}]}
        script = json.dumps({"agents": {"boss": [asks, {"text": "So."}]}})
        boss = dial(await mesh.agent(Agent("boss", "Ask.", delegates=["clerk"], cache="exact"), script=script))
        await boss.run()
        again = await boss.run()  # who hands work on asks again; who was asked remembers
        assert (again.usage.saved_cost_micros, again.usage.model_calls) == (120, 2)


class TestWhatIsNotKept:
    @pytest.mark.parametrize(
        "first",
        [
            wants("write.down"),
            wants("look.fail"),
            wants("no.such"),
            Answer("Cut", (), Usage(1, 1), "teller", "t-1", "length"),
            "x" * (responses.MOST_ANSWER_BYTES + 1),
        ],
        ids=["effect", "failure", "refusal", "cut", "large"],
    )
    async def test_an_answer_that_left_more_behind(self, start, store, first):
        client, model = await start(first, tools=[look_up, look_fail, write_down])
        assert (await client.run(PROMPT)).status == TASK_STATUS_COMPLETED
        before = model.asked
        await client.run(PROMPT)
        assert model.asked == before + 1

    async def test_an_answer_for_which_a_person_was_asked(self, start):
        question = {"question": "Where?"}
        client, _ = await start(wants("ask.person", **question), asks_people=True)
        await client.submit(PROMPT, task_id="t1")
        (pending,) = await client.asked("t1")
        await client.resolve("t1", pending, DECISION_ANSWER, answer={"string_value": "Here."})
        await client.ended("t1")
        assert (await client.run(PROMPT)).output == "Answer 3."

    @pytest.mark.parametrize("verdict", [Verdict("redact", "r", "Less."), Verdict("ask", "why"), Verdict("block", "b")])
    async def test_an_answer_that_a_guardrail_touched(self, start, verdict):
        box = [verdict]
        client, _ = await start(guardrails=[Rule(box)])
        await client.submit(PROMPT, task_id="t1")
        if verdict.action == "ask":
            (pending,) = await client.asked("t1")
            await client.resolve("t1", pending, DECISION_APPROVE)
        await client.ended("t1")
        box.append(Verdict())
        assert (await client.run(PROMPT)).output == "Answer 2."

    async def test_an_answer_to_a_question_that_a_guardrail_changed(self, start):
        client, _ = await start(guardrails=[Rule([Verdict("redact", "r", "Less?")], points=("input",))])
        assert await outputs(client, PROMPT, PROMPT) == ["Answer 1.", "Answer 2."]

    async def test_an_answer_of_a_model_that_stood_in(self, start, mesh):
        client, model = await start(on_outage="degrade")
        model.plays = [ModelUnavailableError("down")] * 3
        assert (await client.run(PROMPT)).finish_reason == FINISH_REASON_DEGRADED
        model.plays = []
        assert (await client.run(PROMPT)).finish_reason == FINISH_REASON_STOP

    async def test_an_answer_made_with_what_the_agent_remembers(self, start):
        client, _ = await start(wants("memory.recall", about="refunds"), remembers=True)
        await client.run(PROMPT)
        assert (await client.run(PROMPT)).output == "Answer 3."


class TestHits:
    async def test_guardrails_look_at_it_again(self, start):
        box = [Verdict()]
        client, model = await start(guardrails=[Rule(box)])
        await client.run(PROMPT)
        box.append(Verdict("redact", "r", "Less."))
        assert (await client.run(PROMPT)).output == "Less."
        box.append(Verdict("block", "never"))
        blocked = await client.run(PROMPT)
        assert (blocked.status, blocked.output, model.asked) == (TASK_STATUS_FAILED, "", 1)

    async def deltas(self, client):
        events = [event async for event in client.agent.StreamSteps(TaskRequest(prompt=PROMPT))]
        answered = next(place for place, event in enumerate(events) if event.HasField("llm_call"))
        assert events[answered].llm_call.cached
        return [event.delta for event in events[:answered] if event.HasField("delta")]

    async def test_who_watches_reads_it_before_it_is_journaled_as_a_models_words(self, start):
        long = "It is thirty days. " * 500
        client, _ = await start(long)
        await client.run(PROMPT)
        deltas = await self.deltas(client)
        assert "".join(delta.text for delta in deltas) == long
        assert [delta.offset for delta in deltas][:1] == [0]
        assert len(deltas) <= 2

    async def test_who_watches_reads_no_more_of_it_than_guardrails_let_pass(self, start):
        box = [Verdict()]
        client, _ = await start(guardrails=[Rule(box)])
        await client.run(PROMPT)
        box.append(Verdict("redact", "r", "Less."))
        assert [delta.text for delta in await self.deltas(client)] == ["Less."]
        box.append(Verdict("block", "never"))
        assert await self.deltas(client) == []

    async def test_one_that_waits_for_a_person_goes_on_in_another_process(self, start, mesh, becomes):
        box = [Verdict()]
        client, model = await start(guardrails=[Rule(box)], version="1.0.0")
        await client.run(PROMPT)
        box.append(Verdict("ask", "look"))
        await client.submit(PROMPT, task_id="t1")
        (pending,) = await client.asked("t1")
        await mesh.stop(mesh.agents.pop("clerk"))
        other, fresh = await start(guardrails=[Rule(box)])
        await other.resolve("t1", pending, DECISION_APPROVE)
        ended = await other.ended("t1")
        assert (ended.output, ended.usage.saved_tokens, fresh.asked, model.asked) == ("Answer 1.", 120, 0, 1)

    async def test_typed_results_are_typed_again(self, start):
        client, model = await start('{"days": 30}', output_schema={"type": "object", "required": ["days"]})
        first = await client.run(PROMPT)
        again = await client.run(PROMPT)
        assert (again.output_data, model.asked) == (first.output_data, 1)
        assert again.output_data["days"] == 30

    async def test_money_that_was_set_aside_is_free_again(self, start):
        client, model = await start()
        await client.run(PROMPT, cost_budget_micros=10**9)
        again = await client.run(PROMPT, cost_budget_micros=10**9)
        assert (again.usage.cost_micros, again.usage.estimated_cost_micros, model.asked) == (0, 0, 1)

    async def test_a_cache_that_fails_or_hangs_costs_nobody_an_answer(self, start, mesh, monkeypatch):
        client, _ = await start()
        cache = mesh.agents["clerk"].responses._answers

        async def fails(*_):
            raise StoreUnavailableError("gone")

        monkeypatch.setattr(cache, "find", fails)
        monkeypatch.setattr(cache, "keep", fails)
        assert (await client.run(PROMPT)).output == "Answer 1."
        monkeypatch.setattr(responses, "PATIENCE_S", 0.05)

        async def hangs(*_):
            await asyncio.Event().wait()

        monkeypatch.setattr(cache, "find", hangs)
        monkeypatch.setattr(cache, "keep", hangs)
        assert (await client.run(PROMPT)).output == "Answer 2."


class TestMetrics:
    async def test_looks_and_what_they_saved_are_counted(self, start):
        client, _ = await start(name="counted", cache="semantic")
        await outputs(client, PROMPT, PROMPT, "what's the refund window, please?")
        found = {word: telemetry.RESPONSES.labels("counted", word)._value.get() for word in ("miss", "hit", "alike")}
        assert found == {"miss": 1, "hit": 1, "alike": 1}
        assert telemetry.SAVED.labels("counted")._value.get() == 240


class TestOutage:
    async def fail(self, model):
        model.plays = [ModelUnavailableError("down")] * 9

    async def test_an_answer_that_is_too_old_stands_in_where_no_model_answers(self, start, store, becomes):
        client, model = await start(on_outage="degrade", outage_text="Call 555.", cache_for_s=1)
        first = await client.run(PROMPT)
        (key,) = [key async for key in store.client.scan_iter("*:answer:*")]

        async def is_stale():
            return await store.client.pttl(key) <= responses.STALE_MS

        await becomes(is_stale)
        await self.fail(model)
        result = await client.run(PROMPT)
        assert (result.output, result.finish_reason, result.degraded) == (first.output, FINISH_REASON_DEGRADED, True)
        assert (await client.run("What else?")).output == "Call 555."

    async def test_where_one_answers_it_is_asked(self, start, store, becomes):
        client, _ = await start(on_outage="degrade", cache_for_s=1)
        await client.run(PROMPT)
        (key,) = [key async for key in store.client.scan_iter("*:answer:*")]

        async def is_stale():
            return await store.client.pttl(key) <= responses.STALE_MS

        await becomes(is_stale)
        assert await outputs(client, PROMPT, PROMPT) == ["Answer 2.", "Answer 2."]

    async def test_guardrails_look_at_it_too(self, start, store, becomes):
        box = [Verdict()]
        client, model = await start(on_outage="degrade", cache_for_s=1, guardrails=[Rule(box)])
        await client.run(PROMPT)
        (key,) = [key async for key in store.client.scan_iter("*:answer:*")]

        async def is_stale():
            return await store.client.pttl(key) <= responses.STALE_MS

        await becomes(is_stale)
        await self.fail(model)
        box.append(Verdict("redact", "r", "Less."))
        assert (await client.run(PROMPT)).output == "Less."


class TestSemantic:
    async def test_a_question_that_is_put_in_another_way_has_the_same_answer(self, start):
        client, model = await start(cache="semantic")
        events = await client.steps(PROMPT)
        events = await client.steps("what's the refund window, please?")
        assert (events[-1].result.output, model.asked) == ("Answer 1.", 1)
        assert events[-2].llm_call.routed_because.startswith(responses.BECAUSE_ALIKE)
        assert events[-1].result.usage.saved_cost_micros == 120

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("the revenue of 2023", "the revenue of 2024"),
            ("is the pump in the cellar safe", "is the pump in the cellar not safe"),
            ("what does Alice pay for it", "what does Bob pay for it"),
            ("does the tenant pay the landlord", "does the landlord pay the tenant"),
        ],
    )
    async def test_one_that_turns_on_another_word_has_its_own(self, start, one, other):
        client, _ = await start(cache="semantic", cache_threshold=0.5)
        assert await outputs(client, one, other, one) == ["Answer 1.", "Answer 2.", "Answer 1."]

    async def test_within_a_conversation_and_beyond_a_length_only_the_same_counts(self, start):
        client, model = await start(cache="semantic")
        await outputs(client, "Hello there.", PROMPT, session_id="s1")
        await outputs(client, "Hello there.", "what's the refund window, please?", session_id="s2")
        assert model.asked == 3
        long = "word " * 500
        await outputs(client, long, long + "please")
        assert model.asked == 5

    async def test_an_embedder_that_fails_leaves_the_same_question(self, start, mesh, monkeypatch):
        client, _ = await start(cache="semantic")

        async def fails(*_):
            raise ModelUnavailableError("down")

        monkeypatch.setattr(mesh.agents["clerk"].embedder, "embed", fails)
        assert await outputs(client, PROMPT, PROMPT) == ["Answer 1.", "Answer 1."]

    async def test_others_are_not_compared(self, start, submit):
        await start(cache="semantic")
        assert await submit("a1") == "Answer 1."
        assert await submit("b1", principal="bob", prompt="what's the refund window?") == "Answer 2."
        assert await submit("a2", prompt="what's the refund window?") == "Answer 1."


class TestErasure:
    @pytest.mark.parametrize("facts", [{}, {"cache_scope": "tenant"}, {"cache": "semantic"}], ids=str)
    async def test_answers_go_with_the_session_they_came_from(self, start, mesh, store, facts):
        client, _ = await start(f"The word is {SECRET}.", **facts)
        await client.run(PROMPT, session_id="s1")
        async with grpc.aio.insecure_channel(mesh.agents["clerk"].server.target) as channel:
            await SessionServiceStub(channel).DeleteSession(DeleteSessionRequest(session_id="s1"))
        left = await everything(store)
        assert not [key for key, dumped in left if SECRET.encode() in dumped]
        assert not [key for key, _ in left if "answer" in key or "vectors" in key or "ages" in key]
        assert (await client.run(PROMPT)).output == "Answer 2."

    async def test_those_of_its_children_go_too(self, start, mesh, dial, store):
        await start(f"The word is {SECRET}.")
        asks = {"tool_calls": [{"name": "ask.clerk", "arguments": {"prompt": PROMPT}}]}
        script = json.dumps({"agents": {"boss": [asks, {"text": "So."}]}})
        boss = await mesh.agent(Agent("boss", "Ask.", delegates=["clerk"]), script=script)
        await dial(boss).run(session_id="s1")
        assert [key async for key in store.client.scan_iter("*:answer:*")]
        async with grpc.aio.insecure_channel(boss.server.target) as channel:
            await SessionServiceStub(channel).DeleteSession(DeleteSessionRequest(session_id="s1"))
        assert not [key async for key in store.client.scan_iter("*answer*")]


class TestPolicy:
    @pytest.mark.parametrize(
        "facts",
        [
            {"cache": "on"},
            {"cache_scope": "all"},
            {"cache_for_s": 0},
            {"cache_for_s": 31 * 86_400},
            {"cache_threshold": 0.1},
            {"cache_threshold": 1.1},
            {"cache_threshold": float("nan")},
        ],
    )
    def test_what_is_no_policy_is_refused(self, facts):
        with pytest.raises(SetupError, match=next(iter(facts))):
            Agent("a", "Work.", **facts)

    def test_guardrails_are_told_apart_by_their_settings_in_every_process_alike(self):
        class Plain:
            name, points = "plain", ("output",)

            def __init__(self, most):
                self.most = most

            def check(self, subject):
                return Verdict()

        assert spelled(Plain(1)) == spelled(Plain(1))
        assert spelled(Plain(1)) != spelled(Plain(2))
        assert spelled(Rule([], points=("input",))) != spelled(Rule([]))
        assert " at 0x" not in spelled(Rule([object()]))
