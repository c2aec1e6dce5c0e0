"""A guardrail of your own: see docs/guardrails.md."""

from meshwright.agents import Agent
from meshwright.agents.guardrails import DEFAULT, Subject, Verdict


class NoPrices:
    """Takes amounts of money out of answers."""

    name = "no-prices"
    points = ("output",)  # of input, tool_arguments, tool_result, output

    def check(self, subject: Subject) -> Verdict:
        """Looks at an answer."""
        if "$" in subject.text:
            return Verdict("redact", "an amount stands in the answer", subject.text.replace("$", "?"))
        return Verdict()  # allow; block and ask come with a reason for people


agent = Agent("clerk", "Answer briefly.", guardrails=(*DEFAULT, NoPrices()))
