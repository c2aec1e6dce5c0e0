"""What is left without a fitting tool: sums, sentences out of the prompt's own text, and an honest word."""

from meshwright.agents.models.rules.arithmetic import evaluate, expressions
from meshwright.agents.models.rules.citations import quoted
from meshwright.agents.models.rules.delegation import ASK
from meshwright.agents.models.rules.documents import READ, SEARCH
from meshwright.agents.models.rules.material import best_of, material_in
from meshwright.agents.models.rules.situation import Move, Say, Situation
from meshwright.agents.models.rules.summaries import EXTRACT

ADVICE = "pass --model openai:NAME@URL to use a language model, or ask an agent that has tools for it."


def plain_sum(situation: Situation) -> Move | None:
    """Works out a sum at once when no tool at hand could be meant for it."""
    is_for_text = all(tool.name.startswith(ASK) or tool.name in {SEARCH, READ, EXTRACT} for tool in situation.tools)
    return arithmetic(situation) if is_for_text and not situation.outcomes else None


def arithmetic(situation: Situation) -> Move | None:
    """Works out the sums of a prompt."""
    lines = [_worked_out(expression) for expression in expressions(situation.task)]
    return Say("\n".join(lines)) if lines else None


def excerpt(situation: Situation) -> Move | None:
    """Chooses the best sentences of the text that a prompt carries."""
    material = material_in(situation.task, is_all=True)
    extracts = best_of(material) if material else []
    return Say(quoted(extracts)) if extracts else None


def confession(situation: Situation) -> Move:
    """Says what this model cannot do, and what to do about it."""
    unfit = ", ".join(tool.name for tool in situation.tools)
    tools = f"None of its tools fits the prompt ({unfit}). " if unfit else ""
    return Say(f"The offline model is no language model and has no knowledge of its own. {tools}What helps: {ADVICE}")


def _worked_out(expression: str) -> str:
    try:
        return f"{expression} = {evaluate(expression)}"
    except ValueError as failure:
        return f"{expression} cannot be worked out: {failure}"
