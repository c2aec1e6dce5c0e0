"""What travels of an error, as a google.rpc.Status: cut to what clients take."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

MESSAGE_BYTES = 1_000
DETAIL_BYTES = 2_000
"""How much of message and details travels: clients refuse trailers of more than 8 KiB, where the message stands
percent-encoded and the details in base64, message included."""
FACT_BYTES = 300
"""How much of one field, description or fact travels."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An error without its class.

    Attributes:
        message: One sentence.
        reason: Stable, for machines; empty: a server of somebody else.
        metadata: Facts for machines.
        fields: Offending request fields and what is wrong with each.
        retry_after_s: Seconds after which trying again makes sense.
    """

    message: str
    reason: str
    metadata: Mapping[str, str]
    fields: Mapping[str, str]
    retry_after_s: float | None

    def to_status(self, code: int, domain: str) -> status_pb2.Status:
        """Builds the status, with ErrorInfo, BadRequest and RetryInfo."""
        facts = {key: shortened(value, FACT_BYTES) for key, value in self.metadata.items()}
        details = [packed(error_details_pb2.ErrorInfo(reason=self.reason, domain=domain, metadata=facts))]
        if self.fields:
            details.append(packed(self._violations(DETAIL_BYTES - details[0].ByteSize())))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=code, message=shortened(self.message, MESSAGE_BYTES), details=details)

    def _violations(self, limit: int) -> error_details_pb2.BadRequest:
        """Lists the offending fields, as many as fit."""
        bad = error_details_pb2.BadRequest()
        for field, text in self.fields.items():
            violation = bad.FieldViolation(field=shortened(field, FACT_BYTES), description=shortened(text, FACT_BYTES))
            if bad.field_violations and bad.ByteSize() + violation.ByteSize() > limit:
                break
            bad.field_violations.append(violation)
        return bad

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> "Facts":
        """Reads what a server sent."""
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        for detail in status.details:
            for message in (info, bad, retry):
                detail.Unpack(message)
        return cls(
            status.message,
            info.reason,
            info.metadata,
            {violation.field: violation.description for violation in bad.field_violations},
            retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        )


def shortened(text: str, limit: int) -> str:
    """Returns text that protobuf takes and that is at most `limit` bytes long."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    """Wraps a detail message into an Any."""
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail
