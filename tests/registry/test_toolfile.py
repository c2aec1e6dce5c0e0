"""A host's declarations: what they become, and that every mistake is one line with file, tool and field."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.core.errors import SetupError
from meshwright.core.settings import Settings, child_environment
from meshwright.gen.registry.v1.tool_registry_service_pb2 import InvokeToolRequest
from meshwright.registry.module import tools
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.toolfile import load

REPO = Path(__file__).parents[2]
GOOD = """
tools:
  - name: city.weather
    version: 1.0.0
    description: Tells the weather of a city.
    effect: pure
    timeout_s: 5
    input_schema:
      type: object
      properties: {city: {type: string}}
      required: [city]
      additionalProperties: false
    output_schema: {type: object}
    backend:
      http:
        url: https://weather.example/v1/{city}
"""


@pytest.fixture
def told(tmp_path):
    """Returns what is told of a file, without its name."""

    def of(text):
        file = tmp_path / "tools.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SetupError) as caught:
            load(file, Settings())
        assert "\n" not in caught.value.message
        name, _, rest = caught.value.message.partition(": ")
        assert name == str(file)
        return rest

    return of


def test_a_file_becomes_tools_that_a_host_takes(tmp_path):
    (tmp_path / "tools.yaml").write_text(GOOD)
    (tool,) = load(tmp_path / "tools.yaml", Settings())
    assert isinstance(tool, HostedTool)
    assert (tool.name, tool.version, tool.effect, tool.timeout_s, tool.approval) == (
        "city.weather",
        "1.0.0",
        "pure",
        5.0,
        "never",
    )
    contract = tool.contract("127.0.0.1:1")
    assert (contract.endpoint, contract.timeout.seconds) == ("127.0.0.1:1", 5)
    assert contract.description == "Tells the weather of a city."
    assert len(contract.digest) == 64


def test_the_example_is_a_file_that_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("WEATHER_API_KEY", "not-a-real-key")
    found = {tool.name: tool.effect for tool in tools(str(REPO / "examples/tools.yaml"))}
    assert found == {"city.weather": "pure", "ticket.create": "idempotent", "research.ask": "idempotent"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("name: city.weather", "name: City", "tool City: name: must be 1 to 64"),
        ("name: city.weather", "name: 5", "tool number 1: name: must be a valid string"),
        ("    version: 1.0.0\n", "", "tool city.weather: version: is required"),
        ("version: 1.0.0", "version: 1.0", "tool city.weather: version: must be a valid string"),
        ("version: 1.0.0", "version: '1.0'", "tool city.weather: version: must be a semantic version"),
        ("effect: pure", "effect: none", "tool city.weather: effect: must be 'pure', 'idempotent'"),
        ("timeout_s: 5", "timeout_s: 0", "tool city.weather: timeout_s: must be greater than 0"),
        ("timeout_s: 5", "timeout_s: .inf", "tool city.weather: timeout_s: must be less than or equal"),
        ("timeout_s: 5", "timeout_s: .nan", "tool city.weather: timeout_s: "),
        ("timeout_s: 5", "timeout: 5", "tool city.weather: timeout: is not known here"),
        ("type: object\n      properties", "type: 5\n      properties", "tool city.weather: input_schema: "),
        ("required: [city]", "required: []", "backend.http.url: the argument city must be required"),
        ("{city: {type: string}}", "{town: {type: string}}", "backend.http: the argument city is not in input_schema"),
        ("{city: {type: string}}", "{city: {}, day: {}}", "input_schema: the argument day goes nowhere"),
        ("output_schema: {type: object}", "output_schema: {type: thing}", "tool city.weather: output_schema: "),
        ("output_schema: {type: object}", "output_schema: {$ref: 'http://x'}", "tool city.weather: output_schema: "),
        ("url: https://weather.example", "url: ftp://weather.example", "backend.http.url: must be http(s)://host"),
        ("url: https://weather.example", "url: https://{city}.example", "backend.http.url: must be http(s)://host"),
        ("url: https://weather.example", "url: https://0x7f.1", "backend.http.url: '0x7f.1' is no host"),
        ("url: https://weather.example", "url: https://u:p@weather.example", "backend.http.url: "),
        ("v1/{city}", "v1/{city}/{", "backend.http.url: has a brace that names no argument"),
        ("v1/{city}", "v1/a b/{city}", "backend.http.url: the URL is not called"),
        ("v1/{city}", "{city}?{city}=1", "backend.http.url: has a brace that names no argument"),
        ("v1/{city}", "{city}\n        method: FETCH", "backend.http.method: must be 'GET'"),
        ("v1/{city}", "{city}\n        redirects: 99", "backend.http.redirects: must be less than"),
        ("v1/{city}", "{city}\n        allow: [localhost]", "backend.http: allow: 'localhost' is no host:port"),
        ("v1/{city}", "{city}\n        ca_file: none.pem", "backend.http: ca_file: "),
        ("v1/{city}", "{city}\n        headers: {Host: x}", "backend.http.headers.host: is set by the call itself"),
        ("v1/{city}", "{city}\n        headers: {A: x, a: y}", "backend.http.headers.a: stands twice"),
        ("v1/{city}", '{city}\n        headers: {A: "x\\r\\ny"}', "backend.http.headers.A: must be printable ASCII"),
        ("v1/{city}", "{city}\n        headers: {A: {secret: S}}", "backend.http.headers: there is no secret S"),
        ("v1/{city}", "{city}\n        headers: {A: {value: S}}", "backend.http.headers.A.secret: is required"),
        ("v1/{city}", "{city}\n      sql: {}", "backend.sql.database: is required"),
        ("http:\n", "ftp:\n", "tool city.weather: backend.ftp: is not known here"),
        ("http:\n        url: https://weather.example/v1/{city}", "{}", "exactly one of http, grpc, sql and agent"),
        ("tools:", "tool:", "tools: is required"),
    ],
)
def test_a_mistake_is_one_line_with_tool_and_field(told, before, after, expected):
    text = GOOD.replace(before, after)
    assert text != GOOD
    assert expected in told(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping of names"),
        ("[]", "must be a mapping of names"),
        ("1: 2", "must be a mapping of names"),
        ("tools: []", "tools: must have at least 1 item"),
        ("tools: {}", "tools: must be a valid list"),
        ("tools: [x]", "tool number 1: must be a mapping of names"),
        ("tools: [\n", "line 2: "),
        ("tools: [}", "line 1: "),
        ("a: 1\nb: 2\na: 3", "line 3: a stands twice"),
        ("a: &x [1]\nb: *x", "line 2: write it out: references (*name) are not read"),
        ("a: &x\n  b: *x", "line 2: write it out"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: could not determine a constructor"),
        ("[" * 100, "goes deeper than 40 levels"),
        ("{a: " * 100, "goes deeper than 40 levels"),
        (b"\xff\xfe\x00", "is no YAML: "),
        (b"a: \x00", "is no YAML: "),
        (GOOD + GOOD.partition("tools:")[2], "tool city.weather@1.0.0: stands twice: rename one of them"),
    ],
)
def test_what_is_no_such_file_is_told(told, text, expected):
    assert expected in told(text)


SECRET = "secrets:\n  KEY: {env: SOME_KEY, places: ['weather.example:443']}\n"


@pytest.mark.parametrize(
    ("secrets", "value", "expected"),
    [
        (SECRET, None, "secrets.KEY.env: the variable SOME_KEY is not set"),
        (SECRET, "short", "secrets.KEY.holds no 8 to 8192 visible ASCII characters"),
        (SECRET, "canary-1\nX-Evil: 1", "secrets.KEY.holds no 8 to 8192 visible ASCII characters"),
        (SECRET.replace("weather.example:443", "other.example:443"), "canary-123", "secret KEY may not be sent to"),
        (SECRET.replace(":443", ""), "canary-123", "secrets.KEY.places: 'weather.example' is no host:port"),
        (SECRET.replace("env: SOME_KEY", "value: canary-123"), "x", "secrets.KEY.value: is not known here"),
        (SECRET.replace("env: SOME_KEY", "env: SOME_KEY, file: x"), "x", "secrets.KEY: either env or file"),
        (SECRET.replace("env: SOME_KEY", "file: none.txt"), "x", "secrets.KEY.file: none.txt cannot be read"),
    ],
)
def test_a_secret_that_is_not_there_or_goes_elsewhere_is_told_without_it(told, monkeypatch, secrets, value, expected):
    if value:
        monkeypatch.setenv("SOME_KEY", value)
    text = secrets + GOOD.strip() + "\n        headers: {Authorization: {secret: KEY}}\n"
    said = told(text)
    assert expected in said
    assert "canary" not in said


def test_a_secret_is_sent_by_tls_only_unless_the_place_is_next_door(told, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "canary-123")
    text = SECRET.replace(":443", ":80") + GOOD.strip().replace("https:", "http:")
    text += "\n        headers: {Authorization: {secret: KEY}}\n"
    assert "backend.http.headers: a secret is sent by https only" in told(text)


def test_a_secret_may_stand_in_a_file(tmp_path):
    (tmp_path / "key.txt").write_text("canary-123\n")
    text = SECRET.replace("env: SOME_KEY", "file: key.txt") + GOOD.strip()
    (tmp_path / "tools.yaml").write_text(text + "\n        headers: {Authorization: {secret: KEY}}\n")
    (tool,) = load(tmp_path / "tools.yaml", Settings())
    assert "canary" not in repr(tool) + repr(vars(tool))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["name", "version", "description", "effect", "timeout_s", "approval", "input_schema", "output_schema"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tool=st.dictionaries(st.sampled_from(FIELDS), JSON),
    backend=st.dictionaries(st.sampled_from(["http", "grpc", "sql", "agent", "x"]), JSON),
)
def test_whatever_stands_in_a_file_is_taken_or_told_in_one_line(tmp_path, tool, backend):
    good = {"name": "a", "version": "1.0.0", "description": "x", "input_schema": {"type": "object"}}
    file = tmp_path / "tools.yaml"
    file.write_text(json.dumps({"tools": [good | tool | {"backend": backend}]}))
    told = f"{file}: "
    try:
        load(file, Settings())
    except SetupError as error:
        told = error.message
    assert re.fullmatch(f"{re.escape(str(file))}: .*", told)


@pytest.mark.parametrize("place", ["/nowhere/tools.yaml", "/nowhere/tools.yml"])
def test_a_file_that_is_not_there_is_told(place):
    with pytest.raises(SetupError, match=f"{place} cannot be read: No such file"):
        tools(place)


def test_a_file_that_is_too_large_is_told(tmp_path):
    (tmp_path / "tools.yaml").write_text("#" * (2**20 + 1))
    with pytest.raises(SetupError, match=r"tools\.yaml has more than 1048576 bytes"):
        load(tmp_path / "tools.yaml")


async def test_a_host_s_process_serves_declared_tools(registry, store, tmp_path, outside, answered):
    service = await outside(answered('{"degrees": 21}'))
    text = GOOD.replace("https://weather.example", f"http://{service.place}").strip()
    (tmp_path / "tools.yaml").write_text(f"{text}\n        allow: ['{service.place}']\n")
    chosen = Settings(store_url=store.url, registry=registry.target, tracing=False, drain_s=0)
    command = [sys.executable, "-m", "meshwright.registry.tool", str(tmp_path / "tools.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment(chosen)) as process:
        assert process.stdout
        try:
            ready = json.loads(await asyncio.to_thread(process.stdout.readline))
            (tool,) = await registry.client.resolve(["city.weather@^1"])
            assert tool.endpoint == ready["target"]
            request = InvokeToolRequest(name="city.weather")
            request.arguments.update({"city": "Bonn"})
            answer = await registry.tools.InvokeTool(request, timeout=10)
            assert answer.result.struct_value.fields["degrees"].number_value == 21
        finally:
            process.terminate()


def test_a_host_s_process_tells_a_mistake_in_one_line(tmp_path):
    (tmp_path / "tools.yaml").write_text(GOOD.replace("effect: pure", "effect: maybe"))
    command = [sys.executable, "-m", "meshwright.registry.tool", str(tmp_path / "tools.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: .*tools\.yaml: tool city\.weather: effect: .*\n", ended.stderr)
