"""Errors: what travels is what was raised, bounded so that every client can read it."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from meshwright.core import errors, facts
from meshwright.core.errors import (
    DETAILS_KEY,
    DOMAIN,
    InternalError,
    InvalidRequestError,
    MeshError,
    QueueFullError,
    RateLimitedError,
    TaskCancelledError,
    TaskNotFoundError,
    ToolConflictError,
    UnavailableError,
)

TREE = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, MeshError)]


def travelled(error: MeshError) -> MeshError:
    return MeshError.from_status(status_pb2.Status.FromString(error.to_status().SerializeToString()))


def failed_call(
    *trailers: tuple[str, bytes], code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), "no connection")


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_error_comes_back_as_the_class_that_was_raised(error):
    back = travelled(error("as it was"))
    assert back.reason == error.reason
    assert back.code == error.code
    assert back.message == "as it was"
    assert type(back) is (InternalError if error is MeshError else error)


def test_every_class_has_a_reason_of_its_own():
    own = [error for error in TREE if error is not MeshError]
    assert len({error.reason for error in own}) == len(own)


def test_fields_facts_and_the_wish_to_retry_travel():
    error = QueueFullError(
        "later", metadata={"task_id": "t-1"}, fields={"a": "too long", "b/c": "x"}, retry_after_s=1.5
    )
    back = travelled(error.with_metadata(agent="a-1"))
    assert back.metadata == {"task_id": "t-1", "agent": "a-1"}
    assert back.fields == {"a": "too long", "b/c": "x"}
    assert back.retry_after_s == 1.5


def test_no_wish_to_retry_is_not_a_wish_to_retry_at_once():
    assert travelled(UnavailableError("gone")).retry_after_s is None
    assert travelled(UnavailableError("gone", retry_after_s=0)).retry_after_s == 0


def test_the_status_holds_the_standard_details():
    status = ToolConflictError("taken", fields={"tool.version": "raise it"}).to_status()
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.code == grpc.StatusCode.ALREADY_EXISTS.value[0]
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == (DOMAIN, "TOOL_CONFLICT")
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "tool.version"


@pytest.mark.parametrize(("code", "error"), MeshError.by_code.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_reason_that_is_not_known_falls_back_to_the_code(code, error):
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain=DOMAIN, metadata={"a": "b"}))
    back = MeshError.from_status(status_pb2.Status(code=code, message="new", details=[info]))
    assert type(back) is error
    assert back.metadata == {"a": "b"}


def test_a_code_that_is_not_known_either_is_internal():
    assert type(MeshError.from_status(status_pb2.Status(code=grpc.StatusCode.DATA_LOSS.value[0]))) is InternalError


def test_a_failed_call_is_rebuilt_from_its_trailers():
    status = TaskNotFoundError("no task t-1", metadata={"task_id": "t-1"}).to_status().SerializeToString()
    error = MeshError.from_rpc(failed_call((DETAILS_KEY, status), code=grpc.StatusCode.NOT_FOUND))
    assert type(error) is TaskNotFoundError
    assert error.metadata == {"task_id": "t-1"}


@pytest.mark.parametrize("trailers", [(), ((DETAILS_KEY, b"\xff\xff no status"),)], ids=["none", "unreadable"])
def test_a_failed_call_without_readable_details_keeps_the_words_of_grpc(trailers):
    error = MeshError.from_rpc(failed_call(*trailers))
    assert type(error) is UnavailableError
    assert error.message == "no connection"


def test_a_long_message_is_shortened_by_bytes_so_that_its_trailers_stay_small():
    error = InvalidRequestError("ü" * 50_000, fields={f"f{i}" + "x" * 999: "ü" * 9_999 for i in range(50)})
    status = error.to_status()
    assert len(status.message.encode()) <= facts.MESSAGE_BYTES
    assert status.message.endswith("…")
    assert status.ByteSize() < 4_000
    assert travelled(error).fields


def test_text_that_is_no_unicode_does_not_break_the_status():
    back = travelled(RateLimitedError("half a pair: \ud800", metadata={"a": "\udfff"}))
    assert back.message == "half a pair: ?"
    assert back.metadata == {"a": "?"}


def test_a_call_that_a_stopping_server_cancels_is_not_a_task_that_was_cancelled():
    """gRPC ends calls so that come in as a server stops; a service that means it says so in the details."""
    assert type(MeshError.from_rpc(failed_call(code=grpc.StatusCode.CANCELLED))) is UnavailableError
    meant = (DETAILS_KEY, TaskCancelledError("it was cancelled").to_status().SerializeToString())
    assert type(MeshError.from_rpc(failed_call(meant, code=grpc.StatusCode.CANCELLED))) is TaskCancelledError
