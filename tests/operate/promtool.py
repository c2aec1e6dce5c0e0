"""Prometheus's own tool, where it is installed: `make test-operate` brings it."""

import shutil
import subprocess

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: `make test-operate` installs it"
)


def promtool(*arguments, given=""):
    """Runs it; returns its exit code and all that it said."""
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, timeout=50, check=False
    )
    return done.returncode, done.stdout + done.stderr
