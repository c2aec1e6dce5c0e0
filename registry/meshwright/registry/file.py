"""Files that somebody hands over: read up to a size."""

from pathlib import Path

from meshwright.core.errors import SetupError


def content(path: Path, most_bytes: int, name: str = "") -> bytes:
    """Reads a whole file.

    Args:
        path: Where it is.
        most_bytes: How large it may be.
        name: How errors name it; by default its path.

    Raises:
        SetupError: It cannot be read, or is larger.
    """
    named = name or str(path)
    try:
        with path.open("rb") as file:
            text = file.read(most_bytes + 1)
    except OSError as error:
        raise SetupError(f"{named} cannot be read: {error.strerror}") from None
    except ValueError:  # a null character
        raise SetupError(f"{named!r} names no file") from None
    if len(text) > most_bytes:
        raise SetupError(f"{named} has more than {most_bytes} bytes: make it smaller")
    return text
