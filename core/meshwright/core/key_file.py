"""Keys that stand in files, as secret stores mount them."""

import os
import stat
from pathlib import Path

import structlog

from meshwright.core.errors import SetupError
from meshwright.core.small_file import at_once

MOST_BYTES = 8_192

log = structlog.get_logger("key")


def read_key(path: Path, variable: str) -> str:
    """Reads a key, without the white space around it.

    A file that every user of the machine may read is told in the log, by its name.

    Args:
        path: A regular file of at most `MOST_BYTES` bytes of UTF-8 text.
        variable: The variable that names it, for errors.

    Raises:
        SetupError: There is no such file, it cannot be read, or it holds no key; what it holds is not repeated.
    """
    try:
        content = _content(path, variable)
    except OSError as error:
        raise SetupError(f"{variable}: cannot read {path}: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise SetupError(f"{variable}: {path} holds more than {MOST_BYTES} bytes: name a file with nothing but the key")
    try:
        key = content.decode().strip()
    except UnicodeDecodeError:
        raise SetupError(f"{variable}: {path} is no UTF-8 text: name a file with nothing but the key") from None
    if not key:
        raise SetupError(f"{variable}: {path} is empty: write the key into it")
    return key


def _content(path: Path, variable: str) -> bytes:
    """Returns the file's beginning; a pipe is not waited for."""
    with open(path, "rb", opener=at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise SetupError(f"{variable}: {path} is no regular file")
        if mode & stat.S_IROTH:
            log.warning("key_file_is_readable_by_everyone", variable=variable, path=str(path), advice="chmod o-r")
        return file.read(MOST_BYTES + 1)
