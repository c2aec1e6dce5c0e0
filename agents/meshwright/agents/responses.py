"""Responses: whole answers of an agent, given again where everything is the same that they depend on.

What an answer depends on is its key, so nothing has to be invalidated: another version, instruction, guardrail, model
or tool asks another question. An answer is kept only where the run left no trace in the world.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass

import structlog

from meshwright.agents.agent import Agent
from meshwright.agents.answers import Answers, Kept
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.guardrails.guardrail import Guardrail
from meshwright.agents.likeness import MOST_CHARS, is_alike, marks
from meshwright.agents.models.candidate import Candidate
from meshwright.agents.models.model import Answer, OnText, Saved, Usage
from meshwright.agents.question import Question
from meshwright.agents.recall import packed
from meshwright.agents.remembering import RECALL, session_above
from meshwright.agents.run import Run
from meshwright.core import telemetry
from meshwright.core.canonical import digest
from meshwright.core.errors import MeshError
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.step_event_pb2 import LlmCall
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_STOP, TaskResponse
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_PURE

log = structlog.get_logger("responses")
PATIENCE_S = 3.0
"""A look that takes longer finds nothing."""
STALE_MS = 86_400_000
"""So much longer an answer is kept for the time when no model answers."""
MOST_ANSWER_BYTES = 64 * 2**10
BECAUSE = "the same question was answered before"
BECAUSE_ALIKE = "a question like it was answered before"
_PLACE = re.compile(r" at 0x[0-9a-f]+")


class Responses:
    """The response cache of one agent.

    Args:
        agent: Whose answers.
        answers: Where they are kept.
        embedder: Compares questions.
        models: That may answer.
    """

    def __init__(self, agent: Agent, answers: Answers, embedder: MeteredEmbedder, models: Sequence[Candidate]) -> None:
        self._agent = agent
        self._policy = agent.caching
        self._answers = answers
        self._embedder = embedder
        self._stale_ms = STALE_MS if agent.outage.is_degrading else 0
        known = [[one.name, one.model.provider, one.model.name] for one in models]
        self._basis = [facts_of(agent), known, list(map(spelled, agent.guardrails)), embedder.name]

    async def recalled(self, run: Run, on_text: OnText) -> Answer | None:
        """Returns an answer from before to a task's question; None: a model has to be asked.

        One that is too old for that is left in the run, for the case that no model answers. A cache that fails, or
        takes too long, knows nothing.

        Args:
            run: Whose question.
            on_text: Gets the answer's text, as it gets a model's: who watches sees no difference.
        """
        if not self._may_look(run):
            return None
        kept, found = None, "failed"
        try:
            with Limit(PATIENCE_S):
                run.question = question = self._question(run)
                kept = await self._answers.find(question)
                found = "hit" if kept else "miss"
                if kept is None and question.text:
                    run.question = question = await self._embedded(run, question)
                    kept = await self._alike(question)
                    found = "alike" if kept else "miss"
        except (MeshError, TimeoutError) as error:
            log.warning("cache_not_read", task_id=run.task_id, error=str(error))
        if kept and kept.left_ms <= self._stale_ms:
            run.recalled, kept, found = kept.text, None, "stale"
        telemetry.RESPONSES.labels(self._agent.name, found).inc()
        if kept is None:
            return None
        telemetry.SAVED.labels(self._agent.name).inc(kept.micros)
        because = BECAUSE if found == "hit" else f"{BECAUSE_ALIKE} (similarity {kept.similarity:.3f})"
        saved = Saved(kept.tokens, kept.micros)
        on_text(kept.text)
        return Answer(kept.text, (), Usage(), kept.provider, kept.model, routed_because=because, saved=saved)

    def _may_look(self, run: Run) -> bool:
        state = run.state
        is_asked = self._policy.mode != "off" and not run.request.no_cache
        return is_asked and not state.step and state.is_plain and not state.prompt

    def compared(self, run: Run) -> str:
        """Returns the text of a task's question where it is compared with others, and embedded for it; else nothing."""
        return run.request.prompt if self._is_compared(run) and self._may_look(run) else ""

    def _is_compared(self, run: Run) -> bool:
        is_short = len(run.request.prompt) <= MOST_CHARS
        return self._policy.mode == "semantic" and not (run.history or run.history.summary) and is_short

    async def keep(self, run: Run, said: LlmCall, result: TaskResponse) -> None:
        """Keeps a task's answer, if it may be given again; one that cannot be kept is none.

        This comes before the task's end is written: a session whose tasks have ended may be deleted at any time, with
        all that came from it.
        """
        question, spent = run.question, run.state.usage
        if question is None or result.finish_reason != FINISH_REASON_STOP or not is_repeatable(run):
            return
        if not 0 < len(said.text.encode()) <= MOST_ANSWER_BYTES:
            return
        tokens = spent.input_tokens + spent.output_tokens
        kept = Kept(said.text, question.text, said.provider, said.model, tokens, spent.cost_micros)
        life_ms = int(self._policy.for_s * 1_000) + self._stale_ms
        try:
            with run.awaiting(PATIENCE_S), Limit(PATIENCE_S):
                session_id = run.record.session_id or await session_above(run.journal, run.record.name)
                await self._answers.keep(question, kept, session_id, life_ms)
        except (MeshError, TimeoutError) as error:
            log.warning("answer_not_kept", task_id=run.task_id, error=str(error))

    def _question(self, run: Run) -> Question:
        """Spells what an answer depends on."""
        request, name, history = run.request, run.record.name, asdict(run.history)
        basis = [
            *self._basis,
            "" if self._policy.scope == "tenant" else name.principal,
            sorted(run.record.scopes),
            sorted([pin.id, pin.tool.digest] for pin in run.tools.values()),
            run.result_type.document if run.result_type else None,
            [request.model, request.on_budget_exceeded, sorted(request.allowed_tools)],
            history,
        ]
        is_compared = self._is_compared(run)
        scope = digest([*basis, marks(request.prompt)] if is_compared else basis)
        text = request.prompt if is_compared else ""
        return Question(name, scope, digest([scope, request.prompt]), text)

    async def _embedded(self, run: Run, question: Question) -> Question:
        vector = await self._embedder.embed(question.text, run.embedding)
        return Question(question.name, question.scope, question.answer_id, question.text, packed(vector))

    async def _alike(self, question: Question) -> Kept | None:
        """Returns the best answer to a question that is similar enough, and turns on the same words."""
        for kept in await self._answers.alike(question):
            if kept.similarity >= self._policy.threshold and is_alike(kept.question, question.text):
                return kept
        return None


def is_repeatable(run: Run) -> bool:
    """Whether a run's answer is all that it left behind, and would come out the same for the same question.

    What an agent remembers may be deleted, so answers made with it are not kept.
    """
    state = run.state
    if not state.is_plain or state.is_degraded or state.prompt:
        return False
    pins = [run.tools.get(name) for name in state.called]
    return all(pin is not None and pin.tool.effect == EFFECT_PURE and pin.tool.name != RECALL for pin in pins)


def facts_of(agent: Agent) -> list[object]:
    """Lists what an agent's answers depend on beside its tools, guardrails and models."""
    policy = agent.caching
    return [
        [agent.name, agent.version, agent.instructions],
        [policy.mode, repr(policy.for_s), repr(policy.threshold), policy.scope, agent.on_outage],
        [agent.context_window, agent.summaries, agent.remembers, agent.asks_people, sorted(agent.delegates)],
        repr(agent.escalation),
    ]


def spelled(rule: Guardrail) -> str:
    """Spells a guardrail with its settings, the same in every process."""
    kind = type(rule)
    names = [field.name for field in fields(rule)] if is_dataclass(rule) else sorted(getattr(rule, "__dict__", {}))
    settings = [(name, getattr(rule, name)) for name in names]
    return _PLACE.sub("", f"{kind.__module__}.{kind.__qualname__} {rule.name} {list(rule.points)} {settings!r}")
