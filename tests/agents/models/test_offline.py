"""The offline model, from a prompt to its last words."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.agents.context import ANSWER_SHARE, MOST_ANSWER
from meshwright.agents.extract import extract, sections
from meshwright.agents.models.model import Call, Message, Prompt, ToolSpec
from meshwright.agents.models.offline import LAST_TURN, OfflineModel
from meshwright.agents.shortening import shortened

MARK = "model: offline"
TEXT = {"type": "string"}


def tool(name: str, description: str = "", required: int | None = None, **properties: Any) -> ToolSpec:
    needed = list(properties)[:required]
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": needed})


SEARCH = tool("docs.search", "Finds passages.", 1, query=TEXT, limit={"type": "integer"})
READ = tool("docs.read", "Reads a document.", id=TEXT)
SUMMARY = tool("summary.extract", "Chooses sentences.", 1, text=TEXT, question=TEXT, sentences={"type": "integer"})
RESEARCHER = tool("ask.researcher", "Finds passages in documents and quotes them.", prompt=TEXT)
SUMMARISER = tool("ask.summarizer", "Summarises material with its sources.", prompt=TEXT)
REVIEWER = tool("ask.reviewer", "Reviews an answer against its sources.", prompt=TEXT)

LEASES = "A lease lasts 15 seconds. When a worker dies, its lease runs out and another worker takes the task over."
STORE = "The store is Valkey. Valkey writes every change to disk before it answers."


def hit(source: str, text: str) -> dict[str, Any]:
    return {"id": f"id-{source}", "source": source, "title": source, "text": text, "score": 1.0}


def library(*documents: tuple[str, str]) -> list[tuple[ToolSpec, Any]]:
    texts = dict(documents)
    found = {"hits": [hit(source, text[:40]) for source, text in documents]}

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        source = arguments["id"].removeprefix("id-")
        return {**hit(source, texts[source]), "title": source}

    return [(SEARCH, lambda _: found), (READ, read)]


def ends_with_one_mark(text: str) -> bool:
    return text.splitlines()[-1] == MARK and text.count(MARK) == 1


# Documents


async def test_a_question_is_answered_with_sentences_of_the_documents_and_their_sources(play: Any) -> None:
    played = await play(OfflineModel(), "Please, what happens when a worker dies?", library(("a.md", LEASES)))
    assert [[call.tool for call in calls] for calls in played.rounds] == [["docs.search"], ["docs.read"]]
    assert played.rounds[0][0].arguments == {"query": "what happens when a worker dies?", "limit": 6}
    assert "- When a worker dies, its lease runs out and another worker takes the task over. [a.md]" in played.text
    assert "\n\nSources:\n- a.md\n" in played.text
    assert ends_with_one_mark(played.text)


async def test_the_three_best_documents_are_read_at_once(play: Any) -> None:
    documents = [(f"{name}.md", f"{STORE} Part {name}.") for name in "abcde"]
    played = await play(OfflineModel(), "What is the store?", library(*documents, documents[0]))
    assert [call.arguments["id"] for call in played.rounds[1]] == ["id-a.md", "id-b.md", "id-c.md"]
    assert len({call.call_id for calls in played.rounds for call in calls}) == 4


async def test_a_search_without_hits_is_repeated_once_with_keywords_alone(play: Any) -> None:
    tools = [(SEARCH, lambda _: {"hits": []}), (READ, lambda _: {})]
    played = await play(OfflineModel(), "What is the colour of the moon?", tools)
    assert [calls[0].arguments["query"] for calls in played.rounds] == [
        "What is the colour of the moon?",
        "colour moon",
    ]
    assert played.text.startswith("Nothing was found in the documents about: What is the colour of the moon?")
    assert ends_with_one_mark(played.text)


async def test_hits_that_do_not_answer_are_not_quoted(play: Any) -> None:
    played = await play(OfflineModel(), "Who won the race?", library(("a.md", STORE)))
    assert played.text.startswith("Nothing was found")


@pytest.mark.parametrize("outcome", ["the host is gone", {"error": {"reason": "DOWN", "message": "the host is gone"}}])
async def test_a_failed_search_is_said(play: Any, raw: Any, outcome: Any) -> None:
    value = raw(outcome) if isinstance(outcome, str) else outcome
    played = await play(OfflineModel(), "What is Valkey?", [(SEARCH, lambda _: value), (READ, lambda _: {})])
    assert played.text.startswith("The tool docs.search failed: the host is gone")


async def test_a_document_that_cannot_be_read_leaves_the_excerpt_of_the_search(play: Any, raw: Any) -> None:
    tools = [(SEARCH, lambda _: {"hits": [hit("a.md", STORE)]}), (READ, lambda _: raw("access denied"))]
    played = await play(OfflineModel(), "What is the store?", tools)
    assert "- The store is Valkey. [a.md]" in played.text
    assert "a.md could not be read, only the excerpt that the search gave: access denied" in played.text


async def test_a_document_of_which_only_a_part_stands_leaves_the_excerpt_of_the_search(play: Any, raw: Any) -> None:
    part = shortened(json.dumps(hit("a.md", "The store is what the store is. " * 40)), 500, "; read them later")
    tools = [(SEARCH, lambda _: {"hits": [hit("a.md", STORE)]}), (READ, lambda _: raw(part))]
    played = await play(OfflineModel(), "What is the store?", tools)
    assert played.text == f"- The store is Valkey. [a.md]\n\nSources:\n- a.md\n\n{MARK}"


async def test_a_search_of_which_only_a_part_stands_is_told_and_not_quoted(play: Any, raw: Any) -> None:
    part = shortened(json.dumps({"hits": [hit("a.md", STORE)] * 20}), 500)
    played = await play(OfflineModel(), "What is the store?", [(SEARCH, lambda _: raw(part)), (READ, lambda _: {})])
    told = "what it gave back is too long for this task: give it a larger token budget"
    assert played.text == f"The tool docs.search failed: {told}\n\n{MARK}"


async def test_data_of_another_form_is_told_and_not_quoted(play: Any) -> None:
    tools = [(SEARCH, lambda _: {"hits": [hit("a.md", STORE)]}), (READ, lambda _: {"body": "The store is a shop."})]
    played = await play(OfflineModel(), "What is the store?", tools)
    assert "a.md could not be read, only the excerpt that the search gave: what it gave back has not" in played.text
    assert "shop" not in played.text


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budget=st.integers(1_000, 12_000), count=st.integers(1, 6), length=st.integers(40, 1_200))
async def test_as_much_is_read_as_stands_whole_beside_the_answers_share(
    play: Any, budget: int, count: int, length: int
) -> None:
    hits = [hit(f"{place}.md", ("The store is Valkey. " * 60)[:length]) for place in range(count)]

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        return hit(arguments["id"].removeprefix("id-"), ("The store writes. " * 240)[: 3 * length])

    tools = [(SEARCH, lambda given: {"hits": hits[: given["limit"]]}), (READ, read)]
    played = await play(OfflineModel(), "What is the store?", tools, budget=budget)
    if len(played.rounds) > 1:
        left = played.rooms[2] + played.said[2]
        assert played.rooms[2] >= min(MOST_ANSWER, left // ANSWER_SHARE)


async def test_a_sum_needs_no_documents(play: Any) -> None:
    played = await play(OfflineModel(), "What is 12 * (3 + 4)?", library(("a.md", STORE)))
    assert played.rounds == []
    assert played.text == f"12 * (3 + 4) = 84\n\n{MARK}"


async def test_without_tools_at_the_end_the_answer_is_made_of_what_came_back(play: Any) -> None:
    tools = [(SEARCH, lambda _: {"hits": [hit("a.md", STORE)]}), (READ, lambda _: {})]
    played = await play(OfflineModel(), "What is the store?", tools, tools_until=1)
    assert "- The store is Valkey. [a.md]" in played.text


# Delegation


def researched(arguments: dict[str, Any]) -> str:
    text = LEASES if "worker" in arguments["prompt"] else STORE
    source = "leases.md" if "worker" in arguments["prompt"] else "store.md"
    lines = "\n".join(f"- {sentence.rstrip('.')}. [{source}]" for sentence in text.split(". "))
    return f"{lines}\n\nSources:\n- {source}\n\n{MARK}"


async def test_independent_questions_are_researched_in_parallel_and_summarised_once(play: Any) -> None:
    handed: list[str] = []

    def summarise(arguments: dict[str, Any]) -> str:
        handed.append(arguments["prompt"])
        answer = "- The store is Valkey. [store.md]\n- A lease lasts 15 seconds. [leases.md]\n\nSources:\n- store.md"
        return f"{answer}\n- leases.md\n\n{MARK}"

    tools = [(RESEARCHER, researched), (SUMMARISER, summarise), (REVIEWER, researched)]
    task = "What is the store and what happens when a worker dies?"
    played = await play(OfflineModel(), task, tools)
    assert [[call.tool for call in calls] for calls in played.rounds] == [["ask.researcher"] * 2, ["ask.summarizer"]]
    assert [call.arguments["prompt"] for call in played.rounds[0]] == [
        "What is the store",
        "what happens when a worker dies?",
    ]
    assert handed[0].startswith(task)
    assert "source: store.md\n- The store is Valkey." in handed[0]
    assert "source: leases.md\n- A lease lasts 15 seconds." in handed[0]
    assert MARK not in handed[0]
    assert played.text.startswith("- The store is Valkey. [store.md]\n- A lease lasts 15 seconds. [leases.md]\n")
    assert played.text.endswith(f"Sources:\n- store.md\n- leases.md\n\n{MARK}")
    assert ends_with_one_mark(played.text)


async def test_a_question_that_the_summary_leaves_out_keeps_its_finding(play: Any) -> None:
    def one_sided(_: dict[str, Any]) -> str:
        return f"- The store is Valkey. [store.md]\n\nSources:\n- store.md\n\n{MARK}"

    task = "What is the store and what happens when a worker dies?"
    played = await play(OfflineModel(), task, [(RESEARCHER, researched), (SUMMARISER, one_sided)])
    assert "- The store is Valkey. [store.md]" in played.text
    assert "what happens when a worker dies?\n- A lease lasts 15 seconds. [leases.md]" in played.text
    assert "Sources:\n- store.md\n- leases.md" in played.text


async def test_an_own_tool_that_the_prompt_names_comes_before_another_agent(play: Any) -> None:
    convert = tool("convert", "Converts money.", amount={"type": "number"}, rate={"type": "number"})
    tools = [(RESEARCHER, researched), (convert, lambda given: given["amount"] * given["rate"])]
    played = await play(OfflineModel(), "Convert amount 20 with rate 1.5", tools)
    assert [[call.tool for call in calls] for calls in played.rounds] == [["convert"]]
    assert played.text == f"30.0\n\n{MARK}"
    played = await play(OfflineModel(), "What happens when a worker dies?", tools)
    assert [[call.tool for call in calls] for calls in played.rounds] == [["ask.researcher"]]


async def test_a_simple_question_is_researched_whole(play: Any) -> None:
    played = await play(OfflineModel(), "What is the store of tasks and results?", [(RESEARCHER, researched)])
    assert [call.arguments["prompt"] for call in played.rounds[0]] == ["What is the store of tasks and results?"]


async def test_without_an_agent_that_summarises_the_findings_are_the_answer(play: Any) -> None:
    played = await play(
        OfflineModel(), "What is the store; what happens when a worker dies?", [(RESEARCHER, researched)]
    )
    assert len(played.rounds) == 1
    assert "What is the store\n- The store is Valkey. [store.md]" in played.text
    assert "what happens when a worker dies?\n- A lease lasts 15 seconds. [leases.md]" in played.text
    assert "Sources:\n- store.md\n- leases.md" in played.text
    assert ends_with_one_mark(played.text)


async def test_research_that_failed_is_said_beside_what_was_found(play: Any) -> None:
    def half(arguments: dict[str, Any]) -> Any:
        if "worker" in arguments["prompt"]:
            return {"error": {"reason": "UNAVAILABLE", "message": "no instance is up"}}
        return researched(arguments)

    tools = [(RESEARCHER, half), (SUMMARISER, lambda _: "Valkey keeps it [store.md].")]
    played = await play(OfflineModel(), "What is the store and what happens when a worker dies?", tools)
    assert "Valkey keeps it [store.md]." in played.text
    assert "The agent researcher failed: no instance is up" in played.text
    assert "Sources:\n- store.md" in played.text


async def test_a_failed_summary_leaves_the_findings(play: Any) -> None:
    tools = [(RESEARCHER, researched), (SUMMARISER, lambda _: {"error": {"message": "out of budget"}})]
    played = await play(OfflineModel(), "What is the store?", tools)
    assert "- The store is Valkey. [store.md]" in played.text
    assert "The agent summarizer failed: out of budget" in played.text


async def test_research_without_findings_is_said_and_not_summarised(play: Any) -> None:
    tools = [(RESEARCHER, lambda _: f"Nothing was found in the documents about: it\n\n{MARK}"), (SUMMARISER, str)]
    played = await play(OfflineModel(), "What is the moon?", tools)
    assert len(played.rounds) == 1
    assert played.text == f"Nothing was found about: What is the moon?\n\n{MARK}"


async def test_the_material_for_a_summary_is_bounded(play: Any) -> None:
    handed: list[str] = []
    answer = "\n".join(f"- {'long ' * 50}{place} [{place % 7}.md]" for place in range(500))
    tools = [(RESEARCHER, lambda _: answer), (SUMMARISER, lambda given: handed.append(given["prompt"]) or "Done.")]
    await play(OfflineModel(), "What is A1; what is B2; what is C3?", tools, most_output=100_000)
    await play(OfflineModel(), "What is A1; what is B2; what is C3?", tools)
    assert 20_000 < len(handed[0]) <= 24_000
    assert 2_000 < len(handed[1]) <= 4 * 4096 / 5


async def test_text_to_summarise_goes_to_the_agent_that_summarises(play: Any) -> None:
    task = f"Summarise this: {LEASES}"
    played = await play(OfflineModel(), task, [(RESEARCHER, researched), (SUMMARISER, lambda _: "Leases end.")])
    assert played.rounds == [(Call("call_0_0", "ask.summarizer", {"prompt": task}),)]
    assert played.text == f"Leases end.\n\n{MARK}"


async def test_an_agent_that_the_user_names_gets_the_task(play: Any) -> None:
    tools = [(RESEARCHER, researched), (REVIEWER, lambda _: "It is fine.")]
    played = await play(OfflineModel(), "Ask the reviewer: is this right?", tools)
    assert [calls[0].tool for calls in played.rounds] == ["ask.reviewer"]
    assert played.text == f"It is fine.\n\n{MARK}"


@pytest.mark.parametrize(
    ("task", "agent"),
    [
        ("Review these claims: the store is Valkey.", "ask.reviewer"),
        ("Please check whether the store is Valkey.", "ask.reviewer"),
        ("Is it true that the store is Valkey?", "ask.reviewer"),
        ("Make a plan to move the store.", "ask.planner"),
        ("plan how to move the store", "ask.planner"),
        ("@planner move the store", "ask.planner"),
        ("How do I check the store?", "ask.researcher"),
        ("What is planned for the store?", "ask.researcher"),
    ],
)
async def test_a_prompt_that_calls_for_a_review_or_a_plan_goes_to_who_does_that(
    play: Any, task: str, agent: str
) -> None:
    planner = tool("ask.planner", "Breaks a goal into numbered steps.", prompt=TEXT)
    tools = [(RESEARCHER, researched), (REVIEWER, researched), (planner, researched)]
    played = await play(OfflineModel(), task, tools)
    assert [[call.tool for call in calls] for calls in played.rounds] == [[agent]]


# Summaries


async def test_material_is_handed_to_the_tool_that_extracts(play: Any) -> None:
    task = f"What is the store?\n\nsource: store.md\n{STORE}\n\nsource: leases.md\n{LEASES}"
    chosen = {"sentences": [{"text": "The store is Valkey.", "source": "store.md"}]}
    played = await play(OfflineModel(), task, [(SUMMARY, lambda _: chosen)])
    (call,) = played.rounds[0]
    assert call.arguments["question"] == "What is the store?"
    assert call.arguments["text"] == f"source: store.md\n{STORE}\n\nsource: leases.md\n{LEASES}"
    assert played.text == f"- The store is Valkey. [store.md]\n\nSources:\n- store.md\n\n{MARK}"


async def test_words_that_only_ask_for_a_summary_are_no_question(play: Any) -> None:
    bounded = tool("summary.extract", "", 1, text={**TEXT, "maxLength": 30}, question=TEXT)
    played = await play(OfflineModel(), f"Please summarise the following text: {LEASES}", [(bounded, lambda _: {})])
    assert played.rounds[0][0].arguments == {"text": LEASES[:30], "question": ""}


async def test_a_failed_extraction_is_said_and_done_by_the_model_itself(play: Any, raw: Any) -> None:
    task = f"What is the store?\n\nsource: store.md\n{STORE}"
    played = await play(OfflineModel(), task, [(SUMMARY, lambda _: raw("boom"))])
    assert played.text.startswith("The tool summary.extract failed: boom; these sentences were chosen without it.")
    assert "- The store is Valkey. [store.md]" in played.text


async def test_a_summary_of_nothing_is_refused(play: Any) -> None:
    played = await play(OfflineModel(), "What is the store?", [(SUMMARY, dict)])
    assert played.text.startswith("There is nothing to summarise")


# Users' own tools


async def test_the_tool_that_fits_the_prompt_is_called_and_its_result_is_the_answer(play: Any) -> None:
    weather = tool("weather.lookup", "Looks up the weather of a city.", city=TEXT)
    dice = tool("dice.roll", "Rolls dice.", sides={"type": "integer"})
    tools = [(dice, lambda _: 4), (weather, lambda given: f"{given['city']}: rain")]
    played = await play(OfflineModel(), "What is the weather in 'New York'?", tools)
    assert played.rounds == [(Call("call_0_0", "weather.lookup", {"city": "New York"}),)]
    assert played.text == f"New York: rain\n\n{MARK}"


async def test_a_result_that_is_no_text_is_stated_as_json(play: Any) -> None:
    clock = tool("clock.now", "Tells the time.")
    played = await play(OfflineModel(), "What time is it?", [(clock, lambda _: {"hour": 7, "zone": "Zürich"})])
    assert played.text == f'{{"hour": 7, "zone": "Zürich"}}\n\n{MARK}'


async def test_a_value_that_the_prompt_does_not_hold_is_asked_for(play: Any) -> None:
    dice = tool("dice.roll", "Rolls dice.", sides={"type": "integer"})
    played = await play(OfflineModel(), "Roll the dice", [(dice, lambda _: 4)])
    assert played.rounds == []
    assert "The tool dice.roll fits, but the prompt holds no value for sides (integer)" in played.text


@pytest.mark.parametrize("outcome", ["it broke", {"error": {"reason": "TOOL_FAILED", "message": "it broke"}}])
async def test_a_tool_that_failed_is_named(play: Any, raw: Any, outcome: Any) -> None:
    value = raw(outcome) if isinstance(outcome, str) else outcome
    played = await play(OfflineModel(), "What time is it?", [(tool("clock.now"), lambda _: value)])
    assert played.text == f"The tool clock.now failed: it broke\n\n{MARK}"


async def test_tools_that_do_not_fit_are_left_alone(play: Any) -> None:
    tools = [(tool("mail.send", "Sends mail.", to=TEXT), str), (tool("dice.roll", "Rolls dice."), str)]
    played = await play(OfflineModel(), "Paint the fence", tools)
    assert played.rounds == []
    assert "None of its tools fits the prompt (mail.send, dice.roll)" in played.text


# No tools


async def test_the_sentences_that_answer_are_chosen_from_the_prompts_own_text(play: Any) -> None:
    played = await play(OfflineModel(), f"What happens when a worker dies?\n{LEASES}\n{STORE}")
    assert played.text.startswith("- When a worker dies, its lease runs out and another worker takes the task over.")


async def test_it_says_that_it_knows_nothing_and_what_helps(play: Any) -> None:
    played = await play(OfflineModel(), "Who was Ada Lovelace?")
    assert "no knowledge of its own" in played.text
    assert "--model openai:NAME@URL" in played.text
    assert ends_with_one_mark(played.text)


# Every answer


async def test_the_answer_is_streamed_in_pieces_that_add_up_to_it(play: Any) -> None:
    played = await play(OfflineModel(), "What is the store?", library(("a.md", STORE)))
    assert len(played.pieces) >= 3
    assert "".join(played.pieces) == played.text


async def test_the_same_prompt_gets_the_same_answer(play: Any) -> None:
    tools = library(("a.md", STORE), ("b.md", LEASES))
    texts = {(await play(OfflineModel(), "What is the lease of the store?", tools)).text for _ in range(3)}
    assert len(texts) == 1


async def test_earlier_turns_of_a_session_are_not_the_task(play: Any) -> None:
    history = [Message("user", "What is 2 + 2?"), Message("assistant", f"2 + 2 = 4\n\n{MARK}")]
    played = await play(OfflineModel(), "What is the store?", library(("a.md", STORE)), history=history)
    assert played.rounds[0][0].arguments["query"] == "What is the store?"
    assert "- The store is Valkey. [a.md]" in played.text


async def test_an_answer_keeps_within_its_tokens_and_says_that_it_was_cut() -> None:
    prompt = Prompt("any", "", (Message("user", f"Summarise: {LEASES}"),), max_output_tokens=20)
    answer = await OfflineModel().answer(prompt, lambda _: None)
    assert answer.stop_reason == "length"
    assert len(answer.text) <= 80
    assert ends_with_one_mark(answer.text)


async def test_usage_is_estimated_from_what_went_in_and_out() -> None:
    short = await OfflineModel().answer(Prompt("any", "", (Message("user", "Hi"),)), lambda _: None)
    prompt = Prompt("any", "", (Message("user", "Hi" * 400),), (SEARCH,))
    long = await OfflineModel().answer(prompt, lambda _: None)
    assert (short.provider, short.model) == ("offline", "offline")
    assert (short.usage.input_tokens, long.usage.input_tokens) == (2, 202)
    assert short.usage.output_tokens > 30
    assert long.usage.output_tokens > 200


def large_library() -> list[tuple[ToolSpec, Any]]:
    """Passages of 1,100 characters whose surroundings are seven times as long, about leases and the store."""
    filler = "Here stands more about it than anybody asked for. " * 20
    passages = [(f"guide/{place}.md", f"{LEASES if place % 2 else STORE} {filler}") for place in range(20)]

    def search(arguments: dict[str, Any]) -> dict[str, Any]:
        best = sorted(passages, key=lambda passage: ("worker" in passage[1]) != ("worker" in arguments["query"]))
        return {"hits": [hit(source, text) for source, text in best[: arguments["limit"]]]}

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        return hit(arguments["id"].removeprefix("id-"), dict(passages)[arguments["id"].removeprefix("id-")] * 7)

    return [(SEARCH, search), (READ, read)]


@pytest.mark.parametrize("budget", [1_500, 2_500, 4_000, 8_192, 32_768])
async def test_no_more_is_searched_and_read_than_a_budget_allows(play: Any, budget: int) -> None:
    task = "What happens when a worker dies?"
    played = await play(OfflineModel(), task, large_library(), budget=budget, instructions="Be brief. " * 60)
    assert played.spent <= budget
    assert "its lease runs out and another worker takes the task over. [guide/1.md]" in played.text
    assert played.stop_reason == "stop"


@pytest.mark.parametrize("budget", [4_096, 8_192, 32_768])
async def test_delegation_keeps_within_a_budget_that_children_share(play: Any, budget: int) -> None:
    calls: list[str] = []
    spent = 0

    def summarise(arguments: dict[str, Any]) -> dict[str, Any]:
        calls.append("summary.extract")
        found = extract(arguments["question"], sections(arguments["text"]), arguments["sentences"])
        return {"sentences": [{"text": each.sentence, "source": each.source} for each in found]}

    def child(tools: list[tuple[ToolSpec, Any]], share: int) -> Any:
        async def run(arguments: dict[str, Any]) -> Any:
            nonlocal spent
            calls.append(tools[0][0].name)
            played = await play(OfflineModel(), arguments["prompt"], tools, budget=share, instructions="Do. " * 120)
            spent += played.spent
            return played.text

        return run

    tools = [
        (RESEARCHER, child(large_library(), (budget - 300) // 3)),
        (SUMMARISER, child([(SUMMARY, summarise)], (budget - 300) // 6)),
    ]
    task = "What is the store and what happens when a worker dies?"
    played = await play(OfflineModel(), task, tools, budget=budget, instructions="Plan. " * 90)
    assert played.spent + spent <= budget
    assert "The store is Valkey. [guide/0.md]" in played.text
    assert "its lease runs out and another worker takes the task over. [guide/1.md]" in played.text
    assert calls[:2] == ["docs.search", "docs.search"]
    assert ends_with_one_mark(played.text)


async def test_a_text_too_long_for_the_budget_is_condensed_without_help(play: Any) -> None:
    task = f"Summarise this: {LEASES} {'More of it stands here. ' * 300}"
    for tools in ([(SUMMARISER, str)], [(SUMMARY, dict)]):
        played = await play(OfflineModel(), task, tools, budget=5_000)
        assert played.rounds == []
        assert "[prompt]" in played.text


async def test_a_task_ends_even_when_its_history_was_compacted_away() -> None:
    prompt = Prompt("any", "", (Message("user", "What is the store?"),), (SEARCH, READ), LAST_TURN)
    answer = await OfflineModel().answer(prompt, lambda _: None)
    assert answer.calls == ()
    assert ends_with_one_mark(answer.text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["hits", "sentences", "error", "message", "id", "text", "source"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
ALL = (RESEARCHER, SUMMARISER, REVIEWER, SEARCH, READ, SUMMARY, tool("dice.roll", "Rolls.", sides={"type": "integer"}))


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    task=st.text(max_size=60) | st.sampled_from(["What is A1 and what is B2?", "Summarise: A b c. D e f.", "Roll 6"]),
    specs=st.lists(st.sampled_from(ALL), unique_by=lambda spec: spec.name),
    outcome=JSON.map(json.dumps) | st.text(max_size=20),
)
async def test_whatever_comes_back_there_are_last_words(
    play: Any, raw: Any, task: str, specs: list[ToolSpec], outcome: str
) -> None:
    played = await play(OfflineModel(), task, [(spec, lambda _: raw(outcome)) for spec in specs])
    assert ends_with_one_mark(played.text)
    assert "".join(played.pieces) == played.text


async def test_an_answer_that_is_to_be_one_text_as_json_streams_as_such() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    prompt = Prompt("any", "", (Message("user", "What is 2 + 3?"),), output_schema=schema)
    pieces: list[str] = []
    answer = await OfflineModel().answer(prompt, pieces.append)
    assert "".join(pieces) == answer.text
    assert "5" in json.loads(answer.text)["answer"]


@pytest.mark.parametrize("most", [1, 10, 50])
async def test_json_that_has_no_room_is_not_begun(most: int) -> None:
    schema = {"type": "object", "properties": {"answer" * 40: {"type": "string"}}}
    prompt = Prompt("any", "", (Message("user", "What is 2 + 3?"),), max_output_tokens=most, output_schema=schema)
    answer = await OfflineModel().answer(prompt, lambda _: None)
    assert "{" not in answer.text
