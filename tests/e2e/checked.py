"""A mesh as production wants it: TLS and keys at the edge, two instances of all; what `meshwright doctor` looks at."""

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from meshwright.cli import authority
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.main import app
from meshwright.cli.place import Place
from meshwright.cli.readiness.peer import Peer
from meshwright.cli.readiness.survey import trusting
from meshwright.core.api_key import LIBRARY as KEY_LIBRARY
from meshwright.core.api_key import ApiKeys
from meshwright.core.errors import UnavailableError
from meshwright.core.role import Role
from meshwright.core.store import Store
from meshwright.core.tls import AUTHORITY
from meshwright.core.valkey import EmbeddedValkey
from meshwright.gateway import envoy
from meshwright.gateway.serving import GatewayProcess
from meshwright.gateway.settings import GatewaySettings
from tests.conftest import Mesh
from tests.e2e.workers import Workers
from tests.ports import free_ports

SCOPES = ("tasks:read", "tasks:write", "costs:read", "agents:read", "tools:read")
SCRIPT = "agents: {default: [{text: ready}]}"
PRICES = "script.yaml: {input: 1000000, output: 1000000}"
HERE = Path(__file__).parent


def public_authority(folder: Path) -> Authority:
    """An authority that is none of development's."""
    kept, authority.AUTHORITY_NAME = authority.AUTHORITY_NAME, "Public Authority"
    try:
        return Authority.make(folder)
    finally:
        authority.AUTHORITY_NAME = kept


class Checked:
    """The mesh; runs between `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = contextlib.AsyncExitStack()
        self.url = self.key = self.store_url = self.ca = ""

    async def start(self) -> "Checked":
        (self.folder / "store").mkdir()
        valkey = EmbeddedValkey.prepare(self.folder / "store")
        process = self.stack.enter_context(subprocess.Popen(valkey.command, stdout=subprocess.DEVNULL))
        self.stack.callback(process.terminate)
        self.store_url = valkey.url
        store = Store(valkey.url, KEY_LIBRARY)
        await store.open()
        self.stack.push_async_callback(store.close)
        mesh = Mesh(valkey.url, self.folder, auth="keys")
        self.stack.push_async_callback(mesh.close)
        await mesh.open()
        await self._agents(mesh)
        made = public_authority(self.folder / "certs")
        made.issue(Wanted(Role.EDGE, hosts=("localhost",)), 90)
        self.ca = str(made.folder / AUTHORITY)
        port = await self._edges(valkey.url, mesh.target, str(made.folder / Role.EDGE))
        self.url = f"https://localhost:{port}"
        self.keys = ApiKeys(store)
        self.key = await self.key_of(*SCOPES)
        async with asyncio.timeout(30):
            while not await self._is_ready():
                await asyncio.sleep(0.1)
        return self

    async def _agents(self, mesh: Mesh) -> None:
        """Starts two processes of one agent."""
        workers = Workers(mesh.url, mesh.target)
        self.stack.push_async_callback(workers.close)
        script, prices = self.folder / "script.yaml", self.folder / "prices.yaml"
        script.write_text(SCRIPT)
        prices.write_text(PRICES)
        chosen: dict[str, Any] = {"model": f"scripted:{script}", "prices": str(prices), "auth": "keys"}
        chosen |= {"tracing": True, "budget_tenant_day_micros": 5_000_000}
        await asyncio.gather(*(workers.start(HERE / "doubler.py", "clerk", **chosen) for _ in range(2)))

    async def _edges(self, store_url: str, registry: str, certificates: str) -> int:
        """Starts two gateways, the first with its Envoy; returns its port."""
        ports = free_ports(4)
        for number in range(2):
            folder = self.folder / f"envoy-{number}"
            gateway = GatewayProcess(
                GatewaySettings(
                    store_url=store_url,
                    registry=registry,
                    auth="keys",
                    port=0,
                    edge_port=ports[2 * number],
                    internal_port=ports[2 * number + 1],
                    folder=str(folder),
                    default_agent="clerk",
                    edge_tls_dir=certificates,
                    drain_s=0,
                )
            )
            self.stack.push_async_callback(gateway.stop)
            await gateway.start()
        folder = self.folder / "envoy-0"
        log = self.stack.enter_context((self.folder / "envoy.log").open("wb"))
        process = subprocess.Popen(envoy.command(), cwd=folder, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return ports[0]

    async def _is_ready(self) -> bool:
        with contextlib.suppress(UnavailableError):
            return (await Peer(Place.of_edge(self.url), "", trusting(self.ca)).ask("GET", "/ready")).status == 200
        return False

    async def key_of(self, *scopes: str, store: Store | None = None) -> str:
        """Makes another key; in another store, where one is given."""
        keys = ApiKeys(store) if store else self.keys
        return (await keys.create("doctor", scopes, tenant="acme", principal="ann", life_s=86_400))[0]

    async def stop(self) -> None:
        await self.stack.aclose()

    def doctor(self, *arguments: str, **settings: str) -> Any:
        """Runs the command, as an operator with the key of this mesh."""
        chosen = {"api_key": self.key, "edge_ca": self.ca, "store_admin_url": self.store_url} | settings
        environment = {f"MESHWRIGHT_{name.upper()}": value for name, value in chosen.items()}
        return CliRunner().invoke(app, ["doctor", "--production", *arguments], env=environment)


def items(done: Any) -> dict[str, Any]:
    """Reads what the command printed with `-o json`, by item."""
    return {f"{one['group']}: {one['item']}": one for one in json.loads(done.stdout)}
