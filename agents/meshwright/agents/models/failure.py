"""What a provider's SDK raises, as errors of the mesh. Both official SDKs name their errors alike."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import ModuleType
from typing import Any

import httpx2

from meshwright.core.errors import (
    ContextTooLongError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
)
from meshwright.registry.backends.secret import Redaction

LONGEST_DETAIL = 300
"""Characters of the provider's own words that are repeated."""
LONGEST_READ = 10_000
"""Characters of them that are looked at."""
LONGEST_WISH_S = 86_400.0
"""A provider that asks for a longer pause is taken to ask for this one."""

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
_OVER_SIZE = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
_NO_QUOTA = {"insufficient_quota", "billing_error"}
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size|limit)|(prompt|input) is too long|too many input tokens", re.IGNORECASE
)
_STATUS = {
    "invalid_request_error": HTTPStatus.BAD_REQUEST,
    "context_length_exceeded": HTTPStatus.BAD_REQUEST,
    "invalid_api_key": HTTPStatus.UNAUTHORIZED,
    "authentication_error": HTTPStatus.UNAUTHORIZED,
    "billing_error": HTTPStatus.PAYMENT_REQUIRED,
    "insufficient_quota": HTTPStatus.PAYMENT_REQUIRED,
    "permission_error": HTTPStatus.FORBIDDEN,
    "not_found_error": HTTPStatus.NOT_FOUND,
    "request_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "rate_limit_error": HTTPStatus.TOO_MANY_REQUESTS,
    "rate_limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
}
"""By the provider's own word, the status that an error in the middle of a stream would have had before it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who failed, and what may be said about it.

    Attributes:
        place: The base URL, without credentials.
        model: The model that was asked for.
        variable: The environment variable of its key.
        url_hint: What a base URL of this kind looks like.
        redaction: Keeps the key out of whatever the provider says.
    """

    place: str
    model: str
    variable: str
    url_hint: str
    redaction: Redaction


FAILURES: tuple[type[Exception], ...] = (
    httpx2.HTTPError,
    httpx2.StreamError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    AttributeError,
    RecursionError,
)
"""What reading what a provider sent may raise beside the SDK's own `APIError`."""


def failure_of(error: Exception, sdk: ModuleType, origin: Origin) -> MeshError:
    """Turns an error of the SDK, or of reading what it received, into ours."""
    place = origin.place
    cause = error.__cause__
    if isinstance(cause, MeshError):
        return cause
    if isinstance(error, sdk.APITimeoutError | httpx2.TimeoutException):
        return ModelUnavailableError(f"{place} does not answer in time")
    if isinstance(cause or error, httpx2.ConnectError | httpx2.UnsupportedProtocol):
        return ModelUnavailableError(f"{place} cannot be reached: check that it runs and that the base URL is right")
    if isinstance(error, sdk.APIConnectionError | httpx2.HTTPError | httpx2.StreamError):
        return ModelUnavailableError(f"{place} broke off in the middle of an answer")
    if isinstance(error, sdk.APIError):
        return _Refusal.of(error, origin).error()
    return ModelUnavailableError(f"{place} sent something that is no answer of a model")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a provider said in place of an answer, whichever format it speaks."""

    origin: Origin
    status: int
    is_in_stream: bool
    words: frozenset[str]
    detail: str
    retry_after_s: float | None

    @classmethod
    def of(cls, error: Any, origin: Origin) -> "_Refusal":
        """Reads it; in the middle of a stream the provider's own words stand for the status."""
        body = error.body.get("error", error.body) if isinstance(error.body, dict) else error.body
        facts = body if isinstance(body, dict) else {"message": body}
        words = frozenset(str(facts[name]) for name in ("type", "code") if facts.get(name))
        status = getattr(error, "status_code", HTTPStatus.OK)
        is_in_stream = status < HTTPStatus.MULTIPLE_CHOICES
        detail = origin.redaction.text(_line(facts.get("message") or facts.get("detail")))[:LONGEST_DETAIL]
        response = getattr(error, "response", None)
        wish_s = _retry_after_s(response.headers) if response else None
        return cls(origin, _status_of(words) if is_in_stream else status, is_in_stream, words, detail, wish_s)

    def error(self) -> MeshError:
        """Sorts it: what passes, what asks for patience, and what never succeeds as it is."""
        place, status = self.origin.place, self.status
        if self._is_over_size:
            advice = f"shorten the prompt, or use a model that reads more than {self.origin.model}"
            return ContextTooLongError(f"{place} cannot read so much at once, {advice}: {self.detail}")
        if status == HTTPStatus.TOO_MANY_REQUESTS and not self.words & _NO_QUOTA:
            return RateLimitedError(f"{place} asks to slow down: {self.detail}", retry_after_s=self.retry_after_s)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
            how = "in the middle of an answer" if self.is_in_stream else f"with status {status}"
            return ModelUnavailableError(f"{place} failed {how}: {self.detail}", retry_after_s=self.retry_after_s)
        return ModelRejectedError(self._advice())

    @property
    def _is_over_size(self) -> bool:
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or "context_length_exceeded" in self.words:
            return True
        return self.status in _OVER_SIZE and bool(_TOO_LONG.search(self.detail))

    def _advice(self) -> str:
        """Says what to do about a refusal for good."""
        place, model, variable = self.origin.place, self.origin.model, self.origin.variable
        if self.status < HTTPStatus.BAD_REQUEST:
            return f"{place} points to another address: use that one as the base URL"
        no_quota = f"{place} says that the quota is used up: raise it or use another key"
        advice: dict[int, str] = {
            HTTPStatus.UNAUTHORIZED: f"{place} does not accept the key: set {variable} to a valid one",
            HTTPStatus.PAYMENT_REQUIRED: no_quota,
            HTTPStatus.FORBIDDEN: f"{place} does not let this key use {model}: use another key or another model",
            HTTPStatus.NOT_FOUND: f"{place} has no model {model}, or the base URL is wrong ({self.origin.url_hint}): "
            f"{self.detail}",
            HTTPStatus.TOO_MANY_REQUESTS: no_quota,
        }
        return advice.get(self.status, f"{place} refused the request: {self.detail}")


def _status_of(words: frozenset[str]) -> int:
    known = [_STATUS[word] for word in words if word in _STATUS]
    told = [int(word) for word in words if re.fullmatch(r"[45]\d\d", word)]
    return min([*known, *told], default=HTTPStatus.INTERNAL_SERVER_ERROR)


def _line(said: Any) -> str:
    """Returns the provider's own words on one line; never a part of a word, which a mask would not know."""
    text = str(said or "no reason was given")
    words = text[:LONGEST_READ].split()
    return " ".join(words if len(text) <= LONGEST_READ else words[:-1])


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Reads after how many seconds the provider wants to be asked again; None when it does not say."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return _bounded(float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        return _bounded(parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, OverflowError):
        return None


def _bounded(wish_s: float) -> float:
    return min(max(0.0, wish_s), LONGEST_WISH_S)
