"""Reads HTML or PDF in a process of its own, under limits: run by its path with `python -I`, never imported.

Arguments: `html` or `pdf`, seconds of processor time for a document, bytes of memory, bytes of an answer.
Standard input: documents, each after its length (4 bytes, big endian). Standard output: an answer to each in the same
framing, JSON: `{"blocks": [[level, text], ...]}` (level 0 is text, others are headings) or `{"error": reason}`.
"""

import json
import math
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4.element import Tag

Block = tuple[int, str]

HEADER = struct.Struct(">I")
LONGEST_TITLE = 200
LONGEST_REASON = 160
OPEN_FILES = 16
DROPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "title"})
HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
SPACED = frozenset({"br", "td", "th", "option"})
BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "li", "main", "ol", "p", "pre"}
    | {"section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"}
)
BREAKING = BLOCKS | HEADINGS.keys()


def html_blocks(data: bytes) -> Iterator[Block]:
    """Yields the headings and texts of a page; its title stands in when there is no main heading."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(data, "html.parser")
    if page.title and not page.find("h1"):
        yield from heading(1, page.title.get_text())
    yield from walked(page)


def walked(page: "Tag") -> Iterator[Block]:
    """Walks a page without recursion, since a hostile one nests deeper than any stack."""
    from bs4.element import NavigableString, PreformattedString, Tag

    texts: list[str] = []
    open_tags = [(page, iter(page.children))]
    while open_tags:
        tag, children = open_tags[-1]
        node = next(children, None)
        edge = tag if node is None else node
        if isinstance(edge, Tag) and edge.name in BREAKING:
            yield from paragraph(texts, is_verbatim=tag.name == "pre")
            texts = []
        if node is None:
            open_tags.pop()
        elif isinstance(node, Tag):
            if node.name in HEADINGS:
                yield from heading(HEADINGS[node.name], node.get_text(" "))
            elif node.name not in DROPPED:
                texts += [" "] if node.name in SPACED else []
                open_tags.append((node, iter(node.children)))
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            texts.append(node)
    yield from paragraph(texts, is_verbatim=False)


def paragraph(texts: list[str], *, is_verbatim: bool) -> Iterator[Block]:
    """Yields the text between two block elements, if there is any."""
    text = "".join(texts)
    if text.strip():
        yield 0, text if is_verbatim else " ".join(text.split())


def heading(level: int, text: str) -> Iterator[Block]:
    """Yields a heading; one of unlikely length is an element that was never closed."""
    title = " ".join(text.split())
    if title:
        yield (level if len(title) <= LONGEST_TITLE else 0), title


def pdf_blocks(data: bytes) -> Iterator[Block]:
    """Yields each page that holds text under a heading with its number."""
    from pypdf import PasswordType, PdfReader

    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise ValueError("it asks for a password")
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text()
        if text.strip():
            yield 2, f"Page {number}"
            yield 0, text


READERS: dict[str, Callable[[bytes], Iterator[Block]]] = {"html": html_blocks, "pdf": pdf_blocks}


def answer(kind: str, data: bytes, most: int) -> bytes:
    """Reads one document; whatever goes wrong becomes the reason."""
    try:
        result = encoded({"blocks": list(bounded(READERS[kind](data), most))})
        return result if len(result) <= most else encoded({"error": too_much(most)})
    except MemoryError:
        why = "it needs too much memory"
    except Exception as error:  # noqa: BLE001 - parsers of hostile input raise everything
        why = reason(error)
    return encoded({"error": why})


def bounded(blocks: Iterator[Block], most: int) -> Iterator[Block]:
    """Passes blocks on, and stops reading a document that holds too much."""
    size = 0
    for block in blocks:
        size += len(block[1])
        if size > most:
            raise ValueError(too_much(most))
        yield block


def too_much(most: int) -> str:
    """Says that a document yields more text than is taken."""
    return f"it holds more than {most} bytes of text"


def encoded(content: object) -> bytes:
    """Encodes an answer; half characters of broken documents become question marks."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def reason(error: Exception) -> str:
    """Names an error in one short line."""
    text = " ".join(str(error).split())
    name = "" if type(error) is ValueError and text else type(error).__name__
    return ": ".join(part for part in (name, text) if part)[:LONGEST_REASON]


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit where the system knows it: macOS refuses some."""
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (soft, hard))


def serve(kind: str, cpu_s: int, memory_bytes: int, most: int) -> None:
    """Answers documents until standard input ends."""
    answer(kind, b"", most)  # imports what it needs while files may still be opened and caches written
    limit(resource.RLIMIT_CORE, 0, 0)
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    limit(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    while len(header := sys.stdin.buffer.read(HEADER.size)) == HEADER.size:
        data = sys.stdin.buffer.read(HEADER.unpack(header)[0])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used_s = math.ceil(usage.ru_utime + usage.ru_stime)
        limit(resource.RLIMIT_CPU, used_s + cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1])
        result = answer(kind, data, most)
        sys.stdout.buffer.write(HEADER.pack(len(result)) + result)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:]))
