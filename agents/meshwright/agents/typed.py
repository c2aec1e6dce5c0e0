"""Typed results: what an answer has to be, whether it is, and what the model is told where it is not. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.agents.models.model import JsonObject
from meshwright.agents.values import parsed_result
from meshwright.core.canonical import from_struct
from meshwright.core.errors import InvalidRequestError, OutputSchemaViolatedError
from meshwright.core.facts import FACT_BYTES, MESSAGE_BYTES, shortened
from meshwright.gen.agents.v1.step_event_pb2 import Correction
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from meshwright.registry.arguments import READER, WRITER
from meshwright.registry.schema import Schema, Violation, explained, first_line

FIELD = "output_schema"
MAX_CORRECTIONS = 2
"""How often an answer is handed back to the model."""
MAX_BYTES = 256 * 2**10
MAX_TOLD = 8 * 2**10
WRONG = "the answer does not satisfy the schema of the result"
AGAIN = "Answer again, with one JSON object that satisfies it, and nothing else."
FENCE = "```"
LANGUAGES = frozenset({"", "json"})
"""What may stand behind the fence that opens a block of JSON."""
LONGEST_OPENING = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as it was read.

    Attributes:
        text: Its JSON; empty: there is none.
        violations: What is wrong with it; empty: it fits.
    """

    text: str
    violations: Sequence[Violation] = ()

    @property
    def data(self) -> JsonObject:
        """The object that a fitting answer holds; a number that a double cannot keep is text."""
        value: JsonObject = parsed_result(self.text)
        return value


@dataclass(frozen=True, slots=True)
class ResultType:
    """What a task's result has to be.

    Attributes:
        document: JSON Schema 2020-12 of type object, as models are asked.
    """

    document: JsonObject
    _schema: Schema
    _last: dict[str, Reading] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "ResultType":
        """Compiles a schema.

        Raises:
            InvalidRequestError: It is none, not of type object, beyond the limits, or refers to somewhere else.
        """
        asked = dict(document)
        if asked.get("type") != "object":
            problems = {f"{FIELD}/type": 'must be "object"'}
            raise InvalidRequestError(
                f"{FIELD} must be of type object: put what it describes into one", fields=problems
            )
        return cls(asked, Schema(asked, FIELD))

    @classmethod
    def of(cls, request: TaskRequest, own: "ResultType | None" = None) -> "ResultType | None":
        """Returns what a request asks for, else what its agent always gives; None: text.

        Raises:
            InvalidRequestError: What it asks for is no schema that is served.
        """
        if not request.HasField("output_schema"):
            return own
        return cls.parse(from_struct(request.output_schema, FIELD))

    def read(self, text: str) -> Reading:
        """Reads an answer: JSON alone, or the first block of it between fences."""
        if text not in self._last:
            self._last.clear()
            self._last[text] = self._reading(text)
        return self._last[text]

    def _reading(self, text: str) -> Reading:
        if len(text.encode(errors="replace")) > MAX_BYTES:
            return Reading("", [Violation("", "size", f"is larger than {MAX_BYTES} bytes")])
        body = json_in(text)
        try:
            value, end = READER.raw_decode(body)
            WRITER.encode(value).encode()  # an escape may have made half a pair
        except RecursionError:
            return Reading("", [Violation("", "depth", "is nested too deeply")])
        except UnicodeEncodeError:
            return Reading("", [Violation("", "json", "holds half a surrogate pair")])
        except ValueError as error:
            return Reading("", [Violation("", "json", f"cannot be read as JSON: {first_line(error)}")])
        rest = body[end:].lstrip()
        if rest and not rest.startswith(FENCE):
            return Reading("", [Violation("", "json", "cannot be read as JSON: something follows after it")])
        return Reading(body[:end], self._schema.violations(value))


def json_in(text: str) -> str:
    """Returns an answer from where its JSON begins: inside of the first block that may hold it, else all of it."""
    place = len(text) if text.lstrip().startswith("{") else 0
    while (start := text.find(FENCE, place)) >= 0:
        line = text.find("\n", start, start + LONGEST_OPENING)
        if line >= 0 and text[start + len(FENCE) : line].strip().lower() in LANGUAGES:
            return text[line:].strip()
        closing = text.find(FENCE, start + len(FENCE))
        place = closing + len(FENCE) if closing >= 0 else len(text)
    return text.strip()


def correction(result_type: ResultType | None, text: str, corrected: int) -> Correction | None:
    """Returns what hands an answer back to its model; None: it fits, or was handed back often enough."""
    if result_type is None or corrected >= MAX_CORRECTIONS:
        return None
    violations = result_type.read(text).violations
    if not violations:
        return None
    told = shortened(f"{WRONG}: {explained(list(violations))}", MAX_TOLD)
    return Correction(reason=OutputSchemaViolatedError.reason, text=f"{told}\n{AGAIN}")


def violated(violations: Sequence[Violation]) -> OutputSchemaViolatedError:
    """Builds the error for an answer that does not fit; `fields` holds every violation by its JSON Pointer."""
    problems: dict[str, str] = {}
    for violation in violations:
        place = f"output_data{shortened(violation.pointer, FACT_BYTES)}"
        problems[place] = f"{problems[place]}; {violation.message}" if place in problems else violation.message
    message = shortened(f"{WRONG}: {explained(list(violations))}", MESSAGE_BYTES)
    return OutputSchemaViolatedError(message, fields=problems)
