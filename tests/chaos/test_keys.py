"""Chaos in a mesh where callers have to say who they are."""

import json
import os
import subprocess
import sys

import pytest

KEYED = ("resume", "network")
"""The first watches by gRPC and as a browser does, the second calls by stubs of its own."""


@pytest.mark.timeout(180)
def test_scenarios_make_a_key_of_their_own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("k") / "kept"
    command = [sys.executable, "-m", "meshwright.cli.main", "chaos", *KEYED, "--jobs", "2", "-o", "json"]
    settings = os.environ | {"MESHWRIGHT_AUTH": "keys", "MESHWRIGHT_API_KEY": "of another mesh"}
    done = subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, timeout=170, check=False, env=settings
    )
    rows = {row["scenario"]: row["broken"] for row in json.loads(done.stdout)}
    assert rows == {name: [] for name in KEYED}, done.stderr
    logs = list(folder.rglob("*.log"))
    assert logs
    assert not any("mwk_" in log.read_text() for log in logs)
