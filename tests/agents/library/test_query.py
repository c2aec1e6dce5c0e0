import pytest

from meshwright.agents.library.researcher.query import match_expression


@pytest.mark.parametrize(
    ("question", "expression"),
    [
        ("How does the Gateway find agents?", '"gateway" OR "agents"'),
        ("who are you", '"who" OR "are" OR "you"'),
        ("the store's port, the port", '"store" OR "port"'),
        ("snake_case and kebab-case", '"snake" OR "case" OR "kebab"'),
        ('" OR * NEAR(', '"near"'),
        ("title:x", '"title" OR "x"'),
        ("a\0b", '"b"'),
        ("cafe\u0301", '"café"'),
        ("plan B", '"plan" OR "b"'),
        ("don't", '"don"'),
        ("", ""),
        ('"^*():{}-+', ""),
    ],
)
def test_a_question_becomes_quoted_words(question: str, expression: str) -> None:
    assert match_expression(question) == expression


def test_only_the_first_different_words_count() -> None:
    expression = match_expression(" ".join(f"x{number % 50}" for number in range(10_000)))
    assert expression.split(" OR ") == [f'"x{number}"' for number in range(32)]
