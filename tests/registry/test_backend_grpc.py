"""Tools that are gRPC methods: schemas from descriptors, calls by the JSON mapping, failures as data."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.canonical import from_struct
from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    EgressRefusedError,
    InvalidRequestError,
    ResultTooLargeError,
    SetupError,
    ToolFailedError,
)
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry.backends.descriptors import from_file, from_module
from meshwright.registry.backends.grpc import snake
from meshwright.registry.backends.message_schema import message_schema
from meshwright.registry.schema import Schema

CANARY = "canary-7f3a-secret"
PROTO = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/empty.proto";

enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }

message Tree { string name = 1; repeated Tree branches = 2; map<string, Tree> named = 3; Leaf leaf = 4; }
message Leaf { Tree back = 1; int32 n = 2; }

message Everything {
  int32 small = 1;
  uint32 natural = 2;
  int64 large = 3;
  uint64 huge = 4;
  sint64 zigzag = 5;
  fixed64 fixed = 6;
  double ratio = 7;
  float single = 8;
  bool truth = 9;
  string text = 10;
  bytes raw = 11;
  Colour colour = 12;
  repeated Colour colours = 13;
  map<int32, string> by_number = 14;
  map<bool, Colour> by_truth = 15;
  map<string, int64> by_name = 16;
  google.protobuf.Timestamp at = 17;
  google.protobuf.Duration takes = 18;
  google.protobuf.Struct any_object = 19;
  google.protobuf.Value anything = 20;
  google.protobuf.ListValue list = 21;
  google.protobuf.FieldMask mask = 22;
  google.protobuf.Int64Value maybe_large = 23;
  google.protobuf.StringValue maybe_text = 24;
  google.protobuf.BoolValue maybe_truth = 25;
  oneof choice { string by_word = 26; int64 by_index = 27; Tree by_tree = 28; }
  optional string perhaps = 29;
  Tree tree = 30;
  google.protobuf.NullValue nothing = 31;
  sfixed32 signed_fixed = 32;
}

message Wait { double seconds = 1; string status = 2; string words = 3; int32 bytes = 4; }

service Shop {
  rpc Echo(Everything) returns (Everything) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc GetHTTPInfo(google.protobuf.Empty) returns (google.protobuf.Struct);
  rpc Fail(Wait) returns (Wait) { option idempotency_level = IDEMPOTENT; }
  rpc Stream(Wait) returns (stream Wait);
  rpc Text(google.protobuf.StringValue) returns (google.protobuf.StringValue);
}
"""


@pytest.fixture(scope="session")
def descriptors(tmp_path_factory):
    """Compiles the service's descriptor set, imports included."""
    folder = tmp_path_factory.mktemp("protos")
    (folder / "shop.proto").write_text(PROTO)
    include = str(Path(protoc.__file__).parent / "_proto")
    proto, paths = str(folder / "shop.proto"), ["", f"-I{folder}", f"-I{include}"]
    assert protoc.main([*paths, "--include_imports", f"--descriptor_set_out={folder}/shop.binpb", proto]) == 0
    assert protoc.main([*paths, f"--descriptor_set_out={folder}/alone.binpb", proto]) == 0
    return folder / "shop.binpb"


@pytest.fixture(scope="session")
def everything(descriptors):
    """The message that has a field of each kind."""
    return from_file(descriptors).pool.FindMessageTypeByName("shop.v1.Everything")


class Shop:
    """A service that knows nothing of us."""

    def __init__(self, services):
        self._classes = {
            method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
            for method in services.service("shop.v1.Shop").methods
        }
        self.metadata = {}
        self.deadlines = []

    def handler(self):
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(self, name.lower()),
                request_deserializer=self._classes[name][0].FromString,
                response_serializer=lambda answer: b"\xff" if "garbage" in str(answer) else answer.SerializeToString(),
            )
            for name in ("Echo", "GetHTTPInfo", "Fail")
        }
        return grpc.method_handlers_generic_handler("shop.v1.Shop", methods)

    def _noted(self, context):
        self.metadata = dict(context.invocation_metadata())
        self.deadlines.append(context.time_remaining())

    async def echo(self, request, context):
        self._noted(context)
        return request

    async def gethttpinfo(self, request, context):
        self._noted(context)
        answer = self._classes["GetHTTPInfo"][1]()
        answer.update({"echo": self.metadata.get("authorization", ""), "n": 2})
        return answer

    async def fail(self, request, context):
        self._noted(context)
        await asyncio.sleep(request.seconds)
        if request.status:
            await context.abort(grpc.StatusCode[request.status], request.words)
        return self._classes["Fail"][1](words="x" * request.bytes)


@pytest.fixture
async def shop(descriptors, authority):
    """Serves the shop, plain and with TLS."""
    service = Shop(from_file(descriptors))
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((service.handler(),))
    pair = (authority.key_file.read_bytes(), authority.ca_file.read_bytes())
    service.port = server.add_insecure_port("127.0.0.1:0")
    service.tls_port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    service.place = f"127.0.0.1:{service.port}"
    await server.start()
    yield service
    await server.stop(0)


@pytest.fixture
def rpc(declared, shop, descriptors, invocation):
    """Makes the tool of a method: `rpc("Echo")`."""

    def make(method, /, *, secrets=None, timeout_s=5.0, **fields):
        options = {"target": shop.place, "method": f"shop.v1.Shop/{method}", "descriptors": str(descriptors)}
        options |= {"plaintext": True, "allow": [options["target"]]} | fields
        (tool,) = declared({"grpc": options}, secrets=secrets, timeout_s=timeout_s)
        return tool

    return make


FULL = {
    "small": -5,
    "natural": 4_294_967_295,
    "large": "-9223372036854775808",
    "huge": "18446744073709551615",
    "zigzag": "-1",
    "fixed": "7",
    "ratio": 0.5,
    "single": "NaN",
    "truth": True,
    "text": "grüß",
    "raw": "AAH/",
    "colour": "COLOUR_RED",
    "colours": ["COLOUR_UNSPECIFIED", "COLOUR_RED"],
    "by_number": {"-3": "x"},
    "by_truth": {"true": "COLOUR_RED"},
    "by_name": {"a": "1"},
    "at": "2026-01-02T03:04:05.600Z",
    "takes": "1.500s",
    "any_object": {"a": [1.0, None, {"b": "c"}]},
    "anything": None,
    "list": [1.0, "x"],
    "mask": "a.b,c",
    "maybe_large": "9007199254740993",
    "maybe_text": "",
    "maybe_truth": False,
    "by_index": "3",
    "perhaps": "",
    "tree": {
        "name": "root",
        "branches": [{"name": "b", "branches": [], "named": {}}],
        "named": {"n": {"name": "", "branches": [], "named": {}, "leaf": {"n": 3}}},
    },
    "nothing": None,
    "signed_fixed": -7,
}


async def test_every_kind_of_field_goes_there_and_back(rpc):
    tool = rpc("Echo")
    contract = tool.contract()
    inputs = Schema(from_struct(contract.input_schema, "input_schema"))
    assert inputs.violations(FULL) == []
    result = await tool.run(FULL)
    assert result == FULL
    assert Schema(from_struct(contract.output_schema, "output_schema")).violations(result) == []


async def test_an_empty_message_comes_back_with_its_defaults(rpc):
    tool = rpc("Echo")
    result = await tool.run({})
    assert (result["small"], result["large"], result["colours"], result["colour"]) == (0, "0", [], "COLOUR_UNSPECIFIED")
    assert "perhaps" not in result
    assert Schema(from_struct(tool.contract().output_schema, "output_schema")).violations(result) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("small", 2**31),
        ("small", "5"),
        ("natural", -1),
        ("large", 5),
        ("large", "five"),
        ("huge", "-5"),
        ("truth", "true"),
        ("text", 5),
        ("raw", "no base64!"),
        ("colour", "COLOUR_BLUE"),
        ("by_number", {"x": "y"}),
        ("by_truth", {"maybe": "COLOUR_RED"}),
        ("at", "yesterday"),
        ("takes", "1 hour"),
        ("any_object", []),
        ("list", {}),
        ("tree", {"trunk": 1}),
        ("tree", {"branches": [{"leaf": {"n": "x"}}]}),
        ("unknown", 1),
        ("nothing", 1),
    ],
)
async def test_what_is_no_such_message_breaks_the_schema(rpc, field, value):
    contract = rpc("Echo").contract()
    assert Schema(from_struct(contract.input_schema, "input_schema")).violations({field: value})


async def test_of_a_oneof_at_most_one_may_be_there(rpc):
    tool = rpc("Echo")
    schema = Schema(from_struct(tool.contract().input_schema, "input_schema"))
    for fits in ({}, {"by_word": "a"}, {"by_index": "1"}, {"by_tree": {}}):
        assert schema.violations(fits) == []
    assert schema.violations({"by_word": "a", "by_index": "1"})
    with pytest.raises(InvalidRequestError):
        await tool.run({"by_word": "a", "by_index": "1"})


@pytest.mark.parametrize(
    "arguments", [{"large": "99999999999999999999"}, {"unknown": 1}, {"at": "2026-99-01T00:00:00Z"}]
)
async def test_what_the_schema_lets_pass_and_the_mapping_does_not_is_an_invalid_request(rpc, shop, arguments):
    with pytest.raises(InvalidRequestError, match=r"arguments of its\.tool"):
        await rpc("Echo").run(arguments)
    assert shop.deadlines == []


def values_of(depth=2):
    words = st.text(max_size=5)
    tree = {"name": words}
    if depth:
        inner = values_of(depth - 1)
        tree |= {"branches": st.lists(inner, max_size=2), "named": st.dictionaries(words, inner, max_size=2)}
    return st.fixed_dictionaries({}, optional=tree)


LONG = st.integers(-(2**63), 2**63 - 1).map(str)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "small": st.integers(-(2**31), 2**31 - 1),
        "large": LONG,
        "huge": st.integers(0, 2**64 - 1).map(str),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "text": st.text(max_size=5),
        "by_name": st.dictionaries(st.text(max_size=3), LONG, max_size=2),
        "colours": st.lists(st.sampled_from(["COLOUR_RED", "COLOUR_UNSPECIFIED"]), max_size=3),
        "maybe_large": LONG,
        "by_word": st.text(max_size=3),
        "tree": values_of(),
    },
)


@given(value=MESSAGES)
def test_what_a_message_may_be_fits_its_schema_and_the_mapping_alike(everything, value):
    schema = Schema(message_schema(everything))
    assert schema.violations(value) == []
    message = json_format.ParseDict(value, GetMessageClass(everything)())
    written = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert schema.violations(written) == []


async def test_each_unary_method_of_a_service_becomes_a_tool(declared, shop, descriptors):
    options = {"target": "127.0.0.1:1", "service": "grpc.health.v1.Health", "module": "grpc_health.v1.health_pb2"}
    found = declared({"grpc": options}, name="store")
    assert {tool.name for tool in found} >= {"store.check"}
    assert not {tool.name for tool in found} & {"store.watch"}  # it streams
    options |= {"service": "shop.v1.Shop", "descriptors": str(descriptors)}
    del options["module"]
    with pytest.raises(SetupError, match=r"its\.tool: .*Shop\.Text takes no message that is a JSON object"):
        declared({"grpc": options})


@pytest.mark.parametrize(
    ("name", "spelled"), [("GetHTTPInfo", "get_http_info"), ("Echo", "echo"), ("getV2List", "get_v2_list"), ("A", "a")]
)
def test_a_method_is_named_as_tools_are(name, spelled):
    assert snake(name) == spelled


async def test_effects_are_read_off_the_methods(rpc):
    assert [rpc(name).effect for name in ("Echo", "GetHTTPInfo", "Fail")] == ["pure", "non_idempotent", "idempotent"]


async def test_a_call_has_deadline_metadata_and_key(rpc, shop, monkeypatch, invocation):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    secrets = {"CANARY": {"env": "CANARY_KEY", "places": [shop.place]}}
    metadata = {"authorization": {"secret": "CANARY", "prefix": "Bearer "}, "x-client": "meshwright"}
    tool = rpc("GetHTTPInfo", secrets=secrets, metadata=metadata, timeout_s=3)
    assert await tool.run({}) == {"echo": "Bearer [secret]", "n": 2.0}
    assert shop.metadata["authorization"] == f"Bearer {CANARY}"
    assert shop.metadata["x-client"] == "meshwright"
    assert shop.metadata["idempotency-key"].startswith(invocation.key)
    assert 2 < shop.deadlines[0] <= 3
    failing = rpc("Fail", secrets=secrets, metadata=metadata)
    with pytest.raises(ToolFailedError) as caught:
        await failing.run({"status": "NOT_FOUND", "words": f"no {CANARY} here"})
    assert caught.value.message == f"its.tool: {shop.place} answered NOT_FOUND: no [secret] here"
    assert CANARY not in repr(tool) + repr(vars(tool)) + repr(caught.value) + str(caught.value.to_status())


@pytest.mark.parametrize(
    ("status", "error", "is_retryable"),
    [
        ("NOT_FOUND", ToolFailedError, False),
        ("INVALID_ARGUMENT", ToolFailedError, False),
        ("PERMISSION_DENIED", ToolFailedError, False),
        ("UNKNOWN", ToolFailedError, False),
        ("INTERNAL", ToolFailedError, False),
        ("UNAVAILABLE", BackendUnavailableError, True),
        ("RESOURCE_EXHAUSTED", BackendUnavailableError, True),
        ("ABORTED", BackendUnavailableError, True),
        ("DEADLINE_EXCEEDED", DeadlineExceededError, True),
    ],
)
async def test_a_status_is_data_that_a_model_can_act_on(rpc, status, error, is_retryable):
    with pytest.raises(error) as caught:
        await rpc("Fail").run({"status": status, "words": "because\n of  this" + "x" * 2_000})
    assert caught.value.is_retryable == is_retryable
    assert caught.value.metadata == {"grpc_status": status}
    assert status == "DEADLINE_EXCEEDED" or "because of this" in caught.value.message
    assert len(caught.value.message) < 700


async def test_a_method_that_hangs_ends_in_time(rpc):
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"its\.tool took longer than 0\.3 s"):
        await rpc("Fail", timeout_s=0.3).run({"seconds": 30})
    assert time.monotonic() - began < 20


async def test_an_answer_that_is_too_large_once_it_is_unpacked_is_not_taken(rpc):
    assert len((await rpc("Fail").run({"bytes": 2**20}))["words"]) == 2**20
    with pytest.raises(ResultTooLargeError, match="ask for less"):
        await rpc("Fail").run({"bytes": 64 * 2**20})


async def test_an_answer_that_is_no_message_is_a_failure(rpc):
    with pytest.raises(ToolFailedError, match=r"the answer is no shop\.v1\.Everything"):
        await rpc("Echo").run({"text": "garbage"})


async def test_a_service_next_door_needs_an_allowance(rpc, outside):
    listener = await outside(b"")
    with pytest.raises(EgressRefusedError, match="is private"):
        await rpc("Echo", target=listener.place, allow=[]).run({})
    assert listener.connections == 0


async def test_a_service_that_is_not_there_may_be_tried_again(rpc):
    with pytest.raises(BackendUnavailableError):
        await rpc("Echo", target="127.0.0.1:1", allow=["127.0.0.1:1"]).run({})


async def test_tls_is_the_default_and_held_against_the_declared_name(rpc, shop, authority):
    for name, is_valid in (("localhost", True), ("127.0.0.1", False)):
        place = f"{name}:{shop.tls_port}"
        tool = rpc("Echo", target=place, allow=[place], plaintext=False, ca_file=str(authority.ca_file))
        with contextlib.nullcontext() if is_valid else pytest.raises(BackendUnavailableError, match="certificate"):
            assert (await tool.run({"text": "x"}))["text"] == "x"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "shop.v1.Shop/Nothing"}, r"backend\.grpc\.method: shop\.v1\.Shop has no method Nothing"),
        ({"method": "shop.v1.Shop"}, r"has no method \(none was named\): write package\.Service/Method"),
        ({"method": "shop.v1.Nothing/Echo"}, r"there is no service shop\.v1\.Nothing: the services are shop\.v1\.Shop"),
        ({"method": "shop.v1.Shop/Stream"}, "streams: a tool is one question and one answer"),
        ({"method": "shop.v1.Shop/Text"}, "takes no message that is a JSON object"),
        ({"target": "127.0.0.1"}, r"backend\.grpc\.target: '127\.0\.0\.1' is no host:port"),
        ({"target": "0x7f.1:80"}, r"backend\.grpc\.target: '0x7f\.1' is no host"),
        ({"descriptors": "nowhere.binpb"}, r"backend\.grpc\.descriptors: .*nowhere\.binpb cannot be read"),
        ({"descriptors": __file__}, r"backend\.grpc\.descriptors: .* is no FileDescriptorSet"),
        ({"descriptors": "", "module": "no_such_pb2"}, r"backend\.grpc\.module: no_such_pb2 cannot be imported"),
        ({"descriptors": "", "module": "json"}, r"backend\.grpc\.module: json holds no descriptor"),
        ({"module": "json"}, r"backend\.grpc: either descriptors or module"),
        ({"service": "shop.v1.Shop"}, r"backend\.grpc: either method or service"),
        ({"metadata": {"x-mesh-grant-bin": "x"}}, "metadata x-mesh-grant-bin is not for a declaration to set"),
        ({"metadata": {"authorization": {"secret": "NONE"}}}, "there is no secret NONE"),
        ({"ca_file": "nowhere.pem"}, r"backend\.grpc: ca_file: nowhere\.pem cannot be read"),
        ({"allow": ["*"]}, r"backend\.grpc: allow: '\*' is no host:port"),
    ],
)
async def test_a_mistake_in_the_declaration_is_told_with_its_field(rpc, fields, told):
    with pytest.raises(SetupError, match=told) as caught:
        rpc("Echo", **fields)
    assert "\n" not in caught.value.message


def test_a_set_without_its_imports_is_completed_with_what_everybody_has(descriptors):
    services = from_file(descriptors.with_name("alone.binpb"))
    assert services.method("shop.v1.Shop/Echo").input_type.full_name == "shop.v1.Everything"


def test_the_services_of_a_generated_module_are_read():
    services = from_module("meshwright.gen.tools.v1.tool_service_pb2")
    assert services.method("tools.v1.ToolService/GetOutcome").output_type.name == "GetOutcomeResponse"


async def test_a_call_through_a_host_is_checked_by_the_generated_schemas(rpc, hosting, registry):
    hosted = await hosting(rpc("Echo"))
    grant = Grant(tenant="acme", principal="alice", task_id="task-1", tools=["its.tool@1.0.0"])
    outcome = await hosted.host.invoke(grant, "its.tool@1.0.0", '{"large": "1", "tree": {"name": "x"}}', "")
    assert json.loads(outcome.result_json)["tree"]["name"] == "x"
    with pytest.raises(InvalidRequestError, match="large"):
        await hosted.host.invoke(grant, "its.tool@1.0.0", '{"large": 1}', "")
