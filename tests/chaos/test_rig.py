"""What a client of the chaos does when an answer is lost."""

from types import SimpleNamespace

from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Setting
from meshwright.core.errors import InputNotPendingError, UnavailableError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import PendingInput, TaskResponse


class DeafEdge:
    """An edge that takes a decision and is cut before it says so."""

    def __init__(self):
        self.tasks = SimpleNamespace(SubmitTask="submit", ResolveInput="resolve")
        self.resolved = 0

    async def call(self, method, _request):
        if method == "resolve":
            self.resolved += 1
            raise UnavailableError("cut") if self.resolved == 1 else InputNotPendingError("it was decided")

    async def watch(self, _task_id, _after):
        yield StepEvent(sequence=1, input_requested=PendingInput(input_id="i"))
        yield StepEvent(sequence=2, result=TaskResponse(output="Done."))


async def test_a_decision_whose_answer_was_lost_has_decided(tmp_path):
    rig = Rig(Setting(False, 1, tmp_path, print))
    rig.edge = DeafEdge()
    told = await rig.play(rig.job("told", ("mark",)), "courier")
    assert rig.edge.resolved == 2
    assert told.refusal is None
    assert told.result.output == "Done."
