"""What Envoy answers itself, in the form of all other errors. Pure."""

from meshwright.gateway.config import TYPE, Config

LOCAL_REPLIES = {
    400: (3, "INVALID_REQUEST", "%LOCAL_REPLY_BODY%"),
    401: (16, "UNAUTHENTICATED", "%LOCAL_REPLY_BODY%"),
    403: (7, "%REQ(X-EDGE-REASON)%", "%LOCAL_REPLY_BODY%"),
    404: (5, "NOT_FOUND", "nothing is served here: see GET /v1/agents and the contract for what is"),
    408: (4, "REQUEST_TIMEOUT", "the request did not arrive in time"),
    413: (8, "REQUEST_TOO_LARGE", "the request is too large: at most 4 MiB"),
    415: (3, "%REQ(X-EDGE-REASON)%", "%LOCAL_REPLY_BODY%"),
    429: (8, "RATE_LIMITED", "too many requests: slow down"),
    431: (8, "REQUEST_TOO_LARGE", "the request's headers are too large"),
    500: (13, "INTERNAL", "the edge failed"),
    502: (14, "UNAVAILABLE", "the agent's answer could not be read: try again"),
    503: (14, "UNAVAILABLE", "the agent does not answer at the moment: try again"),
    504: (4, "DEADLINE_EXCEEDED", "no answer within the time of the call"),
}
"""By HTTP status: gRPC code, reason and message of what Envoy answers itself."""


def is_http_error() -> list[Config]:
    """Matches errors for HTTP clients: gRPC clients read the status from trailers."""
    is_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    no_grpc = is_grpc | {"invert_match": True, "treat_missing_header_as_empty": True}
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    either = {"or_filter": {"filters": [{"header_filter": {"header": header}} for header in (transcoded, no_grpc)]}}
    return [either]


def status_body(grpc_code: int, reason: str, message: str) -> Config:
    """Writes google.rpc.Status as JSON."""
    info = {
        "@type": TYPE + "google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "meshwright",
        "metadata": {"request_id": "%REQ(X-REQUEST-ID)%"},
    }
    body = {"code": grpc_code, "message": message, "details": [info]}
    return {"json_format": body, "omit_empty_values": True}  # a request that cannot be read has no id


def reply_mapper(status: int) -> Config:
    """Gives one of Envoy's own answers the form of all others."""
    value = {"default_value": status, "runtime_key": f"meshwright.status_{status}"}
    is_status = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
    return {
        "filter": {"and_filter": {"filters": [is_status, *is_http_error()]}},
        "body_format_override": status_body(*LOCAL_REPLIES[status]),
    }


def no_agent_mapper() -> Config:
    """A path that names an agent which is not here."""
    no_cluster = {"response_flag_filter": {"flags": ["NC"]}}
    message = "no such agent is here: GET /v1/agents lists who is"
    return {
        "filter": {"and_filter": {"filters": [no_cluster, *is_http_error()]}},
        "body_format_override": status_body(5, "AGENT_NOT_FOUND", message),
    }


def overflow_mapper() -> Config:
    """More open calls than a cluster may have."""
    overflow = {"response_flag_filter": {"flags": ["UO"]}}
    return {
        "filter": {"and_filter": {"filters": [overflow, *is_http_error()]}},
        "status_code": 429,
        "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "body_format_override": status_body(8, "OVERLOADED", "more calls are open than the edge passes on: try again"),
    }
