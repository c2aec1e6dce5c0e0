import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from meshwright.agents.library.researcher.corpus import LONGEST_READ, Corpus, UnknownPassageError, prepare
from meshwright.agents.library.researcher.limits import Limits
from meshwright.core.errors import SetupError

Opener = Callable[..., Corpus]

INSTALL = """# Install

Get the package from the index and put it on every machine.

## Ports

The gateway listens on port 8080, the registry on port 9090.

## Removal

Delete the data folder.
"""


@pytest.fixture
def opened() -> Iterator[Opener]:
    with ExitStack() as stack:

        def open_corpus(folder: Path, limits: Limits | None = None) -> Corpus:
            corpus = Corpus.open(folder, limits or Limits())
            stack.callback(corpus.close)
            return corpus

        yield open_corpus


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "install.md").write_text(INSTALL)
    (tmp_path / "notes.txt").write_text("Ports are numbers.\n\nThe cache forgets what is older than an hour.\n")
    (tmp_path / "design.rst").write_text(
        "Design\n======\n\nThe journal is the truth.\n\nStore\n-----\n\nIt is Valkey.\n"
    )
    (tmp_path / "page.html").write_text(
        "<title>Site</title><nav>Home cache</nav><h1>Operations</h1><h2>Backup</h2><p>Copy the <b>volume</b>.</p>"
    )
    return tmp_path


@contextmanager
def without_privileges() -> Iterator[None]:
    """File permissions bind root only while it acts as someone else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that others may pass, unlike `tmp_path`."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_question_finds_the_passage_under_its_headings(docs: Path, opened: Opener) -> None:
    hit = opened(docs).search("Which port does the gateway listen on?", 5)[0]
    assert (hit.id, hit.source, hit.title) == ("guide/install.md#2", "guide/install.md", "Install > Ports")
    assert hit.text == "The gateway listens on port 8080, the registry on port 9090."
    assert hit.score > 0


def test_every_kind_of_text_is_found(docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    found = {corpus.search(words, 1)[0].title for words in ("forgets", "Valkey", "volume copied", "removal")}
    assert found == {"notes", "Design > Store", "Operations > Backup", "Install > Removal"}
    assert (corpus.documents, corpus.skipped) == (4, [])


def test_words_meet_in_other_forms_and_cases(docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    assert corpus.search("LISTENING gateways", 1)[0].id == "guide/install.md#2"


def test_a_word_in_a_heading_weighs_more_than_one_in_the_text(docs: Path, opened: Opener) -> None:
    assert [hit.title for hit in opened(docs).search("ports", 5)] == ["Install > Ports", "notes"]


def test_two_indexes_of_one_folder_give_the_same_ids_and_order(tmp_path: Path, opened: Opener) -> None:
    for name in ("b", "a", "c/d", "c/a", "aa"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text("The same words in every file.\n")
    first, second = (opened(tmp_path).search("same words", 10) for _ in range(2))
    assert first == second
    assert [hit.id for hit in first] == ["a.txt#1", "aa.txt#1", "b.txt#1", "c/a.txt#1", "c/d.txt#1"]
    assert len({hit.score for hit in first}) == 1


@pytest.mark.parametrize(
    "query",
    [
        '" OR * NEAR(',
        "title:x",
        "x\0y",
        "port* ^port {title text}: (port",
        "'; DROP TABLE passages; --",
        '"' * 999,
        "\ud800",
        "𖹀 ᲊ 😀 ½ ² port",
    ],
)
def test_hostile_queries_are_only_words(query: str, docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    corpus.search(query, 5)
    assert [hit.id for hit in corpus.search(f"{query} gateway", 1)] == ["guide/install.md#2"]


def test_a_query_of_ten_thousand_words_is_answered_at_once(docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    start = time.process_time()
    corpus.search(" ".join(f"word{number}" for number in range(10_000)), 5)
    assert corpus.search("gateway " + "x" * 10_000_000, 1)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("query", ["", "  \n", "?!", '"*"', "\0"])
def test_a_query_without_words_finds_nothing(query: str, docs: Path, opened: Opener) -> None:
    assert opened(docs).search(query, 5) == []


def test_the_limit_bounds_the_hits_whatever_it_is(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "a.md").write_text("".join(f"# Part {number}\n\nwords\n\n" for number in range(150)))
    corpus = opened(tmp_path)
    assert [len(corpus.search("words", limit)) for limit in (-1, 0, 7, 10**30)] == [0, 0, 7, 100]


def test_a_passage_is_read_with_its_neighbours(docs: Path, opened: Opener) -> None:
    passage = opened(docs).read("guide/install.md#2")
    assert (passage.id, passage.source, passage.title) == ("guide/install.md#2", "guide/install.md", "Install > Ports")
    assert passage.text.startswith("## Install\n\nGet the package")
    assert "## Install > Ports\n\nThe gateway listens" in passage.text
    assert passage.text.endswith("## Install > Removal\n\nDelete the data folder.")
    assert "journal" not in passage.text


def test_what_is_read_stays_below_its_bound_and_around_the_passage(tmp_path: Path, opened: Opener) -> None:
    words = "。".join("字" * 200 + str(number) for number in range(100))
    (tmp_path / "long.txt").write_text(words, encoding="utf-8")
    corpus = opened(tmp_path)
    passage = corpus.read("long.txt#9")
    assert 1_200 < len(passage.text.encode()) <= LONGEST_READ
    hit = next(hit for hit in corpus.search("long", 100) if hit.id == "long.txt#9")
    assert hit.text in passage.text


@pytest.mark.parametrize(
    "passage_id",
    ["../../etc/passwd", "/etc/passwd", "notes.txt", "notes.txt#99", "notes.txt#1 ", "", "%", "\ud800", "x" * 10**6],
)
def test_only_ids_of_the_index_are_read(passage_id: str, docs: Path, opened: Opener) -> None:
    with pytest.raises(UnknownPassageError, match=r"use an id that docs\.search returned") as caught:
        opened(docs).read(passage_id)
    assert len(str(caught.value)) < 500


def test_an_id_is_no_path_even_where_such_a_file_exists(docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    (docs / "late.txt").write_text("written after the index")
    with pytest.raises(UnknownPassageError):
        corpus.read("late.txt#1")
    (docs / "notes.txt").unlink()
    assert "Ports are numbers." in corpus.read("notes.txt#1").text


def test_many_threads_search_at_once(docs: Path, opened: Opener) -> None:
    corpus = opened(docs)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: corpus.search("gateway port", 3), range(200)))
    assert all(hits == found[0] for hits in found)


def test_an_empty_folder_gives_an_empty_index(tmp_path: Path, opened: Opener) -> None:
    corpus = opened(tmp_path)
    assert (corpus.search("anything", 5), corpus.documents, corpus.passages) == ([], 0, 0)


def test_documents_without_text_and_binary_ones_are_skipped(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "binary.md").write_bytes(b"# Title\n\0\1\2")
    (tmp_path / "binary.html").write_bytes(b"<p>\0</p>")
    corpus = opened(tmp_path)
    assert corpus.skipped == [
        ("binary.html", "holds binary data"),
        ("binary.md", "holds binary data"),
        ("empty.txt", "holds no text"),
    ]
    assert corpus.skipped_count == 3


def test_text_in_another_encoding_is_read_as_far_as_it_goes(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "latin.txt").write_bytes("Die Größe der Brücke".encode("latin-1"))
    (tmp_path / "bom.md").write_bytes("\ufeff# Köln\r\n\r\nAm Rhein\r\n".encode())
    corpus = opened(tmp_path)
    assert corpus.search("Die", 1)[0].text == "Die Gr\ufffd\ufffde der Br\ufffdcke"
    assert corpus.search("koln", 1)[0].title == "Köln"


def test_control_characters_of_a_document_reach_nobody(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "a.md").write_text("# Red\x1b[31m\n\nring\x07 the\x9b bell\n")
    hit = opened(tmp_path).search("bell", 1)[0]
    assert (hit.title, hit.text) == ("Red [31m", "ring  the  bell")


def test_a_full_index_says_what_it_left_out(tmp_path: Path, opened: Opener) -> None:
    for name in "abc":
        (tmp_path / f"{name}.md").write_text("# One\n\nwords\n\n# Two\n\nwords\n")
    corpus = opened(tmp_path, replace(Limits(), passages=3))
    assert (corpus.passages, corpus.documents) == (3, 2)
    assert corpus.skipped == [
        ("b.md", "is in the index up to its passage 1 only: the index is full"),
        ("c.md", "comes after the first 3 passages"),
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [("missing", "does not exist"), ("notes.txt", "is a file"), ("x\0y", "cannot be read"), ("loop", "cannot be read")],
)
def test_what_is_no_folder_cannot_be_opened(path: str, words: str, docs: Path) -> None:
    (docs / "loop").symlink_to(docs / "loop")
    with pytest.raises(SetupError, match=words) as caught:
        Corpus.open(docs / path)
    assert "\n" not in caught.value.message


def test_a_sqlite_that_refuses_full_text_search_says_what_to_do() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_VTABLE else sqlite3.SQLITE_OK
        )
        with pytest.raises(SetupError, match=r"no full-text search \(.+\): use a Python whose sqlite3"):
            prepare(connection)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])
def test_a_folder_without_permissions_cannot_be_opened(mode: int, open_to_all: Path) -> None:
    closed = open_to_all / "closed"
    closed.mkdir()
    closed.chmod(mode)
    with without_privileges(), pytest.raises(SetupError, match=r"cannot be read \(Permission denied\)"):
        Corpus.open(closed)
    closed.chmod(0o700)


def test_an_unreadable_file_or_folder_inside_is_skipped(open_to_all: Path, opened: Opener) -> None:
    (open_to_all / "good.txt").write_text("good words")
    (open_to_all / "secret.txt").write_text("secret words")
    (open_to_all / "closed").mkdir()
    (open_to_all / "secret.txt").chmod(0)
    (open_to_all / "closed").chmod(0)
    with without_privileges():
        corpus = opened(open_to_all)
    (open_to_all / "closed").chmod(0o700)
    assert corpus.skipped == [
        ("closed", "cannot be read: Permission denied"),
        ("secret.txt", "cannot be read: Permission denied"),
    ]
    assert [hit.source for hit in corpus.search("words", 5)] == ["good.txt"]


def test_an_index_can_be_closed_twice(docs: Path) -> None:
    corpus = Corpus.open(docs)
    corpus.close()
    corpus.close()
    with pytest.raises(sqlite3.ProgrammingError):
        corpus.search("port", 1)


def test_no_file_stays_open(docs: Path, opened: Opener) -> None:
    folder = Path("/dev/fd")
    before = len(list(folder.iterdir()))
    for _ in range(3):
        opened(docs)
    assert len(list(folder.iterdir())) <= before


def test_two_thousand_files_are_indexed_in_seconds(tmp_path: Path, opened: Opener) -> None:
    for number in range(2_000):
        words = " ".join(f"word{(number * each) % 997}" for each in range(600))
        (tmp_path / f"{number}.txt").write_text(words)
    start = time.process_time()
    corpus = opened(tmp_path)
    assert time.process_time() - start < 20
    assert corpus.documents == 2_000
