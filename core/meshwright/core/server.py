"""The gRPC server that every service of the mesh is: health, reflection, limits, interceptors, drain."""

import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from meshwright.core import tracing
from meshwright.core.errors import SetupError
from meshwright.core.grant import Verifier
from meshwright.core.interceptors import Admission, Guard, Principal
from meshwright.core.peer import PeerPrincipal
from meshwright.core.probes import Probes
from meshwright.core.settings import Settings
from meshwright.core.stay import Stays
from meshwright.core.tls import certificates_in

if TYPE_CHECKING:
    from meshwright.core.revocations import Revocations
    from meshwright.core.served_span import ServedSpans

MESSAGE_BYTES = 8 * 2**20
"""Twice what the edge lets in, so that what is too large is refused with the field and its limit."""
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 2**10),
    ("grpc.max_concurrent_streams", 10_000),  # a connection; what one may not open waits unseen, admission says why
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 600_000),
    ("grpc.so_reuseport", 0),  # a taken port must be an error
)

Register = Callable[[Guard], None]


class Server:
    """A grpc.aio server of named services.

    Args:
        settings: Where to listen and how.
        services: By full name, the function that adds the servicer: see `bound`.
        verifier: Checks grants; None: a service that takes none.
        revocations: Which API keys were revoked; None: a service without streams for callers from outside.

    Raises:
        SetupError: The certificates that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        services: dict[str, Register],
        verifier: Verifier | None = None,
        *,
        revocations: "Revocations | None" = None,
    ) -> None:
        self._settings = settings
        self._certificates = certificates_in(settings.tls_dir)
        kind = PeerPrincipal if self._certificates else Principal
        principal = kind(verifier, is_required=settings.auth != "none")
        self._stays = Stays(revocations)
        admission = Admission(settings.max_calls, settings.max_streams)
        guard = Guard(admission, principal, self._stays, served_spans(settings))
        traces = tracing.server_interceptors(settings)
        self._server = grpc.aio.server(handlers=(guard,), interceptors=traces, options=OPTIONS)
        self._health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue] - a module put there
        self._names = (*services, health.SERVICE_NAME)
        for register in services.values():
            register(guard)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guard)
        if settings.reflection:
            reflect(self._server, self._names)
        has_port = settings.health_port >= 0
        self.probes = Probes(settings.health_host or settings.host, settings.health_port) if has_port else None
        self.target = ""

    async def start(self, *, is_serving: bool = True) -> str:
        """Listens and returns the host:port to announce.

        Args:
            is_serving: What probes and balancers hear at first; False: nothing good until `set_serving`.

        Raises:
            SetupError: A port is taken, or plain text would leave this machine.
        """
        host, port = self._settings.host, self._settings.port
        if not (self._certificates or is_loopback(host) or self._settings.insecure):
            raise SetupError(
                f"{host} is not loopback, and there is no TLS: name a folder of certificates by MESHWRIGHT_TLS_DIR "
                "(`meshwright certs` makes one); is plain text meant, MESHWRIGHT_INSECURE=true?"
            )
        address = f"[{host}]" if ":" in host else host
        try:
            listening = self._listen(f"{address}:{port}")
        except RuntimeError:
            listening = 0
        if not listening:
            raise SetupError(f"port {port} on {host} is in use: choose another one, or stop what listens there")
        if self.probes:
            await self.probes.start()
        await self._server.start()
        self.target = f"{address}:{listening}"
        await self.set_serving(is_serving=is_serving)
        return self.target

    def _listen(self, address: str) -> int:
        """Takes a port: with certificates it speaks TLS alone."""
        if self._certificates:
            return self._server.add_secure_port(address, self._certificates.server_credentials())
        return self._server.add_insecure_port(address)

    async def set_serving(self, *, is_serving: bool) -> None:
        """Tells probes and balancers whether to send new calls here."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)
        if self.probes:
            self.probes.is_serving = is_serving

    async def stop(self) -> None:
        """Refuses new calls, lets those in flight end within the drain time, then cuts them.

        The port for probes stays until then, so that a process that drains is not taken for one that hangs.
        """
        if self.probes:
            self.probes.is_serving = False
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_s)
        await self._stays.close()
        if self.probes:
            await self.probes.stop()


def served_spans(settings: Settings) -> "ServedSpans | None":
    """Returns what gives served calls their spans; None: the stock instrumentation does, or nobody."""
    if not settings.tracing or not settings.lean_spans:
        return None
    from meshwright.core.served_span import ServedSpans

    return ServedSpans(tracing.rates_of(settings))


def reflect(server: grpc.aio.Server, names: Iterable[str]) -> None:
    """Serves the contract by reflection."""
    from grpc_reflection.v1alpha import reflection

    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)


def is_loopback(host: str) -> bool:
    """Tells whether an address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound(add: Callable[[Any, Any], None], servicer: Any) -> Register:
    """Binds a servicer to the generated function that adds it."""
    return lambda guard: add(servicer, guard)
