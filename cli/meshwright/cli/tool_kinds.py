"""What `meshwright tool new` writes: a tool of each kind, and its test."""

from enum import StrEnum
from string import Template


class Kind(StrEnum):
    """What is behind a tool."""

    PYTHON = "python"
    HTTP = "http"
    SQL = "sql"
    GRPC = "grpc"


PYTHON = Template('''"""The tool $name."""

from typing import Annotated

from meshwright.registry import tool
from pydantic import BaseModel, Field

Text = Annotated[str, Field(max_length=100_000, description="What is counted")]
Most = Annotated[int, Field(ge=1, description="Words that a short text may have")]


class Count(BaseModel):
    """How long a text is."""

    words: Annotated[int, Field(ge=0)]
    is_long: bool = Field(description="It has more words than a short one")


@tool(
    name="$name",
    version="1.0.0",  # raise it with every change of the contract
    effect="pure",  # it only reads; else "idempotent" or "non_idempotent"
    timeout_s=5,
)
def $function(text: Text, most: Most = 500) -> Count:
    """Counts words. Use it before a text goes where only a short one fits."""
    words = len(text.split())
    return Count(words=words, is_long=words > most)
''')

PYTHON_TEST = Template('''"""Tests of $name, called as in a mesh."""

import pytest
from meshwright.registry.testing import ToolBench

from $module import $function

pytestmark = pytest.mark.asyncio


async def test_words_are_counted() -> None:
    async with ToolBench($function) as bench:
        call = await bench.call({"text": "to be or not to be", "most": 5})
    assert call.result == {"words": 6, "is_long": True}


async def test_a_model_reads_what_is_wrong_with_its_arguments() -> None:
    async with ToolBench($function) as bench:
        call = await bench.call({"text": "to be", "most": 0})
    assert "/most: 0 is less than the minimum of 1" in call.failure
''')

HTTP = Template("""# The tool $name: a service that speaks HTTP.
tools:
  - name: "$name"
    version: 1.0.0                             # raise it with every change of the contract
    description: Looks up an article by its number. Use it before you name a price.
    effect: pure                               # it only reads; else idempotent or non_idempotent
    timeout_s: 10
    input_schema:
      type: object
      properties:
        number: {type: integer, minimum: 1, description: As printed on the article}
      required: [number]
      additionalProperties: false
    output_schema:
      type: object
      properties:
        title: {type: string}
        cents: {type: integer}
      required: [title, cents]
    backend:
      http:
        url: http://127.0.0.1:8099/v1/articles/{number}
        allow: ["127.0.0.1:8099"]              # only public addresses need no leave
""")

HTTP_TEST = Template('''"""Tests of $name, called as in a mesh."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from meshwright.registry.testing import ToolBench
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.toolfile import load

pytestmark = pytest.mark.asyncio
FILE = Path(__file__).with_name("$module.yaml")
PLACE = "127.0.0.1:8099"
ARTICLES = {"/v1/articles/7": {"title": "Bolt", "cents": 12}}


class Service(BaseHTTPRequestHandler):
    """Answers as the service does."""

    def do_GET(self) -> None:
        """Sends an article, or says that there is none."""
        article = ARTICLES.get(self.path)
        body = json.dumps(article or {"error": "no such article"}).encode()
        self.send_response(200 if article else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[HostedTool]:
    """The declared tool, which calls the server of this test."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever).start()
        place = f"127.0.0.1:{server.server_port}"
        file = tmp_path / FILE.name
        file.write_text(FILE.read_text().replace(PLACE, place))
        (found,) = load(file)
        yield found
        server.shutdown()


async def test_an_article_is_looked_up(tool: HostedTool) -> None:
    async with ToolBench(tool) as bench:
        call = await bench.call({"number": 7})
    assert call.result == {"title": "Bolt", "cents": 12}


async def test_a_model_reads_what_the_service_said(tool: HostedTool) -> None:
    async with ToolBench(tool) as bench:
        call = await bench.call({"number": 8})
    assert "answered 404" in call.failure
    assert "no such article" in call.failure


async def test_a_model_reads_what_is_wrong_with_its_arguments(tool: HostedTool) -> None:
    async with ToolBench(tool) as bench:
        call = await bench.call({"number": 0})
    assert "/number: 0 is less than the minimum of 1" in call.failure
''')

SQL = Template("""# The tool $name: statements that read a SQLite file.
# A model chooses one of them and fills its parameters.
tools:
  - name: "$name"
    version: 1.0.0                             # raise it with every change of the contract
    description: Looks up customers. Use it before you write to one.
    timeout_s: 5
    backend:
      sql:
        database: shop.db                      # beside this file
        statements:
          of_a_city:
            description: Customers of a city, by name.
            sql: SELECT id, name FROM customer WHERE city = :city ORDER BY name
            parameters:
              city: {type: string, description: "As it is written on letters"}
""")

SQL_TEST = Template('''"""Tests of $name, called as in a mesh."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from meshwright.registry.testing import ToolBench
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.toolfile import load

pytestmark = pytest.mark.asyncio
FILE = Path(__file__).with_name("$module.yaml")
BONN = {"city": "Bonn"}
DATABASE = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
    INSERT INTO customer VALUES
        (1, 'Meier', 'Bonn'), (2, 'Ahrens', 'Bonn'), (3, 'Kunz', 'Trier');
"""


@pytest.fixture
def tool(tmp_path: Path) -> HostedTool:
    """The declared tool, beside a database of this test."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.executescript(DATABASE)
    (found,) = load(Path(shutil.copy(FILE, tmp_path)))
    return found


async def test_customers_of_a_city_are_listed(tool: HostedTool) -> None:
    async with ToolBench(tool) as bench:
        call = await bench.call({"statement": "of_a_city", "parameters": BONN})
    assert [row["name"] for row in call.result["rows"]] == ["Ahrens", "Meier"]


async def test_a_model_reads_what_is_wrong_with_its_arguments(tool: HostedTool) -> None:
    async with ToolBench(tool) as bench:
        call = await bench.call({"statement": "of_a_city", "parameters": {}})
    assert "is a required property" in call.failure
''')

GRPC = Template("""# The tool $name: a method of a gRPC service.
# Arguments and result are the method's messages.
tools:
  - name: "$name"
    version: 1.0.0                             # raise it with every change of the contract
    description: Says whether a service is up. Use it before you promise that something works.
    effect: pure                               # it only reads; else idempotent or non_idempotent
    timeout_s: 5
    backend:
      grpc:
        target: 127.0.0.1:50051
        allow: ["127.0.0.1:50051"]             # only public addresses need no leave
        plaintext: true                        # leave it out: TLS
        module: grpc_health.v1.health_pb2      # or descriptors: a file of `protoc --descriptor_set_out`
        method: grpc.health.v1.Health/Check
""")

GRPC_TEST = Template('''"""Tests of $name, called as in a mesh."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from meshwright.registry.testing import ToolBench
from meshwright.registry.toolfile import load

pytestmark = pytest.mark.asyncio
FILE = Path(__file__).with_name("$module.yaml")
PLACE = "127.0.0.1:50051"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[ToolBench]:
    """Runs the declared tool and a server that it calls."""
    service = HealthServicer()
    service.set("mail", HealthCheckResponse.SERVING)
    server = grpc.aio.server()
    add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    file = folder / FILE.name
    file.write_text(FILE.read_text().replace(PLACE, f"127.0.0.1:{port}"))
    (tool,) = load(file)
    async with ToolBench(tool) as bench:
        yield bench
    await server.stop(None)


async def test_a_service_that_is_up_is_told_so(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        call = await bench.call({"service": "mail"})
    assert call.result == {"status": "SERVING"}


async def test_a_model_reads_what_the_service_said(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        call = await bench.call({"service": "post"})
    assert "NOT_FOUND" in call.failure


async def test_a_model_reads_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        call = await bench.call({"service": 7})
    assert "/service: 7 is not of type" in call.failure
''')

TEMPLATES = {
    Kind.PYTHON: (".py", PYTHON, PYTHON_TEST),
    Kind.HTTP: (".yaml", HTTP, HTTP_TEST),
    Kind.SQL: (".yaml", SQL, SQL_TEST),
    Kind.GRPC: (".yaml", GRPC, GRPC_TEST),
}
"""Of each kind: how the tool's file ends, the tool, its test."""
