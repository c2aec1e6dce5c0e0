"""Who wants to speak to a person: many ways to say it, and sentences that only look like it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents import Agent
from meshwright.agents.wish import LOOKED_AT, rules, wants_person

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
I'd rather deal with a human
can you get someone to call me
Just let me talk to someone real
I want an actual human to look at this
is anyone there? I want to talk to a person
please have a manager call me back
I request to speak with a supervisor
put a human on
Forward this conversation to your support team
I need to talk to customer service
could you connect me with customer support please
I wish to talk to a human agent
live agent please
I need human help
Can I get a human?
May I speak to your boss?
I want to be transferred to a real agent
Let me chat with a human being
hey can u connect me to a person
STOP. HUMAN. NOW.
This bot is useless, get me a person
I want human assistance
Speak to representative
Talk to an agent
I would like a call back from a human
There must be a human I can talk to
who can I talk to? I want a real person
I would really like to speak to someone about my bill
can someone from your team call me?
I've had enough of this robot, transfer me
no more bots. person please
Are you a bot? Then get me a human.
Can I please just talk to a real human being?
I want to complain to a manager
Would it be possible to talk to an agent?
how do i get to a real person
I need someone to call me back today
Please let me speak with technical support
I'm asking you to connect me to an operator
Do you have a human I could chat with?
I need assistance from a human
Could you please pass me on to a colleague
speak with an advisor
talk to support staff please
i want to escalate this to a supervisor
Let's talk to a human
Give me someone who understands this
I want to be put through to a real person.
Can I chat with one of your agents?
get me someone from support
please, a human!
I refuse to talk to a machine, give me a human
Is it possible to have a human look at this?
Connect to agent
I'd like to be called back by a person
Could I have a word with the manager?
I need to get in touch with a human
Would you mind connecting me to someone?
I'm done with this chatbot. Human agent, please.
I want to speak directly with your supervisor about the refund
Can I talk with a real person rather than a bot?
Please get a human involved
I really need to talk to somebody
Let me talk to the person in charge
transfer to human
how can I speak with customer service
I want to speak with someone in billing
can you put me in contact with an agent
Just connect me to a live agent already
I'd prefer a human
This isn't helping. Let me talk to a representative.
how do I contact a human
ok can i speak to a person now
I need to speak with a manager immediately
agent agent agent
Please transfer this chat to a human agent
I would like a real person to help me
stop sending me links and let me talk to someone
is there a phone number where I can reach a human?
can a real person help me with this
I want a person, not a machine
Get a supervisor
I'm requesting to speak to a supervisor
Human support please
Hello? Anyone there? I need a human!
you are not helping, I want to talk to your manager
I wish to be connected with a customer service rep
can you hook me up with a human
Your bot doesn't understand me, I need to talk to a real person
Is a human available?
How can I get in contact with a real human being
please hand me over to a colleague of yours
let me speak to the manager on duty
I demand to talk to someone with authority
talk to real person
I want to chat to an agent
Could you have somebody get back to me?
need a human asap
I've asked three times, give me an agent
put me on to your supervisor please
I want out of this bot, connect me with staff
Where can I talk to an actual employee?
Are there any real people working there I could talk to?
Send me to a representative
I prefer talking to a person
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
Can you talk like a human?
I need to speak to a person's strengths in my recommendation letter
How do I reach the agent's API?
Let me get a person object from the database
get the manager of employee 7
Find someone who can fix my roof
I want a human evaluation of the model
Do you want to talk to a human?
I want to get people to sign up
Can people reach my website?
I need people management tips
get people in the database older than 30
Show me the support agent statistics
I have an agent that calls a tool
please pass the person as an argument
Transfer the agent to the new server
Hand over the project to the new manager: write the mail
Contact the supervisor of the warehouse by mail and ask for the stock
put someone in charge
Write to someone at the bank about my loan
how can we reach people in Africa with our campaign?
connect the operator to the database
What does a customer support representative earn?
Explain how to talk to a manager about a raise
The person I spoke with was rude
Write an email to my manager
Build an agent with tools
How do operators work in Kubernetes?
My boss wants a report by Monday
Which agent handles refunds?
How can I become a human resources manager?
Draft a letter asking someone to call me
Can you find a person by their email?
I want an agent that books flights
I need a manager class in Python
Give me the person with the highest score
Let me see the employee table
Should I talk to a lawyer about this?
Do not connect me to anyone
I do not need a human, just the number
I have someone coming over tonight, suggest a menu
Is a human able to breathe on Mars?
How do I speak to people with confidence?
What should I say when I talk to a customer?
I talked to your agent yesterday
Rewrite this: the operator will contact you
Is this written by a human?
Show me how a human would solve it
The staff were friendly
I need help with my agent configuration
Please have the report ready for my manager
Who is the manager of this project?
Someone should fix the bug
Let me know if a person can lift 200 kg
Could a human survive that?
Connect the two tables
Transfer 5 euros to Ann
Call the API
I am a human
Is it legal to record a person?
Does anyone speak French here?
I have to call my boss, what do I say?
Who is the supervisor of the night shift?
What does a human resources representative do?
Can you write an agent that speaks to customers?
How many people work in support?
I talked to a human yesterday, all good
My colleague wants to speak at a conference
How should a manager talk to employees?
Do you pass my data to other people?
No need to escalate this to a manager
Write a script where a person calls an operator
Can a person be allergic to water?
Add a person to the table
Is my agent connected?
What is the difference between an operator and a function?
Call me Ann
Give me a list of people
Please do not forward this to anyone
Has somebody replied to my ticket?
I want to contact the author of a book
Tell me about customer service metrics
Can you see a person in this picture?
How do I get a manager to approve my leave?
What do agents do all day?
I want to train an agent to speak to a database
Let's talk about human evolution
Please connect the agent to the queue
I need the operator manual
Get the list of managers
Who can call a representative as a witness in court?
How does a person get in touch with their feelings?
I want to be a manager
Can I be an employee and self-employed?
Put the agent in the config
Send a message to someone at random
I would like a job as a support agent
The customer asked: can I talk to a human? How should my bot react?
I need advice on how to talk to someone with depression
How can I contact the person who owns this domain?
My agent needs to reach the operator over HTTP
Let me introduce you to my colleague
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


@pytest.mark.parametrize(
    "part", ["please ", "i want to speak ", "'", "get me a ", "a human ", "human ", "can i ", "i "]
)
@pytest.mark.parametrize("length", [299, 2_000, 500_000])
def test_hostile_texts_take_no_time(part, length):
    began = time.process_time()
    wants_person((part * length)[:length])
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("asks_people", "many"), [(True, 1), (False, 0)])
async def test_who_looks_for_the_wish_has_its_rules_before_the_first_task(mesh, asks_people, many):
    rules.cache_clear()
    await mesh.agent(Agent("clerk", "Work.", asks_people=asks_people))
    assert rules.cache_info().currsize == many
