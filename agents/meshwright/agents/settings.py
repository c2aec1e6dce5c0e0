"""Settings of an agent's process."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from meshwright.registry.settings import HostSettings

SHARE = re.compile(r"\s*([^=,\s]+)\s*=\s*(\d+(?:\.\d+)?)\s*")


class AgentSettings(HostSettings):
    """What an agent's process is told beside what every service is."""

    model: str = Field(
        default="",
        description="offline, openai:NAME[@URL], anthropic:NAME[@URL], scripted:FILE or a name in models; several, by"
        " commas: a fallback chain; empty: by the rules in models, else offline",
    )
    models: str = Field(default="", description="YAML file of named models, and of rules which are asked for what")
    role: Literal["all", "server", "worker"] = Field(default="all", description="Serve calls, run tasks, or both")
    concurrency: int = Field(default=8, ge=1, le=1_000, description="Tasks run at once; waiting ones cost nothing")
    lease_s: float = Field(default=15.0, ge=0.5, le=300, description="How long a task stays with a silent worker")
    max_ready: int = Field(
        default=10_000, ge=1, description="Tasks that may wait for the agent before new ones are refused"
    )
    tenant_max_ready: int = Field(default=10_000, ge=1, description="The same for the tasks of one tenant")
    tenant_concurrency: int = Field(
        default=0, ge=0, description="Tasks of one tenant run at once by all workers of the agent; 0: no limit"
    )
    tenant_weights: str = Field(
        default="", description="Shares of tenants where several wait: acme=3,beta=0.5; 1 for those not named"
    )
    model_timeout_s: float = Field(
        default=120.0, ge=1, le=3_600, description="Seconds for one call to a model, retries included"
    )
    prices: str = Field(default="", description="YAML file of what models cost, before the list of genai-prices")
    storage_micros_per_gib: int = Field(
        default=0, ge=0, le=10**12, description="What a GiB that tasks write costs, in US$ / 1000000; 0: nothing"
    )
    budget_session_micros: int = Field(
        default=0, ge=0, le=10**15, description="What all tasks of a session may cost, in US$ / 1000000; 0: no limit"
    )
    budget_user_day_micros: int = Field(
        default=0, ge=0, le=10**15, description="The same of a principal's tasks of one day (UTC)"
    )
    budget_tenant_day_micros: int = Field(
        default=0, ge=0, le=10**15, description="The same of a tenant's tasks of one day"
    )
    budget_global_day_micros: int = Field(default=0, ge=0, le=10**15, description="The same of all tasks of one day")
    embedder: str = Field(
        default="hashing", description="What long-term memories are found by: hashing or openai:MODEL[@URL]"
    )
    webhooks: str = Field(default="", description="YAML file of endpoints that are told of questions and ended tasks")
    docs: str = Field(default="", description="Folder that the researcher searches")

    @field_validator("prices")
    @classmethod
    def _stays_where_it_is(cls, path: str) -> str:
        """Names the file so that a child process with another folder finds it."""
        return str(Path(path).absolute()) if path else ""

    @field_validator("tenant_weights")
    @classmethod
    def _reads_as_shares(cls, text: str) -> str:
        shares = [SHARE.fullmatch(part) for part in text.split(",")] if text.strip() else []
        if not all(share and float(share[2]) > 0 for share in shares):
            raise ValueError("write TENANT=SHARE,..., each share above 0")
        return text

    @property
    def weights(self) -> dict[str, float]:
        """Shares by tenant."""
        return {share[1]: float(share[2]) for share in SHARE.finditer(self.tenant_weights)}
