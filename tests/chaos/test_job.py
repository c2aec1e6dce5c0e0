"""Jobs: what a chaos agent is asked, and which answers are right."""

import pytest

from meshwright.cli.chaos.job import Job, folded

JOB = Job("j", "/evidence", ("look", "send", "ask"), 0.1, ("mark", "post"))
BELOW = "j-child: j-child.0 j-child.1"


def test_a_job_is_read_from_its_prompt():
    assert Job.read(JOB.prompt) == JOB
    assert Job.read(JOB.child.prompt).plan == ("mark", "post")


def test_an_answer_holds_the_outcome_of_every_step():
    assert JOB.is_right(JOB.answer(["j.0", "j.1", folded(BELOW)]))


def test_a_risky_step_may_be_unknown():
    assert JOB.is_right(JOB.answer(["j.0", "unknown", folded("j-child: j-child.0 unknown")]))


@pytest.mark.parametrize(
    "heard",
    [
        ["j.0", "j.1"],
        ["unknown", "j.1", folded(BELOW)],
        ["j.0", "j.2", folded(BELOW)],
        ["j.0", "j.1", "failed:UNAVAILABLE"],
        ["j.0", "j.1", folded("j-child: unknown j-child.1")],
    ],
)
def test_every_other_answer_is_wrong(heard):
    assert not JOB.is_right(JOB.answer(heard))
