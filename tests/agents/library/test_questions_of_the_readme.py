"""The questions that the README asks, put to the bundled agents over the documents that it names."""

import re
from pathlib import Path

from meshwright.agents.library.bundle import bundled
from meshwright.agents.task import leaf
from meshwright.agents.testing import AgentBench, Played

REPO = Path(__file__).parents[3]
DOCS = REPO / "docs"


async def asked(question: str) -> Played:
    assert f'meshwright run "{question}"' in (REPO / "README.md").read_text()
    async with AgentBench(bundled("orchestrator"), model="offline", docs=DOCS) as bench:
        return await bench.ask(question)


async def test_the_first_one_is_answered_with_sentences_and_their_sources() -> None:
    played = await asked("How does a task survive a crash?")
    body, _, sources = played.output.partition("\n\nSources:\n")
    cited = [re.fullmatch(r"- [^{}]+ \[(.+)\]", line) for line in body.splitlines()]
    assert all(cited), body
    assert {line[1] for line in cited if line} == set(re.findall(r"- (.+)", sources))
    assert all((DOCS / source).is_file() for source in re.findall(r"- (.+)", sources))
    assert not any(leaf(event).HasField("context_compacted") for event in played.events)


async def test_a_claim_is_contradicted_by_the_sentence_that_tells_the_number() -> None:
    played = await asked("Is it true that a lease lasts thirty seconds?")
    claim, quote, *_ = played.output.splitlines()
    assert claim == "1. contradicted: a lease lasts thirty seconds"
    assert "a lease in the task's record, fifteen seconds long" in quote
    assert quote.endswith("[durability.md]")
