"""Routing: what a task asks of a model, which rule matches, what a request may wish, and what fits."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.models.candidate import Candidate, Limits, candidate
from meshwright.agents.models.model import Answer, Message, OnText, Prompt, ToolSpec
from meshwright.agents.models.routing import Choice, Rule, TaskClass, Wish, choose, class_of
from meshwright.core.errors import InvalidRequestError


class Named:
    """A model that is never asked."""

    provider = "named"

    def __init__(self, name: str) -> None:
        self.name = name

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        raise AssertionError

    async def close(self) -> None:
        """Holds nothing open."""


def model(name: str, **facts: Any) -> Candidate:
    return candidate(Named(name), name, **facts)


SMALL = model("small", kind="fast", limits=Limits(context_window=1_000))
LARGE = model("large", kind="best", limits=Limits(context_window=8_000))
SPARE = model("spare")
ALL = (SMALL, LARGE, SPARE)


def tools(many: int) -> tuple[ToolSpec, ...]:
    return tuple(ToolSpec(f"t{number}", "", {}) for number in range(many))


def prompt(text: str = "Hi.", *, tool: int = 0, before: int = 0, after: tuple[Message, ...] = ()) -> Prompt:
    history = tuple(Message(role, "Earlier.") for _ in range(before) for role in ("user", "assistant"))  # type: ignore[arg-type]
    return Prompt("a", "Be brief.", (*history, Message("user", text), *after), tools(tool))


def names(choice: Choice) -> list[str]:
    return [one.name for one in choice.candidates]


def chosen(rules: list[Rule], asked: Prompt | None = None, **wish: Any) -> Choice:
    return choose(ALL, rules, asked or prompt(), Wish(**wish))


class TestTaskClass:
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (prompt("What is the capital of France?"), TaskClass.SIMPLE),
            (prompt("x " * 400), TaskClass.MEDIUM),
            (prompt("Hi.", tool=1), TaskClass.MEDIUM),
            (prompt("Hi.", tool=6), TaskClass.MEDIUM),
            (prompt("Hi.", before=1), TaskClass.MEDIUM),
            (prompt("Plan my week."), TaskClass.MEDIUM),
            (prompt("Planet of the apes, airplane, decode?"), TaskClass.SIMPLE),
            (prompt("Refactor this.", tool=1, before=1), TaskClass.COMPLEX),
            (prompt("x " * 4_000, tool=1), TaskClass.COMPLEX),
            (Prompt("a", "", ()), TaskClass.SIMPLE),
        ],
    )
    def test_signs_of_work_add_up(self, asked: Prompt, expected: TaskClass) -> None:
        assert class_of(asked) is expected

    @given(st.text(max_size=300), st.integers(0, 8), st.integers(0, 3), st.integers(1, 6))
    def test_it_is_the_same_at_every_step_of_a_task(self, text: str, tool: int, before: int, steps: int) -> None:
        first = prompt(text, tool=tool, before=before)
        said = tuple(Message(role, "plan code " * 900) for _ in range(steps) for role in ("assistant", "tool"))  # type: ignore[arg-type]
        later = dataclasses.replace(first, messages=(*first.messages, *said), turn=steps)
        assert class_of(later) is class_of(first)


class TestRules:
    def test_without_rules_all_are_asked_in_their_order(self) -> None:
        choice = chosen([])
        assert (names(choice), choice.because) == (["small", "large", "spare"], "first of the chain")

    def test_a_single_model_needs_no_choice(self) -> None:
        assert choose([SMALL], [], prompt("x" * 50_000), Wish()).candidates == (SMALL,)

    def test_the_first_rule_that_matches_counts_and_is_named(self) -> None:
        rules = [Rule(("large",), classes=frozenset({"complex"})), Rule(("spare", "small")), Rule(("small",))]
        choice = chosen(rules)
        assert names(choice) == ["spare", "small"]
        assert choice.because == "rule 2: simple task, 4 tokens, no tools, 100% of the budget left"

    def test_what_no_rule_matches_is_asked_of_all(self) -> None:
        choice = chosen([Rule(("large",), tools=True)])
        assert names(choice) == ["small", "large", "spare"]
        assert choice.because.startswith("no rule for it")

    @pytest.mark.parametrize(
        ("rule", "asked", "wish", "is_match"),
        [
            ({"classes": frozenset({"medium", "complex"})}, prompt(tool=1), {}, True),
            ({"classes": frozenset({"complex"})}, prompt(tool=1), {}, False),
            ({"max_prompt_tokens": 4}, prompt(), {}, True),
            ({"max_prompt_tokens": 3}, prompt(), {}, False),
            ({"tools": True}, prompt(tool=1), {}, True),
            ({"tools": True}, prompt(), {}, False),
            ({"tools": False}, prompt(), {}, True),
            ({"tools": False}, prompt(tool=1), {}, False),
            ({"tenants": frozenset({"acme"})}, prompt(), {"tenant": "acme"}, True),
            ({"tenants": frozenset({"acme"})}, prompt(), {"tenant": "beta"}, False),
            ({"budget_left_below": 0.25}, prompt(), {"budget_left": 0.2}, True),
            ({"budget_left_below": 0.25}, prompt(), {"budget_left": 0.25}, False),
            ({"tools": False, "tenants": frozenset({"acme"})}, prompt(), {"tenant": "beta"}, False),
        ],
    )
    def test_a_rule_matches_where_all_that_it_says_is_so(
        self, rule: dict[str, Any], asked: Prompt, wish: dict[str, Any], *, is_match: bool
    ) -> None:
        choice = chosen([Rule(("spare",), **rule)], asked, **wish)
        assert (names(choice) == ["spare"]) is is_match


class TestWishes:
    RULES = (Rule(("small", "spare")),)

    @pytest.mark.parametrize(
        ("wish", "expected"),
        [
            ("fast", ["small", "spare"]),
            ("best", ["large", "small", "spare"]),
            ("spare", ["spare", "small"]),
            ("large", ["large", "small", "spare"]),
        ],
    )
    def test_what_is_asked_for_is_asked_first_and_the_others_where_it_cannot(
        self, wish: str, expected: list[str]
    ) -> None:
        choice = chosen(list(self.RULES), model=wish)
        assert (names(choice), choice.because) == (expected, f"{wish} was asked for")

    def test_a_class_that_no_model_has_changes_nothing(self) -> None:
        choice = choose([SMALL, SPARE], [], prompt(), Wish("best"))
        assert names(choice) == ["small", "spare"]
        assert "no model is called so" in choice.because

    @pytest.mark.parametrize("candidates", [ALL, (SMALL,)])
    def test_another_name_is_refused_with_the_known_ones(self, candidates: tuple[Candidate, ...]) -> None:
        with pytest.raises(InvalidRequestError, match="fast, best, small") as refused:
            choose(candidates, [], prompt(), Wish("huge"))
        assert set(refused.value.fields) == {"model"}


class TestSize:
    def test_models_whose_window_is_too_small_are_left_out(self) -> None:
        choice = chosen([], prompt("x" * 4_000))
        assert names(choice) == ["large", "spare"]
        assert choice.because.endswith("too long for small")

    def test_where_none_is_large_enough_all_are_asked(self) -> None:
        choice = choose([SMALL, LARGE], [], prompt("x" * 80_000), Wish())
        assert names(choice) == ["small", "large"]


RULES = st.builds(
    Rule,
    use=st.lists(st.sampled_from(["small", "large", "spare"]), min_size=1, max_size=3, unique=True).map(tuple),
    classes=st.frozensets(st.sampled_from(["simple", "medium", "complex"])),
    max_prompt_tokens=st.one_of(st.none(), st.integers(1, 3_000)),
    tools=st.one_of(st.none(), st.booleans()),
    tenants=st.frozensets(st.sampled_from(["acme", "beta"])),
    budget_left_below=st.one_of(st.none(), st.floats(0.01, 1)),
)


@given(
    st.lists(RULES, max_size=5),
    st.text(max_size=400),
    st.integers(0, 7),
    st.sampled_from(["", "fast", "best", "small", "large", "spare"]),
    st.sampled_from(["acme", "beta"]),
    st.floats(0, 1),
)
def test_whatever_the_rules_somebody_is_asked_nobody_twice_and_always_the_same(
    rules: list[Rule], text: str, tool: int, wish: str, tenant: str, left: float
) -> None:
    asked = prompt(text, tool=tool)
    choice = choose(ALL, rules, asked, Wish(wish, tenant, left))
    found = names(choice)
    assert found
    assert len(set(found)) == len(found)
    assert choice.because
    assert choose(ALL, rules, asked, Wish(wish, tenant, left)) == choice
    if wish in ("small", "large", "spare"):
        assert found[0] == wish


class TestPrices:
    def test_a_model_without_a_price_is_left_out_where_money_counts(self):
        choice = chosen([Rule(("large", "spare", "small"))], unpriced=frozenset({"spare"}))
        assert names(choice) == ["large", "small"]
        assert choice.because.endswith("; nobody knows what spare costs")

    def test_where_that_leaves_none_of_a_rule_all_others_are_asked(self):
        assert names(chosen([Rule(("spare",))], unpriced=frozenset({"spare"}))) == ["small", "large"]

    def test_models_that_are_not_in_the_chain_do_not_matter(self):
        choice = chosen([Rule(("small",))], unpriced=frozenset({"spare"}))
        assert (names(choice), "nobody" in choice.because) == (["small"], False)
