"""Generated calls of every operation: nothing that the document does not say, and no failure of the mesh itself.

`OPENAPI_EXAMPLES=65 pytest tests/e2e/test_openapi_cases.py` makes more than 2,000 of them: `make schemathesis`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
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
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMA = schemathesis.openapi.from_dict(openapi.render())
OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations())
}
LINES = {"StreamSteps", "StreamStepsShort", "WatchTask", "ExportSession"}
KNOWN = {
    "agent_id": ["orchestrator", "researcher"],
    "task_id": ["first", "second"],
    "session_id": ["kept", "other"],
    "fact_id": ["f"],
    "name": ["docs.search", "docs.read"],
    "path": ["docs.css", "descriptors.binpb"],
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, documents):
    """A mesh of its own: calls at random leave nothing as they found it."""
    folder = tmp_path_factory.mktemp("cases")
    running = Dev(folder, ports.reserve("127.0.0.1", set()), "--docs", str(documents), "--lease", "2")
    try:
        running.start()
        for task_id, session_id in zip(KNOWN["task_id"], KNOWN["session_id"], strict=True):
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


def is_lines(name, response):
    return name in LINES and response.status_code == 200 and response.headers["content-type"] == ["application/json"]


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
    @given(case=cases(operation), names=st.fixed_dictionaries({key: st.sampled_from(KNOWN[key]) for key in KNOWN}))
    def run(case, names):
        if names["task_id"] == "first":  # half of the calls are about what is there
            case.path_parameters = {key: names[key] for key in case.path_parameters or {}}
        response = ANSWERS.submit(case.call, base_url=f"http://127.0.0.1:{mesh.port}").result(timeout=ANSWER_S)
        checks = [check for check in CHECKS if not (is_lines(name, response) and check is response_schema_conformance)]
        case.validate_response(response, checks=checks)
        if is_lines(name, response):
            for line in response.text.splitlines():
                json.loads(line)

    run()
