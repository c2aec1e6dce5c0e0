"""The content of a file as headings and paragraphs, whatever its kind."""

from collections.abc import Callable, Iterable
from typing import Self

from meshwright.agents.library.researcher.converter import Converter
from meshwright.agents.library.researcher.folder import Kind
from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.markup import Block, markdown, plain, restructured_text
from meshwright.agents.library.researcher.skips import SkipError

_TEXTS: dict[Kind, Callable[[str], Iterable[Block]]] = {
    "text": plain,
    "markdown": markdown,
    "rst": restructured_text,
}


class DocumentReader:
    """Reads documents; a context manager that ends the processes which read HTML and PDF.

    Args:
        limits: Upper bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._converters: dict[Kind, Converter] = {"html": Converter("html", limits), "pdf": Converter("pdf", limits)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for converter in self._converters.values():
            converter.close()

    def blocks(self, kind: Kind, data: bytes) -> Iterable[Block]:
        """Reads one document.

        Args:
            kind: How it is written.
            data: The content of the file; text that is no UTF-8 is read with replacement characters.

        Returns:
            Its headings and texts in reading order.

        Raises:
            SkipError: It is binary, or cannot be read within the limits.
        """
        if kind != "pdf" and b"\0" in data:
            raise SkipError("holds binary data")
        if kind in self._converters:
            return self._converters[kind].convert(data)
        text = data.decode("utf-8-sig", errors="replace")
        return _TEXTS[kind](text.replace("\r\n", "\n").replace("\r", "\n"))
