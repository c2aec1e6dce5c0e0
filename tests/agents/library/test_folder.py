import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from meshwright.agents.library.researcher.folder import Folder
from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.skips import SkipError, Skips


class Walk:
    """A folder that has been walked."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.skips = Skips(limits.skipped)
        self.folder = Folder.open(path, limits, self.skips)
        self.documents = self.folder.documents()

    @property
    def sources(self) -> list[str]:
        return [document.source for document in self.documents]

    def read(self, source: str) -> bytes:
        return self.folder.read(next(document for document in self.documents if document.source == source))


Walker = Callable[..., Walk]


@pytest.fixture
def walk() -> Iterator[Walker]:
    with ExitStack() as stack:

        def walked(path: Path, limits: Limits | None = None) -> Walk:
            walk = Walk(path, limits or Limits())
            stack.callback(walk.folder.close)
            return walk

        yield walked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def put(root: Path, *sources: str) -> None:
    for source in sources:
        (root / source).parent.mkdir(parents=True, exist_ok=True)
        (root / source).write_text(source)


def test_documents_are_known_by_their_endings_and_ordered_by_path(root: Path, walk: Walker) -> None:
    put(root, "z.TXT", "b/a.rst", "a.markdown", "b.htm", "b/c/x.pdf", "b/c.html", "README.md", "b/code.py", "noending")
    walked = walk(root)
    assert walked.sources == ["README.md", "a.markdown", "b.htm", "b/a.rst", "b/c.html", "b/c/x.pdf", "z.TXT"]
    assert [document.kind for document in walked.documents] == [
        "markdown", "markdown", "html", "rst", "html", "pdf", "text",
    ]  # fmt: skip
    assert walked.skips.entries == []
    assert walked.read("b/c/x.pdf") == b"b/c/x.pdf"


def test_hidden_entries_and_folders_of_tools_are_passed_over(root: Path, walk: Walker) -> None:
    put(root, "a.md", ".hidden.md", ".git/b.md", "node_modules/c.md", ".venv/d.md", "x/__pycache__/e.md")
    assert walk(root).sources == ["a.md"]


def test_links_that_lead_out_are_refused(root: Path, walk: Walker) -> None:
    put(root, "a.txt")
    (root / "file.txt").symlink_to("/etc/hostname")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "up").symlink_to("..")
    (root / "sly.txt").symlink_to("../root/../outside/secret.txt")
    (root / "chain.txt").symlink_to("sly.txt")
    (root / "nowhere.txt").symlink_to("missing")
    walked = walk(root)
    out = "is a link that leads out of the folder"
    assert walked.sources == ["a.txt"]
    assert dict(walked.skips.entries) == {
        "chain.txt": out,
        "file.txt": out,
        "folder": out,
        "nowhere.txt": "is a link that leads nowhere: No such file or directory",
        "sly.txt": out,
        "up": out,
    }


def test_a_folder_with_a_name_that_starts_alike_is_outside(root: Path, walk: Walker) -> None:
    put(root.parent, "root2/b.txt")
    (root / "b.txt").symlink_to("../root2/b.txt")
    assert walk(root).sources == []


def test_links_in_circles_end(root: Path, walk: Walker) -> None:
    put(root, "a/b/c.txt")
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    (root / "a" / "b" / "top").symlink_to(root)
    (root / "a" / "parent").symlink_to("..")
    walked = walk(root)
    assert walked.sources == ["a/b/c.txt"]
    assert {path for path, _ in walked.skips.entries} == {"self", "ping", "pong"}


def test_links_inside_are_followed_to_what_is_not_found_otherwise(root: Path, walk: Walker) -> None:
    put(root, "..2024/faq.md", "..2024/more/x.md", "real.md")
    (root / "..data").symlink_to("..2024")
    (root / "faq.md").symlink_to("..data/faq.md")
    (root / "again.md").symlink_to("real.md")
    (root / "more").symlink_to("..data/more")
    walked = walk(root)
    assert walked.sources == ["faq.md", "more/x.md", "real.md"]
    assert walked.read("faq.md") == b"..2024/faq.md"
    assert walked.read("more/x.md") == b"..2024/more/x.md"


def test_the_folder_itself_may_be_a_link(root: Path, walk: Walker) -> None:
    put(root, "a.txt")
    (root.parent / "link").symlink_to(root)
    assert walk(root.parent / "link").read("a.txt") == b"a.txt"


def test_a_file_swapped_for_a_link_after_the_walk_is_not_read(root: Path, walk: Walker) -> None:
    put(root, "a.txt", "sub/secret.txt")
    walked = walk(root)
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to(root.parent / "outside" / "secret.txt")
    (root / "sub" / "secret.txt").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(root.parent / "outside")
    for source in walked.sources:
        with pytest.raises(SkipError, match="cannot be read"):
            walked.read(source)


def test_a_file_swapped_for_a_fifo_after_the_walk_does_not_block(root: Path, walk: Walker) -> None:
    put(root, "a.txt")
    walked = walk(root)
    (root / "a.txt").unlink()
    os.mkfifo(root / "a.txt")
    with pytest.raises(SkipError, match="is no regular file"):
        walked.read("a.txt")


def test_special_files_are_skipped_without_waiting(root: Path, walk: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "a.txt")
    os.mkfifo(root / "fifo.txt")
    (root / "link.txt").symlink_to("fifo.txt")
    monkeypatch.chdir(root)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.md")
        walked = walk(root)
    assert walked.sources == ["a.txt"]
    assert dict(walked.skips.entries) == dict.fromkeys(("fifo.txt", "link.txt", "socket.md"), "is no regular file")


def test_a_device_behind_a_link_is_outside(root: Path, walk: Walker) -> None:
    (root / "endless.txt").symlink_to("/dev/zero")
    assert walk(root).sources == []


def test_names_that_are_no_text_are_skipped(root: Path, walk: Walker) -> None:
    put(root, "Größe 1\u202fpm.txt", "new\nline.txt")
    broken = os.fsencode(root) + b"/\xff.txt"
    try:
        Path(os.fsdecode(broken)).write_text("x")
    except OSError:  # macOS takes no such name
        names = {r"new\nline.txt"}
    else:
        names = {r"new\nline.txt", r"\udcff.txt"}
    walked = walk(root)
    assert walked.sources == ["Größe 1\u202fpm.txt"]
    assert {path for path, _ in walked.skips.entries} == names


def test_documents_beyond_the_limit_are_skipped(root: Path, walk: Walker) -> None:
    put(root, *(f"{name}.txt" for name in "edcba"))
    walked = walk(root, replace(Limits(), files=3))
    assert walked.sources == ["a.txt", "b.txt", "c.txt"]
    assert walked.skips.entries == [(f"{name}.txt", "comes after the first 3 documents") for name in "de"]


def test_a_large_file_is_skipped_by_its_size_alone(root: Path, walk: Walker) -> None:
    with (root / "huge.txt").open("wb") as stream:
        stream.truncate(2**40)
    (root / "fits.txt").write_bytes(b"x" * 100)
    walked = walk(root, replace(Limits(), file_bytes=100))
    assert len(walked.read("fits.txt")) == 100
    with pytest.raises(SkipError, match="is larger than 100 bytes"):
        walked.read("huge.txt")


def test_all_documents_together_are_bounded(root: Path, walk: Walker) -> None:
    for name, size in (("a", 60), ("b", 60), ("c", 40)):
        (root / f"{name}.txt").write_bytes(b"x" * size)
    walked = walk(root, replace(Limits(), total_bytes=100))
    assert len(walked.read("a.txt")) == 60
    with pytest.raises(SkipError, match="would exceed 100 bytes for all documents"):
        walked.read("b.txt")
    assert len(walked.read("c.txt")) == 40


def test_a_walk_ends_after_so_many_entries(root: Path, walk: Walker) -> None:
    put(root, *(f"{number // 10}/{number}.py" for number in range(100)), "z/a.txt")
    (root / "zz").symlink_to("z")
    walked = walk(root, replace(Limits(), entries=50))
    assert walked.sources == []
    assert walked.skips.entries == [(".", "holds more than 50 entries; the rest was not looked at")]


def test_folders_nested_too_deeply_are_skipped(root: Path, walk: Walker) -> None:
    put(root, "1/2/a.txt", "1/2/3/b.txt")
    walked = walk(root, replace(Limits(), depth=2))
    assert walked.sources == ["1/2/a.txt"]
    assert walked.skips.entries == [("1/2/3", "is nested deeper than 2 folders")]


def test_the_list_of_what_is_skipped_is_bounded_and_the_count_is_not(root: Path, walk: Walker) -> None:
    for number in range(10):
        (root / f"{number}.txt").symlink_to("/etc/hostname")
    skips = walk(root, replace(Limits(), skipped=4)).skips
    assert ([path for path, _ in skips.entries], skips.count) == (["0.txt", "1.txt", "2.txt", "3.txt"], 10)
