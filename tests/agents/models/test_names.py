"""Tool names as providers take them."""

from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.models.names import LONGEST_NAME, WireNames


def test_names_keep_to_the_allowed_letters_and_find_back() -> None:
    long = "a." * 40
    names = ["docs.search", "docs__search", "ask.code-reviewer", long, long + "b"]
    wire = WireNames(names)
    assert [wire.wire(name) for name in names[:3]] == ["docs__search", "docs__search_2", "ask__code-reviewer"]


@given(st.lists(st.text(min_size=1, max_size=80), max_size=8, unique=True))
def test_all_names_are_spelled_apart_and_find_back(names: list[str]) -> None:
    wire = WireNames(names)
    spelled = [wire.wire(name) for name in names]
    assert len(set(spelled)) == len(names)
    assert all(len(each) <= LONGEST_NAME for each in spelled)
    assert [wire.own(each) for each in spelled] == names


def test_a_tool_that_was_never_offered_keeps_the_name_that_was_meant() -> None:
    assert WireNames([]).own("docs__delete") == "docs.delete"
