"""Examples of the OpenAPI document: what is written in openapi_examples.yaml, held against the contract. Pure."""

import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

Json = dict[str, Any]
WRITTEN: dict[str, Json] = yaml.safe_load((files("meshwright.gateway") / "openapi_examples.yaml").read_text())
"""By a method's name."""


@dataclass(frozen=True, slots=True)
class Example:
    """A call and its answer."""

    request: Json = field(default_factory=dict)
    """With the fields that stand in the path or the query."""
    response: Json = field(default_factory=dict)
    """As the edge prints it: fields without presence are always there. Of a stream one message."""
    text: str = ""
    """The answer where it is no message."""


def example_of(method: MethodDescriptor) -> Example:
    """Returns the example of a method, an empty one where none is written.

    Raises:
        json_format.ParseError: What is written does not fit the contract.
    """
    written = WRITTEN.get(method.name, {})
    request: Json = written.get("request", {})
    printed(method.input_type, request)
    response = printed(method.output_type, written["response"]) if "response" in written else {}
    return Example(request, response, written.get("text", ""))


def printed(message: Descriptor, written: Json) -> Json:
    """Returns a message as the edge prints it, its fields sorted.

    Raises:
        json_format.ParseError: It does not fit the contract.
    """
    parsed = json_format.ParseDict(written, GetMessageClass(message)())
    text = json_format.MessageToJson(
        parsed, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, sort_keys=True
    )
    found: Json = json.loads(text)
    return found
