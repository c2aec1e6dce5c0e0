"""Shortening: nothing longer than asked for, what is missing is said, code stays as it is."""

import time

from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.shortening import is_shortened, opening, shortened, squeezed


class TestShortened:
    def test_beginning_and_end_stay_and_the_gap_says_how_much_is_missing(self):
        text = "a" * 500 + "b" * 500
        cut = shortened(text, 200)
        assert cut.startswith("aaa")
        assert cut.endswith("bbb")
        missing = 1_000 - cut.count("a") - cut.count("b") + "characters".count("a")
        assert len(cut) <= 200
        assert "characters left out]" in cut
        assert f"[... {1_000 - len(cut) + len(cut) - cut.count('b') - cut[: cut.index('[')].count('a')} " in cut, (
            missing
        )

    def test_the_note_tells_where_the_gap_begins(self):
        cut = shortened("x" * 1_000, 200, "; read on at {offset}")
        assert f"read on at {cut.index(chr(10))}]" in cut

    @given(st.text(st.characters(exclude_characters="["), max_size=3_000), st.integers(0, 4_000))
    def test_what_was_shortened_is_known_by_its_note(self, text, most):
        for more in ("", "; read them at {offset}"):
            assert is_shortened(shortened(text, most, more)) == (len(text) > most)

    @given(st.text(max_size=3_000), st.integers(100, 4_000))
    def test_it_is_never_longer_than_asked_for(self, text, most):
        cut = shortened(text, most)
        assert len(cut) <= most
        if len(text) <= most:
            assert cut == text


class TestSqueezed:
    def test_white_space_and_courtesies_go_and_words_stay(self):
        assert squeezed("Hello, could you please  sum\tup   this?  \n\n\n\nThanks") == "sum\tup this?\n\nThanks"

    def test_code_and_indentation_stay(self):
        code = "Look:\n\n```\na  =  1   \n\n\n\nb = 2\n```\n\n- one\n    - two"
        assert squeezed(code) == code

    def test_what_is_nothing_but_courtesy_stays(self):
        assert squeezed("Thank you! ") == "Thank you!"

    @given(st.text(alphabet="ab \t\n`.", max_size=400))
    def test_no_word_is_lost(self, text):
        assert squeezed(text).split() == text.split()

    def test_hostile_text_takes_no_longer(self):
        started = time.process_time()
        for text in (" " * 200_000 + "x", "x" + " " * 200_000, "\n" * 200_000, "hi " * 70_000, "`" * 200_000):
            squeezed(text)
        assert time.process_time() - started < 2


class TestOpening:
    def test_it_is_the_first_sentence_on_one_line(self):
        assert opening("The store\nis durable. It never evicts.", 100) == "The store is durable."

    @given(st.text(max_size=500), st.integers(2, 200))
    def test_it_is_never_longer_than_asked_for(self, text, most):
        line = opening(text, most)
        assert len(line) <= most
        assert len(line.splitlines()) <= 1
