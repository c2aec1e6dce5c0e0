"""What every error of the mesh has in common: how it travels, and how it comes back.

Servers turn a `MeshError` into a google.rpc.Status with ErrorInfo, BadRequest and RetryInfo; clients turn that status
back into the same class.
"""

import contextlib
from collections.abc import Mapping
from typing import ClassVar, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from meshwright.core.facts import Facts

DOMAIN = "meshwright"
DETAILS_KEY = "grpc-status-details-bin"
REASON_KEY = "x-mesh-reason"
"""Metadata behind a status that names its reason in plain text: for the edge's log, which keeps it from callers."""
INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]
UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]


class MeshError(Exception):
    """An error that a caller may see.

    Args:
        message: One sentence that says what to do next.
        metadata: Facts for machines, for example `{"task_id": "..."}`.
        fields: Offending request fields and what is wrong with each.
        retry_after_s: Seconds after which trying again makes sense.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    is_retryable: ClassVar[bool] = False
    by_reason: ClassVar[dict[str, type["MeshError"]]] = {}
    by_code: ClassVar[dict[int, type["MeshError"]]] = {}
    """What a status without a known reason becomes."""

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.fields = dict(fields or {})
        self.retry_after_s = retry_after_s

    def __init_subclass__(cls) -> None:
        MeshError.by_reason[cls.reason] = cls

    def to_status(self) -> status_pb2.Status:
        """Builds the google.rpc.Status that travels."""
        facts = Facts(self.message, self.reason, self.metadata, self.fields, self.retry_after_s)
        return facts.to_status(self.code.value[0], DOMAIN)

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> "MeshError":
        """Rebuilds the error that a server sent."""
        facts = Facts.from_status(status)
        known = cls.by_reason.get(facts.reason) or cls.by_code.get(status.code) or cls.by_code[INTERNAL]
        return known(facts.message, metadata=facts.metadata, fields=facts.fields, retry_after_s=facts.retry_after_s)

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> "MeshError":
        """Rebuilds the error behind a failed call; a call that never reached a server keeps gRPC's own words."""
        for key, value in error.trailing_metadata() or ():
            if key == DETAILS_KEY and isinstance(value, bytes):
                with contextlib.suppress(DecodeError):
                    return cls.from_status(status_pb2.Status.FromString(value))
        if error.code() is grpc.StatusCode.CANCELLED:  # our services say why: who does not was stopped amid the call
            return cls.from_status(status_pb2.Status(code=UNAVAILABLE, message="the server stopped during the call"))
        code: int = error.code().value[0]
        return cls.from_status(status_pb2.Status(code=code, message=error.details() or error.code().name))

    def with_metadata(self, **metadata: str) -> Self:
        """Adds facts for machines."""
        self.metadata.update(metadata)
        return self
