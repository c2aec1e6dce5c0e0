"""Tools that are methods of a gRPC service which knows nothing of us."""

import asyncio
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import AfterValidator, Field, model_validator

from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    InvalidRequestError,
    MeshError,
    ResultTooLargeError,
    SetupError,
    ToolFailedError,
)
from meshwright.core.ids import Form
from meshwright.registry.addresses import checked_place
from meshwright.registry.backends.declaration import (
    Credentials,
    DeclaredTool,
    Options,
    Surroundings,
    ToolOptions,
    check_no_schemas,
    contract_parts,
    credentials,
    idempotency_key,
    located,
)
from meshwright.registry.backends.descriptors import Services, from_file, from_module
from meshwright.registry.backends.message_schema import message_schema
from meshwright.registry.backends.secret import HeaderValue
from meshwright.registry.egress import Egress
from meshwright.registry.tool import EffectName

METADATA_NAME = Form(re.compile(r"[a-z0-9_.-]{1,64}"), "1 to 64 small letters, digits, _, . or -")
MetadataName = Annotated[str, AfterValidator(METADATA_NAME.validated)]
EXCERPT_CHARS = 500
MAX_MESSAGE_BYTES = 4 * 2**20
MAX_DIALLED = 4
"""Addresses of one name that are tried."""
CONNECT_S = 5.0
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),  # counted while it is decompressed
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
)
MAY_PASS = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"})
TOO_LARGE = re.compile(r"larger than max", re.IGNORECASE)
WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
LEVELS: dict[int, EffectName] = {MethodOptions.NO_SIDE_EFFECTS: "pure", MethodOptions.IDEMPOTENT: "idempotent"}
"""What a method's own `idempotency_level` says of its effect."""


class GrpcOptions(Options):
    """What a declaration says of a gRPC service."""

    target: str = Field(description="host:port")
    method: str = Field(default="", description="package.Service/Method: the tool")
    service: str = Field(default="", description="package.Service: each of its unary methods is a tool, NAME.method")
    descriptors: str = Field(default="", description="FileDescriptorSet of the service, imports included")
    module: str = Field(default="", description="Generated module (`*_pb2`) in place of the set")
    plaintext: bool = Field(default=False, description="Without TLS")
    metadata: dict[MetadataName, HeaderValue] = Field(default_factory=dict, max_length=32)
    allow: list[str] = Field(default_factory=list, max_length=16, description="host:port next door that may be called")
    ca_file: str = Field(default="", description="PEM file of the authorities to trust in place of gRPC's own")

    @model_validator(mode="after")
    def _names_one_of_each(self) -> Self:
        if bool(self.method) == bool(self.service):
            raise ValueError("either method or service")
        if bool(self.descriptors) == bool(self.module):
            raise ValueError("either descriptors or module")
        for name in self.metadata:
            if name.startswith(("grpc-", "x-mesh-")) or name.endswith("-bin") or name == "idempotency-key":
                raise ValueError(f"metadata {name} is not for a declaration to set")
        return self


@dataclass(frozen=True, slots=True)
class Peer:
    """The service that is called.

    Attributes:
        host: In its one spelling.
        port: As declared.
        egress: Checks the addresses.
        authorities: PEM; None: gRPC's own.
        is_plaintext: Without TLS.
    """

    host: str
    port: int
    egress: Egress
    authorities: bytes | None = field(repr=False)
    is_plaintext: bool

    async def dial(self) -> grpc.aio.Channel:
        """Connects to a checked address; certificate and authority are those of the name all the same.

        Raises:
            BackendUnavailableError: Nobody answers, or its certificate is not valid.
            MeshError: As `Egress.addresses`.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await self.egress.addresses(self.host, self.port)
                for address in found[:MAX_DIALLED]:
                    channel = self._channel(address)
                    try:
                        if await is_ready(channel):
                            return channel
                    except asyncio.CancelledError:
                        await channel.close()
                        raise
                    await channel.close()
        except TimeoutError:
            pass
        tls = "" if self.is_plaintext else ", or its certificate is not valid"
        raise BackendUnavailableError(f"{self.host}:{self.port} cannot be reached{tls}")

    def _channel(self, address: str) -> grpc.aio.Channel:
        target = f"ipv6:[{address}]:{self.port}" if ":" in address else f"ipv4:{address}:{self.port}"
        if self.is_plaintext:
            return grpc.aio.insecure_channel(target, options=(*OPTIONS, self._authority))
        options = (*OPTIONS, self._authority, ("grpc.ssl_target_name_override", self.host.strip("[]")))
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(self.authorities), options=options)

    @property
    def _authority(self) -> tuple[str, str]:
        return "grpc.default_authority", f"{self.host}:{self.port}"


async def is_ready(channel: grpc.aio.Channel) -> bool:
    """Waits until a channel is connected, or has failed to."""
    state = channel.get_state(try_to_connect=True)
    while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
        await channel.wait_for_state_change(state)
        state = channel.get_state()
    return state is grpc.ChannelConnectivity.READY


@dataclass(frozen=True, kw_only=True)
class GrpcTool(DeclaredTool):
    """A tool that is a unary method."""

    method: MethodDescriptor = field(repr=False)
    pool: DescriptorPool = field(repr=False)
    peer: Peer = field(repr=False)
    metadata: Credentials = field(repr=False)

    @cached_property
    def _path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Calls the method.

        Raises:
            InvalidRequestError: The arguments are no message.
            ToolFailedError: The service refused the call.
            BackendUnavailableError: It does not answer, or asks to come back later.
            DeadlineExceededError: The time is over.
        """
        request = self._request(arguments)
        metadata = [*self.metadata.plain.items(), *self.metadata.secret.items()]
        if self.effect != "pure":
            metadata.append(("idempotency-key", idempotency_key()))
        timeout_s = self.time_for_call_s()
        try:
            async with asyncio.timeout(timeout_s) as limit, await self.peer.dial() as channel:
                call: Any = channel.unary_unary(self._path, request_serializer=type(request).SerializeToString)
                left_s = (limit.when() or 0) - asyncio.get_running_loop().time()
                answer = await call(request, timeout=left_s, metadata=tuple(metadata))
        except TimeoutError:
            raise DeadlineExceededError(f"{self.name} took longer than {timeout_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise self.metadata.redaction.error(self._failure(error)) from None
        return self._result(answer)

    def _request(self, arguments: dict[str, Any]) -> Message:
        message = GetMessageClass(self.method.input_type)()
        try:
            json_format.ParseDict(arguments, message, descriptor_pool=self.pool)
        except (json_format.ParseError, EncodeError, ValueError, TypeError, RecursionError) as error:
            told = " ".join(str(error).split())[:EXCERPT_CHARS]
            raise InvalidRequestError(f"arguments of {self.name}: {told}", fields={"arguments": told}) from None
        return message

    def _failure(self, error: grpc.aio.AioRpcError) -> MeshError:
        """Tells what a status means, with the words of the service that a model can act on."""
        code, details = error.code().name, " ".join((error.details() or "").split())
        said = f"{self.name}: {self.peer.host}:{self.peer.port} answered {code}"
        is_shown = details and not self.redact  # a value that nobody is to see may stand in it
        told = f"{said}: {self.metadata.redaction.text(details)[:EXCERPT_CHARS]}" if is_shown else said
        facts = {"grpc_status": code}
        if code == "DEADLINE_EXCEEDED":
            return DeadlineExceededError(f"{self.name} took longer than {self.timeout_s:g} s", metadata=facts)
        if TOO_LARGE.search(details):
            return ResultTooLargeError(f"{self.name}: the answer has more than {MAX_MESSAGE_BYTES} bytes: ask for less")
        if code in MAY_PASS:
            return BackendUnavailableError(told, metadata=facts)
        return ToolFailedError(told, metadata=facts)

    def _result(self, answer: bytes) -> Any:
        try:
            result = json_format.MessageToDict(
                GetMessageClass(self.method.output_type).FromString(answer),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
                descriptor_pool=self.pool,
            )
            return self.metadata.redaction.json(result)
        except (json_format.SerializeToJsonError, DecodeError, ValueError, TypeError, RecursionError):
            raise ToolFailedError(
                f"{self.name}: the answer is no {self.method.output_type.full_name} that JSON can hold"
            ) from None


def grpc_tools(tool: ToolOptions, options: GrpcOptions, surroundings: Surroundings) -> list[GrpcTool]:
    """Makes tools of a declaration: one for a method, or one for each unary method of a service.

    Raises:
        SetupError: Something in it is wrong; says which field and why.
    """
    check_no_schemas(tool, "the descriptors")
    place = located("backend.grpc.target", checked_place, options.target)
    peer = located("backend.grpc", peer_of, options, surroundings, *place)
    metadata = located("backend.grpc.metadata", credentials, options.metadata, surroundings, *place)
    if metadata.secret and options.plaintext and not peer.egress.allows(*place):
        raise SetupError("backend.grpc.metadata: a secret is sent by TLS only, or to a place under `allow`")
    services = services_of(options, surroundings.folder)
    if options.method:
        method = located("backend.grpc.method", services.method, options.method)
        return [one_tool(tool, method, services, peer, metadata)]
    methods = located("backend.grpc.service", services.unary, options.service)
    named = [(tool.model_copy(update={"name": f"{tool.name}.{snake(one.name)}"}), one) for one in methods]
    return [one_tool(renamed, one, services, peer, metadata) for renamed, one in named]


def one_tool(
    tool: ToolOptions, method: MethodDescriptor, services: Services, peer: Peer, metadata: Credentials
) -> GrpcTool:
    """Makes the tool of a method.

    Raises:
        SetupError: Its request is written as something else than an object.
    """
    schema = message_schema(method.input_type)
    if schema.get("type") != "object":
        raise SetupError(
            f"backend.grpc: {method.full_name} takes no message that is a JSON object: declare other methods one by one"
        )
    effect = LEVELS.get(method.GetOptions().idempotency_level, "non_idempotent")
    parts = contract_parts(tool, effect, schema, message_schema(method.output_type))
    return GrpcTool(**parts, method=method, pool=services.pool, peer=peer, metadata=metadata)


def peer_of(options: GrpcOptions, surroundings: Surroundings, host: str, port: int) -> Peer:
    """Makes the peer that a declaration describes.

    Raises:
        SetupError: Its authorities cannot be read.
    """
    authorities = None
    if options.ca_file:
        try:
            authorities = (surroundings.folder / options.ca_file).read_bytes()
        except OSError as error:
            raise SetupError(f"ca_file: {options.ca_file} cannot be read: {error.strerror}") from None
    return Peer(host, port, Egress(options.allow), authorities, options.plaintext)


def services_of(options: GrpcOptions, folder: Path) -> Services:
    """Reads the descriptors that a declaration names."""
    if options.module:
        return located("backend.grpc.module", from_module, options.module)
    return located("backend.grpc.descriptors", from_file, folder / options.descriptors)


def snake(name: str) -> str:
    """Writes a method's name as a tool's: `GetHTTPInfo` becomes `get_http_info`."""
    return WORD.sub("_", name).lower()
