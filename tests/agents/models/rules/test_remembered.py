"""What was pinned or summarised can be asked for, without a language model."""

from meshwright.agents.context import HEADING
from meshwright.agents.models.model import Message, Prompt
from meshwright.agents.models.rules.remembered import remembered
from meshwright.agents.models.rules.situation import Say, situation_of

KNOWN = f"{HEADING}\n\nPinned facts:\n- The code of the house is 7319.\n- Sails are red.\n\nOlder:\n- Asked: Who?"


def situation(question, *messages):
    return situation_of(Prompt("a", "", (*messages, Message("user", question))))


def test_a_fact_that_answers_is_repeated():
    move = remembered(situation("What is the code?", Message("user", KNOWN)))
    assert move == Say("From earlier in this conversation: The code of the house is 7319.")


def test_what_is_not_known_is_left_to_others():
    assert remembered(situation("Where is Bremen?", Message("user", KNOWN))) is None
    assert remembered(situation("What is the code?", Message("user", "The code is 1."))) is None
    assert remembered(situation("What is the code?")) is None
