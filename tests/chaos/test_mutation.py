"""Mutations: the same seed gives the same input, and all of it can be sent."""

import json
import random

import pytest

from meshwright.cli.chaos import mutation
from meshwright.cli.chaos.bad_input import AGENT_FILES, PATHS, REGISTRY_FILES, TOOL, methods


def drawn(make, seed=3, many=200):
    draw = random.Random(seed)
    return [make(draw) for _ in range(many)]


WIRE = bytes(range(1, 60))
MAKERS = {
    "wire": lambda draw: mutation.mutated_wire(WIRE, draw),
    "json": lambda draw: mutation.mutated_json({"tool": TOOL}, draw),
    "request": lambda draw: mutation.mutated_request(*draw.choice(PATHS), draw),
    "schema": lambda draw: json.dumps(mutation.hostile_schema(draw, "127.0.0.1:9")),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_seed_repeats_what_it_gave_and_another_one_gives_something_else(kind):
    assert drawn(MAKERS[kind]) == drawn(MAKERS[kind])
    assert drawn(MAKERS[kind]) != drawn(MAKERS[kind], seed=4)


def test_an_empty_message_is_mutated_too():
    assert any(drawn(lambda draw: mutation.mutated_wire(b"", draw)))


def test_numbers_are_written_as_protobuf_writes_them():
    assert mutation.varint(0) == b"\x00"
    assert mutation.varint(300) == b"\xac\x02"


def test_a_request_is_written_with_the_length_of_its_body():
    request = mutation.Request("POST", "/run", (("content-type", "application/json"),), b"{}")
    head, _, body = request.wire("host:1").partition(b"\r\n\r\n")
    assert (head.splitlines()[0], body) == (b"POST /run HTTP/1.1", b"{}")
    assert b"content-length: 2" in head


def test_every_method_of_agent_and_registry_is_attacked_with_what_it_reads():
    found = {method.path: method for method in methods((*AGENT_FILES, *REGISTRY_FILES))}
    assert "/agents.v1.TaskService/WatchTask" in found
    assert "/registry.v1.ToolRegistryService/RegisterTool" in found
    assert found["/agents.v1.TaskService/WatchTask"].is_stream
    silent = {path.rpartition("/")[2] for path, method in found.items() if not method.honest}
    assert silent <= {"WatchAgents", "WatchTools", "CheckCompatibility", "GetCosts"}  # which may ask for everything
