"""How a schema differs from another one, and which differences break a caller. Pure."""

from collections.abc import Iterator
from typing import Any

from meshwright.gen.registry.v1.tool_registry_service_pb2 import SchemaChange
from meshwright.registry.compat.annotations import reworded
from meshwright.registry.compat.containment import Containment
from meshwright.registry.compat.effort import ExhaustedError
from meshwright.registry.compat.literal import Leaves, frozen
from meshwright.registry.compat.rule import Difference, Differences, Rule

TOO_MUCH = (
    Difference(Rule.UNDECIDABLE, "", "$ref, anyOf, oneOf: with all their combinations it is too much to compare"),
)


def schema_changes(old: dict[str, Any], new: dict[str, Any], *, is_input: bool) -> Iterator[SchemaChange]:
    """Yields how a schema differs from another one.

    Args:
        old: A schema as `Schema` takes it.
        new: The one in its place.
        is_input: Of arguments: all that fitted must fit still. Else of results: all that fits must have fitted.
    """
    if frozen(old) == frozen(new):
        return
    leaves = Leaves()
    less, more = differences(old, new, leaves), differences(new, old, leaves)
    breaking, harmless = (less, more) if is_input else (more, less)
    told = {difference.pointer for difference in breaking}
    for difference in breaking:
        yield as_change(difference, is_narrower=is_input, breaking=True)
    for difference in harmless:
        if difference.rule is not Rule.UNDECIDABLE or difference.pointer not in told:
            yield as_change(difference, is_narrower=not is_input, breaking=False)
    words = list(reworded(old, new))
    for pointer, rule, sentence in words:
        yield SchemaChange(pointer=pointer, rule=rule, message=sentence)
    if not (less or more or words):
        yield SchemaChange(rule="REWRITTEN", message="the same values fit; the schema is written in another way")


def differences(narrow: dict[str, Any], wide: dict[str, Any], leaves: Leaves) -> Differences:
    """Says why values may fit one schema and not the other."""
    try:
        return Containment(narrow, wide, leaves).differences()
    except (ExhaustedError, RecursionError):  # a caller may stand deep in the stack already
        return TOO_MUCH


def as_change(difference: Difference, *, is_narrower: bool, breaking: bool) -> SchemaChange:
    """Writes a difference as the contract has it."""
    name, sentence = difference.told(is_narrower=is_narrower)
    return SchemaChange(pointer=difference.pointer, rule=name, breaking=breaking, message=sentence)
