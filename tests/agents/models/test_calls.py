"""Tool calls from pieces."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.models.calls import NOT_JSON, Drafts, read_arguments
from meshwright.agents.models.names import WireNames

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.lists(st.integers(0, 200), max_size=6))
def test_arguments_are_the_same_however_they_are_cut(arguments: dict[str, Any], cuts: list[int]) -> None:
    text = json.dumps(arguments)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert read_arguments(pieces) == arguments


@given(st.text())
def test_any_text_is_read_as_an_object(text: str) -> None:
    read = read_arguments([text])
    assert read == {NOT_JSON: text} or json.loads(text.strip() or "{}") == read


@given(st.lists(st.sampled_from(["", "a", "b", "call_3_0"]), max_size=6))
def test_every_call_of_an_answer_has_an_id_of_its_own(ids: list[str]) -> None:
    drafts = Drafts("here")
    for index, call_id in enumerate(ids):
        drafts.begin(index, call_id, "search")
    calls = drafts.calls(WireNames([]), 3)
    assert len({call.call_id for call in calls}) == len(ids)
