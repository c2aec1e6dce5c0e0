"""How a text sounds: what the lexicon tells apart, and what it leaves alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.escalation import Escalates
from meshwright.agents.sentiment import LONGEST, sentiment

VERY_NEGATIVE = """
This is the worst service ever, absolutely useless!
Your product is garbage and your support is pathetic.
I am furious. This is unacceptable.
You are incompetent idiots and I want my money back
WHAT A TERRIBLE, HORRIBLE EXPERIENCE
I have never been so disgusted and so angry in my life
I\u2019ve been lied to and cheated: a scam!
Absolutely disgraceful. Shame on you.
""".strip().splitlines()

OTHERS = """
My parcel is late, can you look?
It does not work and I am a bit annoyed
I am disappointed with the delay
Thank you, that was great!
What a wonderful and helpful answer
Not bad at all
The invoice is wrong
How do I file a complaint?
Why is the battery broken after a week?
Which error is worst for a compiler?
I do not hate it
What is the capital of France?
""".strip().splitlines()


@pytest.mark.parametrize("text", VERY_NEGATIVE)
def test_very_negative_messages_fall_below_the_threshold(text):
    assert sentiment(text) < Escalates().min_sentiment


@pytest.mark.parametrize("text", OTHERS)
def test_others_do_not(text):
    assert sentiment(text) >= Escalates().min_sentiment


@given(st.text(max_size=LONGEST + 10))
def test_every_score_is_between_the_ends(text):
    assert -1 <= sentiment(text) <= 1


@given(st.sampled_from(VERY_NEGATIVE + OTHERS))
def test_a_further_insult_never_sounds_better(text):
    assert sentiment(text + ". Terrible.") <= sentiment(text)


def test_thanks_sound_better_than_insults():
    assert sentiment("great, thank you") > 0.5
    assert sentiment("not good") < 0


def test_documents_are_not_judged():
    assert sentiment("terrible horrible awful " * LONGEST) == 0


def test_hostile_texts_take_no_time():
    began = time.process_time()
    for part in ("'a", "so very ", "!", "terrible "):
        sentiment((part * LONGEST)[:LONGEST])
    assert time.process_time() - began < 1
