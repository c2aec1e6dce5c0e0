"""What Prometheus says to an expression: a small client of its HTTP API, every wait of which is bounded."""

import json
import math
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from meshwright.core.errors import InvalidRequestError, SetupError, UnavailableError
from meshwright.core.public_url import public_url

TRIES = 3
TIMEOUT_S = 10.0
PAUSE_S = 1.0
MAX_ANSWER = 2**20
OK = 200
CHUNK = 2**16
NOT_ASKED = "Prometheus at {url} cannot be asked: {what}; look at PROMETHEUS_URL"


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Hands any status over, and follows nobody to another address: a token is for this one."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        """Returns the answer as it is."""
        return response

    https_response = http_response


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One Prometheus.

    Attributes:
        url: Where it is: http or https, with a path where it has one.
        token: Shown as a bearer token; empty: none.
        timeout_s: For one try.
        pause_s: Before the second try; twice that before the third.
    """

    url: str
    token: str = ""
    timeout_s: float = TIMEOUT_S
    pause_s: float = PAUSE_S

    def __post_init__(self) -> None:
        """Checks the address.

        Raises:
            SetupError: It is none.
        """
        try:
            parts = urllib.parse.urlsplit(self.url)
            is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one or set(self.url) & set("@?#"):
            where = "PROMETHEUS_URL says where Prometheus is: http://prometheus.example.org:9090"
            raise SetupError(f"{where}, without user and query; a token goes into PROMETHEUS_TOKEN")

    def ask(self, expression: str) -> list[float]:
        """Evaluates an expression now.

        Args:
            expression: PromQL that returns an instant vector.

        Returns:
            Values of all series, in no order; none: nothing is so.

        Raises:
            UnavailableError: It did not answer, three times, or what it says cannot be read.
            InvalidRequestError: It does not take the expression.
        """
        for attempt in range(TRIES):
            try:
                return values(self._answer(expression))
            except UnavailableError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(self.pause_s * 2**attempt)
        raise AssertionError("unreachable")

    def _answer(self, expression: str) -> bytes:
        query = urllib.parse.urlencode({"query": expression, "timeout": f"{self.timeout_s:g}s"})
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/api/v1/query", query.encode(), headers)
        until = time.monotonic() + self.timeout_s
        try:
            with urllib.request.build_opener(_AsItIs).open(request, timeout=self.timeout_s) as response:
                status, body = response.status, whole(response, until)
        except (OSError, HTTPException, ValueError) as error:
            raise UnavailableError(
                NOT_ASKED.format(url=public_url(self.url), what=str(error) or type(error).__name__)
            ) from None
        if status != OK:
            raise refusal(status, body, public_url(self.url))
        return body


def whole(response: HTTPResponse, until: float) -> bytes:
    """Reads an answer.

    Raises:
        OSError: It is not over in time, or larger than any answer should be.
    """
    read = b""
    while chunk := response.read1(CHUNK):
        read += chunk
        if len(read) > MAX_ANSWER:
            raise OSError(f"it answers with more than {MAX_ANSWER} bytes")
        if time.monotonic() > until:
            raise OSError("it takes too long to answer")
    return read


def refusal(status: int, body: bytes, url: str) -> InvalidRequestError | UnavailableError:
    """Returns what is wrong where the answer has another status than 200: a wrong expression stays wrong."""
    try:
        said = str(json.loads(body)["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    if status in (400, 422) and said:
        return InvalidRequestError(f"Prometheus does not take the expression: {said}", fields={"query": said})
    return UnavailableError(NOT_ASKED.format(url=url, what=f"it answers {status} {said}".strip()))


def values(body: bytes) -> list[float]:
    """Reads the values of an answer.

    Raises:
        UnavailableError: It is no vector of Prometheus', or a value is no number.
    """
    try:
        found = [float(series["value"][1]) for series in json.loads(body)["data"]["result"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        what = "what PROMETHEUS_URL answers is no vector of Prometheus': is it another server?"
        raise UnavailableError(what) from None
    if any(math.isnan(value) for value in found):
        raise UnavailableError("Prometheus answers NaN: nothing can be told from that; look at the expression there")
    return found
