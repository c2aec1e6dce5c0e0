"""Levels of loggers: read as they are meant or refused, and taken up from a file while a process runs."""

import contextlib
import logging
import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from meshwright.core import log_levels
from meshwright.core.errors import SetupError
from meshwright.core.log_levels import LEVELS, LOGGERS, MOST_BYTES, LevelFile, Levels
from meshwright.core.logs import log


class TestLevels:
    def test_a_level_is_of_all_loggers_but_those_that_are_named(self):
        levels = Levels.parse(" WARNING, call=debug ,tls = error")
        assert (levels.of("runner"), levels.of("call"), levels.of("tls")) == (30, 10, 40)
        assert str(levels) == "warning,call=debug,tls=error"

    def test_without_a_level_of_all_it_stays_as_it_was(self):
        assert Levels.parse("call=debug", logging.ERROR) == Levels(logging.ERROR, {"call": logging.DEBUG})
        assert Levels.parse("") == Levels(logging.INFO)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("loud", "'loud' is no level: use debug, info, warning"),
            ("info,cal=debug", "'cal' is no logger here; do you mean 'call'"),
            ("Runer=debug", "'Runer' is no logger here; do you mean 'runner'"),
            ("tool-host=debug", "'tool-host' is no logger here; do you mean 'tool_host'"),
            ("mine/orders=debug", "'mine/orders' is no logger: it has 1 to 64 letters"),
            ("x" * 65 + "=debug", "x' is no logger: it has 1 to 64 letters"),
            ("grpc=debug", "'grpc' is a library's logger: libraries say warnings and worse"),
            ("google.protobuf=info", "'google.protobuf' is a library's logger"),
            ("asyncio=info", "'asyncio' is a library's logger"),
            ("=debug", "'' is no logger"),
            ("call=", "'' is no level"),
            ("call=10", "'10' is no level"),
            ("x" * 5_000, "write LEVEL or LOGGER=LEVEL"),
        ],
    )
    def test_what_names_no_level_or_no_logger_is_refused(self, text, told):
        with pytest.raises(SetupError, match=told) as refused:
            Levels.parse(text)
        assert len(refused.value.message) < 300

    def test_loggers_of_agents_and_tools_have_levels_and_those_below_them(self):
        levels = Levels.parse("warning,Price_Desk=debug,price_desk.cache=error,CALL=info,grpc=error,__main__=debug")
        names = (
            "Price_Desk",
            "Price_Desk.orders.old",
            "price_desk",
            "price_desk.cache.x",
            "call",
            "grpc.x",
            "__main__",
        )
        assert [levels.of(name) for name in names] == [10, 10, 30, 40, 20, 40, 10]
        assert Levels.parse(str(levels)) == levels

    @pytest.mark.parametrize(
        ("required", "is_own"),
        [("meshwright>=0.1", True), ("meshwright", True), ("meshwrightly", False), ("grpcio", False)],
    )
    def test_an_agents_installed_package_is_no_library(self, tmp_path, monkeypatch, required, is_own):
        (tmp_path / "rice_desk").mkdir()
        (tmp_path / "rice_desk" / "__init__.py").touch()
        facts = tmp_path / "rice_desk-1.0.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rice-desk\nRequires-Dist: {required}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(log_levels, "INSTALLED", frozenset({tmp_path}))
        assert log_levels.is_of_library("rice_desk.orders") is not is_own

    @given(name=st.sampled_from(sorted(LOGGERS)), where=st.integers(0, 99), letter=st.sampled_from("aeinrstxz_"))
    def test_a_name_of_ours_with_a_letter_too_many_is_not_taken_for_a_logger_of_somebody_else(
        self, name, where, letter
    ):
        wrong = name[: where % (len(name) + 1)] + letter + name[where % (len(name) + 1) :]
        assume(wrong not in LOGGERS)
        with pytest.raises(SetupError, match="is no logger here; do you mean"):
            Levels.parse(f"{wrong}=debug")

    @given(
        base=st.sampled_from(sorted(LEVELS)),
        own=st.dictionaries(st.sampled_from(sorted(LOGGERS)), st.sampled_from(sorted(LEVELS))),
    )
    def test_levels_are_read_as_they_are_written(self, base, own):
        levels = Levels(LEVELS[base], {name: LEVELS[level] for name, level in own.items()})
        assert Levels.parse(str(levels)) == levels

    @given(text=st.text(max_size=60))
    def test_whatever_stands_there_is_read_or_refused(self, text):
        with contextlib.suppress(SetupError):
            assert Levels.parse(text).base in LEVELS.values()


class Used(list):
    """Levels as they were used, one after the other."""


@pytest.fixture
def used():
    return Used()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log-levels"


@pytest.fixture
def file(path, used):
    return LevelFile(path, Levels(), 900, lambda levels: used.append(str(levels)), log)


class TestLevelFile:
    def test_levels_hold_from_when_they_are_written_until_they_end(self, file, path, used):
        file.look(0)
        assert used == []
        path.write_text("call=debug\n")
        with capture_logs() as lines:
            file.look(1)
            file.look(900)
            assert used == ["info,call=debug"]
            file.look(901)
            file.look(902)
        assert used == ["info,call=debug", "info"]
        assert [(line["event"], line["levels"]) for line in lines] == [
            ("log_levels_read", "info,call=debug"),
            ("log_levels_ended", "info"),
        ]
        assert lines[0]["until"].endswith("+00:00")

    def test_a_file_that_is_touched_holds_anew(self, file, path, used):
        path.write_text("debug")
        file.look(0)
        os.utime(path, ns=(1, 1))
        file.look(800)
        file.look(1_600)
        assert used == ["debug", "debug"]
        file.look(1_700)
        assert used[-1] == "info"

    @pytest.mark.parametrize("end", ["", "# nothing\n\n", None])
    def test_without_levels_the_usual_ones_hold_again(self, file, path, used, end):
        path.write_text("error\n")
        file.look(0)
        path.unlink() if end is None else path.write_text(end)
        file.look(1)
        file.look(5_000)
        assert used == ["error", "info"]

    def test_one_that_is_put_in_its_place_is_read_as_those_of_a_configmap_are(self, file, path, tmp_path, used):
        for number, levels in enumerate(("error", "debug")):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "levels").write_text(f"# why\n{levels}  # for now\ncall=info\n")
            link = tmp_path / "new"
            link.symlink_to(folder / "levels")
            link.rename(path)
            file.look(number)
        assert used == ["error,call=info", "debug,call=info"]

    @pytest.mark.parametrize(
        "content",
        [b"loud", b"info,wurker=debug", b"\xff\xfe", b"\0", b"debug\n" * MOST_BYTES, b"=", b"mwk_" + b"0" * 99],
    )
    def test_what_cannot_be_read_changes_nothing_and_is_told_once(self, file, path, used, content):
        path.write_text("call=debug")
        file.look(0)
        path.write_bytes(content)
        with capture_logs() as lines:
            file.look(1)
            file.look(2)
        assert used == ["info,call=debug"]
        ((event, error),) = [(line["event"], line["error"]) for line in lines]
        assert event == "log_levels_kept"
        assert len(error) < 300
        file.look(900)
        assert used[-1] == "info"

    def test_what_is_no_file_keeps_nobody_waiting(self, file, path, used):
        os.mkfifo(path)
        file.look(0)
        path.unlink()
        path.mkdir()
        with capture_logs() as lines:
            file.look(1)
        assert [line["event"] for line in lines] == ["log_levels_kept"]
        assert "debug" not in used

    def test_levels_without_an_end_stay(self, path, used):
        path.write_text("debug")
        file = LevelFile(path, Levels(), 0, lambda levels: used.append(str(levels)), log)
        with capture_logs() as lines:
            file.look(0)
            file.look(10**9)
        assert used == ["debug"]
        assert "until" not in lines[0]
