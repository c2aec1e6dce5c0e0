"""Keys in files: what is read, what is refused, and that no key is repeated."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshwright.core.errors import SetupError
from meshwright.core.key_file import MOST_BYTES, read_key

VARIABLE = "OPENAI_API_KEY_FILE"


def test_a_key_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" sk-1\r\n\n")
    path.chmod(0o600)
    with capture_logs() as logs:
        assert read_key(path, VARIABLE) == "sk-1"
    assert logs == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "empty"), (b" \n\t", "empty"), (b"\xff\xfe", "UTF-8"), (b"k" * (MOST_BYTES + 1), "more than 8192 bytes")],
)
def test_a_file_that_holds_no_key_is_refused_by_its_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=complaint) as caught:
        read_key(path, VARIABLE)
    assert VARIABLE in caught.value.message
    assert str(path) in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such file"):
        read_key(tmp_path / "none", VARIABLE)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="directory"):
        read_key(tmp_path, VARIABLE)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SetupError, match="no regular file"):
        read_key(tmp_path / "pipe", VARIABLE)


def test_a_file_that_everyone_may_read_is_told_in_the_log_without_its_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-planted-secret")
    path.chmod(0o644)
    with capture_logs() as logs:
        assert read_key(path, VARIABLE) == "sk-planted-secret"
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["path"]) == (
        "key_file_is_readable_by_everyone",
        "warning",
        str(path),
    )
    assert "planted" not in str(entry)
