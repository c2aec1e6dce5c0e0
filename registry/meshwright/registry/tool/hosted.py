"""What a tool host takes: a Python function or a declared backend alike."""

from typing import Any, Protocol, runtime_checkable

from meshwright.gen.registry.v1.tool_registry_service_pb2 import Tool
from meshwright.registry.catalog import UNPLACED


@runtime_checkable
class HostedTool(Protocol):
    """A tool as its host runs it; `LocalTool` is one, and so is every backend."""

    @property
    def name(self) -> str:
        """Dotted name."""
        ...

    @property
    def version(self) -> str:
        """Semantic version of the contract."""
        ...

    @property
    def effect(self) -> str:
        """What a retry may do: an `EffectName`."""
        ...

    @property
    def timeout_s(self) -> float:
        """Seconds for one call."""
        ...

    @property
    def approval(self) -> str:
        """When a person is asked before a call: an `ApprovalName`."""
        ...

    @property
    def is_threaded(self) -> bool:
        """Whether it runs in a thread of its host, by `run_in_thread`; otherwise in the loop."""
        ...

    def contract(self, endpoint: str = UNPLACED) -> Tool:
        """Builds the contract that is registered.

        Raises:
            SetupError: It cannot be a tool; says why.
        """
        ...

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Serves one call, of which `current_invocation()` tells; returns JSON data.

        Args:
            arguments: As they were held against the contract's input schema.

        Raises:
            MeshError: The call failed; the error becomes its outcome.
        """
        ...
