"""Files that somebody hands over: read up to a size, everything else is one line."""

import pytest

from meshwright.core.errors import SetupError
from meshwright.registry.file import content


def test_a_file_is_read_up_to_its_most_bytes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"\xff" * 10)
    assert content(file, 10) == b"\xff" * 10
    with pytest.raises(SetupError, match=f"^{file} has more than 9 bytes: make it smaller$"):
        content(file, 9)


@pytest.mark.parametrize(
    ("name", "said"), [("none", "No such file"), ("", "Is a directory"), ("a\0b", "names no file")]
)
def test_what_cannot_be_read_is_told_by_its_name(tmp_path, name, said):
    with pytest.raises(SetupError, match=said):
        content(tmp_path / name, 10)
    with pytest.raises(SetupError, match=r"^'?it'? "):
        content(tmp_path / name, 10, "it")
