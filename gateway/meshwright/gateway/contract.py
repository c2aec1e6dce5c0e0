"""The contract as the edge serves it: services, HTTP rules and comments, from Envoy's descriptors. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from meshwright.gateway.config import DESCRIPTORS
from meshwright.gateway.filters import SERVICES

HTTP: Any = annotations_pb2.http
BEHAVIOR: Any = field_behavior_pb2.field_behavior
COMMENTS: dict[str, str] = json.loads((files("meshwright.gen") / "comments.json").read_text())
"""By an element's full name (an enum's value: after its enum) what the contract says of it, in one line."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One way by which a method is called over HTTP."""

    method: MethodDescriptor
    verb: str
    """In lower case: "get"."""
    path: str
    """As in the rule: "/assets/{path=**}"."""
    body: str
    """"*", or empty: the request comes by path and query alone."""
    index: int
    """0: the method's own path; more: one of its additional ones."""


def services() -> list[ServiceDescriptor]:
    """Lists the services that the edge transcodes, in the order of its configuration."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((files("meshwright.gen") / DESCRIPTORS).read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return [pool.FindServiceByName(name) for name in SERVICES]


def bindings(service: ServiceDescriptor) -> Iterator[Binding]:
    """Lists what of a service is called over HTTP, in the contract's order."""
    for method in service.methods:
        options = method.GetOptions()
        if not options.HasExtension(HTTP):
            continue
        rule = options.Extensions[HTTP]
        for index, one in enumerate((rule, *rule.additional_bindings)):
            verb = str(one.WhichOneof("pattern"))
            yield Binding(method, verb, getattr(one, verb), one.body, index)


def is_required(field: FieldDescriptor) -> bool:
    """Tells whether a request without the field is refused."""
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[BEHAVIOR]


def comment(full_name: str) -> str:
    """Returns what the contract says of an element; empty: it is not ours."""
    return COMMENTS.get(full_name, "")
