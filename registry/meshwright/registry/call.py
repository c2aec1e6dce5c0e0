"""One call of a hosted tool."""

from dataclasses import dataclass
from typing import Any

from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry.hosted import Hosted
from meshwright.registry.progress import OnProgress
from meshwright.registry.store import Holder


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has passed the border.

    Attributes:
        hosted: What is called.
        grant: Under which authority.
        arguments: Held against the schema.
        key: Idempotency key.
        intent: Digest of tool, version and arguments.
        on_progress: Told how far the tool has come; None: nobody watches.
    """

    hosted: Hosted
    grant: Grant
    arguments: dict[str, Any]
    key: str
    intent: str
    on_progress: OnProgress | None = None

    @property
    def holder(self) -> Holder:
        """Tenant, principal and task id: within them the key counts."""
        return self.grant.tenant, self.grant.principal, self.grant.task_id
