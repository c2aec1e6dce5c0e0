"""Mutants fit the code that they change: one that changed nothing would prove nothing."""

import subprocess
import sys

import pytest

from meshwright.cli.chaos.mutant import EVERYSEC, MUTANTS
from meshwright.cli.chaos.mutants import GUARDS


@pytest.mark.parametrize("name", [name for name in MUTANTS if name != EVERYSEC])
def test_a_mutant_changes_the_process_that_it_runs_in(name):
    code = f"from meshwright.cli.chaos.mutant import MUTANTS; MUTANTS[{name!r}]()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_mutant_has_a_guard():
    assert set(GUARDS) <= set(MUTANTS)
