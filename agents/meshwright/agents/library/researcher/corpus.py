"""The researcher's documents: a folder of text, Markdown, reStructuredText, HTML and PDF files, searched by BM25."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Self

from meshwright.agents.library.researcher.documents import DocumentReader
from meshwright.agents.library.researcher.folder import Folder
from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.passages import Piece, passages
from meshwright.agents.library.researcher.query import match_expression
from meshwright.agents.library.researcher.skips import Skip, SkipError, Skips
from meshwright.core.errors import SetupError

MOST_HITS = 100
"""Hits of one search."""
NEIGHBOURS = 1
"""Passages that are read along before a passage, and as many behind it."""
LONGEST_READ = 4 * 2**10
"""Bytes of UTF-8 that one read returns."""

_LIMITS = Limits()
_TITLE_WEIGHT = 4.0
_LONGEST_ECHO = 80
_SCHEMA = """
    CREATE TABLE passages (number INTEGER PRIMARY KEY, id TEXT UNIQUE, source TEXT, title TEXT, text TEXT);
    CREATE VIRTUAL TABLE words USING fts5(
        title, text, content='passages', content_rowid='number', tokenize='porter unicode61'
    );
"""
_SEARCH = f"""
    SELECT id, source, passages.title, passages.text, round(-bm25(words, {_TITLE_WEIGHT}, 1.0), 6) AS score
    FROM words JOIN passages ON number = words.rowid
    WHERE words MATCH ? ORDER BY score DESC, number LIMIT ?
"""  # noqa: S608 - the only thing put in is a constant


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        id: What `Corpus.read` takes: `guide/install.md#3`.
        source: Path of the document relative to the folder, in POSIX notation.
        title: Headings over the passage, highest first: `Install > Ports`; at most 300 characters.
        text: At most 1,200 characters.
        score: BM25, higher is better; compares the hits of one search only.
    """

    id: str
    source: str
    title: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with what stands around it in its document.

    Attributes:
        id: The passage asked for.
        source: Path of the document relative to the folder, in POSIX notation.
        title: Headings over the passage.
        text: Neighbours included, at most 16 KiB of UTF-8; headings that change on the way are put in as lines.
    """

    id: str
    source: str
    title: str
    text: str


class UnknownPassageError(ValueError):
    """No passage of the index has this id."""


class Corpus:
    """An index in memory over a folder of documents, as they were when it was opened.

    Methods may be called from any thread. All of them block: `open` for as long as it takes to read the folder, the
    others for milliseconds.

    Attributes:
        documents: Documents in the index.
        passages: Passages in the index.
    """

    def __init__(self, connection: sqlite3.Connection, skips: Skips) -> None:
        self.documents = 0
        self.passages = 0
        self._connection = connection
        self._skips = skips
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path, limits: Limits = _LIMITS) -> Self:
        """Builds the index of a folder.

        A document that cannot be taken in is skipped and noted in `skipped`.

        Args:
            folder: Is read only; nothing outside of it is opened, wherever its links lead.
            limits: Upper bounds.

        Raises:
            SetupError: There is no such folder, it may not be read, or SQLite lacks full-text search.
        """
        skips = Skips(limits.skipped)
        opened = Folder.open(folder, limits, skips)
        try:
            connection = sqlite3.connect(":memory:", check_same_thread=False)  # a lock keeps the threads apart
            corpus = cls(connection, skips)
            try:
                prepare(connection)
                corpus._fill(opened, limits)
            except BaseException:
                corpus.close()
                raise
        finally:
            opened.close()
        return corpus

    @property
    def skipped(self) -> list[Skip]:
        """What is not in the index and why: (path, reason), the first 1,000; `skipped_count` counts all."""
        return self._skips.entries

    @property
    def skipped_count(self) -> int:
        """How much is not in the index; files of other kinds and hidden ones are not counted."""
        return self._skips.count

    def search(self, query: str, limit: int) -> list[Hit]:
        """Finds the passages that say most about a question.

        Args:
            query: Any text; nothing in it is read as syntax. Its first 32 telling words count.
            limit: Hits wanted; at most 100 are given, none for 0 or less.

        Returns:
            Best first; equal ones in the order of their documents' paths. Empty when the query holds no word.
        """
        expression = match_expression(query)
        if not expression or limit < 1:
            return []
        with self._lock:
            rows = self._connection.execute(_SEARCH, (expression, min(limit, MOST_HITS))).fetchall()
        return [Hit(*row) for row in rows]

    def read(self, passage_id: str) -> Passage:
        """Reads a passage with its neighbours.

        Args:
            passage_id: The id of a hit. It is looked up in the index and never used as a path.

        Raises:
            UnknownPassageError: The index has no such id; the message says what to do.
        """
        found = None
        with self._lock:
            with suppress(UnicodeEncodeError):  # half a character is part of no id
                found = self._connection.execute(
                    "SELECT number, source, title FROM passages WHERE id = ?", (passage_id,)
                ).fetchone()
            if found is None:
                raise UnknownPassageError(
                    f"No passage has the id {passage_id[:_LONGEST_ECHO]!r}: use an id that docs.search returned."
                )
            number, source, title = found
            rows = self._connection.execute(
                "SELECT number, title, text FROM passages WHERE source = ? AND number BETWEEN ? AND ? ORDER BY number",
                (source, number - NEIGHBOURS, number + NEIGHBOURS),
            ).fetchall()
        return Passage(passage_id, source, title, _bounded(rows, number))

    def close(self) -> None:
        """Frees the index; it cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def _fill(self, folder: Folder, limits: Limits) -> None:
        """Takes in all documents of the folder."""
        with self._connection, DocumentReader(limits) as reader:
            for document in folder.documents():
                if self.passages >= limits.passages:
                    self._skips.add(document.source, f"comes after the first {limits.passages} passages")
                    continue
                try:
                    blocks = reader.blocks(document.kind, folder.read(document))
                except SkipError as error:
                    self._skips.add(document.source, str(error))
                    continue
                self._add(document.source, passages(blocks, PurePosixPath(document.source).stem), limits)
            self._connection.execute("INSERT INTO words (words) VALUES ('rebuild')")

    def _add(self, source: str, pieces: Iterator[Piece], limits: Limits) -> None:
        """Adds the passages of one document, up to what the index holds."""
        before = self.passages
        self._connection.executemany(
            "INSERT INTO passages (id, source, title, text) VALUES (?, ?, ?, ?)",
            self._numbered(source, islice(pieces, limits.passages - before)),
        )
        if self.passages == before:
            self._skips.add(source, "holds no text")
            return
        self.documents += 1
        if next(pieces, None):
            self._skips.add(
                source, f"is in the index up to its passage {self.passages - before} only: the index is full"
            )

    def _numbered(self, source: str, pieces: Iterable[Piece]) -> Iterator[tuple[str, str, str, str]]:
        """Yields the passages of one document as rows, and counts them."""
        for number, piece in enumerate(pieces, 1):
            self.passages += 1
            yield f"{source}#{number}", source, piece.title, piece.text


def prepare(connection: sqlite3.Connection) -> None:
    """Creates the tables of an empty index.

    Raises:
        SetupError: This Python's SQLite lacks FTS5.
    """
    try:
        connection.executescript(_SCHEMA)
    except sqlite3.Error as error:
        raise SetupError(
            f"The SQLite of this Python has no full-text search ({error}): "
            "use a Python whose sqlite3 module comes with FTS5, as those of python.org, Debian, Homebrew and uv do."
        ) from None


def _bounded(rows: list[tuple[int, str, str]], number: int) -> str:
    """Joins passages, from the ends inwards leaving out what is too much."""
    while True:
        titles = [None, *(title for _, title, _ in rows)]
        text = "\n\n".join(
            text if title in (before, "") else f"## {title}\n\n{text}"
            for before, (_, title, text) in zip(titles, rows, strict=False)
        )
        if len(text.encode()) <= LONGEST_READ or len(rows) == 1:
            return text
        rows = rows[:-1] if rows[-1][0] - number >= number - rows[0][0] else rows[1:]
