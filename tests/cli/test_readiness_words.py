"""What the readiness list is given, reads of others, and says."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.components.monitoring.render import outlines
from meshwright.cli.place import Place
from meshwright.cli.readiness.checklist import ITEMS
from meshwright.cli.readiness.monitoring import records, text
from meshwright.cli.readiness.outcome import few
from meshwright.cli.readiness.peer import Answer
from meshwright.cli.readiness.survey import Survey
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    MeshError,
    SetupError,
)
from meshwright.gen.agents.v1 import task_pb2 as tasks
from tests.cli.liar import (
    ALERTS,
    STEPS,
    target,
)

PAGE = Path(__file__).parents[2] / "docs/production.md"


@pytest.mark.parametrize(
    "url", ["", "edge", "ftp://x", "https://", "https://u:p@x", "https://x?y", "https://x#y", "https://[::1", "https://x:y",
            "https://x\r\ny", "https://a b"]
)  # fmt: skip
def test_what_is_no_url_is_refused(url):
    with pytest.raises(SetupError, match="is no URL of a server"):
        Place.of(url)


@pytest.mark.parametrize("read", [Place.of, Place.of_edge])
@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@mesh.example",
        "https://me:1/hunter2@mesh.example",
        "https://mesh.example?token=hunter2",
        "https://mesh.example#hunter2",
        "me:hunter2@mesh.example",
    ],
)
def test_a_password_in_an_address_is_not_told(read, url):
    with pytest.raises(SetupError, match="is no URL of") as caught:
        read(url)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("key", ["mwk_1\r\nx: y", "schlüssel"])
def test_what_cannot_be_a_key_is_refused(public, key):
    with pytest.raises(SetupError, match="MESHWRIGHT_API_KEY"):
        Survey(target("https://localhost", public.folder, api_key=key), Stores())


def test_a_place_is_named_as_the_header_host_has_it():
    assert [Place.of(url).authority for url in ("https://x", "http://x:80", "https://[::1]:8443", "http://x:81/")] == [
        "x", "x", "[::1]:8443", "x:81"
    ]  # fmt: skip


@given(st.integers(100, 599), st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_an_answer_of_any_bytes_is_a_message_or_a_typed_error(status, body):
    answer = Answer(status, {}, body, 0.1)
    with contextlib.suppress(MeshError):
        answer.read(tasks.TaskResponse())
    assert answer.error.message
    assert str(status) in answer.shown


JSON = st.recursive(st.none() | st.floats() | st.text(max_size=9), lambda one: st.lists(one, max_size=3), max_leaves=4)


@given(st.dictionaries(st.sampled_from(["a", "b"]), JSON | st.lists(st.dictionaries(st.just("a"), JSON), max_size=3)))
def test_what_a_prometheus_says_may_be_any_json(data):
    for one in records(data, "a"):
        assert isinstance(text(one, "a"), str)


def test_few_names_are_told_and_the_others_counted():
    assert (few(["a", "b"]), few(["a", "b", "c"], 2)) == ("a, b", "a, b and 1 more")


def test_the_steps_of_a_good_task_are_in_order():
    assert [one.sequence for one in STEPS] == [1, 2, 3, 4, 5]


def test_the_page_has_the_list():
    section = PAGE.read_text().partition("\n## What a running mesh shows\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert rows[1:] == [f"| {item.group}: {item.name} | {item.wants} |" for item in ITEMS]


def test_the_alerts_that_are_looked_for_are_those_of_the_component():
    assert ALERTS.read_text() == outlines()
