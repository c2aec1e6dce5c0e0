"""The page for people: whole, without scripts, without anything from elsewhere, and nothing in it but text."""

import copy
import re
from html.parser import HTMLParser

from meshwright.gateway import openapi
from meshwright.gateway.openapi_page import curl, page, prose

DOCUMENT = openapi.render()


class Tags(HTMLParser):
    """Collects tags, ids and links, and sees whether tags are closed."""

    VOID = frozenset({"meta", "link", "wbr", "br"})

    def __init__(self, text):
        super().__init__()
        self.names, self.ids, self.links, self.open = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_operation_and_schema_is_shown_and_every_link_leads_somewhere():
    found = Tags(page(DOCUMENT))
    assert found.open == []
    shown = {operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()}
    assert shown | {f"schema-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def test_the_page_runs_nothing_and_loads_nothing_from_elsewhere():
    found = Tags(page(DOCUMENT))
    assert not found.names & {"script", "style", "iframe", "img", "form"}
    assert not re.search(r'\s(?:on\w+|style)="', page(DOCUMENT))
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in found.links)


def test_what_stands_in_the_document_is_text():
    evil = "<script>alert(1)</script> `<b>` \"'&"
    document = copy.deepcopy(DOCUMENT)
    document["info"]["description"] = evil
    operation = document["paths"]["/run"]["post"]
    operation["description"] = operation["responses"]["200"]["description"] = evil
    operation["responses"]["200"]["content"]["application/json"]["example"] = {"output": evil}
    operation["requestBody"]["content"]["application/json"]["example"] = {"prompt": evil}
    document["components"]["schemas"]["TaskRequest"]["properties"]["prompt"]["description"] = evil
    text = page(document)
    assert "script" not in Tags(text).names
    assert "&lt;script&gt;alert(1)" in text


def test_an_example_is_a_command_line():
    assert curl("post", "/run", DOCUMENT["paths"]["/run"]["post"]).startswith("curl http://localhost:8080/run -H ")
    tasks = curl("get", "/v1/tasks", DOCUMENT["paths"]["/v1/tasks"]["get"])
    assert "statuses=TASK_STATUS_FAILED&statuses=TASK_STATUS_CANCELLED" in tasks
    session = "/v1/sessions/{session_id}"
    assert curl("delete", session, DOCUMENT["paths"][session]["delete"]).startswith("curl -X DELETE ")


def test_prose_shows_what_was_written():
    assert prose(r"\[a-z]\<b> `x`") == "<p>[a-z]&lt;b&gt; <code>x</code></p>"
    assert prose("One.\n\n- `A`: first\n- `B`: second") == (
        "<p>One.</p><ul><li><code>A</code>: first</li><li><code>B</code>: second</li></ul>"
    )
