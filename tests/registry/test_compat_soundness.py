"""No pair of schemas is called compatible that breaks a caller: drawn pairs, drawn values, the real validator.

`COMPAT_EXAMPLES=50000` draws more of them.
"""

import copy
import os
from random import Random

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.core.errors import InvalidRequestError
from meshwright.registry.compat import is_compatible
from meshwright.registry.compat.containment import CHECKS
from meshwright.registry.compat.limits import LIMITS
from meshwright.registry.compat.schema import schema_changes
from meshwright.registry.schema import Schema, refuse

EXAMPLES = int(os.environ.get("COMPAT_EXAMPLES", "400"))
NAMES = ["a", "b", "c", "x-a"]
TEXTS = ["", "a", "ab", "b", "abc", "x-a", "2020-01-01", "c"]
NUMBERS = [-1, 0, 1, 2, 3, 4, 6, 0.5, 1.5, 2.0, 2**60, 1e300]
PLAIN = [None, True, False, *NUMBERS, *TEXTS, [], {}]
KINDS = ["null", "boolean", "integer", "number", "string", "array", "object"]
PATTERNS = ["^a", "b$", "^x-"]
FORMATS = ["date", "email", "of-our-own"]


class Maker:
    """Draws schemas, changes of them, and values that have a good chance to fit."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def few(self, choices, most=2):
        return self.random.sample(choices, self.random.randint(1, min(most, len(choices))))

    def value(self, depth=2):
        draw = self.random.random()
        if depth and draw < 0.25:
            return {name: self.value(depth - 1) for name in self.few(NAMES, 3)}
        if depth and draw < 0.4:
            return [self.value(depth - 1) for _ in range(self.random.randint(0, 3))]
        return self.random.choice(PLAIN)

    def schema(self, depth=3):
        draw = self.random.random()
        if draw < 0.08:
            return self.random.choice([True, False, {}])
        if draw < 0.14:
            return {"$ref": self.random.choice(["#/$defs/p", "#/$defs/q", "#anchored", "#"])}
        found = {}
        for keyword in self.few(list(self.makers(depth)), 4):
            found |= self.makers(depth)[keyword]()
        if self.random.random() < 0.5 and "type" not in found:
            found["type"] = self.random.choice(KINDS)
        return found

    def makers(self, depth):
        draw, number = self.random, lambda most: self.random.randint(0, most)
        makers = {
            "type": lambda: {"type": draw.choice([draw.choice(KINDS), self.few(KINDS, 3)])},
            "enum": lambda: {"enum": self.unique([self.value() for _ in range(draw.randint(1, 4))])},
            "const": lambda: {"const": self.value()},
            "minimum": lambda: {draw.choice(["minimum", "exclusiveMinimum"]): draw.choice(NUMBERS[:9])},
            "maximum": lambda: {draw.choice(["maximum", "exclusiveMaximum"]): draw.choice(NUMBERS[:9])},
            "multipleOf": lambda: {"multipleOf": draw.choice([1, 2, 3, 4, 0.5, 1.5])},
            "lengths": lambda: {draw.choice(["minLength", "maxLength"]): number(3)},
            "pattern": lambda: {"pattern": draw.choice(PATTERNS)},
            "format": lambda: {"format": draw.choice(FORMATS)},
            "counts": lambda: {
                draw.choice(["minItems", "maxItems", "minProperties", "maxProperties"]): number(3),
            },
            "uniqueItems": lambda: {"uniqueItems": draw.choice([True, False])},
            "required": lambda: {"required": self.few(NAMES)},
            "dependentRequired": lambda: {"dependentRequired": {draw.choice(NAMES): self.few(NAMES)}},
            "$ref": lambda: {draw.choice(["$ref", "$ref", "$dynamicRef"]): draw.choice(["#/$defs/p", "#anchored"])},
            "described": lambda: {"description": draw.choice(TEXTS), "default": draw.choice(PLAIN)},
        }
        return makers | (self.nesting(depth) if depth else {})

    def nesting(self, depth):
        draw, below = self.random, lambda: self.schema(depth - 1)
        several = lambda: [below() for _ in range(draw.randint(1, 3))]  # noqa: E731
        by_name = lambda: {name: below() for name in self.few(NAMES, 3)}  # noqa: E731
        by_pattern = lambda: {pattern: below() for pattern in self.few(PATTERNS)}  # noqa: E731
        closed = lambda: draw.choice([False, False, below()])  # noqa: E731
        return {
            "properties": lambda: {"properties": by_name()},
            "record": lambda: {"type": "object", "properties": by_name(), "additionalProperties": closed()},
            "tagged": lambda: {draw.choice(["oneOf", "anyOf"]): [self.tagged(name, below()) for name in ("a", "b")]},
            "patternProperties": lambda: {"patternProperties": by_pattern()},
            "additionalProperties": lambda: {"additionalProperties": closed()},
            "unevaluatedProperties": lambda: {"unevaluatedProperties": closed(), "properties": by_name()},
            "propertyNames": lambda: {"propertyNames": below()},
            "prefixItems": lambda: {"prefixItems": several()},
            "items": lambda: {"items": below()},
            "list": lambda: {"type": "array", "items": below(), draw.choice(["minItems", "maxItems"]): 2},
            "unevaluatedItems": lambda: {"unevaluatedItems": closed()},
            "contains": lambda: {"contains": below(), draw.choice(["minContains", "maxContains"]): draw.randint(0, 2)},
            "allOf": lambda: {"allOf": several()},
            "anyOf": lambda: {"anyOf": several()},
            "oneOf": lambda: {"oneOf": several()},
            "not": lambda: {"not": below()},
            "if": lambda: {"if": below(), "then": below(), "else": below()},
            "dependentSchemas": lambda: {"dependentSchemas": {draw.choice(NAMES): below()}},
            "dependencies": lambda: {"dependencies": {draw.choice(NAMES): self.few(NAMES)}},
        }

    def tagged(self, name, schema):
        return {"type": "object", "properties": {"c": {"const": name}, "b": schema}, "required": ["c"]}

    def unique(self, values):
        return [
            one
            for index, one in enumerate(values)
            if not any(jsonschema_rs.is_valid({"const": other}, one) for other in values[:index])
        ]

    def document(self):
        root = self.schema(self.random.choice([1, 2, 2, 3]))
        root = root if isinstance(root, dict) else {"allOf": [root]}
        marked = self.schema(2)
        q = {"$anchor": "anchored", **(marked if isinstance(marked, dict) else {})}
        document = {"$defs": {"p": self.schema(2), "q": q}, **root}
        return document if "$ref" in str(document) else root

    def changed(self, document):
        """Changes a schema at one to three places."""
        changed = copy.deepcopy(document)
        for _ in range(self.random.randint(1, 3)):
            self.change(self.random.choice(list(parts(changed))))
        return changed

    def change(self, part):
        draw = self.random.random()
        keys = [key for key in part if key not in ("$defs", "$anchor")]
        if draw < 0.3 and keys:
            del part[self.random.choice(keys)]
        elif draw < 0.55:
            part.update(
                {
                    key: self.wrapped(value)
                    for key, value in part.items()
                    if key in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
                }
            )
            self.in_list(part)
        elif draw < 0.75:
            part.update(self.makers(1)[self.random.choice(list(self.makers(1)))]())
        elif draw < 0.9:
            inner = {key: part.pop(key) for key in keys}
            part[self.random.choice(["allOf", "anyOf", "oneOf"])] = [inner, *([self.schema(1)] if draw < 0.85 else [])]
        else:
            part["properties"] = {**part.get("properties", {}), self.random.choice(NAMES): self.schema(1)}

    def wrapped(self, value):
        return max(0, value + self.random.choice([-1, 1]))

    def in_list(self, part):
        for key in ("enum", "required", "anyOf", "oneOf", "allOf", "prefixItems"):
            if isinstance(part.get(key), list) and part[key]:
                if len(part[key]) > 1 and self.random.random() < 0.5:
                    del part[key][self.random.randrange(len(part[key]))]
                elif key == "enum":
                    part[key] = self.unique([*part[key], self.value()])
                elif key != "required":
                    part[key].append(self.schema(1))
        if isinstance(part.get("type"), str):
            part["type"] = self.unique([part["type"], self.random.choice(KINDS)])

    def fitting(self, document, schema, depth=5):
        """Draws a value with a schema in mind; it need not fit."""
        if not isinstance(schema, dict) or depth == 0 or self.random.random() < 0.05:
            return self.value(1)
        for keyword in ("enum", "allOf", "anyOf", "oneOf"):
            if keyword in schema and self.random.random() < 0.7:
                one = self.random.choice(schema[keyword])
                return one if keyword == "enum" else self.joined(document, schema, one, keyword, depth)
        if "const" in schema:
            return schema["const"]
        if "$ref" in schema:
            named = document.get("$defs", {})
            inner = {"#/$defs/p": named.get("p"), "#": document}.get(schema["$ref"], named.get("q"))
            return self.joined(document, schema, inner, "$ref", depth)
        return self.of_kind(document, schema, self.kind(schema), depth)

    def joined(self, document, schema, one, keyword, depth):
        rest = {key: value for key, value in schema.items() if key != keyword}
        if not isinstance(one, dict):
            return self.fitting(document, rest, depth - 1)
        joined = {**rest, **one}
        for key in ("properties", "required"):
            if key in rest and key in one:
                joined[key] = rest[key] | one[key] if key == "properties" else [*rest[key], *one[key]]
        return self.fitting(document, joined, depth - 1)

    def kind(self, schema):
        if "type" in schema:
            return self.random.choice([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
        words = " ".join(schema)
        if self.random.random() < 0.8:
            for kind, hints in (("object", ("ropert", "required", "depend")), ("array", ("tems", "ontains"))):
                if any(hint in words for hint in hints):
                    return kind
        return self.random.choice(KINDS)

    def of_kind(self, document, schema, kind, depth):
        if kind == "object":
            named = schema.get("properties", {})
            wanted = [*schema.get("required", ()), *(name for name in named if self.random.random() < 0.6)]
            if schema.get("additionalProperties") is not False or self.random.random() < 0.1:
                wanted += self.random.sample(NAMES, self.random.randint(0, 2))
            other = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
            return {name: self.fitting(document, named.get(name, other), depth - 1) for name in wanted}
        if kind == "array":
            count = max(self.random.randint(0, 3), schema.get("minItems", 0))
            prefix, rest = schema.get("prefixItems", []), schema.get("items", schema.get("contains", True))
            below = [prefix[index] if index < len(prefix) else rest for index in range(count)]
            return [self.fitting(document, one, depth - 1) for one in below]
        if kind in ("integer", "number"):
            near = [schema[key] + step for key in schema if key.endswith("imum") for step in (-1, 0, 0.5, 1)]
            return self.random.choice([*near, *NUMBERS])
        return self.random.choice(TEXTS if kind == "string" else [None] if kind == "null" else [True, False])


def parts(node):
    """Yields the schemas within a schema that are no booleans."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key in ("properties", "patternProperties", "dependentSchemas", "$defs"):
                for one in value.values():
                    yield from parts(one)
            elif key in ("allOf", "anyOf", "oneOf", "prefixItems"):
                for one in value:
                    yield from parts(one)
            elif key not in ("const", "enum", "default", "dependentRequired", "dependencies"):
                yield from parts(value)


def validator(schema):
    return jsonschema_rs.Draft202012Validator(
        schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=refuse, validate_formats=True
    )


def is_schema(document):
    try:
        Schema(document)
    except InvalidRequestError:
        return False
    return True


def drawn_pair(seed):
    """Draws two schemas that may be registered, mostly one from the other; None: one may not."""
    maker = Maker(Random(seed))
    old = maker.document()
    new = maker.changed(old) if maker.random.random() < 0.85 else maker.document()
    return (maker, old, new) if is_schema(old) and is_schema(new) else None


def fitting_values(maker, old, new, tries=60):
    """Draws values that fit the old schema."""
    fits = validator(old)
    sources = [old if index % 3 else new for index in range(tries)]
    return [value for source in sources if fits.is_valid(value := maker.fitting(source, source))]


def is_called_compatible(old, new):
    """Asks for arguments and, the other way round, for results: the answer is the same."""
    answer = is_compatible(schema_changes(old, new, is_input=True))
    assert answer == is_compatible(schema_changes(new, old, is_input=False))
    return answer


def refused(seed):
    """Returns values that fit one schema and not another one that is called compatible, and how many fit the first."""
    pair = drawn_pair(seed)
    if pair is None or not is_called_compatible(*pair[1:]):
        return [], 0
    values = fitting_values(*pair)
    accepts = validator(pair[2])
    return [value for value in values if not accepts.is_valid(value)], len(values) if pair[1] != pair[2] else 0


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="COMPAT_EXAMPLES" not in os.environ,
)
@given(seed=st.integers(0, 2**63))
def test_no_value_of_the_old_schema_is_refused_by_one_called_compatible(seed):
    assert refused(seed)[0] == []


def test_the_draws_tell_something():
    telling = [values for seed in range(300) if (values := refused(seed)[1])]
    assert len(telling) > 60
    assert sum(telling) > 1_000


@pytest.mark.parametrize("keyword", ["properties", "prefixItems", "anyOf", "oneOf", "allOf", "not", "enum", "const"])
def test_a_rule_that_is_blind_is_caught_by_the_draws(keyword, monkeypatch):
    rules = LIMITS if keyword in LIMITS else CHECKS
    monkeypatch.setitem(rules, keyword, lambda *_: ())
    assert any(refused(seed)[0] for seed in range(1_200))
