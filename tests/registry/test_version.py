"""Semantic versions: order, lines, ranges, aliases, deprecations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import ToolNotFoundError
from meshwright.core.ids import VERSION
from meshwright.registry.version import ALIAS, RANGE, bounds, choose, is_release, line, neighbours, order, precedence

ORDER = [
    "0.9.0",
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0-a",
    "10.0.0",
]


def test_versions_are_ordered_as_semantic_versioning_says():
    shuffled = ORDER[5:] + ORDER[:5]
    assert sorted(shuffled, key=precedence) == ORDER
    assert precedence("1.0.0+a") == precedence("1.0.0+b-2")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("", "10.0.0"),
        ("1.2.0", "1.2.0"),
        ("1.0.0-rc.1", "1.0.0-rc.1"),
        ("^1", "1.10.0"),
        ("^1.2", "1.10.0"),
        ("^1.2.0", "1.10.0"),
        ("^1.10.0", "1.10.0"),
        ("^0", "0.9.0"),
        ("^10", "10.0.0"),
    ],
)
def test_a_range_means_the_newest_release_of_the_same_major_that_is_not_older(wanted, chosen):
    assert choose("t", wanted, ORDER) == chosen


@pytest.mark.parametrize(
    "wanted",
    [
        "^2",
        "^1.11",
        "^1.10.1",
        "^3",
        "1.0.2",
        "1",
        "stable",
        "^1.2.3.4",
        "^",
        "^a",
        "^²",
        "^-1",
        "^1.",
        "^" + "9" * 5_000,
    ],
)
def test_what_no_version_fits_is_not_found(wanted):
    with pytest.raises(ToolNotFoundError) as caught:
        choose("t", wanted, ORDER)
    assert "10.0.0" in caught.value.message


def test_prereleases_are_chosen_only_where_nothing_else_exists():
    assert choose("t", "", ["1.0.0-a", "1.0.0-b"]) == "1.0.0-b"
    assert choose("t", "^1", ["1.0.0-a", "1.0.0-b"]) == "1.0.0-b"
    assert choose("t", "", ["1.0.0-b", "0.1.0"]) == "0.1.0"


def test_without_any_version_nothing_is_found():
    with pytest.raises(ToolNotFoundError, match="none"):
        choose("t", "", [])


LOW = ["0.0.4", "0.0.5", "0.2.9", "0.3.0", "0.3.7", "0.4.0", "1.0.0"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("^0", "0.4.0"),
        ("^0.0", "0.0.5"),
        ("^0.3", "0.3.7"),
        ("^0.2", "0.2.9"),
        ("^0.3.1", "0.3.7"),
        ("^0.0.4", "0.0.4"),
        ("^0.0.5", "0.0.5"),
        ("^1", "1.0.0"),
        ("", "1.0.0"),
    ],
)
def test_before_the_first_major_a_range_ends_with_the_minor_or_the_patch(wanted, chosen):
    assert choose("t", wanted, LOW) == chosen


@pytest.mark.parametrize("wanted", ["^0.0.6", "^0.3.8", "^0.1", "^0.5"])
def test_a_range_of_which_nothing_is_registered_finds_nothing(wanted):
    with pytest.raises(ToolNotFoundError):
        choose("t", wanted, LOW)


def test_an_alias_means_the_version_that_it_points_at():
    aliases = {"stable": "1.0.0", "old": "0.3.0"}
    assert choose("t", "stable", LOW, aliases=aliases) == "1.0.0"
    assert choose("t", "old", LOW, aliases=aliases, deprecated=["0.3.0"]) == "0.3.0"
    with pytest.raises(ToolNotFoundError, match="stable"):
        choose("t", "beta", LOW, aliases=aliases)


@pytest.mark.parametrize(
    ("wanted", "deprecated", "chosen"),
    [
        ("", ["1.0.0"], "0.4.0"),
        ("^0.3", ["0.3.7"], "0.3.0"),
        ("^0.3", ["0.3.7", "0.3.0"], "0.3.7"),
        ("0.3.7", ["0.3.7"], "0.3.7"),
        ("", LOW, "1.0.0"),
    ],
)
def test_a_deprecated_version_is_chosen_only_by_itself_or_where_no_other_fits(wanted, deprecated, chosen):
    assert choose("t", wanted, LOW, deprecated=deprecated) == chosen


def test_a_prerelease_does_not_stand_in_for_a_deprecated_release():
    assert choose("t", "^1", ["1.0.0", "1.1.0-rc.1"], deprecated=["1.0.0"]) == "1.0.0"


@pytest.mark.parametrize("alias", ["stable", "a", "latest", "v", "team-2", "x1", "a" * 32])
def test_words_are_aliases(alias):
    assert ALIAS.fullmatch(alias)


@pytest.mark.parametrize(
    "alias", ["", "1", "1.0.0", "^1", "v1", "v2-1", "x", "Stable", "a b", "a.b", "a_b", "-a", "a" * 33, "a\n", "\u00e4"]
)
def test_what_reads_as_a_version_is_no_alias(alias):
    assert not ALIAS.fullmatch(alias)


small = st.integers(0, 4)
marks = st.lists(st.sampled_from(["alpha", "rc", "1", "2", "x-y"]), max_size=2)
versions = st.builds(
    lambda numbers, mark, build: (
        ".".join(map(str, numbers)) + ("-" + ".".join(mark) if mark else "") + ("+b1" if build else "")
    ),
    st.tuples(small, small, small),
    marks,
    st.booleans(),
)
ranges = st.lists(small, min_size=1, max_size=3).map(lambda numbers: "^" + ".".join(map(str, numbers)))


@given(st.lists(versions), versions)
def test_neighbours_are_the_nearest_releases_of_the_line(registered, version):
    below, above = neighbours(version, registered)
    mates = [one for one in registered if is_release(one) and line(one) == line(version)]
    for found, is_on_its_side in ((below, order(below or "0.0.0") < order(version)), (above, True)):
        assert not found or (found in mates and is_on_its_side)
    assert all(order(one) <= order(below or "0.0.0-0") for one in mates if order(one) < order(version))
    assert all(order(one) >= order(above or "9.9.9") for one in mates if order(one) > order(version))
    assert not above or order(above) > order(version)


@given(st.lists(versions, unique=True), ranges, st.data())
def test_a_range_means_the_newest_that_fits_and_is_not_deprecated(registered, wanted, data):
    deprecated = data.draw(st.lists(st.sampled_from(registered), unique=True)) if registered else []
    limits = bounds(wanted)
    assert limits
    releases = [one for one in registered if is_release(one)] or registered
    fitting = [one for one in releases if limits[0] <= precedence(one)[:3] < limits[1]]
    preferred = [one for one in fitting if one not in deprecated] or fitting
    if not preferred:
        with pytest.raises(ToolNotFoundError):
            choose("t", wanted, registered, deprecated=deprecated)
        return
    chosen = choose("t", wanted, registered, deprecated=deprecated)
    assert chosen in preferred
    assert all(order(one) <= order(chosen) for one in preferred)


@given(ranges)
def test_a_range_holds_its_own_beginning_and_not_the_next_leftmost_number(wanted):
    numbers = [int(part) for part in wanted[1:].split(".")]
    limits = bounds(wanted)
    assert limits
    least, end = limits
    assert least == tuple((*numbers, 0, 0)[:3])
    leading = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    assert end[:leading] == least[:leading]
    assert end[leading] == least[leading] + 1
    assert end[leading + 1 :] == (0,) * (2 - leading)


@given(st.text(max_size=12))
def test_nothing_is_both_an_alias_and_a_version_or_a_range(text):
    assert not (ALIAS.fullmatch(text) and (VERSION.fullmatch(text) or RANGE.fullmatch(text)))
