"""One operation of the OpenAPI document, from a method's HTTP rule and comment. Pure."""

import json
import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from meshwright.gateway import openapi_errors
from meshwright.gateway.contract import Binding, comment, is_required
from meshwright.gateway.openapi_examples import Example
from meshwright.gateway.openapi_headers import RATE, TASK_ID, headers
from meshwright.gateway.openapi_schema import (
    COMPONENTS,
    KNOWN,
    Json,
    body_name,
    fields,
    prose,
    value_schema,
)

LINES = "application/json"
"""What the transcoder calls one JSON object a line."""
EVENTS = "text/event-stream"
HTML = "text/html; charset=utf-8"
CONTENT = {
    "gateway.v1.EdgeService.GetOpenApi": "application/json",
    "gateway.v1.EdgeService.GetDocs": HTML,
    "gateway.v1.EdgeService.GetPage": HTML,
    "gateway.v1.EdgeService.GetAsset": "*/*",
    "agents.v1.TaskService.WatchTaskEvents": EVENTS,
}
"""Media types of methods that answer with bytes of their own."""
OWN_SCHEMAS: dict[str, Json] = {"application/json": {"type": "object"}, HTML: {"type": "string"}, "*/*": {}}
STEP_EVENT = "StepEvent"
ACCEPTS = {"agents.v1.AgentService.RunTask", "agents.v1.AgentService.StreamSteps", "agents.v1.TaskService.SubmitTask"}
"""Methods that make a task."""
EDGE = "gateway.v1.EdgeService"
"""Whose calls are open to everybody."""
SUBMITS = "agents.v1.TaskService.SubmitTask"
RESUMES = {
    "agents.v1.AgentService.StreamSteps",
    "agents.v1.TaskService.WatchTask",
    "agents.v1.TaskService.WatchTaskEvents",
}
"""Methods that go on after what a client has seen."""
NAMES = ACCEPTS | RESUMES
"""Methods whose answer names its task in a header."""
MOST_DEPTH = 3
"""Levels of messages inside of messages that a query may name."""
HEADERS: dict[str, tuple[str, Json]] = {
    "Idempotency-Key": (
        "Names the task, as `task_id` in the body does: the same key with the same request attaches to the first task.",
        {"type": "string"},
    ),
    "X-Agent-Id": (
        "Agent that does the work; without it the default agent does.",
        {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$"},
    ),
    "Last-Event-ID": (
        "Last sequence already seen: the stream goes on after it.",
        {"type": "string", "pattern": "^[0-9]{1,10}$"},
    ),
}
_PLACE = re.compile(r"\{(\w+)(?:=[^}]*)?\}")
_SAME = re.compile(r"errors are those of (\w+)")
_SENTENCE = re.compile(r"(?<=[^. ])[.;:](?: |$)")


def path_of(binding: Binding) -> str:
    """Returns a rule's path as OpenAPI writes it: "/assets/{path}"."""
    return _PLACE.sub(r"{\1}", binding.path)


def path_fields(binding: Binding) -> frozenset[str]:
    """Names the fields of the request that stand in the path."""
    return frozenset(_PLACE.findall(binding.path))


def operation_id(binding: Binding) -> str:
    """Names an operation: as the method, `Short` for its second path."""
    return binding.method.name + "Short" * binding.index


def operation(binding: Binding, example: Example, *, has_auth: bool) -> Json:
    """Returns the operation object of a binding."""
    method = binding.method
    said = comment(method.full_name)
    found: Json = {
        "operationId": operation_id(binding),
        "tags": [method.containing_service.name.removesuffix("Service")],
        "summary": summary(said, method.name),
        "description": prose(method.full_name),
    }
    if parameters := [*_path(binding, example), *_query(binding, example), *_headers(binding)]:
        found["parameters"] = parameters
    if binding.body:
        found["requestBody"] = _body(binding, example)
    is_open = method.containing_service.full_name == EDGE
    if has_auth and is_open:
        found["security"] = []
    asks = has_auth and not is_open
    failures = openapi_errors.statuses(_errors(method), has_body=bool(binding.body), has_auth=asks)
    is_counted = not (has_auth and is_open)  # whoever is known is told what is left of its own
    found["responses"] = _answers(binding, example, is_counted=is_counted) | openapi_errors.responses(failures)
    return found


def _errors(method: MethodDescriptor) -> str:
    """Joins what the contract says of a method's errors: its own comment, its service's, and the one it refers to."""
    service = method.containing_service.full_name
    said = [comment(method.full_name), comment(service)]
    said += [comment(f"{service}.{other}") for other in _SAME.findall(said[0])]
    return " ".join(said)


def summary(said: str, name: str) -> str:
    """Returns the first sentence of a comment, without the method's name."""
    first = _SENTENCE.split(said, maxsplit=1)[0].removeprefix(f"{name} ").removeprefix("is ")
    return first[:1].upper() + first[1:]


def _path(binding: Binding, example: Example) -> Iterator[Json]:
    for name in _PLACE.findall(binding.path):
        field = binding.method.input_type.fields_by_name[name]
        schema = value_schema(field) | {"minLength": 1}
        found: Json = {"name": name, "in": "path", "required": True, "description": prose(field.full_name)}
        found["schema"] = schema
        yield found | ({"example": example.request[name]} if name in example.request else {})


def _query(binding: Binding, example: Example) -> Iterator[Json]:
    for path, field in query_fields(binding):
        found: Json = {"name": path, "in": "query", "description": prose(field.full_name)}
        if is_required(field):
            found["required"] = True
        schema = value_schema(field)
        if field.is_repeated:
            found |= {"style": "form", "explode": True}
            schema = {"type": "array", "items": schema}
        found["schema"] = schema
        if path in example.request:
            found["example"] = example.request[path]
        yield found


def query_fields(binding: Binding) -> Iterator[tuple[str, FieldDescriptor]]:
    """Lists the fields of a request that come by the query, with their paths; none where there is a body."""
    if not binding.body:
        yield from _bindable(binding.method.input_type, path_fields(binding))


def _bindable(message: Descriptor, without: frozenset[str], prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Lists what a query may give of a message; fields of messages inside have dots in their paths."""
    for field in fields(message, without):
        inner = field.message_type
        if inner is None or KNOWN.get(inner.full_name, {}).get("type") == "string":
            yield prefix + field.name, field
        elif not field.is_repeated and inner.full_name not in KNOWN and prefix.count(".") < MOST_DEPTH:
            yield from _bindable(inner, frozenset(), f"{prefix}{field.name}.")


def _headers(binding: Binding) -> Iterator[Json]:
    name = binding.method.full_name
    names = ["Idempotency-Key"] * (name in ACCEPTS)
    names += ["X-Agent-Id"] * (name in ACCEPTS and "agent_id" not in path_fields(binding))
    names += ["Last-Event-ID"] * (name in RESUMES)
    for header in names:
        said, schema = HEADERS[header]
        yield {"name": header, "in": "header", "description": said, "schema": schema}


def _body(binding: Binding, example: Example) -> Json:
    message, path = binding.method.input_type, path_fields(binding)
    media: Json = {"schema": {"$ref": COMPONENTS + body_name(message, path)}}
    media["example"] = {name: value for name, value in example.request.items() if name not in path}
    is_needed = any(is_required(field) for field in message.fields)
    return {"required": is_needed, "content": {"application/json": media}}


def _answers(binding: Binding, example: Example, *, is_counted: bool) -> Json:
    method = binding.method
    name = method.full_name
    found: Json = {"description": f"{'A stream of ' * method.server_streaming}{_answer_name(binding)}."}
    rate = RATE if is_counted else ()
    if names := [*[TASK_ID] * (name in NAMES), *rate]:
        found["headers"] = headers(names)
    found["content"] = _content(binding, example)
    if name == SUBMITS:
        return {"202": found}
    said = "The task has ended, and nothing follows the cursor: an EventSource stops."
    ended = {"204": {"description": said, "headers": headers([TASK_ID, *rate])}}
    return {"200": found} | (ended if name == "agents.v1.TaskService.WatchTaskEvents" else {})


def _answer_name(binding: Binding) -> str:
    own = CONTENT.get(binding.method.full_name)
    if own == EVENTS:
        return "Server-Sent Events with ids, each `data` a StepEvent in JSON"
    return "As its comment says" if own else binding.method.output_type.name


def _content(binding: Binding, example: Example) -> Json:
    method = binding.method
    own = CONTENT.get(method.full_name)
    if own == EVENTS:
        return {EVENTS: _events(STEP_EVENT, example.text)}
    if own:
        is_json = own == "application/json"
        return {own: {"schema": OWN_SCHEMAS[own], "example": json.loads(example.text) if is_json else example.text}}
    message: Json = {"schema": {"$ref": COMPONENTS + method.output_type.name}, "example": example.response}
    if not method.server_streaming:
        return {"application/json": message}
    lines = message | {"schema": message["schema"] | {"description": "Of each line: one JSON object."}}
    number = f"id: {example.response['sequence']}\n" if method.output_type.name == STEP_EVENT else ""
    text = f"{number}data: {json.dumps(example.response, separators=(',', ':'))}\n\n"
    return {LINES: lines, EVENTS: _events(method.output_type.name, text)}


def _events(name: str, example: str) -> Json:
    """Returns the media type of a stream of Server-Sent Events; the schema is that of one event."""
    said = "One message in JSON; of an event `status`, why the stream ends: a Status."
    data: Json = {"type": "string", "description": said, "contentMediaType": "application/json"}
    fields: Json = {"data": data | {"contentSchema": {"$ref": COMPONENTS + name}}}
    fields["id"] = {"type": "string", "description": "Sequence to resume after; passing messages have none."}
    said = "`result` on the last one of a watch, `status` where it ends before its task."
    fields["event"] = {"type": "string", "description": said}
    schema: Json = {"type": "object", "description": "Of each event.", "properties": fields, "required": ["data"]}
    return {"schema": schema, "example": example}
