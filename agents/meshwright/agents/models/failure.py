"""What a provider's SDK raises, as errors of the mesh. Both official SDKs name their errors alike."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import ModuleType
from typing import Any

import httpx2
import structlog

from meshwright.core.errors import (
    ContextTooLongError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
)
from meshwright.core.recurring import Recurring

log = structlog.get_logger("models")
LONGEST_READ = 10_000
"""Characters of the provider's own words that are looked at. The log repeats none: they may quote the prompt."""
LONGEST_WISH_S = 86_400.0
"""A provider that asks for a longer pause is taken to ask for this one."""
LATER = "try again later, and tell the operator if it lasts"
REFUSED = "refuses the request, and will again: tell the operator, whose log says why"

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
_OVER_SIZE = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
_NO_QUOTA = {"insufficient_quota", "billing_error"}
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size|limit)|(prompt|input) is too long|too many input tokens", re.IGNORECASE
)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}|[45][0-9]{2}")
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
    """Who failed, and what is said about it: to callers the model's name, to operators the rest.

    Attributes:
        place: The base URL, without credentials.
        model: The model that was asked for.
        variable: The environment variable of its key.
        url_hint: What a base URL of this kind looks like.
        recurring: By reason, which failures that may pass are news.
    """

    place: str
    model: str
    variable: str
    url_hint: str
    recurring: defaultdict[str, Recurring] = field(default_factory=lambda: defaultdict(Recurring))

    @property
    def name(self) -> str:
        """What callers know it by."""
        return f"the model {self.model}"

    def failed(
        self, kind: type[MeshError], told: str, why: str, advice: str = "", retry_after_s: float | None = None
    ) -> MeshError:
        """Tells the log all of a failure, and returns what a caller may know of it.

        Args:
            kind: What is failed with.
            told: For the caller: what the model did, and what the caller can do.
            why: For the log: what the server did.
            advice: For the log: what an operator can do.
            retry_after_s: When the provider wants to be asked again.
        """
        facts = {"advice": advice} if advice else {}
        if not kind.is_retryable or self.recurring[kind.reason].is_news():
            log.warning("model_failed", model=self.model, server=self.place, reason=kind.reason, error=why, **facts)
        return kind(f"{self.name} {told}", retry_after_s=retry_after_s)

    def broke_off(self) -> MeshError:
        """Returns the failure of an answer without an end."""
        what = "broke off in the middle of an answer"
        return self.failed(ModelUnavailableError, f"{what}: {LATER}", f"it {what}")


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
    cause = error.__cause__
    if isinstance(cause, MeshError):
        return cause
    if isinstance(error, sdk.APITimeoutError | httpx2.TimeoutException):
        return origin.failed(ModelUnavailableError, f"does not answer in time: {LATER}", "it does not answer in time")
    if isinstance(cause or error, httpx2.ConnectError | httpx2.UnsupportedProtocol):
        advice = "check that it runs and that the base URL is right"
        return origin.failed(ModelUnavailableError, f"cannot be reached: {LATER}", "it cannot be reached", advice)
    if isinstance(error, sdk.APIConnectionError | httpx2.HTTPError | httpx2.StreamError):
        return origin.broke_off()
    if isinstance(error, sdk.APIError):
        return _Refusal.of(error, origin).error()
    why = "it sent something that is no answer of a model"
    return origin.failed(ModelUnavailableError, f"sent no answer: {LATER}", why, "check that the base URL is right")


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
        words = frozenset(str(facts[name])[:LONGEST_READ] for name in ("type", "code") if facts.get(name))
        status = getattr(error, "status_code", HTTPStatus.OK)
        is_in_stream = status < HTTPStatus.MULTIPLE_CHOICES
        detail = str(facts.get("message") or facts.get("detail") or "")[:LONGEST_READ]
        response = getattr(error, "response", None)
        wish_s = _retry_after_s(response.headers) if response else None
        return cls(origin, _status_of(words) if is_in_stream else status, is_in_stream, words, detail, wish_s)

    def error(self) -> MeshError:
        """Sorts it: what passes, what asks for patience, and what never succeeds as it is."""
        failed, status, wish_s = self.origin.failed, self.status, self.retry_after_s
        if self._is_over_size:
            told = "cannot read so much at once: shorten the prompt, or ask for a model that reads more"
            return failed(ContextTooLongError, told, f"the prompt is too long, {self._said}")
        if status == HTTPStatus.TOO_MANY_REQUESTS and not self.words & _NO_QUOTA:
            why = f"it asks to slow down, {self._said}"
            return failed(RateLimitedError, "asks to slow down: try again later", why, retry_after_s=wish_s)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
            why = f"it failed{' in the middle of an answer' if self.is_in_stream else ''}, {self._said}"
            return failed(ModelUnavailableError, f"failed: {LATER}", why, retry_after_s=wish_s)
        return failed(ModelRejectedError, REFUSED, *self._why_and_advice())

    @property
    def _said(self) -> str:
        """The status, and the provider's codes for it."""
        return " ".join([f"status {self.status}", *sorted(word for word in self.words if _CODE.fullmatch(word))])

    @property
    def _is_over_size(self) -> bool:
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or "context_length_exceeded" in self.words:
            return True
        return self.status in _OVER_SIZE and bool(_TOO_LONG.search(self.detail))

    def _why_and_advice(self) -> tuple[str, str]:
        """Returns why a request was refused for good, and what an operator does about it."""
        model, variable, status = self.origin.model, self.origin.variable, self._said
        if self.status < HTTPStatus.BAD_REQUEST:
            return "it points to another address", "use that one as the base URL"
        no_quota = (f"the quota is used up, {status}", "raise it or use another key")
        known: dict[int, tuple[str, str]] = {
            HTTPStatus.UNAUTHORIZED: (f"it does not accept the key, {status}", f"set {variable} to a valid one"),
            HTTPStatus.PAYMENT_REQUIRED: no_quota,
            HTTPStatus.FORBIDDEN: (
                f"it does not let this key use {model}, {status}",
                "use another key or another model",
            ),
            HTTPStatus.NOT_FOUND: (
                f"it has no model {model}, or the base URL is wrong, {status}",
                f"look at both: of base URLs {self.origin.url_hint}",
            ),
            HTTPStatus.TOO_MANY_REQUESTS: no_quota,
        }
        return known.get(self.status, (f"it refused the request, {status}", ""))


def _status_of(words: frozenset[str]) -> int:
    known = [_STATUS[word] for word in words if word in _STATUS]
    told = [int(word) for word in words if re.fullmatch(r"[45]\d\d", word)]
    return min([*known, *told], default=HTTPStatus.INTERNAL_SERVER_ERROR)


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
