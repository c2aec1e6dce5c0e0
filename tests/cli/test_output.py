"""Text of others on a terminal: shown as it is, obeyed never."""

import io
import json

from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from meshwright.cli.output import as_json, harmless, show, show_table
from meshwright.cli.steps import Steps, shortened
from meshwright.core.canonical import to_struct
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent, ToolProgress

HOSTILE = "bob[,eve@evil] [red]x [/nope] \x1b[31m \u202eevil"
SHOWN = r"bob[,eve@evil] [red]x [/nope] \x1b[31m \u202eevil"


class Terminal(io.StringIO):
    """Says that a person reads it."""

    def isatty(self):
        return True


def test_marks_and_escapes_are_shown_and_lines_stay():
    assert harmless(HOSTILE) == SHOWN
    assert harmless("one\ttwo\nthree ä 漢") == "one\ttwo\nthree ä 漢"


def test_a_table_shows_cells_word_for_word(capsys):
    show_table(["tool"], [[HOSTILE]])
    assert SHOWN in capsys.readouterr().out


def test_a_program_gets_data_as_it_is_and_a_terminal_what_is_harmless(capsys, monkeypatch):
    show(HOSTILE)
    assert capsys.readouterr().out == HOSTILE + "\n"
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    show(HOSTILE)
    assert terminal.getvalue() == SHOWN + "\n"


def test_steps_show_what_tools_report_word_for_word():
    text = io.StringIO()
    Steps(Console(file=text, width=200)).draw(
        StepEvent(progress=ToolProgress(call_id="c", fraction=0.5, message=HOSTILE))
    )
    assert SHOWN in text.getvalue()


@given(st.dictionaries(st.text(max_size=3), st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e6, 1e6), max_size=5))
def test_whole_numbers_are_shown_without_a_point_and_others_as_they_are(values):
    shown = json.loads(as_json(to_struct(values)))
    assert shown == values
    assert all(isinstance(shown[name], int) == float(value).is_integer() for name, value in values.items())


def test_a_number_that_is_not_exact_keeps_its_point():
    struct = Struct()
    struct.update({"n": 2.0**53, "deep": [{"m": 3.0}]})
    assert '"deep": [{"m": 3}]' in as_json(struct, None)
    assert '"n": 9007199254740992.0' in as_json(struct, None)


def test_a_table_that_is_piped_wraps_words_and_leaves_ids_whole(capsys):
    show_table(("TASK", "ASKS"), [("t" * 60, "eight words " * 20), ("t2", "short")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, map(str.rstrip, lines))) <= 120
    assert lines[1].startswith("t" * 60)
    assert " ".join(line[60:].strip() for line in lines[1:-1]).split() == ["eight", "words"] * 20


def test_a_table_of_ids_is_as_wide_as_they_are(capsys):
    show_table(("A", "B"), [("a" * 90, "b" * 90)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["a" * 90, "b" * 90]


def test_a_table_on_a_terminal_leaves_ids_whole_and_narrows_words(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    show_table(("TASK", "ANSWER"), [("t" * 36, "eight words " * 5)])
    lines = terminal.getvalue().splitlines()
    assert "t" * 36 in lines[1]
    assert max(map(len, map(str.rstrip, lines[1:]))) <= 80
    assert " ".join(lines[1:]).split().count("words") == 5
    terminal.truncate(0)
    show_table(("TASK", "AGENT", "RUN"), [("t" * 36, "a" * 36, "r" * 36)])
    assert ("t" * 36) in terminal.getvalue()
    assert ("r" * 36) in terminal.getvalue()


def test_a_list_without_a_row_is_told_to_people(capsys):
    show_table(("TASK", "ANSWER"), [], empty="nothing waits")
    said = capsys.readouterr()
    assert (said.out.split(), said.err) == (["TASK", "ANSWER"], "nothing waits\n")
    show_table(("TASK", "ANSWER"), [("t", "done")], empty="nothing waits")
    assert capsys.readouterr().err == ""


@given(st.text(max_size=90))
def test_what_is_cut_says_so(text):
    line = " ".join(text.split())
    assert shortened(text, 60) == line or (len(line) > 60 and shortened(text, 60) == line[:59] + "…")
    assert len(shortened(text, 60)) <= 60
