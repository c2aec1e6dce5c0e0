"""Tools that are HTTP services: arguments become a request, the answer becomes the result."""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.core.errors import BackendUnavailableError, MeshError, SetupError, ToolFailedError
from meshwright.core.ids import Form
from meshwright.registry.backends.declaration import (
    Credentials,
    DeclaredTool,
    JsonSchema,
    Options,
    Surroundings,
    ToolOptions,
    contract_parts,
    credentials,
    idempotency_key,
    located,
)
from meshwright.registry.backends.secret import HeaderValue
from meshwright.registry.backends.url_template import UrlTemplate, parsed_template
from meshwright.registry.egress import Egress, Limits, Request, Response

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
HEADER_NAME = Form(re.compile(r"[A-Za-z0-9!#$%&'*+.^_|~-]{1,64}"), "1 to 64 characters that HTTP allows in names")
HeaderName = Annotated[str, AfterValidator(HEADER_NAME.validated)]
POINTER = Form(re.compile(r"(/[^/]*)*"), "a JSON Pointer: /data/items")
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "idempotency-key"})
"""Headers that are set by the call itself."""
MAY_PASS = frozenset({408, 409, 425, 429})
"""Refusals after which the same call may succeed."""
SERVER_ERROR = 500
EXCERPT_CHARS = 500
LONGEST_WAIT_S = 3_600.0
MOST_BODY_BYTES = 16 * 2**20


class HttpOptions(Options):
    """What a declaration says of an HTTP service."""

    method: Method = "GET"
    url: str = Field(max_length=4_096, description="With {argument} in path and query")
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=32)
    body: Literal["rest", "none"] | None = Field(
        default=None, description="JSON of the arguments that are not in the URL (default of POST, PUT, PATCH), or none"
    )
    body_argument: str = Field(default="", description="The argument that is the body, in place of the rest")
    result: Literal["json", "text"] = Field(default="json", description="How the answer is read")
    result_pointer: Annotated[str, AfterValidator(POINTER.validated)] = Field(
        default="", description="JSON Pointer to the result"
    )
    allow: list[str] = Field(default_factory=list, max_length=16, description="host:port next door that may be called")
    ca_file: str = Field(default="", description="PEM file of the authorities to trust in place of the system's")
    redirects: int = Field(default=0, ge=0, le=5, description="How many are followed")
    max_bytes: int = Field(default=4 * 2**20, ge=1, le=MOST_BODY_BYTES, description="Bytes of an answer")

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.body and self.body_argument:
            raise ValueError("either body or body_argument")
        return self


@dataclass(frozen=True, kw_only=True)
class HttpTool(DeclaredTool):
    """A tool that is an HTTP service."""

    options: HttpOptions = field(repr=False)
    template: UrlTemplate = field(repr=False)
    headers: Credentials = field(repr=False)
    egress: Egress = field(repr=False)

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Sends the call and reads the answer.

        Raises:
            InvalidRequestError: An argument does not fit into the URL.
            ToolFailedError: The service refused the call, or answered with what cannot be read.
            BackendUnavailableError: It does not answer, or asks to come back later.
            MeshError: As `Egress.fetch`.
        """
        try:
            response = await self.egress.fetch(self._request(arguments), self.time_for_call_s())
        except MeshError as error:
            raise self.headers.redaction.error(error) from None
        if response.status // 100 != 2:  # noqa: PLR2004 - success
            self._refuse(response)
        return self._result(response)

    def _request(self, arguments: dict[str, Any]) -> Request:
        headers = dict(self.headers.plain)
        if self.effect != "pure":
            headers["Idempotency-Key"] = idempotency_key()
        body = self._body(arguments)
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        url = self.template.filled(arguments)
        return Request(self.options.method, url, headers, self.headers.secret, body)

    def _body(self, arguments: dict[str, Any]) -> bytes | None:
        content: Any
        if name := self.options.body_argument:
            if name not in arguments:
                return None
            content = arguments[name]
        elif takes_rest(self.options):
            used = self.template.in_path | self.template.in_query
            content = {name: value for name, value in arguments.items() if name not in used}
        else:
            return None
        return json.dumps(content, allow_nan=False).encode()

    def _refuse(self, response: Response) -> NoReturn:
        """Raises what a status means, with an excerpt that a model can act on."""
        place, status = self.template.origin.place, response.status
        excerpt = self.headers.redaction.text(text_of(response))
        said = f"{self.name}: {place} answered {status}"
        if excerpt.strip() and not self.redact:  # a value that nobody is to see may stand in it
            said = f"{said}: {' '.join(excerpt.split())[:EXCERPT_CHARS]}"
        facts = {"http_status": str(status)}
        if status >= SERVER_ERROR or status in MAY_PASS:
            if status >= SERVER_ERROR and self.effect == "non_idempotent":
                said = f"{said} (it may have had its effect)"
            raise BackendUnavailableError(said, metadata=facts, retry_after_s=wait_s(response))
        raise ToolFailedError(said, metadata=facts)

    def _result(self, response: Response) -> Any:
        pointer = self.options.result_pointer
        if self.options.result == "text":
            return self.headers.redaction.text(text_of(response))
        if not response.body:
            return None
        try:
            value = json.loads(response.body, parse_constant=no_constant)
            return self.headers.redaction.json(at(value, pointer))
        except (ValueError, RecursionError):
            raise ToolFailedError(
                f"{self.name}: the answer is no JSON: declare `result: text` where none is meant"
            ) from None
        except LookupError:
            raise ToolFailedError(f"{self.name}: the answer has nothing at {pointer}") from None


def http_tool(tool: ToolOptions, options: HttpOptions, surroundings: Surroundings) -> HttpTool:
    """Makes a tool of a declaration.

    Raises:
        SetupError: Something in it is wrong; says which field and why.
    """
    template = located("backend.http.url", parsed_template, options.url)
    schema = tool.input_schema
    if schema is None:
        raise SetupError("input_schema: is required: it says what the URL and the body are made of")
    check_arguments(options, template, schema)
    check_headers(options)
    url = template.origin
    egress = located("backend.http", egress_of, options, surroundings)
    headers = located("backend.http.headers", credentials, options.headers, surroundings, url.host, url.port)
    if headers.secret and url.scheme != "https" and not egress.allows(url.host, url.port):
        raise SetupError("backend.http.headers: a secret is sent by https only, or to a place under `allow`")
    parts = contract_parts(tool, "non_idempotent", schema, {})
    return HttpTool(**parts, options=options, template=template, headers=headers, egress=egress)


def egress_of(options: HttpOptions, surroundings: Surroundings) -> Egress:
    """Makes the way out that a declaration describes."""
    limits = Limits(body_bytes=options.max_bytes, redirects=options.redirects)
    ca_file = surroundings.folder / options.ca_file if options.ca_file else None
    return Egress(options.allow, limits=limits, ca_file=ca_file)


def check_arguments(options: HttpOptions, template: UrlTemplate, schema: JsonSchema) -> None:
    """Holds a template against the arguments' schema.

    Raises:
        SetupError: An argument is not declared, may be absent where the path needs it, or goes nowhere.
    """
    declared = set(schema.get("properties", {}))
    needed = template.in_path | template.in_query
    if options.body_argument:
        needed = needed | {options.body_argument}
    if unknown := sorted(needed - declared):
        raise SetupError(f"backend.http: the argument {unknown[0]} is not in input_schema")
    if optional := sorted(template.in_path - set(schema.get("required", ()))):
        raise SetupError(f"backend.http.url: the argument {optional[0]} must be required: the path needs it")
    if not takes_rest(options) and (unused := sorted(declared - needed)):
        raise SetupError(f"input_schema: the argument {unused[0]} goes nowhere: use it in url or body")


def check_headers(options: HttpOptions) -> None:
    """Refuses headers that the call itself sets, and those that are declared twice.

    Raises:
        SetupError: Names the header.
    """
    names = [name.lower() for name in options.headers]
    for name in names:
        if name in OURS:
            raise SetupError(f"backend.http.headers.{name}: is set by the call itself")
        if names.count(name) > 1:
            raise SetupError(f"backend.http.headers.{name}: stands twice")


def takes_rest(options: HttpOptions) -> bool:
    """Whether the body is made of the arguments that are not in the URL: said, or as the method suggests."""
    is_said = options.body == "rest" or (options.body is None and options.method in WITH_BODY)
    return is_said and not options.body_argument


def text_of(response: Response) -> str:
    """Reads a body as text: UTF-8, whatever it says."""
    return response.body.decode("utf-8", "replace")


def at(value: Any, pointer: str) -> Any:
    """Returns what a JSON Pointer means.

    Raises:
        LookupError: There is nothing.
    """
    for segment in pointer.split("/")[1:]:
        name = segment.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value[name]
        else:
            raise LookupError(pointer)
    return value


def no_constant(name: str) -> NoReturn:
    """Refuses NaN and Infinity, which are no JSON."""
    raise ValueError(name)


def wait_s(response: Response) -> float | None:
    """Returns the Retry-After header in seconds, bounded; None: it says nothing that is understood."""
    said = response.headers.get("retry-after", "")
    try:
        seconds = float(int(said)) if said.isdecimal() else until(parsedate_to_datetime(said))
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_S)


def until(moment: datetime) -> float:
    """Returns the seconds until a moment."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
