"""Claims held against sentences: numbers, negations, opposites, and honest silence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.claims import review
from meshwright.agents.extract import Passage

RULES = Passage(
    "rules.md",
    "A worker owns a task by a lease of fifteen seconds. A stale worker cannot write: its fence is old. "
    "A pure tool only reads and may be run again. The cache holds 1,000 entries and is enabled. "
    "What keeps a late worker from writing is its fence. Up to two hundred callers may wait.",
)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("A worker owns a task by a lease of 15 seconds.", "supported"),
        ("A worker owns a task by a lease of 30 seconds.", "contradicted"),
        ("A worker owns a task by a lease of fifty seconds.", "contradicted"),
        ("A stale worker cannot write.", "supported"),
        ("A stale worker can't write.", "supported"),
        ("A stale worker can write.", "contradicted"),
        ("A pure tool may be run again.", "supported"),
        ("A pure tool may never be run again.", "contradicted"),
        ("The cache holds 1000 entries.", "supported"),
        ("The cache is disabled.", "contradicted"),
        ("A late worker is writing.", "contradicted"),
        ("200 callers may wait.", "supported"),
        ("One worker owns a task by a lease.", "supported"),
        ("A pure tool may be run 7 times.", "not found"),
        ("Bananas are yellow.", "not found"),
        ("", "not found"),
    ],
)
def test_a_claim_gets_the_verdict_of_the_sentence_about_the_same_thing(claim, verdict):
    (found,) = review([claim], [RULES])
    assert (found.claim, found.verdict) == (claim, verdict)
    assert bool(found.sentence) == bool(found.source) == (verdict != "not found")


def test_the_sentence_is_quoted_word_for_word_with_its_source():
    (found,) = review(["A stale worker can write."], [Passage("a.md", "Nothing here."), RULES])
    assert (found.sentence, found.source) == ("A stale worker cannot write: its fence is old.", "rules.md")


def test_the_sentence_that_covers_more_decides():
    passages = [Passage("a.md", "A lease lasts two seconds."), Passage("b.md", "A long lease lasts nine seconds.")]
    (found,) = review(["A long lease lasts 9 seconds."], passages)
    assert (found.verdict, found.source) == ("supported", "b.md")


def test_of_equal_sentences_one_that_supports_goes_first():
    passages = [Passage("a.md", "A lease lasts two seconds."), Passage("b.md", "A lease lasts nine seconds.")]
    assert [one.source for one in review(["A lease lasts 9 seconds."], passages)] == ["b.md"]


@pytest.mark.parametrize(
    "aside",
    [
        "A worker stops its work two seconds before its lease ends.",
        "A worker that cannot renew has two seconds of its lease when nobody took over.",
    ],
)
def test_of_equal_sentences_that_contradict_the_one_without_other_conditions_goes_first(aside):
    record = "The worker owns it by a lease in the task's record, fifteen seconds long."
    passages = [Passage("a.md", aside), Passage("b.md", record)]
    (found,) = review(["a lease lasts thirty seconds"], passages)
    assert (found.verdict, found.sentence) == ("contradicted", record)


def test_every_claim_has_its_finding_in_order():
    claims = ["Bananas are yellow.", "A pure tool may be run again.", "Bananas are yellow."]
    assert [one.claim for one in review(claims, [RULES])] == claims


WORDS = st.sampled_from(["store", "task", "worker", "lease", "journal", "fence", "queue", "edge", "gateway", "tenant"])


@settings(deadline=None)
@given(st.lists(WORDS, min_size=3, max_size=8, unique=True), st.integers(2, 10_000), st.integers(2, 10_000))
def test_a_sentence_supports_itself_and_another_number_contradicts_it(found, number, other):
    sentence = f"{' '.join(found).capitalize()} keeps {number} entries."
    claims = [sentence, sentence.replace(str(number), str(other)), sentence.replace("keeps", "never keeps")]
    verdicts = [one.verdict for one in review(claims, [Passage("a.md", sentence)])]
    assert verdicts == ["supported", "supported" if number == other else "contradicted", "contradicted"]


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4), st.lists(st.text(max_size=200), max_size=4))
def test_whatever_the_text_there_is_one_finding_a_claim(claims, texts):
    found = review(claims, [Passage("x", text) for text in texts])
    assert [one.claim for one in found] == claims
