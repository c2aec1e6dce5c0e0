"""What the reviewer may do without asking: everything, since its tools only read."""

from collections.abc import Mapping

from meshwright.agents.inputs import Approval

APPROVALS: Mapping[str, Approval] = {"docs.search": "never", "review.compare": "never"}
SEARCH = "docs.search@^1"
"""Runs in the researcher, which has the documents."""
