"""Choosing sentences from passages."""

import time

from meshwright.agents.extract import MOST_SENTENCES, Passage, extract, sectioned, sections

STORE = Passage(
    "store.md", "# Store\nThe store is Valkey. It writes every change to disk. Valkey starts in 0.1 seconds."
)
LEASES = Passage("leases.md", "A lease lasts 15 seconds. When a worker dies, another worker takes its task over.")


def test_the_sentence_that_answers_comes_first_with_its_source() -> None:
    best = extract("What happens when a worker dies?", [STORE, LEASES])[0]
    assert best.source == "leases.md"
    assert best.sentence == "When a worker dies, another worker takes its task over."


def test_scores_fall_and_the_number_is_bounded() -> None:
    found = extract("Valkey store seconds lease", [STORE, LEASES], most=2)
    assert len(found) == 2
    assert found[0].score >= found[1].score > 0
    assert extract("Valkey", [STORE], most=0) == []


def test_words_meet_whatever_their_ending() -> None:
    assert extract("Which changes are written?", [STORE])[0].sentence == "It writes every change to disk."


def test_nothing_is_chosen_when_no_word_is_shared() -> None:
    assert extract("Who won the race?", [STORE, LEASES]) == []
    assert extract("What is Valkey?", []) == []


def test_without_a_meaningful_word_the_sentences_that_stand_for_the_whole_are_chosen() -> None:
    text = "Cats sleep a lot. Cats and dogs eat. The weather was fine. Dogs chase cats. Cats purr."
    found = extract("", [Passage("pets", text)], most=2)
    assert all("ats" in each.sentence for each in found)


def test_a_sentence_that_repeats_a_better_one_is_left_out() -> None:
    copy = Passage("copy.md", "The store is Valkey! Indeed, the store is Valkey.")
    found = extract("What is the store?", [STORE, copy])
    assert [each.sentence for each in found] == ["The store is Valkey."]


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    text = "The agent runs. The agent waits. The agent stops. The quota stops everything."
    assert extract("agent quota", [Passage("a", text)])[0].sentence == "The quota stops everything."


def test_a_question_in_the_text_is_worth_less_than_its_answer() -> None:
    text = "How long does a lease last? A lease does last for 15 seconds."
    assert extract("How long does a lease last?", [Passage("faq", text)])[0].sentence.startswith("A lease")


def test_a_heading_is_worth_less_than_a_statement() -> None:
    text = "The lease\n\nOf the lease it holds that it lasts 15 seconds."
    assert extract("lease", [Passage("a", text)])[0].sentence.startswith("Of the lease")


def test_the_same_input_gives_the_same_output_and_ties_keep_reading_order() -> None:
    twins = [Passage("b", "Alpha one beta two."), Passage("a", "Alpha three beta four.")]
    assert [each.source for each in extract("alpha beta", twins)] == ["b", "a"]
    assert extract("alpha", twins) == extract("alpha", twins)


def test_a_long_passage_does_not_crowd_out_a_short_one() -> None:
    long = Passage(
        "long", "Filler text stands here. " + " ".join(f"Line {n} says x{n}." for n in range(MOST_SENTENCES))
    )
    found = extract("needle filler", [long, Passage("short", "The needle is in the haystack.")])
    assert found[0].source == "short"


def test_much_text_takes_little_time() -> None:
    text = " ".join(f"Sentence number {n} speaks of thing {n % 97} and agent {n % 31}." for n in range(60_000))
    began = time.process_time()
    assert extract("agent thing 5", [Passage("big", text)])
    assert time.process_time() - began < 3


def test_sections_are_read_back_as_they_were_written() -> None:
    assert sections(sectioned([STORE, LEASES])) == [STORE, LEASES]


def test_text_before_the_first_source_line_keeps_the_given_source() -> None:
    text = "What is it?\n\nSource:  a b.md \r\nFirst.\nSecond.\nsource: empty.md\n\nsource: c.md\nThird."
    assert sections(text, "question") == [
        Passage("question", "What is it?"),
        Passage("a b.md", "First.\nSecond."),
        Passage("c.md", "Third."),
    ]
    assert sections("The source: unknown") == [Passage("", "The source: unknown")]
