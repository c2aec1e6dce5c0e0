"""What the summarizer may do without asking: everything, since its tool only reads."""

from collections.abc import Mapping

from meshwright.agents.inputs import Approval

APPROVALS: Mapping[str, Approval] = {"summary.extract": "never"}
