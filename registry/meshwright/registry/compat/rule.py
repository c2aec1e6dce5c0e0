"""What a difference is called, and its sentence. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

MAX_WHAT = 200
"""Characters of a schema's own words in a sentence."""


def least(name: str, what: str) -> tuple[str, str, str, str]:
    """Returns the names and sentences of a rule about the least of something."""
    raised = f"the least {what} was {{1}} and is {{0}} now"
    return f"{name}_RAISED", raised, f"{name}_LOWERED", f"the least {what} was {{0}} and is {{1}} now"


def greatest(name: str, what: str) -> tuple[str, str, str, str]:
    """Returns the names and sentences of a rule about the greatest of something."""
    lowered = f"the greatest {what} was {{1}} and is {{0}} now"
    return f"{name}_LOWERED", lowered, f"{name}_RAISED", f"the greatest {what} was {{0}} and is {{1}} now"


class Rule(Enum):
    """A rule by which one schema does not accept all that another does.

    Its value: the name and the sentence where the new schema accepts less than the old one, then the name and the
    sentence where it accepts more. `{}` stands for what it is about, `{1}` for the other schema's limit.
    """

    TYPE = "TYPE_NARROWED", "{} fitted before and does not now", "TYPE_WIDENED", "{} fits now and did not before"
    REQUIRED = "REQUIRED_PROPERTY_ADDED", "{} must be there now", "REQUIRED_PROPERTY_REMOVED", "{} may be missing now"
    PROPERTY = "PROPERTY_REMOVED", "{0} was allowed and is not now", "PROPERTY_ADDED", "{} is allowed now"
    DECLARED = (
        "PROPERTY_DECLARED",
        "{} was not described, so that anything fitted there, and is checked now",
        "PROPERTY_UNDECLARED",
        "{} was described, and anything fits there now",
    )
    ADDITIONAL = (
        "ADDITIONAL_PROPERTIES_FORBIDDEN",
        "properties that are not described were allowed and are not now",
        "ADDITIONAL_PROPERTIES_ALLOWED",
        "properties that are not described are allowed now",
    )
    ADDITIONAL_VALUES = (
        "ADDITIONAL_PROPERTIES_NARROWED",
        "properties that are not described could be anything and are checked now",
        "ADDITIONAL_PROPERTIES_WIDENED",
        "properties that are not described may be anything now",
    )
    PATTERN_PROPERTY = (
        "PATTERN_PROPERTY_ADDED",
        "properties whose names match {} are checked now",
        "PATTERN_PROPERTY_REMOVED",
        "properties whose names match {} are not checked in this way any more",
    )
    PATTERN_ALLOWED = (
        "PATTERN_PROPERTY_FORBIDDEN",
        "properties whose names match {} were allowed and are not now",
        "PATTERN_PROPERTY_ALLOWED",
        "properties whose names match {} are allowed now",
    )
    NAMES = (
        "PROPERTY_NAMES_NARROWED",
        "names of properties are checked now",
        "PROPERTY_NAMES_WIDENED",
        "names of properties are not checked any more",
    )
    DEPENDENT = (
        "DEPENDENT_REQUIRED_ADDED",
        "{} now",
        "DEPENDENT_REQUIRED_REMOVED",
        "no longer: {}",
    )
    FORBIDDEN = (
        "VALUE_FORBIDDEN",
        "a value could stand here and cannot now",
        "VALUE_ALLOWED",
        "a value may stand here now",
    )
    ENUM_VALUE = "ENUM_VALUE_REMOVED", "{} fitted before and does not now", "ENUM_VALUE_ADDED", "{} fits now"
    ENUM = "ENUM_ADDED", "only listed values fit now", "ENUM_REMOVED", "values that are not listed fit now"
    MINIMUM = least("MINIMUM", "value")
    MAXIMUM = greatest("MAXIMUM", "value")
    MULTIPLE = (
        "MULTIPLE_OF_NARROWED",
        "only multiples of {} fit now",
        "MULTIPLE_OF_WIDENED",
        "others than multiples of {} fit now",
    )
    MIN_LENGTH = least("MIN_LENGTH", "length")
    MAX_LENGTH = greatest("MAX_LENGTH", "length")
    PATTERN = "PATTERN_ADDED", "text must match {} now", "PATTERN_REMOVED", "text need not match {} any more"
    FORMAT = "FORMAT_ADDED", "text must be a {} now", "FORMAT_REMOVED", "text need not be a {} any more"
    OTHER_FORMAT = "FORMAT_CHANGED", "the format is another one: {}", "FORMAT_CHANGED", "the format is another one: {}"
    MIN_ITEMS = least("MIN_ITEMS", "number")
    MAX_ITEMS = greatest("MAX_ITEMS", "number")
    UNIQUE = "UNIQUE_ITEMS_ADDED", "no two items may be equal now", "UNIQUE_ITEMS_REMOVED", "items may be equal now"
    MIN_PROPERTIES = least("MIN_PROPERTIES", "number")
    MAX_PROPERTIES = greatest("MAX_PROPERTIES", "number")
    UNION_MEMBER = (
        "UNION_MEMBER_REMOVED",
        "{} fitted one of the alternatives before and may fit none, or not exactly one, now",
        "UNION_MEMBER_ADDED",
        "{} may fit one of the alternatives now",
    )
    UNDECIDABLE = (
        "UNDECIDABLE",
        "no rule can tell whether all that fitted before fits now: {}",
        "CONSTRAINT_CHANGED",
        "more may fit now: {}",
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """Why one schema does not accept all that another does.

    Attributes:
        rule: By which rule.
        pointer: JSON Pointer of the keyword or part, in whichever of the two schemas has it.
        what: What it is about, in few words; of a limit, where the schema that accepts less sets it.
        other: The limit that the other schema sets.
    """

    rule: Rule
    pointer: str
    what: str = ""
    other: str = ""

    def told(self, *, is_narrower: bool) -> tuple[str, str]:
        """Returns name and sentence, for a new schema that accepts less, or more, than the old one."""
        narrowed, less, widened, more = self.rule.value
        what = self.what if len(self.what) <= MAX_WHAT else f"{self.what[:MAX_WHAT]}…"
        name, sentence = (narrowed, less) if is_narrower else (widened, more)
        return name, sentence.format(what, self.other)


Differences = tuple[Difference, ...]


def quoted(value: Any) -> str:
    """Writes a value of a schema for a sentence."""
    return repr(value)[: MAX_WHAT // 2]


def undecided(pointer: str, keyword: str, why: str) -> Differences:
    """Returns the one difference of a keyword that no rule decides."""
    return (Difference(Rule.UNDECIDABLE, f"{pointer}/{keyword}", f"{keyword}: {why}"),)
