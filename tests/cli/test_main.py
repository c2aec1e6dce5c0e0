"""What a command cannot print, write or import is told in one line, or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.cli import main as main_module
from meshwright.cli.output import show


@pytest.fixture
def ran(monkeypatch, capsys):
    """Runs the command line with a command that is the test's; returns the exit code and what stderr says."""
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")

    def run(command):
        monkeypatch.setattr(main_module, "app", lambda **_: command())
        with pytest.raises(SystemExit) as ended:
            main_module.main()
        return ended.value.code, capsys.readouterr().err

    return run


def test_what_the_output_does_not_take_is_told_in_one_line(ran, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        said = "error: No space left on device: look at where this command prints and writes\n"
        assert ran(lambda: show("much")) == (19, said)


def test_a_file_that_the_system_refuses_is_named(ran, tmp_path):
    def writes():
        (tmp_path / "nowhere" / "file").write_text("")

    assert ran(writes) == (19, f"error: {tmp_path}/nowhere/file: No such file or directory\n")


def test_an_error_of_the_system_without_words_is_told_by_its_kind(ran):
    def waits():
        raise TimeoutError

    code, said = ran(waits)
    assert code == 19
    assert said.startswith("error: TimeoutError: ")
    assert main_module.of_system(OSError(errno.EIO, "broken")).startswith("broken: ")


def test_ctrl_c_while_the_command_line_loads_leaves_no_trace(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "meshwright.cli.main"],
        capture_output=True,
        timeout=50,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
