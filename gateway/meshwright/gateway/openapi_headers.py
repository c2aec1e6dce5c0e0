"""Headers of the edge's answers in its OpenAPI document. Pure."""

from collections.abc import Iterable

from meshwright.gateway.config import LIMIT_HEADER
from meshwright.gateway.openapi_schema import Json
from meshwright.gateway.replies import BUCKETS

RATE = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
"""Of answers to calls that are counted."""
RETRY_AFTER, CHALLENGE, TASK_ID = "retry-after", "www-authenticate", "x-task-id"
COUNT: Json = {"type": "integer", "minimum": 0}
TEXT: Json = {"type": "string"}
ALL: dict[str, tuple[str, Json]] = {
    TASK_ID: ("Id of the accepted task, sent before anything else.", TEXT),
    RETRY_AFTER: ("Seconds after which to try again; missing where that makes no sense.", COUNT),
    CHALLENGE: ("How to say who is calling.", TEXT),
    RATE[0]: (
        "Calls that may come at once by the nearest limit; missing where calls are not counted.",
        TEXT,
    ),
    RATE[1]: ("Calls of them that are left.", COUNT),
    LIMIT_HEADER: (
        "Whose calls are too many, where it is a rate that is refused.",
        {"type": "string", "enum": [*BUCKETS]},
    ),
    RATE[2]: ("Seconds after which there are more.", COUNT),
}
"""By name: what it says, and the schema of its value."""


def components(*, has_auth: bool) -> Json:
    """Returns the headers that answers share."""
    return {
        name: {"description": said, "schema": schema}
        for name, (said, schema) in ALL.items()
        if has_auth or name != CHALLENGE
    }


def headers(names: Iterable[str]) -> Json:
    """Returns the headers of an answer, by name."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
