"""The OpenAPI document as a page for people: plain HTML that needs no script and nothing from elsewhere. Pure.

Whatever stands in the document is text: all of it is escaped.
"""

import json
import re
import shlex
from collections.abc import Iterator
from html import escape
from typing import Any

from meshwright.gateway.openapi_schema import COMPONENTS, Json

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Meshwright API</title>
<link rel="icon" href="/assets/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/assets/style.css">
<link rel="stylesheet" href="/assets/docs.css">
</head>
<body>
<a class="skip" href="#operations">To the operations</a>
<header>
<h1><a href="/">Meshwright</a> API</h1>
<p><a href="/openapi.json">openapi.json</a> <a href="/assets/descriptors.binpb" download>descriptors.binpb</a></p>
</header>
"""
_CODE = re.compile(r"`([^`]+)`")
_ESCAPED = re.compile(r"\\([\\<*\[])")


def page(document: Json) -> str:
    """Returns the page of a document."""
    return "".join(_page(document))


def _page(document: Json) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            by_tag[operation["tags"][0]].append((verb, path, operation))
    yield HEAD
    yield '<div class="docs"><nav aria-label="Operations">'
    for tag, found in by_tag.items():
        yield f"<h2>{escape(_title(tag))}</h2><ul>"
        yield from (_link(*one) for one in found)
        yield "</ul>"
    yield '<h2><a href="#schemas">Schemas</a></h2></nav><main>'
    yield f'<section class="about">{prose(document["info"]["description"])}</section><div id="operations">'
    for tag in document["tags"]:
        yield f"<section><h2>{escape(_title(tag['name']))}</h2>{prose(tag['description'])}"
        for verb, path, operation in by_tag[tag["name"]]:
            yield from _operation(verb, path, operation)
        yield "</section>"
    yield '</div><section id="schemas"><h2>Schemas</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</section></main></div></body></html>\n"


def _title(tag: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", tag)


def _link(verb: str, path: str, operation: Json) -> str:
    return f'<li><a href="#{operation["operationId"]}">{_badge(verb)} <span>{_path(path)}</span></a></li>'


def _badge(verb: str) -> str:
    return f'<b class="verb {verb}">{verb.upper()}</b>'


def _path(path: str) -> str:
    """Lets a long path break before its parts."""
    return escape(path).replace("/", "<wbr>/")


def _operation(verb: str, path: str, operation: Json) -> Iterator[str]:
    name = operation["operationId"]
    yield f'<article id="{name}"><h3><a href="#{name}">{_badge(verb)} <code>{_path(path)}</code></a></h3>'
    yield prose(operation["description"])
    if parameters := operation.get("parameters"):
        rows = ((one["name"], one["schema"], one.get("required", False), one["description"]) for one in parameters)
        yield "<h4>Parameters</h4>" + _table(rows)
    if body := operation.get("requestBody"):
        yield f"<h4>Body</h4><p>{_type(body['content']['application/json']['schema'])}</p>"
    yield f"<pre>{escape(curl(verb, path, operation))}</pre>"
    yield from _answers(operation["responses"])
    yield "</article>"


def curl(verb: str, path: str, operation: Json) -> str:
    """Returns the example of an operation as a command line, on the edge of a mesh of one's own."""
    examples = {(one["in"], one["name"]): one.get("example") for one in operation.get("parameters", ())}
    for (place, name), value in examples.items():
        if place == "path":
            path = path.replace(f"{{{name}}}", str(value))
    query = [
        f"{name}={one}"
        for (place, name), value in examples.items()
        if place == "query" and value is not None
        for one in (value if isinstance(value, list) else [value])
    ]
    url = f"http://localhost:8080{path}" + "?" * bool(query) + "&".join(query)
    words = ["curl", *(["-X", verb.upper()] if verb == "delete" else []), shlex.quote(url)]
    if body := operation.get("requestBody"):
        words += ["-H", "'content-type: application/json'", "\\\n  -d"]
        words += [shlex.quote(json.dumps(body["content"]["application/json"]["example"], ensure_ascii=False))]
    return " ".join(words)


def _answers(responses: Json) -> Iterator[str]:
    yield '<h4>Answers</h4><table class="answers"><tbody>'
    for status, response in responses.items():
        yield f'<tr><th scope="row" class="s{status[0]}">{status}</th><td>{prose(response["description"])}'
        for kind, media in response.get("content", {}).items():
            yield f"<p><code>{escape(kind)}</code> {_type(media['schema'])}</p>"
        yield "</td></tr>"
    yield "</tbody></table>"
    for response in responses.values():
        for kind, media in response.get("content", {}).items():
            if "example" in media:
                yield _example(kind, media["example"])


def _example(kind: str, example: Any) -> str:
    text = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
    return f"<details><summary>Example: <code>{escape(kind)}</code></summary><pre>{escape(text)}</pre></details>"


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f'<article id="schema-{name}"><h3><a href="#schema-{name}">{escape(name)}</a></h3>'
    yield prose(schema.get("description", ""))
    if properties := schema.get("properties"):
        required = set(schema.get("required", ()))
        yield _table((key, one, key in required, one.get("description", "")) for key, one in properties.items())
    yield "</article>"


def _table(rows: Iterator[tuple[str, Json, bool, str]]) -> str:
    shown = [
        f'<tr><th scope="row"><code>{escape(name)}</code></th>'
        f"<td>{_type(schema)}{' <i>required</i>' * is_required}</td><td>{prose(description)}</td></tr>"
        for name, schema, is_required, description in rows
    ]
    return f'<div class="wide"><table><tbody>{"".join(shown)}</tbody></table></div>'


def _type(schema: Json) -> str:
    """Names a type: a link to a schema, or a word."""
    if reference := schema.get("$ref"):
        name = escape(reference.removeprefix(COMPONENTS))
        return f'<a href="#schema-{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    if "oneOf" in schema:
        return " or ".join(_type(one) for one in schema["oneOf"])
    return escape(_word(schema))


def _word(schema: Json) -> str:
    kind: Any = schema.get("type", "any JSON")
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    detail = schema.get("format") or schema.get("contentEncoding")
    return f"{kind} ({detail})" if detail else str(kind)


def prose(text: str) -> str:
    """Returns CommonMark of the kind that the document holds as HTML: paragraphs, lists and code."""
    blocks = [block for block in text.split("\n\n") if block]
    return "".join(_list(block) if block.startswith("- ") else f"<p>{_inline(block)}</p>" for block in blocks)


def _list(block: str) -> str:
    return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in block.splitlines())}</ul>"


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(_ESCAPED.sub(r"\1", text)))
