"""Usage guessed from text, for models that do not count."""

import json
from collections.abc import Sequence

from meshwright.agents.models.model import Call, Prompt, Usage, estimated_tokens


def estimated_usage(prompt: Prompt, text: str, calls: Sequence[Call]) -> Usage:
    """Guesses the tokens of one call: instructions, messages and tools in; words and calls out."""
    tools = [f"{tool.name} {tool.description} {json.dumps(tool.parameters)}" for tool in prompt.tools]
    messages = [message.text + written(message.calls) for message in prompt.messages]
    return Usage(
        input_tokens=sum(estimated_tokens(each) for each in (prompt.instructions, *messages, *tools)),
        output_tokens=estimated_tokens(text + written(calls)),
    )


def written(calls: Sequence[Call]) -> str:
    """Writes calls as the text that a model would have produced."""
    return "".join(f"{call.tool}{json.dumps(call.arguments)}" for call in calls)
