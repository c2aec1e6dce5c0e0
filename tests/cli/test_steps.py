"""Steps drawn on a terminal: what passes is left out, but for how far a call has come."""

import io

from rich.console import Console

from meshwright.cli.steps import Steps
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent, TextDelta, ToolProgress


def drawn(*events):
    text = io.StringIO()
    steps = Steps(Console(file=text, width=200))
    for event in events:
        steps.draw(event)
    return text.getvalue()


def report(fraction, message, call_id="c1"):
    return StepEvent(progress=ToolProgress(call_id=call_id, fraction=fraction, message=message))


def test_progress_is_told_once_a_second_for_each_call():
    text = drawn(report(0.25, "a quarter"), report(0.5, "half"), report(-1, "of another", "c2"))
    assert "25% a quarter" in text
    assert "half" not in text
    assert "of another" in text


def test_text_that_is_being_written_is_left_out():
    assert not drawn(StepEvent(delta=TextDelta(text="Hello")))
