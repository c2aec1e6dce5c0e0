"""The documents of the interface, as the edge serves them."""

import json
import re
from pathlib import Path

REPO = Path(__file__).parents[2]


def test_the_edge_serves_its_openapi_document(dev):
    answer = dev.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == json.loads((REPO / "gateway/openapi.json").read_text())


def test_the_edge_serves_the_document_as_a_page_that_runs_nothing(dev):
    answer = dev.request("GET", "/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    for path in re.findall(r'<link rel="\w+" href="([^"]+)"', answer.body.decode()):
        assert dev.request("GET", path).status == 200, path
