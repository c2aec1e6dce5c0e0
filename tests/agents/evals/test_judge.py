"""The judge: a model's word on a rubric, and nothing but that."""

import pytest

from meshwright.agents.evals import judge as judges
from meshwright.agents.evals.judge import Judge
from meshwright.agents.models.model import Answer, Usage
from meshwright.core.errors import ModelUnavailableError


class Saying:
    """A model that says one thing, and keeps what it was asked."""

    provider = name = "saying"

    def __init__(self, text="", error=None):
        self.text, self.error, self.prompts = text, error, []

    async def answer(self, prompt, on_text):
        self.prompts.append(prompt)
        if self.error:
            raise self.error
        return Answer(self.text, (), Usage(), self.provider, self.name)

    async def close(self):
        self.prompts.clear()


@pytest.mark.parametrize(
    ("said", "objection"),
    [
        ("PASS\nIt is polite.", ""),
        ("**PASS**", ""),
        ("FAIL\nIt is\nrude.", "the judge objects: It is rude."),
        ("FAIL", "the judge objects: no reason given"),
        ("PASSABLE", "the judge said neither PASS nor FAIL: 'PASSABLE'"),
        ("I think it may pass.", "the judge said neither PASS nor FAIL: 'I think it may pass.'"),
    ],
)
async def test_only_a_plain_pass_passes(said, objection):
    assert await Judge(Saying(said)).objection("Polite?", "Go.", "Please.") == objection


async def test_rubric_prompt_and_answer_are_shown_apart_and_bounded():
    model = Saying("PASS")
    await Judge(model).objection("Polite?", "Go.", "x" * 100_000)
    (prompt,) = model.prompts
    assert "data" in prompt.instructions
    assert "<rubric>\nPolite?\n</rubric>\n<prompt>\nGo.\n</prompt>\n<answer>\nxxx" in prompt.messages[0].text
    assert len(prompt.messages[0].text) < judges.LONGEST + 200


async def test_a_judge_that_fails_or_is_silent_lets_nothing_pass(monkeypatch):
    failing = Judge(Saying(error=ModelUnavailableError("no instance is up")))
    assert await failing.objection("Polite?", "Go.", "Please.") == "the judge failed: no instance is up"
    monkeypatch.setattr(judges, "LIMIT_S", 0)
    slow = Saying("PASS")

    async def never(prompt, on_text):
        import asyncio

        await asyncio.Event().wait()

    slow.answer = never
    assert (await Judge(slow).objection("Polite?", "Go.", "Please.")).startswith("the judge did not answer within")
