"""Settings of the registry, and of processes that host tools."""

from pydantic import Field, field_validator

from meshwright.core.audit import AUDIT_KEPT
from meshwright.core.settings import Settings
from meshwright.registry.rate import rates


class RegistrySettings(Settings):
    """What the registry's process is told beside what every service is."""

    port: int = Field(
        default=7070, ge=0, le=65535, description="Port to listen on, by which others know it; 0: a free one"
    )
    audit_kept: int = Field(
        default=AUDIT_KEPT,
        ge=100,
        description="Lines that a tenant's audit keeps in each partition; older ones are trimmed",
    )


class HostSettings(Settings):
    """What a tool host is told beside what every service is."""

    tool_rates: str = Field(
        default="",
        description="Calls a minute of a tool by each tenant: docs.search=120,mail.*=10:3 (at most 3 at once)",
    )
    tool_threads: int = Field(default=64, ge=1, le=10_000, description="Threads that run tools at once")
    tool_queue: int = Field(
        default=256, ge=0, description="Calls that may wait for a thread before more are refused with OVERLOADED"
    )

    @field_validator("tool_rates")
    @classmethod
    def _reads_as_rates(cls, text: str) -> str:
        rates(text)
        return text
