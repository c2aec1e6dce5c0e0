"""The inbox: decisions of people reach the tasks that wait for them."""

import contextlib

import structlog

from meshwright.agents import inputs
from meshwright.agents.inputs import Policy
from meshwright.agents.journal import Journal
from meshwright.agents.task import TaskName
from meshwright.agents.toolbox import Toolbox
from meshwright.core.canonical import from_struct
from meshwright.core.errors import (
    DigestMismatchError,
    InputNotPendingError,
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
)
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import DECISION_EDIT, DECISION_RETRY, INPUT_KIND_ESCALATION, PendingInput
from meshwright.gen.agents.v1.task_service_pb2 import ResolveInputRequest
from meshwright.registry.schema import explained

log = structlog.get_logger("inbox")


class Inbox:
    """Decides on questions of any task, whichever agent's it is.

    Args:
        journal: Where tasks live.
        toolbox: Knows the schemas of tools whose arguments somebody edits.
        policy: Of this agent, for tasks that wait for a version of it.
    """

    def __init__(self, journal: Journal, toolbox: Toolbox, policy: Policy) -> None:
        self._journal = journal
        self._toolbox = toolbox
        self._policy = policy

    async def resolve(self, name: TaskName, request: ResolveInputRequest, caller: Caller) -> None:
        """Hands a person's decision to the task that waits for it.

        Raises:
            PermissionDeniedError: It is an agent's decision, or of whoever asked where somebody else has to decide.
            InputNotPendingError: Nothing waits for it.
            DigestMismatchError: It is about another call than the one that waits.
            InvalidRequestError: It is none of the choices, or does not fit.
        """
        if caller.grant:
            raise PermissionDeniedError("an agent does not decide on what agents ask: a person does")
        pending = await self._pending(name, request.input_id)
        if pending.four_eyes and caller.principal == name.principal:
            raise PermissionDeniedError(
                f"{caller.principal} asked for this task: another principal of {name.tenant} has to decide on it"
            )
        if request.intent_digest != pending.intent_digest:
            raise DigestMismatchError("intent_digest is not that of the pending input: read it again, decide on that")
        resolved = inputs.decision(pending, request, caller.principal)
        if request.decision == DECISION_EDIT:
            await self._check_edited(pending, request)
        await self._write(name, pending, StepEvent(input_resolved=resolved))

    async def _pending(self, name: TaskName, input_id: str) -> PendingInput:
        for pending in await self._journal.inputs(name):
            if pending.input_id == input_id:
                return pending
        await self._journal.record(name)
        if not input_id:
            raise InvalidRequestError("input_id is required: GetTask shows it", fields={"input_id": "is required"})
        raise InputNotPendingError(f"{input_id} waits for no decision: it was decided, has lapsed or was withdrawn")

    async def _check_edited(self, pending: PendingInput, request: ResolveInputRequest) -> None:
        pins = await self._toolbox.pinned([f"{pending.tool}@{pending.tool_version}"])
        edited = from_struct(request.edited_arguments, "edited_arguments")
        violations = pins[pending.tool].arguments.violations(edited)
        if violations:
            problems = {f"edited_arguments{violation.pointer}": violation.message for violation in violations}
            raise InvalidRequestError(f"arguments of {pending.tool}: {explained(violations)}", fields=problems)

    async def _write(self, name: TaskName, pending: PendingInput, event: StepEvent) -> None:
        is_unpinning = pending.kind == INPUT_KIND_ESCALATION and DECISION_RETRY in pending.choices
        await self._journal.resolve(name, pending.input_id, pending.intent_digest, event, is_unpinning=is_unpinning)

    async def lapse(self, name: TaskName, input_id: str) -> None:
        """Applies what the agent's policy says about a question that nobody answered in time."""
        with contextlib.suppress(InputNotPendingError):  # decided at the last moment
            pending = await self._pending(name, input_id)
            log.info("question_lapsed", task_id=name.task_id, input_id=input_id)
            await self._write(name, pending, StepEvent(input_resolved=inputs.silence(pending)))

    async def strand(self, name: TaskName) -> None:
        """Asks a person about a task that its agent's version does not come for."""
        record = await self._journal.record(name)
        prompt = f"no worker of the version of {record.agent_id} that began this task is here: go on with another?"
        turn = str(record.sequence)
        pending = inputs.asked(inputs.STRANDED, name.task_id, prompt, self._policy, now_ms=record.now, turn=turn)
        with contextlib.suppress(MeshError):
            await self._journal.strand(name, StepEvent(attempt=record.attempt, input_requested=pending))
