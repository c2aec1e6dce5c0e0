"""What the researcher may do without asking: everything, since its tools only read."""

from collections.abc import Mapping

from meshwright.agents.inputs import Approval

APPROVALS: Mapping[str, Approval] = {"docs.search": "never", "docs.read": "never"}
