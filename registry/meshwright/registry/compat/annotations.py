"""What a schema says to people and models, and never asserts: how that differs between two schemas. Pure."""

from collections.abc import Iterator
from typing import Any

from meshwright.core.canonical import escaped
from meshwright.registry.compat.document import ASSERTIONS, LIST_BELOW, NAMED_BELOW, ONE_BELOW, Place
from meshwright.registry.compat.literal import frozen

DEFINITIONS = "$defs"
STRUCTURE = frozenset((DEFINITIONS, "$schema", "$anchor", "$dynamicAnchor"))
RULES = {"title": "TITLE_CHANGED", "description": "DESCRIPTION_CHANGED", "default": "DEFAULT_CHANGED"}
OTHER_RULE = "ANNOTATION_CHANGED"
SENTENCES = {
    "default": "the default is another one; it describes what the tool does without a value, and no check reads it",
}
SENTENCE = "it tells people and models something else; no check reads it"


def parts(root: Place) -> Iterator[Place]:
    """Yields all schemas within a schema, itself first."""
    pending = [root]
    while pending:
        place = pending.pop()
        yield place
        for keyword in place.words:
            if keyword in ONE_BELOW | LIST_BELOW | NAMED_BELOW:
                pending.extend(place.below(keyword))
        if isinstance(definitions := place.words.get(DEFINITIONS), dict):
            pending.extend(Place(f"{place.pointer}/{DEFINITIONS}/{escaped(n)}", one) for n, one in definitions.items())


def annotated(root: Place) -> dict[str, dict[str, Any]]:
    """Returns the annotations of each part of a schema, by the part's pointer."""
    silent = ASSERTIONS | STRUCTURE
    return {
        place.pointer: {word: said for word, said in place.words.items() if word not in silent} for place in parts(root)
    }


def reworded(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields pointer, rule and sentence of each annotation that differs where both schemas have a part."""
    before, after = annotated(Place("", old)), annotated(Place("", new))
    for pointer in sorted(before.keys() & after.keys()):
        was, now = before[pointer], after[pointer]
        for word in sorted(was.keys() | now.keys()):
            if (word in was) != (word in now) or frozen(was.get(word)) != frozen(now.get(word)):
                rule = RULES.get(word, OTHER_RULE)
                yield f"{pointer}/{escaped(word)}", rule, SENTENCES.get(word, SENTENCE)
