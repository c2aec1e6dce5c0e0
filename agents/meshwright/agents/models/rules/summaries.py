"""Summaries: the material of a prompt goes to the tool that extracts sentences, once."""

from typing import Any

from meshwright.agents.extract import Extract, sectioned
from meshwright.agents.models.model import JsonObject, estimated_tokens
from meshwright.agents.models.rules.citations import quoted
from meshwright.agents.models.rules.material import UNNAMED, Material, best_of, material_in
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation

EXTRACT = "summary.extract"
MOST_SENTENCES = 6
"""Sentences that a summary asks for."""
SENTENCE_TOKENS = 80
"""What a sentence with its source may take."""


def summaries(situation: Situation) -> Move | None:
    """Lets the tool choose the sentences, and lists them with their sources."""
    done = situation.outcomes_of(EXTRACT)
    tool = situation.tool(EXTRACT)
    if not done and tool is None:
        return None
    material = material_in(situation.task, is_all=True)
    if done:
        return Say(_listed(done[-1], material))
    if tool and material and not _is_affordable(situation, material):
        return Say(quoted(best_of(material)))
    if tool and material:
        known = tool.parameters.get("properties", {})
        arguments = {"text": _text(material), "question": material.subject, "sentences": MOST_SENTENCES}
        return Do(
            (Request(EXTRACT, {name: _cut(arguments[name], known[name]) for name in arguments if name in known}),)
        )
    is_alone = len(situation.tools) == 1
    return Say("There is nothing to summarise: put the text below the question.") if is_alone else None


def _is_affordable(situation: Situation, material: Material) -> bool:
    """Tells whether there is room to write the material into a call and to read the sentences that it brings."""
    size = estimated_tokens(_text(material))
    brought = min(size, MOST_SENTENCES * SENTENCE_TOKENS)
    return situation.said + size + 2 * brought <= situation.room


def _text(material: Material) -> str:
    """Writes the material with its sources, plain when it came without any."""
    is_unnamed = [passage.source for passage in material.passages] == [UNNAMED]
    return material.passages[0].text if is_unnamed else sectioned(material.passages)


def _cut(value: Any, schema: JsonObject) -> Any:
    """Keeps a text within the length that the tool takes."""
    return value[: schema.get("maxLength")] if isinstance(value, str) else value


def _listed(outcome: Outcome, material: Material | None) -> str:
    """Lists the sentences; chooses some itself when the tool could not."""
    extracts = _sentences(outcome)
    if extracts:
        return quoted(extracts)
    own = best_of(material) if material else []
    said = "gave no sentence" if extracts is not None else f"failed: {outcome.reason}"
    notice = f"The tool {EXTRACT} {said}" + ("; these sentences were chosen without it." if own else "")
    return "\n\n".join([notice, quoted(own)]).strip()


def _sentences(outcome: Outcome) -> list[Extract] | None:
    """Reads the sentences that the tool chose; None when it gave back something else."""
    listed = outcome.value.get("sentences") if isinstance(outcome.value, dict) else None
    if not isinstance(listed, list):
        return None
    entries = [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("text"), str)]
    return [Extract(str(entry.get("source") or UNNAMED), entry["text"], 0.0) for entry in entries]
