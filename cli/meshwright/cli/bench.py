"""`meshwright bench`: the benchmarks of a checkout."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from meshwright.core.errors import SetupError

CHECKOUT = Path(__file__).parents[3]


def bench(
    full: Annotated[bool, typer.Option("--full", help="Six minutes instead of one")] = False,
    only: Annotated[list[str] | None, typer.Option(help="This benchmark; may be repeated")] = None,
) -> None:
    """Measures what calls, tasks and watchers cost; works in a checkout, where the benchmarks are."""
    if not (CHECKOUT / "benchmarks" / "__main__.py").is_file():
        raise SetupError("the benchmarks are not installed: run this in a checkout, or `make bench` there")
    chosen = [part for name in only or () for part in ("--only", name)]
    command = (sys.executable, "-m", "benchmarks", "full" if full else "smoke", *chosen)
    raise SystemExit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)  # noqa: S603 - our own command
