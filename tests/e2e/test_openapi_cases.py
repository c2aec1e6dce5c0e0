"""Generated calls of every operation: nothing that the document does not say, and no failure of the mesh itself.

`OPENAPI_EXAMPLES=65 pytest tests/e2e/test_openapi_cases.py` makes more than 2,000 of them: `make schemathesis`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from meshwright.cli import ports
from meshwright.gateway import openapi
from tests.e2e.conftest import Dev

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "5"))
ANSWER_S = 20
ANSWERS = ThreadPoolExecutor(max_workers=8)
"""A stream that has only heartbeats never ends by itself: a call is waited for in a thread that can be left."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = openapi.render()
OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
}
JSON = "application/json"
STREAMS = {"StreamSteps": "StepEvent", "StreamStepsShort": "StepEvent", "WatchTask": "StepEvent"}
LINES = {
    name: jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    )
    for name, schema in (STREAMS | {"ExportSession": "SessionEntry"}).items()
}
"""Of streams that come as one JSON object a line: what a line has to fit."""
KNOWN = {
    "agent_id": st.sampled_from(["orchestrator", "researcher"]),
    "task_id": st.sampled_from(["first", "second"]),
    "session_id": st.sampled_from(["kept", "other"]),
    "name": st.sampled_from(["docs.search", "docs.read"]),
    "path": st.sampled_from(["docs.css", "descriptors.binpb"]),
}
"""What stands in paths of calls that are about something that is there."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, documents):
    """A mesh of its own: calls at random leave nothing as they found it."""
    folder = tmp_path_factory.mktemp("cases")
    running = Dev(folder, ports.reserve("127.0.0.1", set()), "--docs", str(documents), "--lease", "2")
    try:
        running.start()
        for task_id, session_id in (("first", "kept"), ("second", "other")):
            asked = {"prompt": "What is 2 + 2?", "task_id": task_id, "session_id": session_id}
            assert running.request("POST", "/run", asked).status == 200
        yield running
    finally:
        running.stop()


def cases(operation):
    """Draws calls that fit the document, and, where something can be wrong beside the path, calls that do not."""
    drawn = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.body or operation.query:
        drawn.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    return st.one_of(drawn)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_answers_as_the_document_says(name, mesh):
    operation = OPERATIONS[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation), is_known=st.booleans(), known=st.fixed_dictionaries(KNOWN))
    def run(case, is_known, known):
        if is_known:
            case.path_parameters = {key: known.get(key, value) for key, value in (case.path_parameters or {}).items()}
        response = ANSWERS.submit(case.call, base_url=f"http://127.0.0.1:{mesh.port}").result(timeout=ANSWER_S)
        has_lines = name in LINES and response.status_code == 200 and response.headers["content-type"] == [JSON]
        case.validate_response(response, checks=CHECKS[:-1] if has_lines else CHECKS)
        for line in response.content.splitlines() if has_lines else ():
            assert LINES[name].is_valid(json.loads(line)), line

    run()
