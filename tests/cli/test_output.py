"""Text of others on a terminal: shown as it is, obeyed never."""

import io

from rich.console import Console

from meshwright.cli.output import harmless, show, show_table
from meshwright.cli.steps import Steps
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
