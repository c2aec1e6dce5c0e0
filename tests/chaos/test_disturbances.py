"""The scenarios that need no kills, in their short form: every promise is kept."""

import importlib

import pytest

from meshwright.cli.chaos.scenario import Setting


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["network", "resume", "overload", "fairness", "delegation", "soak", "bad_input"])
async def test_every_promise_is_kept(name, tmp_path):
    told: list[str] = []
    row = await importlib.import_module(f"meshwright.cli.chaos.{name}").play(Setting(False, 1, tmp_path, told.append))
    assert row.broken == []
    assert not row.skipped
