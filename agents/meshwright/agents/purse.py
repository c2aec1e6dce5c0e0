"""The purse: sets money aside before a call, counts what it cost after it.

Where no budget counts money nothing is set aside, and a step stays one script of the store. Where one does, what a
model call may cost at the most is journaled before the call: one script more.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from meshwright.agents.budget import Shortfall, most_input_tokens
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.escrow import Escrow
from meshwright.agents.models.candidate import Candidate
from meshwright.agents.models.model import Answer, Call, Model, Prompt, Usage
from meshwright.agents.models.prices import Prices
from meshwright.agents.models.routing import Wish
from meshwright.agents.remembering import EMBEDDED
from meshwright.agents.run import Run
from meshwright.core import telemetry
from meshwright.core.errors import BudgetExceededError, TaskCancelledError
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    RESERVATION_STATE_RELEASED,
    TOOL_OUTCOME_DENIED,
    ModelReservation,
    ReservationState,
    StepEvent,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_COST_BUDGET_EXCEEDED

LEAST_OUTPUT = 16
"""An answer of fewer tokens is none."""
MOST_CHUNKS = 100
"""So often one call asks for more, while others of its tree spend what it took."""


class Purse:
    """Spends the money of an agent's tasks.

    Args:
        candidates: Models that may be asked; the dearest one counts.
        prices: What they cost.
        escrow: Budgets that the task shares with others.
        embedder: Embeds what memories and questions are found by.
    """

    def __init__(
        self, candidates: Sequence[Candidate], prices: Prices, escrow: Escrow, embedder: MeteredEmbedder
    ) -> None:
        self._candidates = candidates
        self._models = [one.model for one in candidates]
        self._prices = prices
        self._escrow = escrow
        self._embedder = embedder

    def counts(self, run: Run) -> bool:
        """Whether a budget counts the money that a task spends."""
        return bool(run.budget.micros or run.record.shared)

    @cached_property
    def unpriced(self) -> frozenset[str]:
        """Names of models of which nobody knows what they cost; the first look reads the list of prices."""
        return frozenset(
            one.name for one in self._candidates if not self._prices.are_known(one.model.provider, one.model.name)
        )

    @cached_property
    def _priced(self) -> list[Model]:
        return [one.model for one in self._candidates if one.name not in self.unpriced]

    def bounded(self, run: Run, wish: Wish) -> Wish:
        """Returns a wish with the models left out whose prices nobody knows, where a budget counts money."""
        return replace(wish, unpriced=self.unpriced) if self.counts(run) else wish

    def _check_prices(self, asked: str) -> None:
        """Lets a call pass that has a price.

        Args:
            asked: The model that the request names; empty or a class: any.

        Raises:
            PriceUnknownError: Nobody knows it, or that of no model.
        """
        models = [one.model for one in self._candidates if one.name == asked and asked in self.unpriced]
        if not self._priced:
            models = self._models
        for model in models:
            self._prices.cost(model.provider, model.name, Usage())

    def cost(self, answer: Answer) -> int:
        """Returns what an answer cost, in millionths of a US dollar; 0 where nobody knows, and no budget asks.

        A provider may call its model by a longer name, with a date; where none is like it, the dearest counts.
        """
        alike = [model for model in self._models if answer.model.startswith(model.name)] or self._models
        return max(self._prices.cost_or_nothing(model.provider, model.name, answer.usage) for model in alike)

    def embedding(self, run: Run, call: Call) -> int:
        """Returns what is set aside for the text that a call embeds, in millionths of a US dollar.

        Raises:
            PriceUnknownError: A budget counts money, and nobody has said what the embedder costs.
        """
        argument = EMBEDDED.get(call.tool)
        return self._embedder.most_micros(call.arguments[argument]) if argument and self.counts(run) else 0

    async def opened(self, run: Run, prompt: Prompt, compared: str) -> Prompt | Shortfall:
        """Sets aside what a model call may cost at the most; bounds its answer by the money that is left.

        What a lost worker had set aside for its call counts as spent.

        Args:
            run: Whose budget pays.
            prompt: What is asked.
            compared: Text that is embedded before; empty: none.

        Raises:
            PriceUnknownError: A budget counts money, and nobody has said what the model costs.
            FencedError: Another process owns the task.
        """
        await self._close(run, closing(run, RESERVATION_STATE_CHARGED))
        if not self.counts(run):
            return prompt
        self._check_prices(run.request.model)
        read = most_input_tokens(prompt)
        beside = self._embedder.most_micros(compared) if compared else 0
        if run.budget.micros:
            most = prompt.max_output_tokens
            left = run.budget.micros_left(run.state) - beside
            prompt = replace(prompt, max_output_tokens=self._room(left, read, most))
            least = min(LEAST_OUTPUT, most)
            if prompt.max_output_tokens < least:
                lacking = self._most(read, least) - left
                return Shortfall(FINISH_REASON_COST_BUDGET_EXCEEDED, total=run.budget.micros + lacking)
        return await self._opened(run, prompt, read, beside)

    async def _opened(self, run: Run, prompt: Prompt, read: int, beside: int) -> Prompt | Shortfall:
        """Sets aside what a prompt's call may cost; where shared budgets have less left, its answer is shorter."""
        most = prompt.max_output_tokens
        micros, least = (self._most(read, tokens) + beside for tokens in (most, min(LEAST_OUTPUT, most)))
        held = await self._set_aside(run, micros, least)
        if isinstance(held, Shortfall):
            return held
        return prompt if held == micros else replace(prompt, max_output_tokens=self._room(held - beside, read, most))

    async def is_covered(self, run: Run, prompt: Prompt, parts: int) -> bool:
        """Sets aside what a model call beside the task's own ones may cost; raises as `opened`.

        Returns:
            Whether the call may be made: it takes at most one part in `parts` of the money that is left.
        """
        if not self.counts(run):
            return True
        self._check_prices("")
        micros = self._most(most_input_tokens(prompt), prompt.max_output_tokens)
        if run.budget.micros and micros > run.budget.micros_left(run.state) // parts:
            return False
        return not isinstance(await self._set_aside(run, micros, micros), Shortfall)

    async def _set_aside(self, run: Run, micros: int, least: int) -> int | Shortfall:
        """Sets aside `micros`, or less where shared budgets have too little left for them; returns how much."""
        if not micros:
            return 0
        reservation = ModelReservation(model=self._models[0].name, cost_micros=micros, state=RESERVATION_STATE_OPEN)
        event = run.event(run.state.step + 1, reservation=reservation)
        try:
            short = await self._spend(run, f"reserve:{run.state.sequence}", event, least=least)
        except TaskCancelledError:  # written, but the call is not made any more
            with contextlib.suppress(TaskCancelledError):
                await self.release(run)
            raise
        return short or event.reservation.cost_micros

    async def release(self, run: Run) -> None:
        """Frees what was set aside for a model call that its provider refused; an embedding before it is spent."""
        closed = closing(run, RESERVATION_STATE_RELEASED)
        if closed and run.embedding.model:
            closed[0].reservation.embedding.CopyFrom(run.embedding)
        await self._close(run, closed)

    async def _close(self, run: Run, closed: Sequence[StepEvent]) -> None:
        if closed:
            await run.append(f"reserved:{run.state.sequence}", *closed, is_progress=False)

    async def journal(self, run: Run, key: str, step: Sequence[StepEvent]) -> None:
        """Journals an answer with its intents; tools that cost more than is left are refused, for the model to read."""
        costs = sum(event.tool_call.cost_micros for event in step)
        if not costs or not self.counts(run):
            await run.append(key, *step)
        elif await self._spend(run, key, *step, is_progress=True):
            await run.append(key, *without_costs(run, step))

    async def afford(self, run: Run, key: str, intent: StepEvent) -> None:
        """Journals a tool call that is made again, which costs what it costs a second time.

        Raises:
            BudgetExceededError: Too little money is left for it.
        """
        if not intent.tool_call.cost_micros or not self.counts(run):
            await run.append(key, intent)
        elif await self._spend(run, key, intent, is_progress=True):
            telemetry.count_refusal(run.record.agent_id, run.record.name.tenant, "tool")
            message = "too little money is left to run it again: it is not known whether it ran before"
            raise BudgetExceededError(message)

    async def _spend(
        self, run: Run, key: str, *events: StepEvent, is_progress: bool = False, least: int = 0
    ) -> Shortfall | None:
        """Journals events that take money, with as many chunks of shared budgets as they need.

        Args:
            run: Whose budgets pay.
            key: Of the entry.
            events: What is journaled.
            is_progress: As `Run.append` has it.
            least: So much of what the first event sets aside is enough; 0: it sets nothing aside.
        """
        escrow = "0 0" if run.record.shared else ""
        reason = FINISH_REASON_COST_BUDGET_EXCEEDED
        for _ in range(MOST_CHUNKS):
            short = await run.spend(key, *events, escrow=escrow, is_progress=is_progress)
            if short is None:
                return None
            if short.left is not None:
                return Shortfall(reason)
            cut = await self._cut(run, events[0].reservation, least, short.missing) if least else 0
            missing = short.missing - cut
            granted = await self._escrow.take(run.record, short.chunk, missing) if missing else 0
            if granted:
                escrow = f"{short.chunk} {granted}"
                if events[0].HasField("reservation"):
                    events[0].reservation.chunk, events[0].reservation.chunk_micros = short.chunk, granted
            elif not cut:
                break
        _, title = await self._escrow.scarcest(run.record)
        return Shortfall(reason, shared=title)

    async def _cut(self, run: Run, reservation: ModelReservation, least: int, missing: int) -> int:
        """Lessens what a call sets aside where shared budgets have less left than it lacks; returns by how much.

        It leaves half of the rest to the tasks beside it, as long as `least` allows.
        """
        left, _ = await self._escrow.scarcest(run.record)
        if left >= missing:
            return 0
        cut = min(reservation.cost_micros - least, missing - left // 2)
        reservation.cost_micros -= cut
        return cut

    def _room(self, left: int, read: int, most: int) -> int:
        """Returns how many tokens an answer may have, by the money that is left."""
        low, high = (most if self._most(read, most) <= left else 0), most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._most(read, middle) <= left else (low, middle - 1)
        return low

    def _most(self, read: int, written: int) -> int:
        return max(self._prices.most(model.provider, model.name, read, written) for model in self._priced)


def closing(run: Run, state: ReservationState.ValueType) -> list[StepEvent]:
    """Returns what settles the reservation of a model call that has no answer; nothing where none is open."""
    held = run.state.account.model_call
    if held is None:
        return []
    reservation = ModelReservation(model=held.payer.model, cost_micros=held.micros, state=state)
    return [run.event(run.state.step + 1, reservation=reservation)]


def without_costs(run: Run, step: Sequence[StepEvent]) -> list[StepEvent]:
    """Refuses those of a step's calls that cost money."""
    refused = {event.tool_call.call_id for event in step if event.tool_call.cost_micros}
    for _ in refused:
        telemetry.count_refusal(run.record.agent_id, run.record.name.tenant, "tool")
    error = BudgetExceededError("too little money is left for this call: answer without it").to_status()
    kept = []
    for event in step:
        call_id = event.tool_call.call_id or event.tool_result.call_id or event.input_requested.call_id
        if call_id not in refused:
            kept.append(event)
        elif event.HasField("tool_call"):
            outcome = ToolResult(call_id=call_id, outcome=TOOL_OUTCOME_DENIED, error=error)
            kept.append(run.event(event.step, tool_result=outcome))
            run.drop_ahead(call_id)
    return kept
