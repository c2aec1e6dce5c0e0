"""Calling another service: deadlines, trace and grant go along, errors come back as ours."""

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog

from meshwright.core import tracing
from meshwright.core.call import DEADLINE, METADATA_KEY
from meshwright.core.errors import (
    DeadlineExceededError,
    MeshError,
    OverloadedError,
    TlsRefusedError,
    UnavailableError,
)
from meshwright.core.recurring import Recurring

if TYPE_CHECKING:
    from meshwright.core.tls import Certificates

T = TypeVar("T")
log = structlog.get_logger("channel")
RETRIES = 4
"""How often a server that is overloaded is asked again where nobody says otherwise."""
MARGIN_S = 0.05
"""A callee must answer this much before its caller's own deadline."""

KEYED = (
    {"service": "agents.v1.TaskService"},
    {"service": "agents.v1.SessionService"},
    {"service": "agents.v1.WebhookService"},
    {"service": "agents.v1.AgentService", "method": "Health"},
    {"service": "registry.v1.AgentDirectoryService"},
    {"service": "registry.v1.ToolRegistryService"},
)
"""Calls that may be repeated: they read, or carry a key. The one layer that retries."""

SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": list(KEYED),
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)
OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 2**20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)


PLAIN = "WRONG_VERSION_NUMBER"
"""What gRPC says where TLS is spoken to a server that does not."""
REFUSALS = {
    "Hostname Verification Check failed": "its certificate does not name it; in a mesh: it is of another role or agent",
    "certificate has expired": "its certificate has expired: renew it",
    "CERTIFICATE_VERIFY_FAILED": "we do not trust its authority: see our ca.pem, or MESHWRIGHT_EDGE_CA",
    PLAIN: "it speaks plain text: switch TLS on there as well",
}
"""What gRPC says of a handshake that we broke off, the narrowest first, and what it means."""
TOLD = {why: Recurring() for why in REFUSALS.values()}
"""Which of them the log has heard of: callers try again and again."""
AGED = "max connection age"
"""What it says where a server ends a connection for its age, as each of ours does in time: the next one is there."""
CLOSED = "Socket closed"
"""What it says where the server did: after a handshake it refuses our certificate, in plain text it wants one."""


SILENT = "Deadline Exceeded"
"""What it says where the time of a call is over before the server has answered."""
AUTHORITY_ADVICE = "name the file of the authorities that the edge's certificate may be of"


def dial(target: str, certificates: "Certificates | None" = None, agent_id: str = "") -> grpc.aio.Channel:
    """Opens a channel to host:port; with certificates both sides prove who they are, and the server which agent."""
    if certificates:
        from meshwright.core.tls_channel import TlsChannel

        return TlsChannel(target, certificates, OPTIONS, agent_id)
    return grpc.aio.insecure_channel(target, options=OPTIONS)


def dial_edge(target: str, authority: str = "") -> grpc.aio.Channel:
    """Opens a channel over TLS to an edge, which proves its host name; we prove nothing.

    Args:
        target: host:port, the host as the edge's certificate names it.
        authority: File of the authorities in PEM that its certificate may be of; empty: the public ones.

    Raises:
        SetupError: The file cannot be used.
    """
    trusted = None
    if authority:
        from meshwright.core.tls import read_authorities

        trusted = read_authorities(Path(authority), AUTHORITY_ADVICE)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted), options=OPTIONS)


class Channels:
    """Keeps one channel a target.

    Args:
        tls_dir: Folder of certificates for all of them; empty: plain text.

    Raises:
        SetupError: The certificates cannot be used.
    """

    def __init__(self, tls_dir: str = "") -> None:
        self._certificates: Certificates | None = None
        if tls_dir:
            from meshwright.core.tls import certificates_in  # who speaks in plain text needs none of it

            self._certificates = certificates_in(tls_dir)
        self._open: dict[tuple[str, str], grpc.aio.Channel] = {}

    def to(self, target: str, agent_id: str = "") -> grpc.aio.Channel:
        """Returns the channel to host:port; `agent_id`: who answers there has no certificate of another agent."""
        place = (target, agent_id)
        if place not in self._open:
            self._open[place] = dial(target, self._certificates, agent_id)
        return self._open[place]

    async def close(self) -> None:
        """Closes all of them."""
        for channel in self._open.values():
            await channel.close()
        self._open.clear()


def time_left(timeout_s: float) -> float:
    """Returns the callee's share of time: its own, or what the current call has left, whichever is less.

    Raises:
        DeadlineExceededError: Nothing is left.
    """
    deadline = DEADLINE.get()
    if deadline is not None:
        timeout_s = min(timeout_s, deadline - time.monotonic() - MARGIN_S)
    if timeout_s <= 0:
        raise DeadlineExceededError("no time is left for a further call")
    return timeout_s


def outgoing(grant: bytes | None) -> list[tuple[str, str | bytes]]:
    """Returns the metadata of a call: trace and grant."""
    metadata: list[tuple[str, str | bytes]] = []
    if parent := tracing.traceparent():
        metadata.append(("traceparent", parent))
    if grant:
        metadata.append((METADATA_KEY, grant))
    return metadata


def failure(error: grpc.aio.AioRpcError) -> MeshError:
    """Says in our own tree why a call failed; of a connection that was refused, what to do about it."""
    found = MeshError.from_rpc(error)
    if type(found) is DeadlineExceededError and found.message == SILENT:
        return DeadlineExceededError("no answer in time")
    if type(found) is not UnavailableError or not found.message.startswith("failed to connect"):
        return found
    why = next((told for said, told in REFUSALS.items() if said in found.message), "")
    if why:
        if TOLD[why].is_news():
            log.warning("tls_refused", error=found.message)
        return TlsRefusedError(f"the server is not trusted: {why}")
    if CLOSED in found.message:
        hint = "where it speaks TLS, it refuses us: look at MESHWRIGHT_TLS_DIR on both sides, and at its log"
        return UnavailableError(f"{found.message}; {hint}")
    return found


def is_routine(error: MeshError) -> bool:
    """Whether a stream has ended for no other reason than its connection's age."""
    return type(error) is UnavailableError and error.message == AGED


def why_away(error: MeshError) -> str:
    """Says why a service did not answer, to callers from outside: without its address, which gRPC's own words have."""
    return "does not answer" if type(error) is UnavailableError else error.message


async def unary(method: Any, request: Any, *, timeout_s: float, grant: bytes | None = None) -> Any:
    """Calls a unary method of a stub.

    Raises:
        MeshError: What the server answered, as the class it raised there.
    """
    try:
        return await method(request, timeout=time_left(timeout_s), metadata=outgoing(grant))
    except grpc.aio.AioRpcError as error:
        raise failure(error) from None


async def while_overloaded(act: Callable[[], Awaitable[T]], ends: float, retries: float = math.inf) -> T:
    """Asks a server that has too much to do again, when it says and not all callers at once.

    Such a server has not even read the call. Other failures are raised at once.

    Args:
        act: Makes the call.
        ends: Until when, on the monotonic clock.
        retries: How often at the most.
    """
    while True:
        try:
            return await act()
        except OverloadedError as error:
            wait_s = (error.retry_after_s or 1.0) * random.uniform(1, 1.5)  # noqa: S311 - no secret
            retries -= 1
            if retries < 0 or time.monotonic() + wait_s >= ends:
                raise
        await asyncio.sleep(wait_s)


async def patient(method: Any, request: Any, *, timeout_s: float) -> Any:
    """Calls a unary method as `unary` does; a server that is overloaded is asked again within the call's time."""
    ends = time.monotonic() + time_left(timeout_s)
    return await while_overloaded(lambda: unary(method, request, timeout_s=ends - time.monotonic()), ends, RETRIES)


async def stream(
    method: Any, request: Any, *, timeout_s: float | None, grant: bytes | None = None
) -> AsyncGenerator[Any, None]:
    """Calls a streaming method of a stub; `timeout_s` None: as long as it stays open.

    Raises:
        MeshError: As `unary`.
    """
    call = method(request, timeout=None if timeout_s is None else time_left(timeout_s), metadata=outgoing(grant))
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise failure(error) from None
    finally:
        call.cancel()
