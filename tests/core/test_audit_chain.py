"""The pure chain: whatever is done to its lines, the first one that does not fit is found."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.audit_chain import AuditLine, ChainCheck, Fault, read_line
from meshwright.core.errors import InvalidRequestError

PLACE = ("0", "acme")
WORDS = st.text('ab \n\t\0"\\{}:,%/é☃𝄞', max_size=20)
"""Few letters, so that they meet; those that could be taken for a part of a line among them."""


def chain(texts, place=PLACE):
    """Makes a chain of lines with these facts."""
    made, before = [], "/".join(place)
    for number, text in enumerate(texts, 1):
        line = AuditLine(*place, number, 1_000 + number // 3, "task_accepted", f"ann/t{number}", "ok", text, "")
        line = replace(line, link=line.linked(before))
        before = line.link
        made.append(line)
    return made


def checked(lines, number=0, place=PLACE) -> Fault | None:
    """Takes lines up to the first fault."""
    check = ChainCheck(place)
    for line in lines:
        if fault := check.take(line):
            return fault
    return check.beginning() or check.end(number)


CHAINS = st.lists(WORDS, min_size=2, max_size=12).map(chain)


@given(CHAINS)
def test_a_chain_as_it_was_written_is_whole(lines):
    assert checked(lines, lines[-1].number) is None


@given(CHAINS, st.data())
def test_a_changed_line_is_found_there_or_right_after(lines, data):
    at = data.draw(st.integers(0, len(lines) - 1))
    name = data.draw(st.sampled_from(["event", "about", "outcome", "text", "link", "time_ms", "tenant"]))
    old = getattr(lines[at], name)
    new = data.draw((st.integers(0, 2**40) if name == "time_ms" else WORDS).filter(lambda one: one != old))
    fault = checked([*lines[:at], replace(lines[at], **{name: new}), *lines[at + 1 :]], lines[-1].number)
    assert fault
    assert (fault.line.number if fault.line else len(lines)) in (lines[at].number, lines[at].number + 1)


@given(CHAINS, st.data())
def test_a_line_that_was_written_anew_with_a_right_link_is_found_by_the_next(lines, data):
    at = data.draw(st.integers(0, len(lines) - 2))
    forged = replace(lines[at], text=lines[at].text + "x")
    forged = replace(forged, link=forged.linked(lines[at - 1].link if at else "/".join(PLACE)))
    fault = checked([*lines[:at], forged, *lines[at + 1 :]], lines[-1].number)
    assert fault
    assert fault.before == forged


@given(CHAINS, st.data())
def test_lines_that_are_gone_are_named(lines, data):
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, len(lines) - 1))
    fault = checked([*lines[:first], *lines[last + 1 :]], lines[-1].number)
    assert fault
    assert f"lines {first + 1} to {last + 1}" in fault.what
    assert "missing" in fault.what


@given(CHAINS, st.data())
def test_another_order_is_found(lines, data):
    other = data.draw(st.permutations(lines).filter(lambda some: some != lines))
    assert checked(other, lines[-1].number)


@given(CHAINS, CHAINS, st.data())
def test_an_inserted_line_is_found(lines, others, data):
    at = data.draw(st.integers(0, len(lines)))
    stranger = data.draw(st.sampled_from(others))
    assert checked([*lines[:at], stranger, *lines[at:]], lines[-1].number)


@given(CHAINS)
def test_a_chain_does_not_stand_in_another_place(lines):
    assert checked([replace(line, tenant="other") for line in lines], place=("0", "other"))


@given(st.integers(1, 8), st.booleans())
def test_lines_may_be_trimmed_where_a_line_says_so(through, is_true):
    whole = chain(["{}"] * 9)
    link = whole[through - 1].link if is_true else "0" * 40
    facts = json.dumps({"first": 1, "through": through, "link": link})
    told = AuditLine(*PLACE, 10, 2_000, "trimmed", "", "", facts, "")
    told = replace(told, link=told.linked(whole[-1].link))
    fault = checked([*whole[through:], told], 10)
    assert (fault is None) == is_true
    assert checked(whole[through:], 9), "no line tells of it"


@given(CHAINS)
def test_a_line_is_read_as_it_was_exported(lines):
    for line in lines:
        assert read_line(json.dumps(line.told())) == line
    spelled = replace(lines[0], text='{"by":"ann","n":1}')
    assert spelled.told()["facts"] == {"by": "ann", "n": 1}
    assert read_line(json.dumps(spelled.told())) == spelled


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "1", "[" * 100_000, json.dumps({"number": True})])
def test_what_is_no_line_is_refused(text):
    with pytest.raises(InvalidRequestError, match="no line of an exported audit"):
        read_line(text)


@given(CHAINS, st.sampled_from(["number", "link", "facts"]), WORDS)
def test_a_line_that_can_be_read_in_two_ways_is_refused(lines, name, word):
    told = json.dumps(lines[0].told())
    twice = f'{told[:-1]}, "{name}": {json.dumps(lines[0].told()[name])}}}'
    more = json.dumps(lines[0].told() | {f"x{word}": 1})
    for text in (twice, more, told.replace('"facts": ', '"facts": {"a": 1, "a": 2}, "x": ')):
        with pytest.raises(InvalidRequestError, match="no line of an exported audit"):
            read_line(text)


@given(
    st.sampled_from(["number", "time_ms", "link", "facts", "tenant"]),
    st.none() | st.booleans() | st.floats() | st.just(-1),
)
def test_a_line_with_a_field_of_another_kind_is_refused(name, value):
    with pytest.raises(InvalidRequestError):
        read_line(json.dumps(chain(["{}"])[0].told() | {name: value}))
