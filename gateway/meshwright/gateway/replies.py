"""What Envoy answers itself, in the form of all other errors. Pure.

HTTP clients read google.rpc.Status as JSON, with the request's id; gRPC clients read the same status from
`grpc-status-details-bin`, and the request's id from `x-request-id`. Nothing that Envoy knows of the inside is told.
"""

import base64
from dataclasses import dataclass, replace
from typing import Literal

from meshwright.core.bound import LIMIT, Bound
from meshwright.core.errors import DOMAIN, REASON_KEY
from meshwright.core.facts import Facts
from meshwright.gateway.config import LIMIT_HEADER, TYPE, Config

RULES_REASON = "%REQ(X-EDGE-REASON)%"
RULES_HEADERS = ("x-edge-reason", "x-agent-cluster")
"""What the edge's rules put into a request that they refuse, and into one that they let pass."""
TRANSCODED: Config = {"name": "x-envoy-original-path", "present_match": True}
"""Matches a request that has come as JSON."""
BUCKETS = {
    Bound.ADDRESS: "too many requests of your address: slow down",
    Bound.PRINCIPAL: "too many requests of yours: slow down",
    Bound.TENANT: "too many requests of your tenant: slow down",
    Bound.SHARED: "too many requests over all edges: slow down",
}
"""What each bucket is that may be empty."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One of Envoy's own answers.

    Attributes:
        grpc_code: As in google.rpc.Code.
        reason: Stable, for machines.
        message: One sentence.
        retry_s: Seconds after which trying again makes sense; 0: it makes none.
        given: What HTTP clients read in place of the reason where somebody in the edge had something to say, and its
            words in place of the message; empty: always the same.
        limit: What is used up; empty: that is not what is wrong.
    """

    grpc_code: int
    reason: str
    message: str
    retry_s: int = 0
    given: str = ""
    limit: Bound | Literal[""] = ""


LOCAL_REPLIES = {
    400: Reply(
        3, "INVALID_REQUEST", "the edge cannot read this request: its path, or a header", given="INVALID_REQUEST"
    ),
    401: Reply(16, "UNAUTHENTICATED", "send an API key or a token"),
    403: Reply(7, "PERMISSION_DENIED", "the edge refuses this request", given=RULES_REASON),
    404: Reply(5, "NOT_FOUND", "nothing is served here: see GET /v1/agents and the contract for what is"),
    408: Reply(4, "REQUEST_TIMEOUT", "the request did not arrive in time"),
    413: Reply(8, "REQUEST_TOO_LARGE", "the request is too large: at most 4 MiB"),
    415: Reply(3, "CONTENT_TYPE_REFUSED", "send content-type: application/json", given=RULES_REASON),
    426: Reply(3, "INVALID_REQUEST", "send HTTP/1.1 or HTTP/2"),
    429: Reply(8, "RATE_LIMITED", "too many requests: slow down", retry_s=1),
    431: Reply(8, "REQUEST_TOO_LARGE", "the request's headers are too large"),
    500: Reply(13, "INTERNAL", "the edge failed"),
    502: Reply(14, "UNAVAILABLE", "the agent's answer could not be read: try again", retry_s=1),
    503: Reply(14, "UNAVAILABLE", "a part of the mesh does not answer at the moment: try again", retry_s=1),
    504: Reply(4, "DEADLINE_EXCEEDED", "no answer within the time of the call"),
}
"""By HTTP status."""
NO_AGENT = Reply(5, "AGENT_NOT_FOUND", "no such agent is here: GET /v1/agents lists who is")
NO_METHOD = Reply(12, "NOT_FOUND", "no such method is served here: see the contract for what is")
STOPPING = Reply(14, "UNAVAILABLE", "this edge is about to stop: use another one", retry_s=1)
OVERLOADED = Reply(8, "OVERLOADED", "more calls are open than the edge passes on: try again", retry_s=1)

PARTS = {
    "registry": "the registry does not answer",
    "gateway": "the process beside the edge does not answer",
    "agents": "no agent answers",
}
"""What is wrong, by cluster, where that is no agent in particular."""

SERVERS_OWN = {4: "DEADLINE_EXCEEDED", 8: "REQUEST_TOO_LARGE", 12: "NOT_FOUND", 13: "INTERNAL", 14: "UNAVAILABLE"}
"""What a gRPC server ends without asking us, by code: it gives no reason."""


def mappers(default_agent: str) -> list[Config]:
    """Returns how each of Envoy's answers is written; the first one that fits is taken.

    Args:
        default_agent: Serves calls that name no agent.
    """
    unserved = {"header_filter": {"header": {"name": "x-agent-cluster", "string_match": {"exact": "none"}}}}
    no_method = [has_status(404), unserved]
    return [
        for_http(no_method, LOCAL_REPLIES[404]),
        for_grpc(no_method, NO_METHOD),
        *both([{"response_flag_filter": {"flags": ["NC"]}}], NO_AGENT),
        *both([{"response_flag_filter": {"flags": ["LH"]}}], STOPPING),
        *overflown({"response_flag_filter": {"flags": ["UO"]}}, Bound.ROUTE),
        *overflown(holds("response.code_details == 'overload'"), Bound.EDGE),
        *(one for limit, message in BUCKETS.items() for one in of_bucket(limit, message)),
        *silent(default_agent),
        *(one for status, reply in LOCAL_REPLIES.items() for one in of_status(status, reply)),
    ]


def silent(default_agent: str) -> list[Config]:
    """Returns how it is written that a part of the mesh does not answer: which one, as its caller knows it."""
    default = (f"agent-{default_agent}", f"the agent {default_agent} does not answer")
    named = ({"prefix": "agent-"}, "the agent that this call names does not answer")
    parts = [*(({"exact": cluster}, words) for cluster, words in (*PARTS.items(), default)), named]
    return [
        one
        for match, words in parts
        for one in both(
            [has_status(503), {"header_filter": {"header": {"name": "x-agent-cluster", "string_match": match}}}],
            replace(LOCAL_REPLIES[503], message=f"{words} at the moment: try again"),
        )
    ]


def of_status(status: int, reply: Reply) -> list[Config]:
    """Returns how the answers with an HTTP status are written."""
    found = [has_status(status)]
    if not reply.given:
        return both(found, reply)
    given = replace(reply, reason=reply.given, message="%LOCAL_REPLY_BODY%")
    return [for_http([*found, is_spoken(reply)], given), *both(found, reply)]


def overflown(found: Config, limit: Bound) -> list[Config]:
    """Returns how it is written that more calls are open than a cluster may have, or than Envoy's memory holds."""
    reply = replace(OVERLOADED, limit=limit)
    return [for_http([found], reply) | {"status_code": 429}, for_grpc([found], reply)]


def of_bucket(limit: Bound, message: str) -> list[Config]:
    """Returns how it is written that a bucket is empty: its filter has named it in a header of the answer."""
    named = holds(f"response.headers['{LIMIT_HEADER}'] == '{limit}'")
    return both([has_status(429), named], replace(LOCAL_REPLIES[429], message=message, limit=limit))


def both(found: list[Config], reply: Reply) -> list[Config]:
    """Answers clients of both kinds alike."""
    return [for_http(found, reply), for_grpc(found, reply)]


def has_status(status: int) -> Config:
    """Matches an HTTP status."""
    value = {"default_value": status, "runtime_key": f"meshwright.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def holds(expression: str) -> Config:
    """Matches by an expression in CEL."""
    kind = TYPE + "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    config = {"@type": kind, "expression": expression}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}}


def is_spoken(reply: Reply) -> Config:
    """Matches where the edge's rules gave their reason, or the transcoder, behind them, says what it cannot read."""
    ruled, behind = ({"header_filter": {"header": {"name": n, "present_match": True}}} for n in RULES_HEADERS)
    return ruled if reply.given == RULES_REASON else {"or_filter": {"filters": [ruled, behind]}}


def is_http_error() -> list[Config]:
    """Matches errors for HTTP clients; a request that is transcoded has gRPC's content type, but an original path."""
    no_grpc = is_grpc() | {"invert_match": True, "treat_missing_header_as_empty": True}
    return [{"or_filter": {"filters": [{"header_filter": {"header": one}} for one in (TRANSCODED, no_grpc)]}}]


def is_grpc() -> Config:
    """Matches the content type of gRPC and of gRPC-Web."""
    return {"name": "content-type", "string_match": {"prefix": "application/grpc"}}


def for_http(found: list[Config], reply: Reply) -> Config:
    """Answers an HTTP client."""
    return {
        "filter": {"and_filter": {"filters": [*found, *is_http_error()]}},
        "headers_to_add": [header(REASON_KEY, reply.reason), *retry_after(reply)],
        "body_format_override": status_body(reply),
    }


def for_grpc(found: list[Config], reply: Reply) -> Config:
    """Answers a gRPC client by headers alone: a body would make of gRPC-Web's status that of HTTP."""
    details = Facts(reply.message, reply.reason, facts(reply), {}, reply.retry_s or None).to_status(
        reply.grpc_code, DOMAIN
    )
    encoded = base64.b64encode(details.SerializeToString()).decode().rstrip("=")
    headers = {
        "grpc-status": str(reply.grpc_code),
        "grpc-message": reply.message,
        "grpc-status-details-bin": encoded,
        REASON_KEY: reply.reason,
    }
    return {
        "filter": {"and_filter": {"filters": [*found, {"header_filter": {"header": is_grpc()}}]}},
        "status_code": 200,
        "headers_to_add": [*map(header, headers, headers.values()), *retry_after(reply)],
        "body_format_override": {"text_format_source": {"inline_string": ""}, "content_type": "application/grpc"},
    }


def facts(reply: Reply) -> dict[str, str]:
    """Returns what machines read of an answer beside its reason."""
    return {LIMIT: reply.limit} if reply.limit else {}


def retry_after(reply: Reply) -> list[Config]:
    """The header that says when to try again, where that makes sense."""
    return [header("retry-after", str(reply.retry_s))] if reply.retry_s else []


def header(name: str, value: str) -> Config:
    """Sets a header of the answer."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def status_body(reply: Reply) -> Config:
    """Writes google.rpc.Status as JSON; a request that could not be read has no id."""
    info = {
        "@type": TYPE + "google.rpc.ErrorInfo",
        "reason": reply.reason,
        "domain": DOMAIN,
        "metadata": facts(reply) | {"request_id": "%REQ(X-REQUEST-ID)%"},
    }
    retry = {"@type": TYPE + "google.rpc.RetryInfo", "retry_delay": f"{reply.retry_s}s"}
    body = {"code": reply.grpc_code, "message": reply.message, "details": [info, retry] if reply.retry_s else [info]}
    return {"json_format": body, "omit_empty_values": True}
