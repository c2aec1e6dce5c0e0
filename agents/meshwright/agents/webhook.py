"""Webhooks as the host of an agent declares them: one YAML file of endpoints, and how what they are told is signed."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.agents.deliveries import ENDPOINT_NAME, EventKind, Hook
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.ids import AGENT_ID, digest
from meshwright.registry.backends.declaration import Options
from meshwright.registry.backends.secret import Secret, SecretOptions
from meshwright.registry.egress import Egress, Limits, parsed
from meshwright.registry.file import content
from meshwright.registry.toolfile import options_of
from meshwright.registry.toolfile import parsed as parsed_yaml

MAX_BYTES = 256 * 2**10
MAX_ENDPOINTS = 32
MARK = "whsec_"
LEAST_KEY, MOST_KEY = 24, 64
"""Bytes of a secret, as Standard Webhooks has them."""


class KeyOptions(Options):
    """Where a signing secret is."""

    env: str = Field(default="", description="Environment variable that holds it")
    file: str = Field(default="", description="File that holds it, beside the declarations or absolute")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.env) == bool(self.file):
            raise ValueError("either env or file")
        return self


class EndpointOptions(Options):
    """One entry under `webhooks`."""

    name: Annotated[str, AfterValidator(ENDPOINT_NAME.validated)] = Field(description="How logs and metrics name it")
    url: str = Field(description="https, or http for a place under `allow`")
    events: list[EventKind] = Field(
        default=["input_requested", "task_ended"], min_length=1, max_length=2, description="What it is told"
    )
    agents: list[str] = Field(
        default_factory=list, max_length=256, description="Of whose tasks; none: of every agent's"
    )
    tenants: list[str] = Field(default_factory=list, max_length=256, description="Of whose tasks; none: of everyone's")
    secrets: list[KeyOptions] = Field(min_length=1, max_length=2, description="Sign it; two while they are exchanged")
    allow: list[str] = Field(default_factory=list, max_length=8, description="host:port on a network next door")
    ca_file: str = Field(default="", description="Authorities to trust in place of the system's")
    texts: bool = Field(default=False, description="Tell prompts, questions, arguments and outputs too")
    timeout_s: float = Field(default=10.0, gt=0, le=15, description="Seconds for one attempt")


class WebhooksOptions(Options):
    """The file."""

    webhooks: list[EndpointOptions] = Field(min_length=1, max_length=MAX_ENDPOINTS)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One receiver of one agent's events.

    Attributes:
        name: As declared.
        url: Where events go.
        hook: What it wants, and its queue.
        keys: Sign what is sent, the newest first.
        egress: The way out.
        has_texts: Whether it is told prompts and outputs.
        timeout_s: Seconds for one attempt.
    """

    name: str
    url: str
    hook: Hook
    keys: Sequence[bytes] = field(repr=False)
    egress: Egress = field(repr=False)
    has_texts: bool = False
    timeout_s: float = 10.0


def load(path: Path, agent_id: str = "") -> list[Endpoint]:
    """Reads the endpoints that want to hear of an agent; nothing is called for that.

    Args:
        path: YAML; what it names by relative paths is beside it.
        agent_id: The agent; empty: every endpoint counts.

    Raises:
        SetupError: One line with file, endpoint and field.
    """
    text = content(path, MAX_BYTES)
    try:
        declared = options_of(WebhooksOptions, parsed_yaml(text)).webhooks
    except SetupError as error:
        raise SetupError(f"{path}: {error.message}") from None
    names = [options.name for options in declared]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SetupError(f"{path}: webhook {twice[0]} stands twice: rename one of them")
    found = []
    for options in declared:
        try:
            endpoint = endpoint_of(options, agent_id, path.parent)
        except MeshError as error:
            raise SetupError(f"{path}: webhook {options.name}: {error.message}") from None
        if not agent_id or not options.agents or agent_id in options.agents:
            found.append(endpoint)
    return found


def endpoint_of(options: EndpointOptions, agent_id: str, folder: Path) -> Endpoint:
    """Makes an endpoint of its declaration; another URL is another endpoint.

    Raises:
        SetupError: Something in it is wrong; says which field.
        EgressRefusedError: The URL is none that is called.
    """
    if odd := [name for name in options.agents if not AGENT_ID.fullmatch(name)]:
        raise SetupError(f"agents: {odd[0]!r} is no agent's name")
    url = parsed(options.url)
    ca_file = folder / options.ca_file if options.ca_file else None
    egress = Egress(options.allow, limits=Limits(body_bytes=64 * 2**10), ca_file=ca_file)
    if url.scheme != "https" and not egress.allows(url.host, url.port):
        raise SetupError("url: is called by https only, or by http where its host:port stands under `allow`")
    queue = f"{agent_id}/{digest(options.name, str(url))[:16]}"
    keys = [key_of(key, folder, url.host, url.port) for key in options.secrets]
    hook = Hook(queue, options.events, options.tenants, options.name, url.place)
    return Endpoint(options.name, str(url), hook, keys, egress, options.texts, options.timeout_s)


def key_of(options: KeyOptions, folder: Path, host: str, port: int) -> bytes:
    """Reads a signing secret: `whsec_` and 24 to 64 bytes in Base64.

    Raises:
        SetupError: It is not there, or is none.
    """
    places = SecretOptions(env=options.env, file=options.file, places=[f"{host}:{port}"])
    text = Secret.read("signature", places, folder).for_place(host, port)
    try:
        key = base64.b64decode(text.removeprefix(MARK), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(MARK) or not LEAST_KEY <= len(key) <= MOST_KEY:
        form = f"{MARK} and {LEAST_KEY} to {MOST_KEY} bytes in Base64"
        raise SetupError(f"secrets: {options.env or options.file} holds no signing secret: write {form}")
    return key


def signed(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Makes the headers of Standard Webhooks 1.0.

    Args:
        keys: One signature each.
        message_id: The same at every attempt.
        timestamp: Of this attempt, in seconds.
        body: Exactly as it is sent.

    Returns:
        `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    """
    content_signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, content_signed, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
