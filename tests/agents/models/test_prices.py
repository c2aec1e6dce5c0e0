"""Prices: a file of one's own, then the list; what nobody knows is an error only where it counts."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.models.model import Usage
from meshwright.agents.models.prices import MAX_FILE_BYTES, Price, Prices, load
from meshwright.core.errors import PriceUnknownError, SetupError

THREE = Price(input=3_000_000, output=15_000_000, cache_read=300_000, cache_write=3_750_000)
TOKENS = st.integers(0, 10**7)


def test_a_call_costs_what_its_tokens_cost_rounded_up():
    assert THREE.cost(Usage(1_000, 100)) == 3_000 + 1_500
    assert THREE.cost(Usage(0, 0, 1_000, 1_000)) == 300 + 3_750
    assert Price(input=1, output=0).cost(Usage(1, 0)) == 1
    assert Price(input=10, output=20).cost(Usage(cache_read_tokens=10**6, cache_write_tokens=10**6)) == 20


@given(read=TOKENS, written=TOKENS, cached=TOKENS)
def test_no_call_costs_more_than_its_bound(read, written, cached):
    prices = Prices({"m": THREE})
    most = prices.most("openai", "m", read, written)
    share = min(cached, read)
    for usage in (Usage(read, written), Usage(read - share, written, share), Usage(read - share, written, 0, share)):
        assert prices.cost("openai", "m", usage) <= most


@given(calls=st.lists(st.tuples(TOKENS, TOKENS), max_size=20))
def test_calls_one_by_one_never_cost_less_than_together(calls):
    together = Usage(sum(read for read, _ in calls), sum(written for _, written in calls))
    assert sum(THREE.cost(Usage(*call)) for call in calls) >= THREE.cost(together)


def test_the_list_knows_common_models_and_dates_in_their_names():
    prices = Prices()
    assert prices.cost("openai", "gpt-4o", Usage(1_000_000, 0)) == 2_500_000
    assert prices.cost("openai", "gpt-4o-2024-08-06", Usage(0, 1_000_000)) == 10_000_000
    assert prices.cost("openai", "gpt-4o", Usage(0, 0, 1_000_000)) == 1_250_000
    assert prices.most("openai", "gpt-4o", 1_000, 1_000) >= prices.cost("openai", "gpt-4o", Usage(1_000, 1_000))


def test_who_calls_nobody_is_free_unless_a_price_is_named():
    assert Prices().cost("offline", "offline", Usage(1_000, 1_000)) == 0
    assert Prices({"offline": THREE}).cost("offline", "offline", Usage(1_000, 0)) == 3_000


def test_an_unknown_model_says_what_to_configure():
    with pytest.raises(PriceUnknownError, match='MESHWRIGHT_PRICES=FILE with the line "llama3:8b"'):
        Prices().cost("openai", "llama3:8b", Usage(1, 1))
    assert Prices().cost_or_nothing("openai", "llama3:8b", Usage(1, 1)) == 0
    assert Prices({"llama3:8b": THREE}).cost("openai", "llama3:8b", Usage(1_000, 0)) == 3_000


def test_a_file_of_prices_comes_first(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text('"gpt-4o": {input: 1, output: 2}\nlocal: {input: 0, output: 0, cache_read: 0}\n')
    prices = load(str(path))
    assert prices.cost("openai", "gpt-4o", Usage(1_000_000, 1_000_000)) == 3
    assert prices.cost("openai", "local", Usage(1_000_000, 1_000_000)) == 0
    assert load("").cost("openai", "gpt-4o", Usage(1_000_000, 0)) == 2_500_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "must be at most 1000 lines"),
        ("m: 3", "wrong at m"),
        ("m: {input: 1}", "wrong at m.output"),
        ("m: {input: -1, output: 1}", "wrong at m.input"),
        ("m: {input: 1, output: 1, per_call: 3}", "wrong at m.per_call"),
        ("m: {input: [", "no YAML"),
        (yaml.safe_dump({f"m{n}": {"input": 1, "output": 1} for n in range(1_001)}), "at most 1000"),
        ("#" * (MAX_FILE_BYTES + 1), "more than"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path, text, said):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(SetupError, match=said) as refused:
        load(str(path))
    assert "\n" not in refused.value.message


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(SetupError, match="cannot read the prices in /nowhere"):
        load("/nowhere")
