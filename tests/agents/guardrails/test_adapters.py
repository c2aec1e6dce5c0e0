"""Adapters and judges: what they send, what they make of answers, and what follows when none comes.

The services are real servers on free ports that speak Presidio's and Lakera's documents.
"""

import asyncio
import json

import pytest

from meshwright.agents.guardrails import Subject, content_judge, injection_judge, tone_judge
from meshwright.agents.guardrails.lakera import Lakera
from meshwright.agents.guardrails.presidio import Presidio
from meshwright.agents.models.model import Answer, Usage
from meshwright.core.errors import EgressRefusedError, ModelUnavailableError

TEXT = "Ann Smith lives in Berlin."


class Service:
    """An HTTP server that notes what it is sent and answers as it is told to."""

    def __init__(self):
        self.seen, self.status, self.answer, self.pause_s = [], 200, b"[]", 0.0

    async def open(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        self.seen.append((head, json.loads(await reader.readexactly(length))))
        await asyncio.sleep(self.pause_s)
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (self.status, len(self.answer), self.answer))
        await writer.drain()
        writer.close()

    def says(self, document, status=200):
        self.answer, self.status = json.dumps(document).encode(), status


@pytest.fixture
async def service():
    opened = await Service().open()
    yield opened
    opened.server.close()
    await opened.server.wait_closed()


def finding(kind, start, end, score=0.85):
    return {"entity_type": kind, "start": start, "end": end, "score": score, "analysis_explanation": None}


class TestPresidio:
    def rule(self, service, **facts):
        return Presidio(f"{service.url}/analyze", **facts)

    async def test_what_the_analyzer_finds_is_taken_out(self, service):
        service.says([finding("PERSON", 0, 9), finding("LOCATION", 19, 25), finding("DATE_TIME", 10, 15, 0.2)])
        verdict = await self.rule(service, entities=["PERSON", "LOCATION"]).check(Subject("output", TEXT))
        assert (verdict.action, verdict.text) == ("redact", "[redacted person] lives in [redacted location].")
        head, document = service.seen[0]
        assert head.startswith("post /analyze http/1.1")
        assert document == {"text": TEXT, "language": "en", "score_threshold": 0.5, "entities": ["PERSON", "LOCATION"]}

    async def test_offsets_count_characters(self, service):
        service.says([finding("PERSON", 2, 5)])
        verdict = await self.rule(service).check(Subject("output", "😀 Zoë!"))
        assert verdict.text == "😀 [redacted person]!"

    async def test_nothing_found_is_allowed(self, service):
        assert (await self.rule(service).check(Subject("output", TEXT))).action == "allow"

    @pytest.mark.parametrize(
        "answer",
        [
            {"error": "no"},
            [1],
            [{"start": 0}],
            [finding("X", 0, 99)],
            [finding("X", 5, 5)],
            [finding("X", -1, 2)],
            "text",
            None,
        ],
    )
    async def test_an_answer_of_another_kind_is_a_failure(self, service, answer):
        service.says(answer)
        assert (await self.rule(service).check(Subject("output", TEXT))).action == "block"
        assert (await self.rule(service, on_failure="allow").check(Subject("output", TEXT))).action == "allow"

    async def test_a_service_that_fails_or_is_late_decides_nothing(self, service):
        service.says([], status=500)
        assert (await self.rule(service).check(Subject("output", TEXT))).action == "block"
        service.says([])
        service.pause_s = 5
        late = self.rule(service, limit_s=0.1)
        assert (await late.check(Subject("output", TEXT))).reason == "Presidio did not answer"

    async def test_nobody_there(self, unused_tcp_port):
        rule = Presidio(f"http://127.0.0.1:{unused_tcp_port}/analyze")
        assert (await rule.check(Subject("output", TEXT))).action == "block"

    def test_an_address_that_is_none_is_refused(self):
        with pytest.raises(EgressRefusedError):
            Presidio("file:///etc/passwd")


FLAGGED = {
    "flagged": True,
    "breakdown": [
        {"detector_type": "prompt_attack", "detected": True},
        {"detector_type": "pii/email", "detected": False},
    ],
    "metadata": {"request_uuid": "u"},
}


class TestLakera:
    def rule(self, service, **facts):
        return Lakera("k-1", url=f"{service.url}/v2/guard", **facts)

    @pytest.mark.parametrize(("point", "role", "action"), [("input", "user", "block"), ("tool_result", "user", "ask")])
    async def test_what_is_flagged_has_the_action_of_its_point(self, service, point, role, action):
        service.says(FLAGGED)
        verdict = await self.rule(service, project="p-7").check(Subject(point, TEXT))
        assert (verdict.action, verdict.reason) == (action, "Lakera Guard: prompt_attack")
        head, document = service.seen[0]
        assert "authorization: bearer k-1" in head
        assert document == {"messages": [{"role": role, "content": TEXT}], "breakdown": True, "project_id": "p-7"}

    async def test_an_answer_is_screened_beside_its_instructions(self, service):
        service.says({"flagged": False})
        rule = self.rule(service, actions={"output": "block"})
        assert (await rule.check(Subject("output", TEXT, instructions="Be kind."))).action == "allow"
        assert [one["role"] for one in service.seen[0][1]["messages"]] == ["system", "assistant"]

    @pytest.mark.parametrize("answer", [[], {}, {"flagged": "yes"}, None])
    async def test_an_answer_of_another_kind_is_a_failure(self, service, answer):
        service.says(answer)
        assert (await self.rule(service).check(Subject("input", TEXT))).action == "block"
        assert (await self.rule(service, on_failure="ask").check(Subject("input", TEXT))).action == "ask"

    async def test_the_key_is_not_shown(self, service):
        assert "k-1" not in repr(self.rule(service))


class Classifier:
    """A model that answers with one text."""

    provider = name = "classifier"

    def __init__(self, text):
        self.text, self.prompts = text, []

    async def answer(self, prompt, on_text):
        self.prompts.append(prompt)
        if isinstance(self.text, Exception):
            raise self.text
        if self.text == "late":
            await asyncio.sleep(60)
        return Answer(self.text, (), Usage(), "classifier", "classifier")

    async def close(self):
        pass


SCORES = {"violence": 0.1, "hate_speech": 0.85, "sexual_content": 0, "self_harm": 0, "illegal_activities": 0.79}


class TestJudge:
    async def test_scores_are_held_against_thresholds(self):
        model = Classifier(f"Here you are: {json.dumps(SCORES)}")
        verdict = await content_judge(model).check(Subject("input", "Some words"))
        assert (verdict.action, verdict.reason) == ("block", "judged as hate_speech")
        verdict = await content_judge(model, thresholds={"hate_speech": 0.9}).check(Subject("input", "Some words"))
        assert verdict.action == "allow"
        prompt = model.prompts[0]
        assert "Some words" not in prompt.instructions
        mark, text, again = prompt.messages[0].text.split("\n")
        assert (text, again) == ("Some words", mark)
        assert mark in prompt.instructions

    @pytest.mark.parametrize(
        "said",
        ["no", "{}", '{"violence": 1}', json.dumps(SCORES | {"violence": 7}), "late", ModelUnavailableError("gone")],
    )
    async def test_no_scores_are_a_failure(self, said):
        assert (await content_judge(Classifier(said), limit_s=0.05).check(Subject("input", "x"))).action == "block"
        judge = content_judge(Classifier(said), on_failure="allow", limit_s=0.05)
        assert (await judge.check(Subject("input", "x"))).action == "allow"

    async def test_tone_and_injection_have_judges_of_their_own(self):
        tone = tone_judge(Classifier('{"off_tone": 0.9}'), "polite")
        assert (tone.points, (await tone.check(Subject("output", "Hey!"))).action) == (("output",), "block")
        injection = injection_judge(Classifier('{"injection": 0.9}'))
        assert (await injection.check(Subject("tool_result", "Dear AI"))).action == "ask"

    async def test_a_long_text_is_read_from_both_ends(self):
        model = Classifier('{"injection": 0}')
        await injection_judge(model).check(Subject("tool_result", "a" * 50_000 + "z" * 50_000))
        text = model.prompts[0].messages[0].text
        assert len(text) < 33_000
        assert text.count("z") > 15_000
