"""Sums found in words and worked out."""

import time
import warnings

import pytest

from meshwright.agents.models.rules.arithmetic import evaluate, expressions


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("12 * (3 + 4)", "84"),
        ("0.1 + 0.2", "0.3"),
        ("10 / 4", "2.5"),
        ("1 / 3", "0.333333333333"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** 10", "1024"),
        ("2 ** -1", "0.5"),
        ("2 ** 0.5", "1.41421356237"),
        ("2 ** 100", "1267650600228229401496703205376"),
        ("1 / 2 ** 100", "7.88860905221E-31"),
        ("--3 + +4", "7"),
    ],
)
def test_results_are_exact(expression: str, expected: str) -> None:
    assert evaluate(expression) == expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("9 ** 9 ** 9", "too large"),
        ("(2 ** 2000) * (2 ** 2000)", "too large"),
        ("(-8) ** 0.5", "no real result"),
        ("1 +", "not an expression"),
        ("5 (3)", "not an expression"),
        ("1 if 2 else 3", "not an expression"),
        ("__import__('os')", "not an expression"),
        ("[1, 2]", "not an expression"),
        ("True + 1", "not an expression"),
        ("1 +" * 100 + "1", "longer than"),
    ],
)
def test_what_cannot_be_worked_out_says_why(expression: str, reason: str) -> None:
    began = time.process_time()
    with warnings.catch_warnings(action="ignore"), pytest.raises(ValueError, match=reason):
        evaluate(expression)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("What is 12 * (3 + 4)?", ["12 * (3 + 4)"]),
        ("12*3", ["12*3"]),
        ("What is 2+2 and 3 * 3?", ["2+2", "3 * 3"]),
        ("Compute: 3 + 4", ["3 + 4"]),
        ("How much is 1,250 times 3?", ["1250 * 3"]),
        ("15% of 80", ["15 / 100 * 80"]),
        ("7 divided by 2", ["7 / 2"]),
        ("2 to the power of 8", ["2 ** 8"]),
        ("What is 3 x 4", ["3*4"]),
        ("What is 7/2?", ["7/2"]),
        ("(see 3 + 4)", ["3 + 4"]),
        ("What is the year 2024?", []),
        ("What happened on 2024-11-05?", []),
        ("How long are 3-4 weeks?", []),
        ("Which of the 3 + 2 proposals did the committee in Rome reject last spring?", []),
        ("What is Valkey?", []),
        ("", []),
        ("1 + 1 " * 200, []),
    ],
)
def test_sums_are_told_from_numbers_that_are_only_mentioned(task: str, expected: list[str]) -> None:
    assert expressions(task) == expected
