"""The agent that is measured: its model asks for tools that do nothing, as often as the prompt says."""

from meshwright.agents import Agent
from meshwright.agents.models.model import Answer, Call, OnText, Prompt, Usage
from meshwright.registry import tool


@tool(effect="pure")
async def nothing(turn: int) -> int:
    """Does nothing; a turn has its number, since turns that are all alike are stopped."""
    return turn


class Asking:
    """A model without thought: the prompt `5x1` means five answers that each ask for one call, then the last word."""

    provider = "bench"
    name = "asking"

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks for the next calls."""
        rounds, calls = map(int, prompt.messages[0].text.split("x"))
        if prompt.turn >= rounds:
            return Answer("Done.", (), Usage(), self.provider, self.name)
        this = {"turn": prompt.turn}
        wanted = tuple(Call(f"call_{prompt.turn}_{number}", "nothing", this) for number in range(calls))
        return Answer("", wanted, Usage(), self.provider, self.name, "tool_calls")

    async def close(self) -> None:
        """Holds nothing."""


agent = Agent("bench", "Do nothing, often.", tools=[nothing], model=Asking(), guardrails=())
"""Without guardrails, which have a row of their own."""
