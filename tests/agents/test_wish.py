"""Who wants to speak to a person: many ways to say it, and sentences that only look like it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.wish import LOOKED_AT, wants_person

WISHES = """
I want to speak to a human
i want to talk to a person
Can I speak to a human, please?
can i talk to someone
Could I please speak with a representative?
Please connect me to an agent
connect me with a human agent
Transfer me to a real person NOW
transfer me to customer support staff
Put me through to an operator
Let me talk to a manager
Let me speak with your supervisor!
I need a human
I need a real person please
I want a human being
Get me a human
Give me a real person
get me your manager
Is there a real person I can talk to?
Is there someone I could speak with?
I would like to speak to somebody
I'd like to talk to a live agent
I\u2019d prefer to speak to a human
I would rather talk to a person
How do I talk to a human?
how can I reach a human?
Why can't I talk to a human?
This is the third time. I don't want to talk to a bot, I want a human.
I don't want a bot but a human
human please
Representative!
agent
operator, please
Speak to a human
talk to a human now
Please escalate this to a manager
Escalate this to a human.
Can a human please call me?
Could someone contact me about order 17?
Can you transfer me to a person?
Would you please hand me over to a human
Is it possible to speak to a real person?
I demand to speak to your manager
I insist on speaking to a supervisor
We need to speak to a representative
Hi, I just want to chat with a live person
My parcel is lost and your answers are useless; let me speak to a person.
is there any way to get through to a human
I still want to speak to an employee
I wanna talk to a human
""".strip().splitlines()

NO_WISHES = """
What are human rights?
I want to speak to a human rights group in my essay, list five of them
do not call a human
Don't transfer me to an agent
I don't want to speak to a human
There is no need to talk to a person
I never want to talk to a manager again
Can you answer without a human?
Please answer instead of connecting me to an agent
What does "I want to speak to a human" mean in German?
Translate 'can I talk to a person' into French
How many customers ask to speak to a human?
Write a story in which a woman wants to talk to a person
Are you a human?
Is there a human in the loop?
Who was the first person on the moon?
Find me a real estate agent in Berlin
What is a user agent?
How do I write an agent?
Contact human resources about the form
I need a human resources policy
I need a person who speaks German for the fair: write the job advertisement
The operator precedence in Python
List the nouns: agent, person, human, house
The agent said that a person must sign.
How do I train people to speak to customers?
Summarise: the customer wanted to speak to a manager yesterday
What is the human body made of?
I spoke to a representative yesterday and she was very helpful
My manager asked me for a report
The support agent could not help
Can people live on Mars?
Someone called me about my account, is that a scam?
Do I need to be a human to sign up?
How is human error counted?
Speak like a person from the 18th century
Give me a human-readable date
Which person of the staff has the key?
Call the function operator() twice
Compare an agent with a workflow
""".strip().splitlines()


@pytest.mark.parametrize("text", WISHES)
def test_a_wish_is_recognised(text):
    assert wants_person(text)


@pytest.mark.parametrize("text", NO_WISHES)
def test_what_only_looks_like_a_wish_is_none(text):
    assert not wants_person(text)


@given(st.sampled_from(WISHES), st.sampled_from(["", "  ", "\n\n", "!!"]), st.sampled_from([str, str.upper, str.lower]))
def test_case_and_marks_do_not_matter(text, around, changed):
    assert wants_person(around + changed(text) + around)


@given(st.text(max_size=3_000))
def test_any_text_has_an_answer(text):
    assert wants_person(text) in (True, False)


def test_a_wish_at_either_end_of_a_long_text_counts_and_one_in_the_middle_does_not():
    wish, filler = "I want to speak to a human. ", "The parcel is blue. " * LOOKED_AT
    assert wants_person(wish + filler)
    assert wants_person(filler + wish)
    assert not wants_person(filler + wish + filler)


@pytest.mark.parametrize("part", ["please ", "i want to speak ", "'", "get me a ", "a human "])
def test_hostile_texts_take_no_time(part):
    began = time.perf_counter()
    wants_person(part * 100_000)
    assert time.perf_counter() - began < 1
