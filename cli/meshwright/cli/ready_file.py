"""The file that says what runs where, as soon as all of a mesh does."""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from meshwright.core.errors import SetupError


def check(file: Path) -> None:
    """Tries whether it can be written, before anything starts.

    Raises:
        SetupError: It cannot.
    """
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        hint = "choose another one with --ready-file"
        raise SetupError(f"the ready file {file} cannot be written: {error.strerror}: {hint}") from None


def write(file: Path, facts: Mapping[str, object]) -> None:
    """Writes it as a whole: a reader never sees half of it.

    Raises:
        OSError: It cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.touch(mode=0o600)  # a store that has a port has its password in its address
    temporary.write_text(json.dumps(facts, indent=2) + "\n")
    temporary.replace(file)
