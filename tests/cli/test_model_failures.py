"""What whoever runs a mesh in a terminal is told of failing models."""

import json
from pathlib import Path

import pytest

from meshwright.cli.model_failures import MOST_BYTES, MOST_TOLD, ModelFailures

FAILED = {
    "service": "writer",
    "event": "model_failed",
    "model": "small",
    "server": "http://127.0.0.1:9/v1",
    "error": "it cannot be reached",
    "advice": "check that it runs",
}
TOLD = "writer: the model small at http://127.0.0.1:9/v1: it cannot be reached; check that it runs"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "writer.log"


def write(log: Path, *lines: object) -> None:
    with log.open("ab") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


def test_a_failing_model_is_told_once_with_address_and_advice(log: Path) -> None:
    write(log, FAILED)  # of an earlier run
    told: list[str] = []
    failures = ModelFailures([log], told.append)
    failures.look()
    assert told == []
    write(log, FAILED, {"event": "ended"}, FAILED)
    failures.look()
    write(log, FAILED)
    failures.look()
    assert told == [TOLD]


def test_a_line_that_is_half_written_is_told_when_it_is_whole(log: Path) -> None:
    told: list[str] = []
    failures = ModelFailures([log], told.append)
    failures.look()  # there is no log yet
    line = json.dumps(FAILED).encode()
    write(log, line[:40])
    failures.look()
    assert told == []
    write(log, line[40:] + b"\n")
    failures.look()
    assert told == [TOLD]


def test_lines_that_are_no_log_and_lines_without_end_are_passed_over(log: Path) -> None:
    told: list[str] = []
    failures = ModelFailures([log], told.append)
    write(log, b'"model_failed"\n', b'["model_failed"]\n', b'{"model_failed"\n', b"[" * 9_000 + b'"model_failed"\n')
    write(log, b"x" * 2 * MOST_BYTES, b"\n", FAILED)
    for _ in range(4):
        failures.look()
    assert told == [TOLD]


def test_no_more_than_so_many_sentences_are_told(log: Path) -> None:
    told: list[str] = []
    failures = ModelFailures([log], told.append)
    write(log, *(FAILED | {"error": f"no {number}"} for number in range(2 * MOST_TOLD)))
    failures.look()
    assert len(told) == MOST_TOLD
