"""The documents of a folder, opened so that nothing outside of it is ever read."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.skips import SkipError, Skips
from meshwright.core.errors import SetupError

Kind = Literal["text", "markdown", "rst", "html", "pdf"]
Way = tuple[str, ...]
"""Names from the folder down to one of its entries."""

KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
"""What is a document, by the ending of its name in lower case."""
PASSED_OVER = frozenset({"node_modules", "__pycache__"})
"""Folders of other people's files; hidden ones, `.venv` for example, are passed over as well."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # NONBLOCK: a FIFO without a writer must not hold us up
_UNFIT_NAME = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # surrogates stand for bytes that are no UTF-8


@dataclass(frozen=True, slots=True)
class Document:
    """One file to take in.

    Attributes:
        source: Its path relative to the folder, in POSIX notation.
        kind: How it is written.
        way: The same place without symbolic links.
    """

    source: str
    kind: Kind
    way: Way


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder or a link below the root: as it is shown, and as it is reached without symbolic links."""

    shown: Way
    way: Way


class Folder:
    """A folder of documents.

    Hidden entries, `PASSED_OVER` and files of other kinds are passed over silently. A symbolic link is followed when it
    stays inside the folder, and then only to what has not been found yet.

    Args:
        root: The folder, free of symbolic links.
        descriptor: The folder, opened; this object closes it.
        limits: Upper bounds.
        skips: Takes what is left out.
    """

    def __init__(self, root: Path, descriptor: int, limits: Limits, skips: Skips) -> None:
        self._root = root
        self._descriptor = descriptor
        self._limits = limits
        self._skips = skips
        self._documents: list[Document] = []
        self._links: list[_Place] = []
        self._seen: set[tuple[int, int]] = set()
        self._entries = 0
        self._bytes = 0

    @classmethod
    def open(cls, path: Path, limits: Limits, skips: Skips) -> Self:
        """Opens a folder.

        Raises:
            SetupError: It does not exist, is no folder, or may not be read.
        """
        try:
            root = path.resolve(strict=True)
            descriptor = os.open(os.path.join(root, "."), os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH118 - Path drops '.'
        except FileNotFoundError:
            raise SetupError(f"The documents folder '{path}' does not exist: create it or name another one.") from None
        except NotADirectoryError:
            raise SetupError(f"'{path}' is a file: name the folder that holds the documents.") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise SetupError(
                f"The documents folder '{path}' cannot be read ({_words(error)}): "
                "check the path and its permissions or name another one."
            ) from None
        return cls(root, descriptor, limits, skips)

    def close(self) -> None:
        """Closes the folder."""
        os.close(self._descriptor)

    def documents(self) -> list[Document]:
        """Finds the documents, ordered by path; call it once."""
        self._walk(_Place((), ()))
        for link in self._links:  # grows when a link leads to a folder that holds links
            self._follow(link)
        return sorted(self._documents, key=lambda document: document.source)

    def read(self, document: Document) -> bytes:
        """Reads one document.

        Raises:
            SkipError: It is too large, is no regular file any more, or cannot be read.
        """
        try:
            with self._opened(document.way) as descriptor:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise SkipError("is no regular file")
                most = min(self._limits.file_bytes, self._limits.total_bytes - self._bytes)
                data = b""
                if status.st_size <= most:
                    with os.fdopen(descriptor, "rb", closefd=False) as stream:
                        data = stream.read(most + 1)
        except OSError as error:
            raise SkipError(f"cannot be read: {_words(error)}") from None
        size = max(status.st_size, len(data))  # a file may grow while it is read
        if size > self._limits.file_bytes:
            raise SkipError(f"is larger than {self._limits.file_bytes} bytes")
        if size > most:
            raise SkipError(f"would exceed {self._limits.total_bytes} bytes for all documents")
        self._bytes += size
        return data

    def _walk(self, start: _Place) -> None:
        """Collects the documents below a folder and the links to follow later."""
        pending = [start]
        while pending and self._entries <= self._limits.entries:
            place = pending.pop()
            if len(place.shown) > self._limits.depth:
                self._skips.add("/".join(place.shown), f"is nested deeper than {self._limits.depth} folders")
                continue
            try:
                pending += reversed(self._listed(place))
            except OSError as error:
                self._skips.add("/".join(place.shown) or ".", f"cannot be read: {_words(error)}")

    def _listed(self, place: _Place) -> list[_Place]:
        """Sorts the entries of one folder into documents and links; returns its folders."""
        folders: list[_Place] = []
        with self._opened(place.way) as descriptor:
            status = os.fstat(descriptor)
            if self._is_seen(status.st_dev, status.st_ino):
                return []
            with os.scandir(descriptor) as entries:
                for entry in sorted(self._counted(entries), key=lambda entry: entry.name):
                    below = _Place((*place.shown, entry.name), (*place.way, entry.name))
                    if _UNFIT_NAME.search(entry.name):
                        self._skips.add("/".join(below.shown), "its name holds control characters or is no UTF-8")
                    elif entry.is_symlink():
                        self._links.append(below)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(below)
                    elif self._add(below, entry.is_file(follow_symlinks=False)):
                        self._seen.add((status.st_dev, entry.inode()))
        return folders

    def _counted(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        """Yields what is not passed over, until enough names have been looked at."""
        for entry in entries:
            self._entries += 1
            if self._entries > self._limits.entries:
                self._skips.add(".", f"holds more than {self._limits.entries} entries; the rest was not looked at")
                return
            if not entry.name.startswith(".") and entry.name not in PASSED_OVER:
                yield entry

    def _follow(self, link: _Place) -> None:
        """Takes in what a link leads to, if that is inside the folder."""
        shown = "/".join(link.shown)
        try:
            target = Path(os.path.realpath(self._root.joinpath(*link.way), strict=True))
            if not target.is_relative_to(self._root):
                self._skips.add(shown, "is a link that leads out of the folder")
                return
            status = target.lstat()
        except OSError as error:
            self._skips.add(shown, f"is a link that leads nowhere: {_words(error)}")
            return
        place = _Place(link.shown, target.relative_to(self._root).parts)
        if stat.S_ISDIR(status.st_mode):
            self._walk(place)
        elif (status.st_dev, status.st_ino) not in self._seen:
            self._add(place, stat.S_ISREG(status.st_mode))
            self._seen.add((status.st_dev, status.st_ino))

    def _add(self, place: _Place, is_file: bool) -> bool:  # noqa: FBT001 - mirrors DirEntry.is_file()
        """Adds a document; tells whether it did."""
        source = PurePosixPath(*place.shown)
        kind = KINDS.get(source.suffix.lower())
        if kind is None:
            return False
        if not is_file:
            self._skips.add(str(source), "is no regular file")
        elif len(self._documents) >= self._limits.files:
            self._skips.add(str(source), f"comes after the first {self._limits.files} documents")
        else:
            self._documents.append(Document(str(source), kind, place.way))
            return True
        return False

    def _is_seen(self, device: int, inode: int) -> bool:
        known = (device, inode) in self._seen
        self._seen.add((device, inode))
        return known

    @contextmanager
    def _opened(self, way: Way) -> Iterator[int]:
        """Opens an entry name by name, so that no symbolic link, not even one put there just now, is followed."""
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._descriptor)
        try:
            for name in way:
                nested = os.open(name, _FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = nested
            yield descriptor
        finally:
            os.close(descriptor)


def _words(error: Exception) -> str:
    """Says what went wrong, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
