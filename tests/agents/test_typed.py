"""Typed results: what is accepted as a schema, how answers are read, and what becomes of those that do not fit."""

import json

import grpc
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.agent import Agent
from meshwright.agents.typed import MAX_BYTES, MAX_CORRECTIONS, ResultType, correction, violated
from meshwright.core.canonical import from_struct
from meshwright.core.errors import InvalidRequestError, MeshError, SetupError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TAKEN_OVER
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskRequest,
)
from meshwright.registry import tool

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
RIGHT, WRONG = '{"city": "Bern", "people": 134000}', '{"city": 3, "people": 0}'
OPEN = ResultType.parse({"type": "object"})

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**52), 2**52) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class TestSchema:
    @pytest.mark.parametrize(
        ("schema", "field"),
        [
            ({}, "output_schema/type"),
            ({"type": "array"}, "output_schema/type"),
            ({"type": ["object", "null"]}, "output_schema/type"),
            ({"type": "object", "properties": 3}, "output_schema"),
            ({"type": "object", "$ref": "https://example.com/schema"}, "output_schema"),
            ({"type": "object", "properties": {"a": {"$id": "file:///etc/passwd"}}}, "output_schema"),
            ({"type": "object", "description": "x" * 70_000}, "output_schema"),
            ({"type": "object", "enum": [[[0]] * 40] * 40}, "output_schema"),
        ],
    )
    def test_a_schema_beyond_the_rules_is_refused_with_its_place(self, schema, field):
        with pytest.raises(InvalidRequestError) as refused:
            ResultType.parse(schema)
        assert set(refused.value.fields) == {field}

    def test_an_agent_with_such_a_schema_does_not_start(self):
        with pytest.raises(SetupError, match="agent typist: output_schema must be of type object"):
            Agent("typist", "Type.", output_schema={"type": "string"})
        with pytest.raises(SetupError, match="output_schema is no JSON"):
            Agent("typist", "Type.", output_schema={"type": "object", "required": {"city"}})


class TestReading:
    @given(st.dictionaries(st.text(), plain, max_size=4), st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```"]))
    def test_every_object_is_read_alone_and_between_fences(self, value, frame):
        text = json.dumps(value, ensure_ascii=False)
        reading = OPEN.read(frame.replace("{}", text))
        assert (reading.text, list(reading.violations)) == (text, [])
        assert reading.data == value

    @pytest.mark.parametrize(
        "text",
        [
            'Here it is:\n```json\n{"a": 1}\n```\nAnything else?',
            '```python\nprint()\n```\nand\n```JSON\n{"a": 1}\n```',
            '  {"a": 1}\n',
            '```json\n{"a": 1}',
        ],
    )
    def test_words_around_a_block_do_not_count(self, text):
        assert OPEN.read(text).data == {"a": 1}

    def test_fences_inside_of_the_json_are_text(self):
        text = json.dumps({"a": "```json\n{}\n```"})
        assert OPEN.read(text).text == OPEN.read(f"```json\n{text}\n```").text == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Bern.",
            "{",
            '{"a": 1} and more',
            '{"a": 1, "a": 2}',
            '{"a": NaN}',
            '{"a": 1e999}',
            "[" * 100_000,
            '{"a": ' * 30 + "1" + "}" * 30,
            "[]",
            '{"a": "\\ud800"}',
            f'{{"a": "{"x" * MAX_BYTES}"}}',
            "```" * 50_000,
            "```json\n" * 20_000,
        ],
    )
    def test_what_is_no_object_of_json_is_said(self, text):
        assert OPEN.read(text).violations

    def test_numbers_that_a_double_cannot_keep_are_text_in_the_data(self):
        reading = OPEN.read('{"n": 9007199254740993, "x": 1e17}')
        assert (reading.data, reading.text) == (
            {"n": 9007199254740993, "x": "1e17"},
            '{"n": 9007199254740993, "x": 1e17}',
        )


class TestCorrection:
    city = ResultType.parse(CITY)

    def test_every_violation_is_told_at_once(self):
        told = correction(self.city, WRONG, 0)
        assert told.reason == "OUTPUT_SCHEMA_VIOLATED"
        assert "/city: 3 is not of type" in told.text
        assert "/people: 0 is less than the minimum of 1" in told.text
        fields = violated(self.city.read(WRONG).violations).fields
        assert set(fields) == {"output_data/city", "output_data/people"}

    def test_many_and_long_violations_are_all_told_within_bounds(self):
        names = [f"{'x' * 60}{number}" for number in range(10)]
        schema = {"type": "object", "properties": {name: {"type": "string", "maxLength": 1} for name in names}}
        many = ResultType.parse(schema)
        told = correction(many, json.dumps(dict.fromkeys(names, "y" * 500)), 0).text
        assert all(f"/{name}: " in told for name in names)
        assert len(correction(ResultType.parse(CITY), json.dumps({"z" * 200_000: 1}), 0).text) < 9_000

    def test_an_answer_is_handed_back_twice_at_the_most(self):
        assert correction(self.city, WRONG, MAX_CORRECTIONS - 1)
        assert correction(self.city, WRONG, MAX_CORRECTIONS) is None

    def test_there_is_nothing_to_say_of_what_fits_or_is_not_typed(self):
        assert correction(self.city, RIGHT, 0) is None
        assert correction(None, WRONG, 0) is None


@tool(effect="pure")
def look() -> str:
    """Looks."""
    return "seen"


@pytest.fixture
def typist(mesh, dial):
    """Starts an agent on replies and connects to it."""

    async def started(*replies, name="typist", script_of="default", **fields):
        author = Agent(name, "Type.", tools=[look], **fields)
        script = json.dumps(
            {"agents": {script_of: [{"text": one} if isinstance(one, str) else one for one in replies]}}
        )
        return dial(await mesh.agent(author, script=script))

    return started


LOOK = {"text": "Let me look.", "tool_calls": [{"name": "look", "arguments": {}}]}


class TestTask:
    async def test_a_fitting_answer_is_output_and_data(self, typist, overheard):
        client = await typist(f"Sure!\n```json\n{RIGHT}\n```")
        prompts = overheard("typist")
        response = await client.run(output_schema=CITY)
        assert (response.status, response.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_STOP)
        assert response.output == RIGHT
        assert from_struct(response.output_data, "data") == json.loads(RIGHT)
        assert prompts[0].output_schema == CITY
        assert (await client.get(response.task_id)).output_data == response.output_data

    async def test_a_wrong_answer_is_handed_back_to_the_model(self, typist, overheard, kinds):
        client = await typist(WRONG, "Bern, I think.", RIGHT)
        prompts = overheard("typist")
        events = await client.steps(output_schema=CITY)
        assert kinds(events) == ["started", *["llm_call", "correction"] * 2, "llm_call", "result"]
        assert events[-1].result.output == RIGHT
        said = [(message.role, message.text) for message in prompts[2].messages]
        assert [role for role, _ in said] == ["user", "assistant", "user", "assistant", "user"]
        assert "/people: 0 is less than the minimum" in said[2][1]
        assert "cannot be read as JSON" in said[4][1]

    async def test_three_wrong_answers_fail_with_the_violations_of_the_last(self, typist):
        client = await typist("Bern.", "Bern!", WRONG)
        with structlog.testing.capture_logs() as told:
            response = await client.run(output_schema=CITY)
        (line,) = [line for line in told if line["event"] == "ended"]
        assert (line["log_level"], line["state"], line["reason"]) == ("warning", "FAILED", "OUTPUT_SCHEMA_VIOLATED")
        assert set(line) == {"log_level", "event", "task_id", "attempt", "state", "reason", "steps"}
        assert (response.status, response.finish_reason) == (TASK_STATUS_FAILED, FINISH_REASON_ERROR)
        error = MeshError.from_status(response.error)
        assert error.reason == "OUTPUT_SCHEMA_VIOLATED"
        assert set(error.fields) == {"output_data/city", "output_data/people"}
        assert (response.steps_used, response.output, response.HasField("output_data")) == (3, WRONG, False)

    async def test_a_wrong_answer_at_the_end_of_the_budget_is_no_success(self, typist):
        client = await typist(WRONG)
        response = await client.run(output_schema=CITY, max_steps=1)
        assert response.status == TASK_STATUS_FAILED
        assert MeshError.from_status(response.error).reason == "OUTPUT_SCHEMA_VIOLATED"

    async def test_a_budget_that_ends_before_an_answer_gives_no_data(self, typist):
        client = await typist(LOOK)
        response = await client.run(output_schema=CITY, max_steps=1)
        assert (response.status, response.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_MAX_STEPS)
        assert (response.output, response.HasField("output_data")) == ("Let me look.", False)

    async def test_tools_may_be_called_on_the_way(self, typist, kinds):
        client = await typist(LOOK, WRONG, LOOK, RIGHT)
        events = await client.steps(output_schema=CITY)
        call = ["llm_call", "tool_call", "tool_result"]
        assert kinds(events) == ["started", *call, "llm_call", "correction", *call, "llm_call", "result"]
        assert events[-1].result.output == RIGHT

    async def test_a_schema_that_is_none_is_refused_with_its_place(self, typist, refusal):
        client = await typist(RIGHT)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(output_schema={"type": "object", "$ref": "https://example.com/s"})
        error = refusal(refused.value)
        assert (error.reason, set(error.fields)) == ("INVALID_REQUEST", {"output_schema"})

    async def test_an_agent_may_always_give_typed_results(self, typist, mesh):
        client = await typist(WRONG, RIGHT, output_schema=CITY)
        assert (await client.run()).output == RIGHT
        card = await mesh.agents["typist"].registry.find("typist")
        assert from_struct(card.output_schema, "card") == CITY
        own = await client.run(output_schema={"type": "object"})
        assert own.output == WRONG

    async def test_a_delegate_with_a_schema_answers_in_json(self, typist, overheard):
        await typist(WRONG, RIGHT, name="helper", output_schema=CITY)
        asking = {"tool_calls": [{"name": "ask.helper", "arguments": {"prompt": "Where?"}}]}
        boss = await typist(asking, "Done.", name="boss", delegates=["helper"])
        prompts = overheard("boss")
        assert (await boss.run()).output == "Done."
        assert prompts[1].messages[-1].text == RIGHT

    async def test_a_successor_sees_the_conversation_with_its_corrections(
        self, typist, mesh, journal, made, store, overheard, kinds
    ):
        lived = await typist(WRONG, WRONG, RIGHT)
        events = await lived.steps(task_id="original", output_schema=CITY)
        await mesh.stop(mesh.agents["typist"])
        prefix = [event for event in events if event.sequence <= 5]
        assert kinds(prefix) == ["started", *["llm_call", "correction"] * 2]
        for event in prefix:
            event.ClearField("task_id")
            event.ClearField("sequence")
        request = TaskRequest(prompt="Go.", agent_id="typist", max_steps=10, token_budget=8192, output_schema=CITY)
        task = made.task(request=request, agent_id="typist")
        await journal.accept(task, claim=False)
        claim = (await journal.claim(0, "typist")).claim
        await journal.append(claim, "k", prefix)
        await store.client.zadd(partition_key(0, "leases"), {task.name.ref: 1})
        await journal.sweep(0)
        successor = await typist("asked anew", "asked anew", WRONG)
        response = await successor.ended("t1")
        assert (response.attempt, response.steps_used) == (2, 3)
        assert MeshError.from_status(response.error).reason == "OUTPUT_SCHEMA_VIOLATED"  # handed back twice before
        (notice,) = [event.notice for event in await successor.watch("t1") if event.HasField("notice")]
        assert notice.kind == NOTICE_KIND_TAKEN_OVER
