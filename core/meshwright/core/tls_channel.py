"""A channel over mTLS whose new connections are made with the certificates as their files hold them then."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from meshwright.core.role import MESH_NAME, name_of_server
from meshwright.core.tls import Certificates, Identity

Options = Sequence[tuple[str, Any]]
Codec = Callable[[Any], Any] | None


@dataclass(eq=False)
class Connection:
    """A channel of gRPC's with one set of certificates, and the calls that are open on it."""

    channel: grpc.aio.Channel
    identity: Identity
    calls: int = 0
    is_retired: bool = False
    methods: dict[tuple[str, str], Any] = field(default_factory=dict)


def calls_of(kind: str) -> Any:
    """Writes the method of a channel that gRPC's stubs ask for calls of a kind: all four have one signature."""

    def calls(
        channel: "TlsChannel",
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - gRPC's signature
    ) -> Any:
        return channel.calls(kind, method, request_serializer, response_deserializer)

    return calls


class TlsChannel(grpc.aio.Channel):
    """Calls a server that proves the role of what is called.

    Where the certificates' files have changed, new calls go over a new connection; the old one is closed when its last
    call has ended.

    Args:
        target: host:port.
        certificates: Ours, and the authority that the server's is of.
        options: Of gRPC, for every connection.
        agent_id: Which agent answers there; empty: it need not be a certain one.
    """

    def __init__(self, target: str, certificates: Certificates, options: Options, agent_id: str = "") -> None:
        self._agent_id = agent_id
        self._target = target
        self._certificates = certificates
        self._options = tuple(options)
        self._connections: dict[str, Connection] = {}
        self._retired: set[Connection] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def _connection(self, name: str) -> Connection:
        """Returns the connection to a server of a name, of the certificates as they are now."""
        identity = self._certificates.current()
        found = self._connections.get(name)
        if found and found.identity is identity:
            return found
        if found:
            self._retire(found)
        options = (*self._options, ("grpc.ssl_target_name_override", name))
        channel = grpc.aio.secure_channel(self._target, identity.channel_credentials(), options=options)
        self._connections[name] = Connection(channel, identity)
        return self._connections[name]

    def _retire(self, connection: Connection) -> None:
        connection.is_retired = True
        self._retired.add(connection)
        self._close_where_unused(connection)

    def _close_where_unused(self, connection: Connection) -> None:
        if connection.is_retired and not connection.calls and connection in self._retired:
            self._retired.discard(connection)
            closing = asyncio.ensure_future(connection.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def calls(self, kind: str, method: str, write: Codec, read: Codec) -> Any:
        """Returns what makes calls of a method; each goes over the connection of its moment.

        Args:
            kind: Whether it takes and answers with one message or a stream: gRPC's name of it.
            method: `/package.Service/Method`.
            write: Serializes requests.
            read: Deserializes responses.
        """
        name = name_of_server(method, self._agent_id)

        def call(*arguments: Any, **options: Any) -> Any:
            connection = self._connection(name)
            act = connection.methods.get((kind, method))
            if act is None:
                act = connection.methods[kind, method] = getattr(connection.channel, kind)(method, write, read)
            opened = act(*arguments, **options)
            connection.calls += 1
            opened.add_done_callback(lambda _: self._ended(connection))
            return opened

        return call

    def _ended(self, connection: Connection) -> None:
        connection.calls -= 1
        self._close_where_unused(connection)

    unary_unary = calls_of("unary_unary")
    unary_stream = calls_of("unary_stream")
    stream_unary = calls_of("stream_unary")
    stream_stream = calls_of("stream_stream")

    async def close(self, grace: float | None = None) -> None:
        """Closes every connection."""
        left = [*self._connections.values(), *self._retired]
        self._connections.clear()
        self._retired.clear()
        for connection in left:
            await connection.channel.close(grace)
        if self._closing:
            await asyncio.wait(self._closing)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002
        """Tells how the connection stands on which servers of any role are asked."""
        return self._connection(MESH_NAME).channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until that changes."""
        await self._connection(MESH_NAME).channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until that connection stands."""
        await self._connection(MESH_NAME).channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
