"""The errors of the edge in its OpenAPI document: which status an operation may end with, and its body. Pure."""

import re
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2

from meshwright.core.errors import DOMAIN, MeshError
from meshwright.gateway.config import LIMIT_HEADER
from meshwright.gateway.openapi_headers import CHALLENGE, RATE, RETRY_AFTER, headers
from meshwright.gateway.openapi_schema import COMPONENTS, Json, fields_of
from meshwright.gateway.replies import LOCAL_REPLIES

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "DATA_LOSS": 500,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""By gRPC code; CANCELLED and UNIMPLEMENTED are missing: nothing that the edge serves ends so."""
INSIDE = {"GRANT_INVALID"}
"""Reasons that the contract names for callers inside of the mesh; at the edge no call has them."""
MEANING = {
    400: (
        3,
        "INVALID_REQUEST",
        "The request is wrong, or does not fit how things stand: `BadRequest` names the fields",
    ),
    401: (16, "UNAUTHENTICATED", "Nobody says who is calling, or in a way that is not believed"),
    403: (7, "PERMISSION_DENIED", "The caller, or the site whose page calls, may not do this"),
    404: (5, "NOT_FOUND", "There is no such thing, or it is somebody else's"),
    408: (4, "REQUEST_TIMEOUT", "The request did not arrive in time"),
    409: (6, "TASK_CONFLICT", "The name is taken by something else, or others were faster"),
    413: (8, "REQUEST_TOO_LARGE", "The request is larger than 4 MiB"),
    415: (3, "CONTENT_TYPE_REFUSED", "The body is not said to be `application/json`"),
    429: (8, "OVERLOADED", "Too much: `retry-after` says when to try again, where that helps"),
    431: (8, "REQUEST_TOO_LARGE", "The headers are too large"),
    500: (13, "INTERNAL", "Something broke on the mesh's side: the message has an id to look up in its logs"),
    502: (14, "UNAVAILABLE", "The answer of an agent could not be read"),
    503: (14, "UNAVAILABLE", "A part of the mesh does not answer at the moment: try again"),
    504: (4, "DEADLINE_EXCEEDED", "No answer came in time; a task that was waited for goes on"),
}
"""By HTTP status: what it means, and the gRPC code and reason of its example."""
UNAUTHENTICATED = 401
BODY_ONLY = {408, 413, 415}
"""Statuses of requests that have a body."""
HEADERS = {UNAUTHENTICATED: (CHALLENGE,), 429: (RETRY_AFTER, LIMIT_HEADER, *RATE), 503: (RETRY_AFTER,)}
"""By status: what its headers say that programs go by."""
RPC: Any = error_details_pb2  # its descriptors have types of two kinds
DETAILS = [message.DESCRIPTOR for message in (RPC.ErrorInfo, RPC.BadRequest, RPC.RetryInfo)]
ALWAYS = {"ErrorInfo": ("reason", "domain")}
SAID = {
    "ErrorInfo": "Which error it is.",
    "ErrorInfo.reason": "Stable: programs decide by it.",
    "ErrorInfo.domain": f"Who gives the reason: `{DOMAIN}`.",
    "ErrorInfo.metadata": "Facts for machines, such as a task's id; `limit` is what is used up (429).",
    "BadRequest": "Which fields are wrong.",
    "FieldViolation": "A field that is wrong.",
    "FieldViolation.field": "Path of the field, or a JSON Pointer.",
    "FieldViolation.description": "What is wrong with it, for people.",
    "LocalizedMessage": "A message in a language of the reader.",
    "RetryInfo": "Trying again makes sense.",
    "RetryInfo.retry_delay": "Time to wait before.",
}
"""What stands in google.rpc, in our words."""
_WORD = re.compile(r"\b[A-Z][A-Z_]+\b")
_TYPE = "type.googleapis.com/google.rpc."


def statuses(comments: str, *, has_body: bool, has_auth: bool) -> dict[int, list[str]]:
    """Returns by HTTP status the stable reasons of which the contract speaks.

    Args:
        comments: What the contract says of the method and of its service: the codes and reasons in it count.
        has_body: The request has one.
        has_auth: Callers have to say who they are.
    """
    reasons: dict[int, list[str]] = {status: [] for status in LOCAL_REPLIES if status in MEANING}
    for word in _WORD.findall(comments):
        error = MeshError.by_reason.get(word)
        status = HTTP_STATUS.get(error.code.name if error else word)
        if status and word not in INSIDE:
            named = reasons.setdefault(status, [])
            named += [word] * (word not in HTTP_STATUS and word not in named)
    left_out = set() if has_body else set(BODY_ONLY)
    left_out |= set() if has_auth else {UNAUTHENTICATED}
    return {status: reasons[status] for status in sorted(set(reasons) - left_out)}


def responses(status_reasons: dict[int, list[str]]) -> Json:
    """Returns the responses of an operation that failed."""
    found: Json = {}
    for status, reasons in status_reasons.items():
        named = f" ({', '.join(f'`{reason}`' for reason in reasons)})" if reasons else ""
        found[str(status)] = {
            "$ref": f"#/components/responses/{status}",
            "description": f"{MEANING[status][2]}{named}.",
        }
    return found


def components(*, has_auth: bool) -> Json:
    """Returns the responses that operations share."""
    return {str(status): response(status) for status in MEANING if has_auth or status != UNAUTHENTICATED}


def response(status: int) -> Json:
    """Returns what every operation answers with a status of an error."""
    code, reason, meaning = MEANING[status]
    info = {"@type": f"{_TYPE}ErrorInfo", "reason": reason, "domain": DOMAIN, "metadata": {}}
    example = {"code": code, "message": meaning.replace("`", ""), "details": [info]}
    content = {"application/json": {"schema": {"$ref": f"{COMPONENTS}Status"}, "example": example}}
    found: Json = {"description": f"{meaning}.", "content": content}
    if names := HEADERS.get(status):
        found["headers"] = headers(names)
    return found


def schemas() -> dict[str, Json]:
    """Returns the schemas of google.rpc.Status and of the details that it carries here."""
    found = {detail.name: _detail(detail) for detail in DETAILS}
    found["FieldViolation"] = fields_of(RPC.BadRequest.FieldViolation.DESCRIPTOR, is_answer=False)
    found["LocalizedMessage"] = fields_of(RPC.LocalizedMessage.DESCRIPTOR, is_answer=False)
    status: Json = {
        "type": "object",
        "description": "google.rpc.Status: every error is one.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "gRPC's code: 5 is NOT_FOUND."},
            "message": {"type": "string", "description": "One sentence for people, not to be parsed."},
            "details": {"type": "array", "items": _any_detail(), "description": "What programs read."},
        },
        "required": ["code", "message", "details"],
    }
    found["Status"] = status
    for path, said in SAID.items():
        name, _, field = path.partition(".")
        (found[name]["properties"][field] if field else found[name])["description"] = said
    return found


def _detail(descriptor: Descriptor) -> Json:
    """Returns the schema of a detail: its fields, and the name of its type that every Any carries."""
    schema = fields_of(descriptor, is_answer=False)
    schema["properties"] = {"@type": {"type": "string", "const": _TYPE + descriptor.name}} | schema["properties"]
    return schema | {"required": ["@type", *ALWAYS.get(descriptor.name, ())]}


def _any_detail() -> Json:
    """Returns the schema of one detail: a known one, or one that a client skips."""
    known = [{"$ref": COMPONENTS + detail.name} for detail in DETAILS]
    names = [_TYPE + detail.name for detail in DETAILS]
    other: Json = {"type": "object", "properties": {"@type": {"type": "string", "not": {"enum": names}}}}
    return {"oneOf": [*known, other | {"required": ["@type"]}]}
