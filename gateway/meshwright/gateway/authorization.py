"""Authorization: Envoy asks about every call who makes it; the answer is a signed identity, or why there is none."""

import asyncio
import base64
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption, HeaderValueOptionHeaderAppendAction
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.google.rpc import Status
from google.protobuf import json_format

from meshwright.core.api_key import PREFIX, ApiKeys
from meshwright.core.credential import Credential
from meshwright.core.errors import (
    DETAILS_KEY,
    REASON_KEY,
    CredentialsMissingError,
    MeshError,
    PermissionDeniedError,
    UnavailableError,
)
from meshwright.core.grant import Signer
from meshwright.core.identity import IDENTITY_KEY, LIFE_S, sign
from meshwright.core.interceptors import Context, Guard
from meshwright.core.store import segment
from meshwright.gateway.authentication import CHECK_S, CREDENTIALS, JWT, UNVERIFIED
from meshwright.gateway.claims import Claims, Holder

log = structlog.get_logger("authorization")
SERVICE = "envoy.service.auth.v3.Authorization"
OPEN = frozenset({"/", "/docs", "/health", "/openapi.json", "/ready"})
OPEN_BELOW = ("/assets/", "/gateway.v1.EdgeService/", "/grpc.health.v1.Health/")
"""Paths that anybody may ask for: the page, its files, and probes. What they show is nobody's in particular."""
MARGIN_S = 0.3
"""So long before Envoy gives up the answer is there."""
KEPT_ANSWERS, REUSED_S = 4_096, LIFE_S / 4
"""An identity is signed anew for the same caller after so long: services remember which they have checked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a call: headers in small letters, and what Envoy found out about its token."""

    path: str
    headers: Mapping[str, str]
    request_id: str
    token: Mapping[str, Any]

    @classmethod
    def of(cls, request: CheckRequest) -> "Asked":
        """Reads Envoy's question."""
        attributes = request.attributes or AttributeContext()
        http = attributes.request.http if attributes.request and attributes.request.http else None
        known = attributes.metadata_context.filter_metadata if attributes.metadata_context else {}
        token = known[JWT].to_dict() if JWT in known else {}
        if http is None:
            return cls("", {}, "", token)
        return cls(http.path.partition("?")[0], http.headers, http.headers.get("x-request-id", ""), token)

    @property
    def is_grpc(self) -> bool:
        """Whether the caller reads a status from headers."""
        return self.headers.get("content-type", "").startswith("application/grpc")

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask for it."""
        return self.path in OPEN or self.path.startswith(OPEN_BELOW)

    @property
    def bearer(self) -> str:
        """What stands in the header `authorization` as a bearer's; empty: nothing does."""
        kind, _, text = self.headers.get("authorization", "").partition(" ")
        return text.strip() if kind.lower() == "bearer" else ""


class Authorization:
    """Decides who is calling.

    Args:
        signer: Signs identities; its key is announced to the mesh.
        keys: API keys; None: none are taken.
        claims: Reads tokens; None: none are taken.
        host: Address that this process listens on: Envoy asks from there, or from loopback.
    """

    def __init__(self, signer: Signer, keys: ApiKeys | None, claims: Claims | None, host: str) -> None:
        self._signer = signer
        self._keys = keys
        self._claims = claims
        self._host = host
        self._answers: dict[Holder, tuple[float, bytes]] = {}

    def register(self, guard: Guard) -> None:
        """Adds the service to a server."""
        handler: Any = grpc.unary_unary_rpc_method_handler(self.check, request_deserializer=CheckRequest.parse)
        guard.add_registered_method_handlers(SERVICE, {"Check": handler})

    async def check(self, request: CheckRequest, context: Context) -> bytes:
        """Answers Envoy with a serialized CheckResponse.

        Raises:
            PermissionDeniedError: It is not Envoy that asks, but somebody on another machine.
        """
        if not is_neighbour(context.peer(), self._host):
            raise PermissionDeniedError("Envoy alone asks this, from beside this process")
        asked = Asked.of(request)
        if asked.is_open:
            return OPENED
        try:
            async with asyncio.timeout(CHECK_S - MARGIN_S):
                holder = await self._holder(asked)
        except TimeoutError:
            return unverified("no answer in time", asked)
        except MeshError as error:
            if error.code is not grpc.StatusCode.UNAUTHENTICATED:
                return unverified(error.message, asked)
            return denied(error, asked)
        return self._passed(holder)

    async def _holder(self, asked: Asked) -> Holder:
        """Returns who is calling.

        Raises:
            CredentialsMissingError: Nobody says so.
            MeshError: It is not true.
        """
        key = asked.headers.get("x-api-key", "") or (asked.bearer if asked.bearer.startswith(PREFIX) else "")
        if key and self._keys:
            known = await self._keys.verify(key)
            return Holder(known.tenant, known.principal, known.scopes, Credential(known.key_id, known.expires))
        if self._claims and asked.bearer and not asked.bearer.startswith(PREFIX):
            return self._claims.holder(asked.token)
        ways = [*["an API key (header x-api-key)"] * bool(self._keys), *["a token"] * bool(self._claims)]
        wrong = "no API keys are taken here" if key else "no tokens are taken here" if asked.bearer else ""
        raise CredentialsMissingError(f"{wrong or 'say who is calling'}: send {' or '.join(ways)}")

    def _passed(self, holder: Holder) -> bytes:
        """Returns the answer that lets somebody pass; the one of a moment ago where there is one."""
        now = time.monotonic()
        signed_at, answer = self._answers.get(holder, (-LIFE_S, b""))
        if now - signed_at < REUSED_S:
            return answer
        token = sign(self._signer, holder.tenant, holder.principal, holder.scopes, holder.credential)
        headers = {
            IDENTITY_KEY: base64.b64encode(token).decode(),
            "x-mesh-tenant": segment(holder.tenant),
            "x-mesh-principal": segment(holder.principal),
        }
        answer = bytes(passed(headers, is_remembered=True))
        while len(self._answers) >= KEPT_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[holder] = (now, answer)
        return answer


def is_neighbour(peer: str, host: str) -> bool:
    """Whether a caller's address is on this machine: loopback, a socket, or the address that is listened on."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    address = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        return ipaddress.ip_address(address).is_loopback or address == host
    except ValueError:
        return False


def passed(headers: Mapping[str, str], *, is_remembered: bool = False) -> CheckResponse:
    """Lets a call pass: without its credentials, and with what was found out, which Envoy may remember."""
    response = OkHttpResponse(headers=options(headers), headers_to_remove=list(CREDENTIALS))
    told = Struct.from_dict({"headers": dict(headers)}) if is_remembered else None
    return CheckResponse(status=Status(code=0), ok_response=response, dynamic_metadata=told)


def denied(error: MeshError, asked: Asked) -> bytes:
    """Refuses a call, in the form in which its caller reads errors."""
    status = error.with_metadata(request_id=asked.request_id).to_status()
    headers = {"content-type": "application/json"}
    body = json_format.MessageToJson(status, preserving_proto_field_name=True, indent=None)
    if asked.is_grpc:
        headers = {DETAILS_KEY: base64.b64encode(status.SerializeToString()).decode().rstrip("=")}
        body = status.message
    headers[REASON_KEY] = error.reason
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = challenge(error)
        code = StatusCode.Unauthorized
    else:
        headers["retry-after"] = "1"
        code = StatusCode.ServiceUnavailable
    response = DeniedHttpResponse(status=HttpStatus(code=code), headers=options(headers), body=body)
    logged = Struct.from_dict({"reason": error.reason})
    return bytes(
        CheckResponse(status=Status(code=error.code.value[0]), denied_response=response, dynamic_metadata=logged)
    )


def unverified(why: str, asked: Asked) -> bytes:
    """Refuses a call of which nobody can say who makes it; why stands in the log, and is the caller's no business."""
    log.warning("caller_not_verified", error=why)
    return denied(UnavailableError(UNVERIFIED, retry_after_s=1), asked)


def challenge(error: MeshError) -> str:
    """Says how to authenticate, as RFC 6750 does."""
    wrong = "" if isinstance(error, CredentialsMissingError) else ', error="invalid_token"'
    return f'Bearer realm="meshwright"{wrong}'


def options(headers: Mapping[str, str]) -> list[HeaderValueOption]:
    """Writes headers, each in place of one that may be there."""
    action = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return [
        HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=action)
        for name, value in headers.items()
    ]


OPENED = bytes(passed({}))
"""The answer that lets anybody pass, as nobody."""
