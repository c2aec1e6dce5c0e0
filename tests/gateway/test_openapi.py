"""The OpenAPI document: valid, whole, and true to the JSON that the edge reads and writes."""

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from meshwright.gateway import openapi
from meshwright.gateway.contract import COMMENTS, bindings, services
from meshwright.gateway.openapi_errors import MEANING
from meshwright.gateway.openapi_operation import CONTENT, operation_id, path_of
from meshwright.gateway.openapi_schema import value_schema
from meshwright.gateway.replies import LOCAL_REPLIES
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse, Usage
from meshwright.gen.registry.v1.agent_directory_service_pb2 import Endpoint

REPO = Path(__file__).parents[2]
DOCUMENT = openapi.render()
SCHEMAS = DOCUMENT["components"]["schemas"]
BINDINGS = [binding for service in services() for binding in bindings(service)]
OPERATIONS = {operation["operationId"]: operation for item in DOCUMENT["paths"].values() for operation in item.values()}


def validator(schema):
    return jsonschema_rs.Draft202012Validator(schema | {"components": {"schemas": SCHEMAS}})


def is_valid(name, value):
    return validator({"$ref": f"#/components/schemas/{name}"}).is_valid(value)


@pytest.mark.parametrize("auth", ["none", "keys", "jwt", "keys,jwt"])
def test_the_document_is_valid(auth):
    validate(openapi.render(auth))


def test_the_committed_document_is_the_rendered_one():
    rendered = json.dumps(DOCUMENT, indent=1, ensure_ascii=False) + "\n"
    assert (REPO / "gateway/openapi.json").read_text() == rendered


def test_every_rule_of_the_contract_is_an_operation_with_an_id_of_its_own():
    shown = {(path, verb) for path, item in DOCUMENT["paths"].items() for verb in item} - {("/health", "get")}
    assert shown == {(path_of(binding), binding.verb) for binding in BINDINGS}
    assert len(OPERATIONS) == len(BINDINGS) + 1


def test_every_element_says_what_it_is():
    for name, operation in OPERATIONS.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert all(one["description"] for one in operation.get("parameters", ())), name
    for name, schema in SCHEMAS.items():
        assert schema["description"], name
    assert COMMENTS["agents.v1.TaskRequest.prompt"].startswith("What to do. Required")
    assert COMMENTS["agents.v1.TaskStatus.TASK_STATUS_FAILED"].startswith("Ended without success")


def test_references_lead_somewhere():
    for group, name in re.findall(r'"#/components/(\w+)/([^"]+)"', json.dumps(DOCUMENT)):
        assert name in DOCUMENT["components"][group]


# --- the mapping


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (Usage.DESCRIPTOR.fields_by_name["cost_micros"], {"type": "string", "format": "int64"}),
        (Usage.DESCRIPTOR.fields_by_name["input_tokens"], {"type": "integer", "format": "uint32", "minimum": 0}),
        (TaskRequest.DESCRIPTOR.fields_by_name["max_steps"], {"type": "integer", "format": "int32"}),
        (TaskResponse.DESCRIPTOR.fields_by_name["create_time"], {"type": "string", "format": "date-time"}),
        (TaskRequest.DESCRIPTOR.fields_by_name["timeout"], {"type": "string"}),
        (TaskRequest.DESCRIPTOR.fields_by_name["output_schema"], {"type": "object"}),
        (TaskRequest.DESCRIPTOR.fields_by_name["priority"], {"$ref": "#/components/schemas/TaskPriority"}),
        (Endpoint.DESCRIPTOR.fields_by_name["public_key"], {"type": "string", "contentEncoding": "base64"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_field_is_mapped_as_proto3_says(field, expected):
    assert expected.items() <= value_schema(field).items()


def test_maps_lists_enums_and_required_fields():
    body = SCHEMAS["TaskRequest"]
    assert body["required"] == ["prompt"]
    assert body["properties"]["metadata"]["additionalProperties"] == {"type": "string"}
    assert body["properties"]["allowed_tools"]["items"] == {"type": "string"}
    assert SCHEMAS["Decision"]["enum"][1] == "DECISION_APPROVE"
    assert "Runs the tool call exactly as shown." in SCHEMAS["Decision"]["description"]
    assert {"task_id", "status", "usage_shares"} <= set(SCHEMAS["TaskResponse"]["required"])
    assert "error" not in SCHEMAS["TaskResponse"]["required"]


def test_a_body_lacks_what_stands_in_the_path():
    ids = {"RunTask": "TaskRequestBody", "RunTaskShort": "TaskRequest", "CancelTask": "CancelTaskRequestBody"}
    for name, schema in ids.items():
        media = OPERATIONS[name]["requestBody"]["content"]["application/json"]
        assert media["schema"] == {"$ref": f"#/components/schemas/{schema}"}
    assert "agent_id" not in SCHEMAS["TaskRequestBody"]["properties"]
    assert set(SCHEMAS["CancelTaskRequestBody"]["properties"]) == {"principal", "reason"}
    assert "CancelTaskRequest" not in SCHEMAS


def test_what_a_query_may_give_are_parameters():
    parameters = {one["name"]: one for one in OPERATIONS["ListTasks"]["parameters"]}
    statuses = parameters["statuses"]
    assert (statuses["in"], statuses["style"], statuses["explode"]) == ("query", "form", True)
    assert statuses["schema"] == {"type": "array", "items": {"$ref": "#/components/schemas/TaskStatus"}}
    assert parameters["created_after"]["schema"]["format"] == "date-time"
    assert [one["in"] for one in OPERATIONS["GetTool"]["parameters"]] == ["path", "query"]
    assert [one["in"] for one in OPERATIONS["PinFact"]["parameters"]] == ["path"]


def test_at_most_one_of_a_oneof():
    event = json_format.MessageToDict(
        StepEvent(task_id="t"), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    text, beat = {"text": "x", "offset": 0}, {"last_sequence": 1}
    assert is_valid("StepEvent", event)
    assert is_valid("StepEvent", event | {"delta": text})
    assert not is_valid("StepEvent", event | {"delta": text, "heartbeat": beat})
    assert is_valid("StepEvent", event | {"a_kind_of_later": {}})


def messages(descriptor, depth=0):
    """Draws messages of a type, with any of their fields set."""
    if descriptor.full_name == "google.protobuf.Timestamp":
        return st.builds(GetMessageClass(descriptor), seconds=st.integers(0, 4_000_000_000), nanos=st.integers(0, 999))
    if descriptor.full_name == "google.protobuf.Duration":
        return st.builds(GetMessageClass(descriptor), seconds=st.integers(0, 86_400), nanos=st.integers(0, 999_999_999))
    if descriptor.full_name == "google.protobuf.Value":
        value = GetMessageClass(descriptor)
        texts, numbers = st.text(max_size=5), st.integers(-9, 9)
        return st.builds(value, string_value=texts) | st.builds(value, number_value=numbers)
    if depth > 2 or descriptor.full_name == "google.rpc.Status":
        return st.builds(GetMessageClass(descriptor))
    fields = {field.name: values(field, depth) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda drawn: built(descriptor, drawn))


def values(field, depth):
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        value = field.message_type.fields_by_name["value"]
        return st.dictionaries(st.text(max_size=3), single(value, depth), max_size=2)
    return st.lists(single(field, depth), max_size=2) if field.is_repeated else single(field, depth)


def single(field, depth):
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {
        FieldDescriptor.TYPE_STRING: st.text(max_size=5),
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_BYTES: st.binary(max_size=5),
        FieldDescriptor.TYPE_DOUBLE: st.floats(),
        FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    }[field.type]


def built(descriptor, drawn):
    message = GetMessageClass(descriptor)()
    for name, value in drawn.items():
        field = descriptor.fields_by_name[name]
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map and field.message_type.fields_by_name["value"].message_type is not None:
            for key, one in value.items():
                getattr(message, name)[key].CopyFrom(one)
        elif is_map:
            getattr(message, name).update(value)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif field.message_type is not None:
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


ANSWERS = {b.method.output_type.name: b.method.output_type for b in BINDINGS if b.method.full_name not in CONTENT}


@pytest.mark.parametrize("name", sorted(ANSWERS))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_an_answer_holds_it_fits_its_schema(name, data):
    message = data.draw(messages(ANSWERS[name]))
    printed = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    errors = list(validator({"$ref": f"#/components/schemas/{name}"}).iter_errors(printed))
    assert errors == []


# --- answers, errors and examples


def test_submits_answer_202_and_watches_may_answer_204():
    assert {"200", "202"} & set(OPERATIONS["SubmitTask"]["responses"]) == {"202"}
    assert "x-task-id" in OPERATIONS["SubmitTaskShort"]["responses"]["202"]["headers"]
    watch = OPERATIONS["WatchTaskEvents"]
    assert {"200", "204"} <= set(watch["responses"])
    assert list(watch["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Last-Event-ID" in {one["name"] for one in watch["parameters"]}


RATE = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


@pytest.mark.parametrize("auth", ["none", "keys"])
def test_answers_to_calls_that_are_counted_say_how_many_are_left(auth):
    document = openapi.render(auth)
    calls = [(path, verb, one) for path, item in document["paths"].items() for verb, one in item.items()]
    for path, verb, operation in calls:
        is_counted = path != "/health" and (auth == "none" or operation.get("security") != [])
        for status in {"200", "202", "204"} & set(operation["responses"]):
            found = RATE & set(operation["responses"][status].get("headers", ()))
            assert found == (RATE if is_counted else set()), (verb, path, status)
    for status, answer in document["components"]["responses"].items():
        wanted = {
            "429": RATE | {"retry-after", "x-ratelimit-bucket"},
            "503": {"retry-after"},
            "401": {"www-authenticate"},
        }
        assert set(answer.get("headers", ())) == wanted.get(status, set()), status
    used = set(re.findall(r'"#/components/headers/([\w-]+)"', json.dumps(document)))
    assert used == set(document["components"]["headers"])


def test_a_stream_comes_as_lines_or_as_events():
    content = OPERATIONS["StreamSteps"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert content["application/json"]["schema"]["$ref"] == "#/components/schemas/StepEvent"
    assert content["text/event-stream"]["example"].startswith("id: 2\ndata: {")


@pytest.mark.parametrize("name", ["RunTask", "StreamSteps", "SubmitTask"])
def test_an_operation_names_the_statuses_and_reasons_of_the_contract(name):
    responses = OPERATIONS[name]["responses"]
    assert {"400", "403", "404", "409", "415", "429", "503", "504"} <= set(responses)
    assert "`TASK_CONFLICT`" in responses["409"]["description"]
    assert "`QUEUE_FULL`" in responses["429"]["description"]
    assert responses["429"]["$ref"] == "#/components/responses/429"
    assert not {"401", "499", "501"} & set(responses)
    assert "415" not in OPERATIONS["GetTask"]["responses"]


def test_who_calls_is_asked_only_where_the_edge_asks():
    assert "securitySchemes" not in DOCUMENT["components"]
    keys = openapi.render("keys")
    assert set(keys["components"]["securitySchemes"]) == {"apiKey", "bearer"}
    assert set(openapi.render("jwt")["components"]["securitySchemes"]) == {"bearer"}
    assert keys["security"] == [{"apiKey": []}, {"bearer": []}]
    assert "401" in keys["paths"]["/run"]["post"]["responses"]
    assert keys["paths"]["/health"]["get"]["security"] == []


def test_every_operation_has_an_example_that_fits():
    for binding in BINDINGS:
        name = operation_id(binding)
        operation = OPERATIONS[name]
        for parameter in operation.get("parameters", ()):
            assert "example" in parameter or parameter["in"] != "path", (name, parameter["name"])
            if "example" in parameter:
                assert validator(parameter["schema"]).is_valid(parameter["example"]), (name, parameter["name"])
        if body := operation.get("requestBody"):
            media = body["content"]["application/json"]
            assert validator(media["schema"]).is_valid(media["example"]), name
        success = next(iter(operation["responses"].values()))
        for kind, media in success["content"].items():
            assert media["example"] or name == "UnpinFact", (name, kind)
            if kind != "text/event-stream":
                assert list(validator(media["schema"]).iter_errors(media["example"])) == [], (name, kind)


def test_examples_of_errors_fit():
    for response in DOCUMENT["components"]["responses"].values():
        media = response["content"]["application/json"]
        assert validator(media["schema"]).is_valid(media["example"])


def test_what_the_edge_says_of_a_part_that_does_not_answer_is_what_the_document_says():
    assert LOCAL_REPLIES[503].message.casefold() == MEANING[503][2].casefold()
