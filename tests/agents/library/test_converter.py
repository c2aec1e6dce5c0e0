import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader, PdfWriter

from meshwright.agents.library.researcher.converter import DOCUMENTS_OF_A_PROCESS, Converter
from meshwright.agents.library.researcher.corpus import Corpus
from meshwright.agents.library.researcher.folder import Kind
from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.markup import Block
from meshwright.agents.library.researcher.skips import SkipError

Starter = Callable[..., Converter]


@pytest.fixture
def converter() -> Iterator[Starter]:
    with ExitStack() as stack:

        def started(kind: Kind, **limits: Any) -> Converter:
            return stack.enter_context(closing(Converter(kind, replace(Limits(), **limits))))

        yield started


def pdf(*pages: str) -> bytes:
    """Writes a PDF with a correct cross-reference table, a line of text to a page."""
    streams = [f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode() if text else b"" for text in pages]
    return pdf_of(*(f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream" for stream in streams))


def pdf_of(*contents: bytes) -> bytes:
    """Writes a PDF whose pages have these content streams."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, content in enumerate(contents):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * index} 0 R"
        objects += [f"{page} /Resources << /Font << /F1 3 0 R >> >> >>".encode(), content]
    data, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + each + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def deflated(content: bytes, rounds: int = 1) -> bytes:
    """Writes a content stream that was compressed so many times."""
    for _ in range(rounds):
        content = zlib.compress(content, 9)
    filters = " ".join(["/FlateDecode"] * rounds)
    return f"<< /Length {len(content)} /Filter [{filters}] >>\nstream\n".encode() + content + b"\nendstream"


def encrypted(data: bytes, password: str) -> bytes:
    writer = PdfWriter(PdfReader(BytesIO(data)))
    writer.encrypt(password, "owner", algorithm="AES-256")
    stream = BytesIO()
    writer.write(stream)
    return stream.getvalue()


@cache
def slow_pdf() -> bytes:
    return pdf_of(deflated(b"BT /F1 12 Tf " + b"(words) Tj 1 0 Td " * 1_000_000 + b"ET"))


def test_a_pdf_is_read_page_by_page(converter: Starter) -> None:
    assert converter("pdf").convert(pdf("The first page.", "", "The third page.")) == [
        Block(2, "Page 1"), Block(0, "The first page."), Block(2, "Page 3"), Block(0, "The third page."),
    ]  # fmt: skip


def test_a_pdf_that_opens_without_a_password_is_read(converter: Starter) -> None:
    assert converter("pdf").convert(encrypted(pdf("Open secret."), ""))[1] == Block(0, "Open secret.")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("password", encrypted(pdf("Secret."), "password")),
        ("garbage", os.urandom(5_000)),
        ("cut", pdf("Page.")[:200]),
        ("header", b"%PDF-1.7\n"),
        ("circle", pdf("Page.").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")),
        ("bomb", pdf_of(deflated(b"\n" * 200_000_000, rounds=2))),
    ],
)
def test_a_pdf_that_cannot_be_read_gives_a_reason_and_the_next_is_read(
    name: str, data: bytes, converter: Starter
) -> None:
    started = converter("pdf")
    with pytest.raises(SkipError) as caught:
        started.convert(data)
    assert 0 < len(str(caught.value)) < 250, name
    assert started.convert(pdf("Fine."))[1] == Block(0, "Fine.")


def test_a_password_is_named_as_the_reason(converter: Starter) -> None:
    with pytest.raises(SkipError, match=r"^cannot be read as PDF: it asks for a password$"):
        converter("pdf").convert(encrypted(pdf("Secret."), "password"))


def test_a_document_that_takes_too_much_processor_time_is_given_up(converter: Starter) -> None:
    started = converter("pdf", cpu_s=1)
    with pytest.raises(SkipError, match="takes more than 1 s of processor time"):
        started.convert(slow_pdf())
    assert started.convert(pdf("Fine."))


def test_processor_time_counts_for_each_document_anew(converter: Starter) -> None:
    started = converter("html", cpu_s=1)
    page = b"<p>words</p>" * 10_000
    start = time.monotonic()
    while time.monotonic() - start < 1.8:
        assert len(started.convert(page)) == 10_000


def test_a_document_that_takes_too_long_is_given_up(converter: Starter) -> None:
    document = slow_pdf()
    start = time.monotonic()
    with pytest.raises(SkipError, match=r"takes more than 0\.5 s to read"):
        converter("pdf", document_s=0.5).convert(document)
    assert time.monotonic() - start < 20


def test_documents_of_a_kind_share_a_time_budget(converter: Starter) -> None:
    started = converter("html", kind_s=0.001)
    started.convert(b"<p>one</p>")
    with pytest.raises(SkipError, match=r"the time for HTML documents, 0\.001 s, is used up"):
        started.convert(b"<p>two</p>")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bound the memory of a process")
def test_a_document_that_needs_too_much_memory_is_given_up(converter: Starter) -> None:
    started = converter("html", memory_bytes=128 * 2**20)
    with pytest.raises(SkipError, match="it needs too much memory"):
        started.convert(b"<i>" * 300_000)
    assert started.convert(b"<p>fine</p>") == [Block(0, "fine")]


def test_a_document_with_too_much_text_is_given_up(converter: Starter) -> None:
    for content in (b"<p>" + b"x" * 5_000, b"<p>x</p>" * 500):
        with pytest.raises(SkipError, match="it holds more than 1000 bytes of text"):
            converter("html", text_bytes=1_000).convert(content)


def test_a_process_that_is_killed_costs_one_document(converter: Starter) -> None:
    started = converter("html")
    started.convert(b"<p>one</p>")
    assert started._process is not None
    started._process.kill()
    with pytest.raises(SkipError, match=r"ended the process that read it \(status -9\)"):
        started.convert(b"<p>two</p>" * 100_000)
    assert started.convert(b"<p>three</p>") == [Block(0, "three")]


def test_a_process_is_replaced_after_some_documents(converter: Starter) -> None:
    started = converter("html")
    processes = set()
    for _ in range(DOCUMENTS_OF_A_PROCESS + 1):
        started.convert(b"<p>page</p>")
        assert started._process is not None
        processes.add(started._process.pid)
    assert len(processes) == 2


def test_the_process_sees_nothing_of_our_environment(converter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "secret")
    started = converter("html")
    started.convert(b"<p>page</p>")
    assert started._process is not None
    environment = Path(f"/proc/{started._process.pid}/environ")
    assert not environment.exists() or b"secret" not in environment.read_bytes()  # only Linux lets us look


def test_html_is_read_as_headings_and_paragraphs(converter: Starter) -> None:
    page = b"""<!doctype html><html><head><title>Unused</title><style>p {}</style></head><body>
    <nav>Menu</nav><script>alert(1)</script><template><p>no</p></template><!-- no -->
    intro <h1>Main <a href=#>title</a></h1><p>One <b>bold</b>
    word.<div>two<p>three</p>four</div>
    <ul><li>x<li>y</ul><table><tr><td>a<td>b</table><pre>  code
      more</pre></body></html>"""
    assert converter("html").convert(page) == [
        Block(0, "intro"), Block(1, "Main title"), Block(0, "One bold word."), Block(0, "two"), Block(0, "three"),
        Block(0, "four"), Block(0, "x"), Block(0, "y"), Block(0, "a b"), Block(0, "  code\n      more"),
    ]  # fmt: skip


def test_the_title_of_a_page_stands_in_for_its_main_heading(converter: Starter) -> None:
    assert converter("html").convert(b"<title>Site</title><h2>Part</h2>text") == [
        Block(1, "Site"), Block(2, "Part"), Block(0, "text"),
    ]  # fmt: skip


def test_an_open_heading_does_not_swallow_the_page(converter: Starter) -> None:
    assert converter("html").convert(b"<h1>Title " + b"word " * 100)[0].level == 0


def test_html_names_its_own_encoding(converter: Starter) -> None:
    page = '<meta charset="iso-8859-1"><p>Größe</p>'.encode("latin-1")
    assert converter("html").convert(page) == [Block(0, "Größe")]


@pytest.mark.parametrize(
    "page",
    [
        b"<div>" * 100_000 + b"deep",
        b"<h1>" * 30_000 + b"deep",
        b"<nav>" * 30_000 + b"deep" + b"</nav>" * 30_000,
        b"<pre>" * 30_000 + b"</div>" * 30_000 + b"deep",
        b"<a " + b"b=c " * 200_000 + b">deep",
        b"&#xd800;&#0;&" * 30_000,
    ],
    ids=range(6),
)
def test_hostile_html_neither_hangs_nor_crashes_us(page: bytes, converter: Starter) -> None:
    started = converter("html", cpu_s=3)
    start = time.monotonic()
    with suppress(SkipError):  # a slow machine gives up
        assert all(block.text for block in started.convert(page))
    assert started.convert(b"<p>fine</p>") == [Block(0, "fine")]
    assert time.monotonic() - start < 40


def test_a_folder_with_hostile_documents_still_becomes_an_index(tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(pdf("The pump needs oil.", "The valve needs grease."))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    (tmp_path / "scan.pdf").write_bytes(pdf("", ""))
    (tmp_path / "slow.html").write_bytes(b"<p>words</p>" * 200_000)
    (tmp_path / "page.html").write_bytes(b"<h1>Oil</h1><p>Oil is slippery.</p>")
    with closing(Corpus.open(tmp_path, replace(Limits(), cpu_s=1))) as corpus:
        hit = corpus.search("grease for a valve", 1)[0]
        assert (hit.id, hit.title) == ("manual.pdf#2", "manual > Page 2")
        assert corpus.search("slippery", 1)[0].title == "Oil"
        reasons = dict(corpus.skipped)
    assert set(reasons) == {"broken.pdf", "scan.pdf", "slow.html"}
    assert reasons["scan.pdf"] == "holds no text"
