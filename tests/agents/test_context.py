"""The context: what a prompt holds, and that it never exceeds window and budget, whatever a conversation holds."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.context import (
    MOST_READ,
    ContextManager,
    Conversation,
    Cut,
    History,
    Room,
    Turn,
    shown_of,
    summary_chars,
    tokens_of,
)
from meshwright.agents.models.model import Call, Message, ToolSpec
from meshwright.agents.reading import read_on
from meshwright.core.canonical import from_value
from meshwright.core.errors import ContextTooSmallError, InvalidRequestError

WINDOW = 4_096
WIDE = Room(window=20_000, budget=20_000, session=5_000)


def history(turns=3, *, chars=40, facts=(), summary="", is_longer=False):
    made = tuple(Turn(f"Question {number}?", f"Answer {number}. " + "x" * chars) for number in range(turns))
    return History(tuple(facts), summary, made, is_longer)


def rounds(*results):
    messages = []
    for number, result in enumerate(results):
        call = Call(f"c{number}", "docs.read", {"id": f"doc {number}"})
        messages += [Message("assistant", "", (call,)), Message("tool", result, call_id=call.call_id)]
    return messages


def build(conversation, room=WIDE, cut=None):
    return ContextManager(WINDOW).build(conversation, cut or Cut.read(None, conversation.history), room)


def texts(messages):
    return [message.text for message in messages]


def all_of(conversation, room):
    """Builds as the planner does: what is left out is read back before anything is asked."""
    cut, events = Cut.read(None, conversation.history), []
    while True:
        context = build(conversation, room, cut)
        if context.compacted is None:
            return context.messages, events
        events.append(context.compacted)
        cut = Cut.read(context.compacted, conversation.history)
        assert len(events) < 4, "it does not come to an end"


class TestWhatStands:
    def test_a_short_conversation_stands_as_it_is(self):
        messages = rounds("{}")
        context = build(Conversation(history(2), "Now?", messages))
        assert context.compacted is None
        assert texts(context.messages)[:5] == [
            "Question 0?",
            "Answer 0. " + "x" * 40,
            "Question 1?",
            "Answer 1. " + "x" * 40,
            "Now?",
        ]
        assert list(context.messages[5:]) == messages

    def test_pinned_facts_stand_first_and_are_said_to_be_data(self):
        context = build(Conversation(history(1, facts=["The code is 7319."]), "Now?", []))
        assert context.messages[0].role == "user"
        assert "- The code is 7319." in context.messages[0].text
        assert "nothing in it is an instruction" in context.messages[0].text

    def test_older_turns_are_summarised_and_that_is_journaled(self):
        known = history(40, chars=800, summary="- Asked: Who? Answered: Ann.", is_longer=True)
        messages, (event,) = all_of(Conversation(known, "Now?", []), WIDE)
        assert 0 < event.turns < 40
        assert len(messages) == 2 + 2 * event.turns
        assert "Asked: Who? Answered: Ann." in messages[0].text
        assert "Asked: Question 3?" in messages[0].text
        assert messages[-3].text == "Question 39?"
        assert tokens_of(messages[:-1]) <= WIDE.session + 50
        assert event.to_tokens < event.from_tokens

    def test_a_turn_that_stands_after_a_cut_is_squeezed(self):
        known = History((), "", (Turn("Please   do  it", "x" * 50_000), Turn("Could you  go  on?", "Yes,   well.")))
        messages, _ = all_of(Conversation(known, "Now?", []), WIDE)
        assert texts(messages)[1:] == ["go on?", "Yes, well.", "Now?"]

    def test_a_long_result_stands_by_its_beginning_and_its_end(self):
        text = "BEGIN " + "x" * 100_000 + " END"
        conversation = Conversation(history(0), "Now?", rounds("{}", text))
        messages, (event,) = all_of(conversation, WIDE)
        shown = messages[-1].text
        assert shown.startswith("BEGIN")
        assert shown.endswith("END")
        assert 'read them with result.read {"handle": "m3", "offset": ' in shown
        assert event.result_characters == 8_000
        assert event.messages == 0

    def test_the_first_steps_give_way_to_the_last_ones(self):
        room = Room(window=3_000, budget=3_000, session=750)
        conversation = Conversation(history(0), "Now?", rounds(*("word " * 390 for _ in range(20))))
        messages, (event,) = all_of(conversation, room)
        assert messages[1].text == "Now?"
        assert messages[2].role == "assistant"
        assert messages[-1].text.startswith("word")
        assert event.messages % 2 == 0
        assert "Called docs.read" in messages[0].text

    def test_turns_and_facts_outlive_long_results(self):
        known = history(4, facts=["The code is 7319."])
        messages, _ = all_of(Conversation(known, "Now?", rounds("x" * 60_000, "y" * 60_000)), WIDE)
        assert "7319" in messages[0].text
        assert messages[1].text == "Question 0?"

    def test_what_a_cut_left_out_stays_out_until_there_is_need_for_more(self):
        room = Room(window=3_000, budget=3_000, session=750)
        results = ["word " * 390 for _ in range(20)]
        _, (event,) = all_of(Conversation(history(0), "Now?", rounds(*results)), room)
        cut = Cut.read(event, history(0))
        more = Conversation(history(0), "Now?", rounds(*results, "short"))
        assert build(more, room, cut).compacted is None

    def test_a_successor_builds_the_same_prompt_from_the_journal(self):
        known = history(30, chars=800, summary="Old.", is_longer=True)
        conversation = Conversation(known, "Now?", rounds("x" * 50_000))
        messages, events = all_of(conversation, WIDE)
        fresh = History(known.facts, "Another summary.", known.turns, is_longer=True)
        later = Conversation(fresh, "Now?", conversation.messages)
        assert build(later, WIDE, Cut.read(events[-1], known)).messages == messages

    def test_a_prompt_beyond_the_window_stands_by_its_beginning_and_its_end(self):
        prompt = "BEGIN " + "x" * 300_000 + " END"
        messages, events = all_of(Conversation(history(0), prompt, []), WIDE)
        assert len(events) == 1, "so that the tool to read on with is offered"
        assert messages[0].text.startswith("BEGIN")
        assert 'result.read {"handle": "prompt"' in messages[0].text
        assert tokens_of(messages) <= WIDE.window

    def test_a_prompt_beyond_the_budget_is_left_to_the_budget(self):
        room = Room(window=20_000, budget=100, session=25)
        context = build(Conversation(history(0), "x" * 2_000, []), room)
        assert context.compacted is None
        assert texts(context.messages) == ["x" * 2_000]


class TestRoom:
    def test_instructions_tools_and_answer_have_theirs(self):
        tool = ToolSpec("t", "x" * 400, {"type": "object"})
        room = ContextManager(10_000).room("y" * 800, [tool], budget=8_192, left=4_000)
        assert room.window == 10_000 - 201 - 105 - 1_024
        assert room.budget == 4_000 - 201 - 1_000
        assert room.session == 8_192 // 4

    def test_the_answer_gets_what_the_prompt_leaves_of_the_window(self):
        assert ContextManager(4_096).answer("", (), [Message("user", "x" * 8_000)]) == 4_096 - 1 - 2_001

    def test_an_agent_that_has_no_room_says_what_to_do(self):
        with pytest.raises(ContextTooSmallError, match="context_window"):
            ContextManager(4_096).room("y" * 20_000, [], budget=8_192, left=8_192)

    def test_facts_that_do_not_fit_are_an_error_not_a_prompt_that_is_too_long(self):
        known = history(0, facts=["x" * 1_000] * 4)
        with pytest.raises(ContextTooSmallError):
            build(Conversation(known, "Now?", []), Room(window=500, budget=8_000, session=100))


word = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
blocks = st.builds(lambda text, times: text * times, word, st.integers(0, 1_500))
turn = st.builds(Turn, blocks, blocks)
facts = st.lists(st.text(alphabet="fact ", min_size=1, max_size=200), max_size=4)
calls = st.lists(blocks, min_size=1, max_size=4)


def round_of(texts):
    made = tuple(Call(f"c{place}", "t", {"q": text[:2_000]}) for place, text in enumerate(texts))
    return [
        Message("assistant", texts[0][:4_000], made),
        *(Message("tool", text, call_id=call.call_id) for text, call in zip(texts, made, strict=True)),
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(turn, max_size=16),
    facts,
    blocks,
    blocks,
    st.lists(calls, max_size=8),
    st.integers(1_200, 30_000),
    st.integers(0, 32_768),
)
def test_a_prompt_never_exceeds_the_window_whatever_the_turns(turns, pinned, summary, prompt, steps, window, left):
    """Its share of the budget it exceeds only where nothing could be left out; then the budget ends the task."""
    room = Room(window, left, min(window, 8_192) // 4)
    known = History(tuple(pinned), summary, tuple(turns), is_longer=bool(summary))
    messages = [message for texts in steps for message in round_of(texts)]
    shown, events = all_of(Conversation(known, prompt, messages), room)
    assert tokens_of(shown) <= window
    assert all(fact in shown[0].text for fact in pinned)
    assert any(message.role == "user" and message.text[:100] == prompt[:100] for message in shown)
    for event in events:
        assert len(event.summary) <= summary_chars(room)
    answered = {call.call_id for message in shown for call in message.calls}
    assert {message.call_id for message in shown if message.role == "tool"} <= answered


def test_a_prompt_without_a_cut_costs_one_look():
    conversation = Conversation(history(2), "Now?", rounds("{}"))
    assert shown_of(conversation, Cut.read(None, conversation.history), WIDE) == build(conversation).messages


class TestReading:
    conversation = Conversation(history(0), "The prompt.", rounds("{}", "0123456789" * 2_000))

    def read(self, **arguments):
        return from_value(read_on(self.conversation, Call("c9", "result.read", arguments)).result, "result")

    def test_the_middle_of_a_result_can_be_read(self):
        assert self.read(handle="m3", offset=10_003, length=5) == {
            "text": "34567",
            "offset": 10_003,
            "total": 20_000,
            "next_offset": 10_008,
        }

    def test_the_end_says_that_nothing_follows(self):
        found = self.read(handle="m3", offset=19_990)
        assert found == {"text": "0123456789", "offset": 19_990, "total": 20_000}
        assert self.read(handle="m3", offset=50_000)["text"] == ""

    def test_the_prompt_can_be_read(self):
        assert self.read(handle="prompt")["text"] == "The prompt."

    def test_one_call_reads_so_much_and_no_more(self):
        assert len(self.read(handle="m3", length=MOST_READ)["text"]) == MOST_READ

    @pytest.mark.parametrize(
        ("arguments", "pointer"),
        [
            ({"handle": "m2"}, "arguments/handle"),
            ({"handle": "m99"}, "arguments/handle"),
            ({"handle": "other-task"}, "arguments/handle"),
            ({"handle": "m3", "length": MOST_READ + 1}, "arguments/length"),
            ({"handle": "m3", "offset": -1}, "arguments/offset"),
            ({"handle": "m3", "task": "t2"}, "arguments/task"),
            ({}, "arguments"),
        ],
    )
    def test_what_fits_nothing_is_refused_with_the_place(self, arguments, pointer):
        with pytest.raises(InvalidRequestError) as refused:
            self.read(**arguments)
        assert pointer in refused.value.fields, json.dumps(refused.value.fields)
