"""What follows when a budget is used up and the task is to ask: a person raises it, or the task ends."""

from meshwright.agents import inputs
from meshwright.agents.budget import Budget, Shortfall
from meshwright.agents.inputs import Policy
from meshwright.agents.parking import wait_for_people
from meshwright.agents.run import Run
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_ASK,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
)

DOLLAR = 1_000_000


async def is_covered(run: Run, shortfall: Shortfall, policy: Policy) -> bool:
    """Asks a person for more, where the request wants that; returns whether the task goes on.

    Raises:
        Parked: It waits for the decision.
    """
    if run.request.on_budget_exceeded != BUDGET_ACTION_ASK or run.state.is_out_of_budget:
        return False
    if not run.state.asking:  # a worker before may have asked
        kind = inputs.SHARED_BUDGET if shortfall.shared else inputs.BUDGET
        turn = str(run.state.sequence)
        pending = inputs.asked(kind, run.task_id, told(run, shortfall), policy, now_ms=run.store_ms, turn=turn)
        if kind is inputs.BUDGET:
            pending.arguments.update(limits_of(run.budget))
        await run.append(f"budget:{turn}", *run.budget_notices(), run.event(input_requested=pending))
    await wait_for_people(run)
    return True


def told(run: Run, shortfall: Shortfall) -> str:
    """Says for people which budget is used up, and what was spent."""
    state, budget = run.state, run.budget
    if shortfall.shared:
        return f"{shortfall.shared} has too little left, and other tasks share it: try again, or end the task?"
    if shortfall.reason == FINISH_REASON_COST_BUDGET_EXCEEDED:
        spent, limit = state.usage.cost_micros, budget.micros
        used = f"cost_budget_micros: {spent} of {limit} (US$ {limit / DOLLAR:g}) are spent, too little for another call"
    elif shortfall.reason == FINISH_REASON_TOKEN_BUDGET_EXCEEDED:
        used = f"token_budget: {state.tokens} of {budget.tokens} are spent, too little is left for another call"
    else:
        used = f"max_steps: all {budget.steps} are taken"
    enough = f" to {shortfall.total} or more" if shortfall.total else ""
    return f"a budget is used up, {used}: raise it{enough}, or end the task?"


def limits_of(budget: Budget) -> dict[str, int]:
    """Returns the limits that a person may raise, as they stand."""
    return {"token_budget": budget.tokens, "cost_budget_micros": budget.micros, "max_steps": budget.steps}
