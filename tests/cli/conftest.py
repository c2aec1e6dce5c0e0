"""What tests of the command line share: an edge that serves `tasks` of theirs, and TLS with a trusted certificate."""

import pytest

from meshwright.cli.authority import Wanted
from meshwright.cli.edge import Edge
from meshwright.core.role import Role
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from tests.cli.liar import shown
from tests.e2e.checked import public_authority


@pytest.fixture
async def edge(tasks):
    """The edge of a server that answers with `tasks`."""
    services = {"agents.v1.TaskService": bound(add_TaskServiceServicer_to_server, tasks)}
    server = Server(Settings(drain_s=0, tracing=False), services)
    opened = Edge(f"http://{await server.start()}")
    yield opened
    await opened.close()
    await server.stop()


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """An authority, and a certificate of it for localhost."""
    made = public_authority(tmp_path_factory.mktemp("certs"))
    made.issue(Wanted(Role.EDGE, hosts=("localhost",)), 90)
    return made


@pytest.fixture
def tls(public):
    return shown(public.folder / Role.EDGE, "h2", "http/1.1")
