"""Planning: a provider's answer becomes calls that can be journaled; its text passes while it is written."""

import asyncio

from meshwright.agents.models.model import Answer, Call, Usage
from meshwright.agents.planner import DELTA_S, MAX_CALLS, Deltas, with_ids
from meshwright.agents.task import TaskName
from meshwright.agents.values import TOO_DEEP


def answer(*calls):
    return Answer("", tuple(calls), Usage(), "p", "m")


def ids(*call_ids):
    return [call.call_id for call in with_ids(answer(*(Call(call_id, "t", {}) for call_id in call_ids)), 3)]


class TestIds:
    def test_good_ids_stay(self):
        assert ids("a", "call_0", "toolu_01-Zz") == ["a", "call_0", "toolu_01-Zz"]

    def test_missing_malformed_and_repeated_ids_are_replaced(self):
        assert ids("", "a b", "x" * 65, "a", "a") == ["call_3_0", "call_3_1", "call_3_2", "a", "call_3_3"]

    def test_no_replacement_takes_an_id_that_stands_elsewhere(self):
        made = ids("call_3_1", "call_3_1", "", "call_3_0")
        assert len(set(made)) == 4
        assert (made[0], made[3]) == ("call_3_1", "call_3_0")

    def test_calls_beyond_the_limit_are_left_out(self):
        assert len(ids(*(f"c{number}" for number in range(MAX_CALLS + 5)))) == MAX_CALLS

    def test_what_cannot_be_journaled_is_replaced(self):
        deep = {"a": 1}
        for _ in range(50):
            deep = {"a": deep}
        calls = [Call("a", "t\ud800", {"x": float("nan")}), Call("b", "t", deep)]
        first, second = with_ids(answer(*calls), 1)
        assert (first.tool, first.arguments) == ("t?", {"x": "nan"})
        assert second.arguments == {TOO_DEEP: True}


class Heard:
    """Stands where journal and feeds are told; takes its time with the first frame if it is asked to."""

    def __init__(self, *, is_slow=False):
        self.frames = []
        self.is_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        if not is_slow:
            self.may_go_on.set()

    async def pass_on(self, name, frame):
        self.is_asked.set()
        await self.may_go_on.wait()
        self.frames.append(frame.delta)

    def show_passing(self, name, entry):
        pass


class TestDeltas:
    async def test_pieces_that_come_together_go_as_one_frame_and_nothing_is_left(self):
        heard = Heard()
        deltas = Deltas(heard, heard, TaskName("d", "d", "t1"), 1)
        deltas.add("Hel")
        deltas.add("lo")
        await asyncio.sleep(2 * DELTA_S)
        assert [frame.text for frame in heard.frames] == ["Hello"]
        deltas.add(" wörld")
        deltas.add("\ud83d")
        await deltas.close()
        assert [(frame.text, frame.offset) for frame in heard.frames] == [("Hello", 0), (" wörld?", 5)]

    async def test_frames_keep_their_order_and_closing_waits_for_the_last_one(self):
        heard = Heard(is_slow=True)
        deltas = Deltas(heard, heard, TaskName("d", "d", "t1"), 1)
        deltas.add("one")
        await heard.is_asked.wait()
        deltas.add("two")
        closing = asyncio.create_task(deltas.close())
        await asyncio.sleep(0)
        assert heard.frames == []
        heard.may_go_on.set()
        await closing
        assert [(frame.text, frame.offset) for frame in heard.frames] == [("one", 0), ("two", 3)]
