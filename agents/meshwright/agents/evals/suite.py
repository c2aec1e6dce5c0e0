"""Running an eval set: its cases in parallel, in a mesh of their own for each set of documents."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from meshwright.agents.agent import Agent
from meshwright.agents.evals.case import Case
from meshwright.agents.evals.checks import failures
from meshwright.agents.evals.judge import Judge
from meshwright.agents.models.model import Model
from meshwright.agents.testing import AgentBench, Played
from meshwright.core.errors import MeshError, SetupError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case.

    Attributes:
        agent: Agent that was asked.
        case: The case's id.
        failures: What was not as it should be; empty: it passed.
        is_judged: Whether a judge that the case asks for was there.
        output: The answer.
        finish: Why the task ended; empty: it never began.
        steps: Rounds of the agent's own task.
        tokens: Tokens of the task with its children.
        seconds: From the prompt to the verdict.
    """

    agent: str
    case: str
    failures: tuple[str, ...]
    is_judged: bool
    output: str
    finish: str
    steps: int
    tokens: int
    seconds: float

    @property
    def is_passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Suite:
    """An agent and its set.

    Attributes:
        agent: Who is asked.
        cases: The set.
        folder: Folder of the set: its documents lie below it.
        others: Further agents of the mesh.
    """

    agent: Agent
    cases: Sequence[Case]
    folder: Path
    others: Sequence[Agent] = ()


async def run(
    suite: Suite,
    *,
    model: str | Model | None,
    judge: Judge | None,
    parallel: int,
    on_end: Callable[[Verdict], None],
) -> list[Verdict]:
    """Runs a suite.

    Args:
        suite: Agent and cases.
        model: In place of the agents' own.
        judge: Decides where a case asks for one; None: those checks are left out, and the verdict says so.
        parallel: Cases at once.
        on_end: Takes each verdict as soon as it is known.

    Returns:
        The verdicts in the order of the cases.

    Raises:
        SetupError: The mesh cannot start.
    """
    verdicts: dict[str, Verdict] = {}
    for cases in _by_docs(suite.cases):
        async with AsyncExitStack() as stack:
            docs = _docs(stack, cases[0], suite.folder)
            bench = AgentBench(suite.agent, others=suite.others, model=model, docs=docs, concurrency=max(8, parallel))
            await stack.enter_async_context(bench)
            turns = asyncio.Semaphore(parallel)

            async def play(case: Case, turns: asyncio.Semaphore = turns, bench: AgentBench = bench) -> None:
                async with turns:
                    verdict = verdicts[case.id] = await _verdict(suite.agent.name, case, bench, judge)
                on_end(verdict)

            async with asyncio.TaskGroup() as group:
                for case in cases:
                    group.create_task(play(case))
    return [verdicts[case.id] for case in suite.cases]


async def _verdict(agent: str, case: Case, bench: AgentBench, judge: Judge | None) -> Verdict:
    began = time.monotonic()
    played: Played | None = None
    try:
        played = await bench.ask(
            case.prompt, max_steps=case.max_steps, token_budget=case.token_budget, timeout_s=case.timeout_s
        )
        wrong = failures(case.checks, played)
        if (
            case.checks.judge
            and judge
            and (objection := await judge.objection(case.checks.judge, case.prompt, played.output))
        ):
            wrong.append(objection)
    except MeshError as error:
        wrong = [f"could not be asked: {error.message}"]
    return Verdict(
        agent=agent,
        case=case.id,
        failures=tuple(wrong),
        is_judged=not case.checks.judge or judge is not None,
        output=played.output if played else "",
        finish=played.finish if played else "",
        steps=played.task.steps_used if played else 0,
        tokens=played.task.tokens_used if played else 0,
        seconds=time.monotonic() - began,
    )


def _by_docs(cases: Sequence[Case]) -> list[list[Case]]:
    """Sorts cases by the documents they may see: one index serves all cases with the same ones."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(json.dumps(case.docs, sort_keys=True), []).append(case)
    return list(groups.values())


def _docs(stack: AsyncExitStack, case: Case, folder: Path) -> Path:
    """Returns the folder of a case's documents; texts are written into one of their own, and none is an empty one.

    Raises:
        SetupError: They cannot be written.
    """
    if isinstance(case.docs, str):
        return folder / case.docs
    made = Path(stack.enter_context(TemporaryDirectory(prefix="meshwright-docs-", ignore_cleanup_errors=True)))
    try:
        for name, text in (case.docs or {}).items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text, encoding="utf-8")
    except (OSError, UnicodeEncodeError) as error:
        raise SetupError(f"the documents of case {case.id} cannot be written: {error}") from None
    return made
