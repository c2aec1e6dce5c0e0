"""Storage: what a task has written, charged once, with its end."""

from collections.abc import Sequence

from meshwright.agents.account import add, counters_of_storage
from meshwright.agents.embedders.embedder import DIMENSIONS
from meshwright.agents.remembering import REMEMBER
from meshwright.agents.run import Run, persistently
from meshwright.core import telemetry
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK, StepEvent
from meshwright.gen.agents.v1.task_pb2 import COST_TYPE_STORAGE, TaskResponse, UsageShare

GIB = 2**30


class Storage:
    """Charges tasks for what they have written.

    Args:
        micros_a_gib: Price of a GiB written, in millionths of a US dollar; 0: nothing is weighed.
    """

    def __init__(self, micros_a_gib: int) -> None:
        self._micros_a_gib = micros_a_gib

    async def charge(self, run: Run, result: TaskResponse, last: Sequence[StepEvent]) -> None:
        """Adds to a task's result what its journal and its memories cost.

        Args:
            run: That ends now.
            result: Its result, not written yet.
            last: Events that are written with it.
        """
        if not self._micros_a_gib:
            return
        size = await persistently(written_by, run) + sum(event.ByteSize() for event in last) + result.ByteSize()
        result.storage.bytes, result.storage.cost_micros = size, -(-size * self._micros_a_gib // GIB)
        counters, agent = counters_of_storage(result), run.record.agent_id
        share = UsageShare(agent_id=agent, type=COST_TYPE_STORAGE)
        for usage in (share.usage, result.usage):
            add(usage, counters)
        result.usage_shares.append(share)
        result.usage_shares.sort(key=lambda row: -row.usage.cost_micros)
        telemetry.count_cost(agent, run.record.name.tenant, "storage", "", result.storage.cost_micros)


async def written_by(run: Run) -> int:
    """Returns the bytes of a task's journal, with what it holds of its children's, and of the memories it has added.

    A memory is its text, and a byte for each number of its vector.
    """
    size, remembering = 0, set[str]()
    async for entry in run.journal.replay(run.record.name):
        size += len(entry.payload)
        if entry.path:
            continue
        event = entry.event(run.task_id)
        if event.tool_call.tool == REMEMBER:
            remembering.add(event.tool_call.call_id)
        elif event.tool_result.call_id in remembering and event.tool_result.outcome == TOOL_OUTCOME_OK:
            remembering.remove(event.tool_result.call_id)
            size += len(event.tool_result.result.struct_value.fields["text"].string_value.encode()) + DIMENSIONS
    return size
