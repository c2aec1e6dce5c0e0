"""The OpenAPI 3.1 document of the edge, from the contract: `/openapi.json`. Pure.

`python -m meshwright.gateway.openapi` prints it for an edge without authentication: that text is committed as
openapi.json, so that a change of the interface is seen as one.
"""

import json
import sys

from meshwright.gateway import openapi_errors, openapi_headers, openapi_schema
from meshwright.gateway.contract import Binding, bindings, services
from meshwright.gateway.openapi_examples import example_of
from meshwright.gateway.openapi_operation import CONTENT, operation, path_fields, path_of, query_fields
from meshwright.gateway.openapi_schema import Element, Json, prose

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NO_AUTH = "none"
ABOUT = """A mesh of agents: tasks that survive crashes, streams that resume, tools under contract, hard budgets.

Bodies are JSON with the field names below. Unknown fields of a body are ignored, unknown query parameters are \
refused. 64-bit integers are strings. Fields that are not set are printed all the same, but for those that can be \
absent.

With `accept: text/event-stream` a stream comes as Server-Sent Events, else as one JSON object a line. Its last event \
is `result`; a stream that ends without it was cut, and is resumed after its last `sequence`, which is the id \
of its events.

Every error is a google.rpc.Status: programs decide by the `reason` of its `ErrorInfo`. The same methods are served as \
gRPC and gRPC-Web on the same port."""
SCHEMES: dict[str, tuple[set[str], Json]] = {
    "apiKey": (
        {"keys"},
        {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A key of the mesh: `mwk_…`."},
    ),
    "bearer": (
        {"keys", "jwt"},
        {"type": "http", "scheme": "bearer", "description": "A key of the mesh or a JSON Web Token."},
    ),
}
"""By name: the kinds of authentication that take it, and what it is."""

HEALTH: Json = {
    "get": {
        "operationId": "GetHealth",
        "tags": ["Edge"],
        "summary": "Tells that the edge is up",
        "description": "Answered by the edge itself, whatever is behind it; /ready tells of the mesh as a whole.",
        "security": [],
        "responses": {
            "200": {
                "description": "It is.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"status": {"type": "string", "const": "ok"}},
                            "required": ["status"],
                        },
                        "example": {"status": "ok"},
                    }
                },
            }
        },
    }
}


def render(auth: str = NO_AUTH) -> Json:
    """Returns the document, in a stable order.

    Args:
        auth: As the setting has it: "none", "keys", "jwt" or "keys,jwt".

    Raises:
        ValueError: Two messages would have one name.
    """
    has_auth = auth != NO_AUTH
    served = services()
    found = [binding for service in served for binding in bindings(service)]
    document: Json = {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "Meshwright",
            "version": "v1",
            "description": ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": service.name.removesuffix("Service"), "description": prose(service.full_name)}
            for service in served
        ],
        "paths": {"/health": HEALTH} | paths(found, has_auth=has_auth),
        "components": {
            "schemas": schemas(found),
            "responses": openapi_errors.components(has_auth=has_auth),
            "headers": openapi_headers.components(has_auth=has_auth),
        },
    }
    if has_auth:
        schemes = {name: scheme for name, (kinds, scheme) in SCHEMES.items() if kinds & set(auth.split(","))}
        document["components"]["securitySchemes"] = schemes
        document["security"] = [{name: []} for name in schemes]
    return document


def paths(found: list[Binding], *, has_auth: bool) -> Json:
    """Returns the path items, in the contract's order."""
    items: Json = {}
    for binding in found:
        item = items.setdefault(path_of(binding), {})
        item[binding.verb] = operation(binding, example_of(binding.method), has_auth=has_auth)
    return items


def schemas(found: list[Binding]) -> dict[str, Json]:
    """Returns the schemas that the operations speak of."""
    bodies = [(binding.method.input_type, path_fields(binding)) for binding in found if binding.body]
    answers: list[Element] = [
        binding.method.output_type for binding in found if binding.method.full_name not in CONTENT
    ]
    queries = [binding for binding in found if not binding.body]
    answers += [field.enum_type for one in queries for _, field in query_fields(one) if field.enum_type]
    return openapi_schema.components(bodies, answers) | openapi_errors.schemas()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(render(), indent=1, ensure_ascii=False) + "\n")
