"""The offline planner: the goal goes to the tool once, its steps become a numbered list."""

from meshwright.agents.models.model import ToolSpec
from meshwright.agents.models.offline import OfflineModel

TEXT = {"type": "string"}
OUTLINE = ToolSpec("plan.outline", "Breaks a goal into steps.", {"type": "object", "properties": {"goal": TEXT}})
STEPS = [
    {"number": 1, "action": "Find it", "who": "researcher", "after": []},
    {"number": 2, "action": "Send it", "who": "", "after": [1]},
]


async def test_steps_become_a_numbered_list(play):
    played = await play(OfflineModel(), "Please find it and send it.", [(OUTLINE, lambda _: {"steps": STEPS})])
    assert [call.arguments for calls in played.rounds for call in calls] == [{"goal": "find it and send it."}]
    assert played.text == "1. Find it - researcher\n2. Send it - whoever asked, after 1\n\nmodel: offline"


async def test_agents_that_the_prompt_lists_are_handed_on(play):
    task = "Order ten chairs.\n\nagents:\n- buyer: orders goods\n* clerk: files letters\n"
    played = await play(OfflineModel(), task, [(OUTLINE, lambda _: {"steps": STEPS})])
    (call,) = played.rounds[0]
    assert call.arguments["goal"] == "Order ten chairs."
    assert call.arguments["agents"] == [
        {"name": "buyer", "good_at": "orders goods"},
        {"name": "clerk", "good_at": "files letters"},
    ]


async def test_a_goal_without_steps_is_said(play):
    played = await play(OfflineModel(), "Hm.", [(OUTLINE, lambda _: {"steps": []})])
    assert played.text.startswith("There is nothing to plan")


async def test_a_tool_that_failed_is_said(play, raw):
    played = await play(OfflineModel(), "Send it.", [(OUTLINE, lambda _: raw("it broke"))])
    assert played.text.startswith("The tool plan.outline failed: it broke")
