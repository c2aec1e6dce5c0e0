"""`meshwright eval`: whether agents still do what their sets say; for people and for CI."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meshwright.agents.evals.judge import Judge
from meshwright.agents.evals.suite import Suite, Verdict, run
from meshwright.agents.models.catalog import model_from
from meshwright.cli.eval_report import Form, score, show_verdicts
from meshwright.cli.eval_target import suites
from meshwright.core import logs
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.log_levels import Levels

BELOW, WRONG = 1, 2
"""Exit codes: too few cases passed; a set, or the command line, is wrong."""
SILENT = ("offline", "scripted")
"""Models that judge nothing unless they are named as judge: rules and scripts have no opinion."""


def evaluate(
    target: Annotated[
        str, typer.Argument(help="A bundled agent, FILE.py:NAME, MODULE:NAME or a folder; by default all bundled ones")
    ] = "",
    set_: Annotated[
        Path | None, typer.Option("--set", help="The set, in place of evals.jsonl beside the agent")
    ] = None,
    model: Annotated[
        str, typer.Option(help="offline, openai:NAME[@URL] or scripted:FILE, in place of the agents' own")
    ] = "",
    judge: Annotated[
        str, typer.Option(help="Model that decides where a case asks for a judge; else that of --model")
    ] = "",
    agent: Annotated[
        list[str] | None, typer.Option(help="A further agent that it needs, FILE.py:NAME; may be repeated")
    ] = None,
    least: Annotated[float, typer.Option("--min", min=0, max=1, help="Share of cases that have to pass")] = 1.0,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Cases at once")] = 4,
    output: Annotated[Form, typer.Option("--output", "-o", help="How verdicts are printed")] = Form.TABLE,
) -> None:
    """Asks an agent what its set holds, in a mesh of its own, and checks what becomes of it."""
    try:
        chosen = suites(target, set_, agent or [])
    except InvalidRequestError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(WRONG) from None
    logs.write_lines(Levels.parse("error"), "eval", "eval")
    with contextlib.redirect_stdout(sys.stderr):  # what agents and tools print is no verdict
        verdicts = asyncio.run(_run(chosen, model or None, judged_by(model, judge), parallel))
    show_verdicts(verdicts, output)
    passed = sum(verdict.is_passed for verdict in verdicts)
    typer.echo(f"{passed} of {len(verdicts)} passed, {least:.0%} have to", err=True)
    if score(verdicts) < least:
        raise typer.Exit(BELOW)


def judged_by(model: str, judge: str) -> Judge | None:
    """Returns the judge that a command line names; None: none.

    Raises:
        SetupError: The model that is named cannot judge, or there is no such model.
    """
    if judge.startswith("offline"):
        raise SetupError("the offline model cannot judge: name a language model with --judge openai:NAME@URL")
    spec = judge or ("" if model.startswith(SILENT) else model)
    return Judge(model_from(spec)) if spec else None


async def _run(chosen: Sequence[Suite], model: str | None, judge: Judge | None, parallel: int) -> list[Verdict]:
    console = Console(stderr=True)
    verdicts: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        sign, style = ("✓", "green") if verdict.is_passed else ("✗", "red")
        line = f"{verdict.agent}/{verdict.case}  {verdict.seconds:.1f} s"
        console.print(sign, line, style=style, markup=False, highlight=False)

    try:
        for suite in chosen:
            verdicts += await run(suite, model=model, judge=judge, parallel=parallel, on_end=tell)
    finally:
        if judge:
            await judge.close()
    return verdicts
