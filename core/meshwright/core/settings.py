"""Settings: the only place where the environment is read, but for `healthy`, which has no time for them.

A service declares its settings as fields of a frozen class; the field's name in upper case after `MESHWRIGHT_` is its
environment variable, its default and its description stand beside it.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from meshwright.core.errors import SetupError
from meshwright.core.ids import host_and_port
from meshwright.core.key_file import read_key
from meshwright.core.mistake import mistakes
from meshwright.core.redaction import HELD

PREFIX = "MESHWRIGHT_"
ALIKE = 0.8
"""How alike two names are of which one is meant: 1 is the same."""
RATE = re.compile(r"\s*([^\s=,]+)=([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*")
Auth = Literal["none", "keys", "jwt", "keys,jwt"]


class Settings(BaseModel):
    """What every service of the mesh is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis-protocol store: redis://, rediss:// or unix://"
    )
    partitions: int = Field(default=1, ge=1, le=1_024, description="Partitions of the store; fixed at its first start")
    registry: str = Field(default="127.0.0.1:7070", description="host:port of the registry")
    host: str = Field(default="127.0.0.1", description="Address to listen on and to announce")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0: a free one")
    health_port: int = Field(
        default=-1,
        ge=-1,
        le=65535,
        description="Plain-text port that tells probes of health, and nothing else; 0: a free port, -1: none",
    )
    health_host: str = Field(default="", description="Address of health_port; empty: that of host")
    metrics_port: int = Field(default=-1, ge=-1, le=65535, description="Prometheus listener; 0: a free port, -1: none")
    metrics_host: str = Field(default="", description="Address of metrics_port; empty: that of host")
    metrics_tenants: int = Field(
        default=20, ge=0, le=1_000, description="Tenants that metrics call by name; all others are `other`"
    )
    log_level: str = Field(
        default="info", description="debug, info, warning, error or critical; of parts: info,call=debug"
    )
    log_levels_file: str = Field(
        default="", description="File of levels that is read anew when it changes, before log_level; empty: none"
    )
    log_levels_s: float = Field(
        default=900.0, ge=0, le=86_400, description="Seconds that levels of that file hold; 0: as long as it stands"
    )
    tracing: bool = Field(default=True, description="Trace ids on every hop; spans leave only with otlp_endpoint")
    otlp_endpoint: str = Field(default="", description="OTLP gRPC endpoint for spans; empty: none are exported")
    trace_rate: float = Field(default=1.0, ge=0, le=1, description="Share of traces that is kept; a parent's word wins")
    trace_rates: str = Field(
        default="", description="Shares of traces by tenant, where the edge asks who is calling: acme=1,beta=0.01"
    )
    lean_spans: bool = Field(
        default=False, description="Spans of served calls by our own code, not by OpenTelemetry's instrumentation"
    )
    store_spans: bool = Field(default=False, description="Spans of what a traced call asks of the store, too")
    reflection: bool = Field(default=False, description="Serve gRPC reflection (development)")
    drain_s: float = Field(default=10.0, ge=0, le=600, description="Seconds that calls in flight get on SIGTERM")
    max_calls: int = Field(default=1_000, ge=1, description="Unary calls at once; more are refused with OVERLOADED")
    max_streams: int = Field(default=5_000, ge=1, description="Streams at once; more are refused with OVERLOADED")
    auth: Auth = Field(
        default="none",
        description="How callers say who they are: none, keys, jwt, or keys,jwt; the same for every process",
    )
    content_keys_file: str = Field(
        default="",
        description="File of keys, lines of `ID KEY`, with which content is encrypted in the store; empty: it is not",
    )
    insecure: bool = Field(default=False, description="Listen in plain text on an address that is not loopback")
    tls_dir: str = Field(
        default="", description="Folder of cert.pem, key.pem and ca.pem: mTLS to and from every service; empty: none"
    )

    @field_validator("registry")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return host_and_port(value)

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_an_endpoint(cls, value: str) -> str:
        """Refuses what has no host or port that can be read; the words of the parser's error are Python's."""
        try:
            _ = urlsplit(value).port
        except ValueError:
            raise ValueError("must be a URL such as http://collector:4317") from None
        return value

    @field_validator("content_keys_file", "log_levels_file")
    @classmethod
    def _stays_there(cls, path: str) -> str:
        """Names the file so that a child process with another folder finds it."""
        return str(Path(path).absolute()) if path else ""

    @field_validator("trace_rates")
    @classmethod
    def _reads_as_rates(cls, text: str) -> str:
        named = [RATE.fullmatch(part) for part in text.split(",")] if text.strip() else []
        if not all(rate and float(rate[2]) <= 1 for rate in named):
            raise ValueError("write TENANT=SHARE,..., each share 0 to 1")
        return text

    @property
    def tenant_trace_rates(self) -> dict[str, float]:
        """Shares of traces that are kept, by tenant."""
        return {rate[1]: float(rate[2]) for rate in map(RATE.fullmatch, self.trace_rates.split(",")) if rate}

    @classmethod
    def load(cls, **chosen: Any) -> Self:
        """Reads the environment; what is chosen by flag wins, None counts as not chosen.

        Raises:
            SetupError: A value does not fit; names the variable.
        """
        values: dict[str, Any] = {
            name: os.environ[variable] for name in cls.model_fields if (variable := PREFIX + name.upper()) in os.environ
        }
        values.update({name: value for name, value in chosen.items() if value is not None})
        try:
            return cls(**values)
        except ValidationError as error:
            first = mistakes(error, cls)[0]
            name = str(first.location[0]) if first.location else "*"
            raise SetupError(f"{PREFIX}{name.upper()}={values.get(name)!r}: {first.words}") from None

    def environment(self) -> dict[str, str]:
        """Spells these settings as environment variables, for a child process."""
        return {PREFIX + name.upper(): str(value) for name, value in self.model_dump().items()}


def misspelled(*known: type[Settings]) -> dict[str, str]:
    """Finds variables that no settings read and that look like one that some do: what is set, and what may be meant."""
    names = {name.upper() for settings in known for name in settings.model_fields}
    others = {name for name in os.environ if name.startswith(PREFIX)} - {PREFIX + name for name in names}
    meant = {name: get_close_matches(name.removeprefix(PREFIX), names, n=1, cutoff=ALIKE) for name in sorted(others)}
    return {name: PREFIX + found[0] for name, found in meant.items() if found}


def provider_key(provider: str) -> str:
    """Returns a model provider's API key from `<PROVIDER>_API_KEY`, or from the file `<PROVIDER>_API_KEY_FILE`.

    An empty variable counts as not set; an empty string is returned when neither is.

    Raises:
        SetupError: Both are set, or the file holds no key.
    """
    variable = f"{provider.upper()}_API_KEY"
    key, file = os.environ.get(variable, ""), os.environ.get(f"{variable}_FILE", "")
    if key and file:
        raise SetupError(f"both {variable} and {variable}_FILE are set: unset one of them")
    found = read_key(Path(file), f"{variable}_FILE") if file else key.strip()
    HELD.add(found)
    return found


def secret_variable(name: str) -> str | None:
    """Returns a secret that stands in an environment variable of any name; None: it is not set."""
    return os.environ.get(name)


def semantic_conventions() -> frozenset[str]:
    """Returns what `OTEL_SEMCONV_STABILITY_OPT_IN` opts in to: OpenTelemetry's conventions that are not stable yet."""
    return frozenset(os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").replace(" ", "").split(","))


def child_environment(settings: Settings) -> dict[str, str]:
    """Returns the environment for a child process: ours, with its settings in place of inherited ones.

    gRPC's core says errors alone there, unless ours says otherwise: its lines are no JSON.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {"GRPC_VERBOSITY": "ERROR"} | inherited | settings.environment()


def data_home() -> Path:
    """Returns the folder for data of this user: `$XDG_DATA_HOME/meshwright`, by default under ~/.local/share.

    Raises:
        SetupError: The user has no home.
    """
    named = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(named) if named else Path.home() / ".local/share") / "meshwright"
    except RuntimeError:
        raise SetupError("this user has no home folder for data: set HOME, or XDG_DATA_HOME") from None


def runtime_home() -> Path | None:
    """Returns the user's short-lived private folder (`$XDG_RUNTIME_DIR`), where there is one."""
    home = os.environ.get("XDG_RUNTIME_DIR")
    return Path(home) if home else None
