"""Settings of an agent's process."""

from typing import Literal

from pydantic import Field

from meshwright.core.settings import Settings


class AgentSettings(Settings):
    """What an agent's process is told beside what every service is."""

    model: str = Field(default="offline", description="offline, openai:NAME[@URL] or scripted:FILE")
    role: Literal["all", "server", "worker"] = Field(default="all", description="Serve calls, run tasks, or both")
    concurrency: int = Field(default=8, ge=1, le=1_000, description="Tasks run at once; waiting ones cost nothing")
    lease_s: float = Field(default=15.0, ge=0.5, le=300, description="How long a task stays with a silent worker")
    max_ready: int = Field(
        default=10_000, ge=1, description="Tasks that may wait for the agent before new ones are refused"
    )
    docs: str = Field(default="", description="Folder that the researcher searches")
