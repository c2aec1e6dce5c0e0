"""The result that ends a journal. Pure."""

from dataclasses import dataclass

from meshwright.agents.account import Account, add
from meshwright.agents.run import Run
from meshwright.agents.task import Record, TaskName
from meshwright.agents.typed import ResultType, violated
from meshwright.core.canonical import to_struct
from meshwright.core.errors import (
    BudgetExceededError,
    GuardrailBlockedError,
    MeshError,
    PoisonTaskError,
    TaskCancelledError,
    TaskTimeoutError,
)
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    FINISH_REASON_BLOCKED,
    FINISH_REASON_CANCELLED,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_DEADLINE,
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    BudgetAction,
    FinishReason,
    TaskResponse,
    TaskStatus,
)

MAX_OUTPUT_CHARS = 1 * 2**20
OUT_OF_BUDGET = frozenset(
    {FINISH_REASON_MAX_STEPS, FINISH_REASON_TOKEN_BUDGET_EXCEEDED, FINISH_REASON_COST_BUDGET_EXCEEDED}
)
WORDS: dict[FinishReason.ValueType, str] = {
    FINISH_REASON_MAX_STEPS: "I stopped here: this task may take no more steps.",
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED: "I stopped here: this task's budget of tokens is used up.",
    FINISH_REASON_COST_BUDGET_EXCEEDED: "I stopped here: the money that this task may spend is used up.",
}
NOTHING = "There is nothing to show yet: no answer, nor a part of one."
STATES: dict[TaskStatus.ValueType, str] = {
    TASK_STATUS_COMPLETED: "COMPLETED",
    TASK_STATUS_FAILED: "FAILED",
    TASK_STATUS_CANCELLED: "CANCELLED",
}


@dataclass(frozen=True, slots=True)
class End:
    """Why a task ends.

    Attributes:
        reason: As it is told.
        error: What went wrong, where it fails.
        output: What it gives in place of what its models said; empty: that.
    """

    reason: FinishReason.ValueType
    error: MeshError | None = None
    output: str = ""

    def status(self, action: BudgetAction.ValueType) -> TaskStatus.ValueType:
        """Returns the status that the reason means."""
        if self.reason == FINISH_REASON_CANCELLED:
            return TASK_STATUS_CANCELLED
        if self.reason in (FINISH_REASON_DEADLINE, FINISH_REASON_BLOCKED, FINISH_REASON_ERROR):
            return TASK_STATUS_FAILED
        is_failure = self.reason in OUT_OF_BUDGET and action == BUDGET_ACTION_FAIL
        return TASK_STATUS_FAILED if is_failure else TASK_STATUS_COMPLETED


STOP = End(FINISH_REASON_STOP)


def timed_out() -> End:
    """The end of a task whose own time is over."""
    return End(FINISH_REASON_DEADLINE, TaskTimeoutError("the task's time is over: a longer timeout gives it more"))


def cancelled(reason: str) -> End:
    """The end of a task that somebody stopped."""
    return End(FINISH_REASON_CANCELLED, TaskCancelledError(reason))


def failed(error: MeshError) -> End:
    """The end of a task that goes no further."""
    is_blocked = isinstance(error, GuardrailBlockedError)
    return End(FINISH_REASON_BLOCKED if is_blocked else FINISH_REASON_ERROR, error)


def settled(run: Run, end: End) -> End:
    """Returns how a task ends that was to give a typed result: words that do not fit are no answer."""
    is_last_word = end is STOP or (run.state.corrections and end.reason in OUT_OF_BUDGET)
    if run.result_type is None or not is_last_word:
        return end
    violations = run.result_type.read(run.state.text).violations
    return End(FINISH_REASON_ERROR, violated(violations)) if violations else end


def result_of(run: Run, end: End, version: str) -> TaskResponse:
    """Builds the result of a run that ends now; the store adds number, end and duration."""
    state = run.state
    status = end.status(run.request.on_budget_exceeded)
    response = run.record.response()
    response.status = status
    response.finish_reason = end.reason
    if end.reason != FINISH_REASON_BLOCKED:
        said = state.text if end.reason == FINISH_REASON_STOP else state.partial_output
        response.output = (end.output or said)[:MAX_OUTPUT_CHARS]
    if status == TASK_STATUS_COMPLETED and run.result_type:
        fill(response, run.result_type)
    response.degraded = state.is_degraded
    response.steps_used = state.step
    response.tokens_used = state.tokens
    response.tool_calls = state.usage.tool_calls
    response.usage.CopyFrom(state.usage)
    response.usage_shares.extend(state.account.shares())
    response.agent_version = version
    error = end.error
    if status == TASK_STATUS_FAILED and error is None:
        reason = FinishReason.Name(end.reason).removeprefix("FINISH_REASON_").lower()
        error = BudgetExceededError(f"a budget is used up: {reason}")
    if status == TASK_STATUS_FAILED and error is not None:
        response.error.CopyFrom(error.with_metadata(task_id=run.task_id).to_status())
    return response


def say_there_is_nothing(response: TaskResponse) -> None:
    """Says so in the result of a task whose budget was used up with nothing to give, or nothing that may be given."""
    if response.status == TASK_STATUS_COMPLETED and response.finish_reason in OUT_OF_BUDGET and not response.output:
        response.output, response.unanswered = f"{WORDS[response.finish_reason]} {NOTHING}", True


def fill(response: TaskResponse, result_type: ResultType) -> None:
    """Adds the typed result, where the output is one."""
    reading = result_type.read(response.output)
    if not reading.violations:
        response.output = reading.text
        response.output_data.CopyFrom(to_struct(reading.data))


def idle_result(record: Record, account: Account) -> tuple[str, StepEvent]:
    """Builds state and result of a task that ends while nobody runs it: cancelled, out of time, or given up.

    Args:
        record: The task.
        account: What its journal says of its usage.
    """
    if record.is_poison:
        error = PoisonTaskError("worker after worker was lost before it got anywhere with this task: it was given up")
        end = End(FINISH_REASON_ERROR, error)
    else:
        end = cancelled(record.cancel) if record.cancel else timed_out()
    response = record.response()
    response.status = end.status(record.request.on_budget_exceeded)
    response.finish_reason = end.reason
    add(response.usage, account.end())
    response.usage_shares.extend(account.shares())
    if response.status == TASK_STATUS_FAILED and end.error is not None:
        response.error.CopyFrom(end.error.with_metadata(task_id=record.name.task_id).to_status())
    return STATES[response.status], StepEvent(attempt=record.attempt, result=response)


def unreadable_result(name: TaskName, error: MeshError) -> StepEvent:
    """Builds the result of a task whose content cannot be read: nothing but why."""
    response = TaskResponse(task_id=name.task_id, status=TASK_STATUS_FAILED, finish_reason=FINISH_REASON_ERROR)
    response.error.CopyFrom(error.with_metadata(task_id=name.task_id).to_status())
    return StepEvent(result=response)
