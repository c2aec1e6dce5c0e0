"""Words as the JSON object that was asked for, where that takes no invention."""

import json

from meshwright.agents.models.model import JsonObject
from meshwright.core.errors import InvalidRequestError
from meshwright.registry.schema import Schema


def shaped(text: str, schema: JsonObject) -> str:
    """Puts words into the one text that a schema asks for; where it asks for anything else, they stay words.

    Numbers, lists or facts of several kinds would have to be made up: whoever checks the answer shall see that there
    are none.
    """
    names = schema.get("required") or list(schema.get("properties", {}))
    if len(names) != 1:
        return text
    answer = {names[0]: text}
    try:
        fits = not Schema(schema).violations(answer)
    except InvalidRequestError:
        return text
    return json.dumps(answer, ensure_ascii=False) if fits else text
