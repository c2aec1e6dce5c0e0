"""Failures of an OpenAI-compatible endpoint as errors of the mesh."""

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from meshwright.core.errors import MeshError, ModelRejectedError, ModelUnavailableError, RateLimitedError

LONGEST_DETAIL = 300
"""Characters of the provider's own words that are repeated."""

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
_NO_QUOTA = "insufficient_quota"


def failure_of(error: Exception, *, place: str, model: str, key: str) -> MeshError:
    """Turns an error of the SDK, or of reading what it received, into ours.

    Args:
        error: What was raised.
        place: The base URL, without credentials.
        model: The model that was asked for.
        key: Taken out of whatever the provider says.
    """
    import openai

    detail = _detail(error).replace(key, "***") if key else _detail(error)
    if isinstance(error, openai.APITimeoutError):
        return ModelUnavailableError(f"{place} does not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return ModelUnavailableError(f"{place} cannot be reached: check that it runs and that the base URL is right")
    if isinstance(error, openai.APIStatusError):
        return _refusal(error, place, model, detail)
    if isinstance(error, openai.APIError) and error.type == "invalid_request_error":
        return ModelRejectedError(f"{place} refused the request: {detail}")
    if isinstance(error, openai.APIError):
        return ModelUnavailableError(f"{place} failed in the middle of an answer: {detail}")
    return ModelUnavailableError(f"{place} sent something that is no chat completion")


def _refusal(error: Any, place: str, model: str, detail: str) -> MeshError:
    """Sorts a response with an error status."""
    status: int = error.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS and error.code != _NO_QUOTA:
        return RateLimitedError(f"{place} asks to slow down: {detail}", retry_after_s=_retry_after_s(error))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return ModelUnavailableError(f"{place} failed with status {status}", retry_after_s=_retry_after_s(error))
    advice: dict[int, str] = {
        HTTPStatus.UNAUTHORIZED: f"{place} does not accept the key: set OPENAI_API_KEY to a valid one",
        HTTPStatus.FORBIDDEN: f"{place} does not let this key use {model}: use another key or another model",
        HTTPStatus.NOT_FOUND: f"{place} has no model {model}, or the base URL is wrong (most end in /v1): {detail}",
        HTTPStatus.TOO_MANY_REQUESTS: f"{place} says that the quota is used up: raise it or use another key",
    }
    return ModelRejectedError(advice.get(status, f"{place} refused the request: {detail}"))


def _detail(error: Any) -> str:
    """Returns the provider's own words on one line."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else body
    return " ".join(str(said or "no reason was given").split())[:LONGEST_DETAIL]


def _retry_after_s(error: Any) -> float | None:
    """Reads after how many seconds the provider wants to be asked again; None when it does not say."""
    headers = error.response.headers
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None
