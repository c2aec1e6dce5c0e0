"""Questions stripped, taken apart and reduced."""

import pytest

from meshwright.agents.models.rules.questions import keywords, sub_questions, without_courtesy


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("What is Valkey?", ["What is Valkey?"]),
        ("What is salt and pepper?", ["What is salt and pepper?"]),
        ("How and why does it start?", ["How and why does it start?"]),
        ("What is a lease? How long does a lease last?", ["What is a lease?", "How long does a lease last?"]),
        ("What is a lease and how long does it last?", ["What is a lease and how long does it last?"]),
        ("Explain leases; describe the store", ["Explain leases", "describe the store"]),
        ("What is A1, and where is B2?", ["What is A1", "where is B2?"]),
        ("I am new here. What is Valkey? Please be brief.", ["I am new here. What is Valkey? Please be brief."]),
        ("Tell me:\n1. What is A1?\n2. What is B2?", ["Tell me: What is A1?", "Tell me: What is B2?"]),
        ("- What is A1?\n- What is B2?", ["What is A1?", "What is B2?"]),
        ("", [""]),
    ],
)
def test_only_questions_that_stand_alone_are_taken_apart(task: str, expected: list[str]) -> None:
    assert sub_questions(task) == expected


def test_there_are_at_most_four_and_none_is_lost() -> None:
    parts = sub_questions(" ".join(f"What is A{number}?" for number in range(6)))
    assert parts == ["What is A0?", "What is A1?", "What is A2?", "What is A3? What is A4? What is A5?"]


def test_a_long_text_stays_whole() -> None:
    task = "What is A? " * 400
    assert sub_questions(task) == [task]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please, could you tell me what Valkey is? Thanks!", "what Valkey is?"),
        ("Hello, I would like to know how leases work please", "how leases work"),
        ("Hi there! What is Valkey?", "What is Valkey?"),
        ("Pleasant weather", "Pleasant weather"),
        ("please", "please"),
    ],
)
def test_courtesy_is_no_part_of_a_question(text: str, expected: str) -> None:
    assert without_courtesy(text) == expected


def test_keywords_say_what_a_question_is_about() -> None:
    assert keywords("What is the colour of a full-moon's light, the colour?") == "colour full-moon's light"
    assert keywords("What is it?") == ""
