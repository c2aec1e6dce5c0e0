"""The catalog: reading and watching it costs the same however many versions of tools it holds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from benchmarks.findings import Finding
from benchmarks.load import closed_loop
from benchmarks.parts import BenchmarkError, Mesh, Scene, pin_all
from benchmarks.rounds import Effort
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry.catalog import checked_contract
from meshwright.registry.page import page_token
from meshwright.registry.store import CatalogStore

FEW, MANY = 2, 2_000
"""Tools; each has five versions."""
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "2.0.0")
FIRST = 1_000
"""Number of the two tools that are asked for: in the middle of the many, alone among the few."""
PAGE = 2
WRITERS = 64
IN_FLIGHT = 8
PATIENCE_S = 30.0
UNEQUAL = "nothing: both are asked the same, and answer the same"


def name_of(number: int) -> str:
    """Names a tool so that names sort as numbers do."""
    return f"bench.tool{number:05d}"


def contract(number: int, version: str) -> pb.Tool:
    """Makes a contract of about 2 KB."""
    properties = {f"p{place}": {"type": "string", "description": "What is looked for. " * 4} for place in range(12)}
    tool = pb.Tool(name=name_of(number), version=version, description="Looks for things.", endpoint="127.0.0.1:1")
    tool.input_schema.update({"type": "object", "properties": properties, "required": ["p0"]})
    tool.output_schema.update({"type": "array", "items": {"type": "string"}})
    return checked_contract(tool)


async def fill(store: CatalogStore, numbers: range) -> None:
    """Registers the versions of tools."""
    pending = iter(numbers)

    async def writer() -> None:
        for number in pending:
            for seen, version in enumerate(VERSIONS):
                tool = contract(number, version)
                outcome = await store.register(
                    tool.name, version, tool.SerializeToString(), tool.digest, tool.endpoint, seen=seen
                )
                if outcome != "stored":
                    raise BenchmarkError(f"{tool.name}@{version} was {outcome}")

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


@dataclass
class Side:
    """A registry with its catalog, and what it is asked."""

    mesh: Mesh
    store: CatalogStore
    stub: ToolRegistryServiceStub
    port: int = 1

    async def list_page(self) -> None:
        """Reads the page with the two tools."""
        request = pb.ListToolsRequest(page_size=PAGE, page_token=page_token(name_of(FIRST - 1)))
        page = await self.stub.ListTools(request)
        if [tool.name for tool in page.tools] != [name_of(FIRST), name_of(FIRST + 1)]:
            raise BenchmarkError(f"a page of {[tool.name for tool in page.tools]}")

    async def resolve(self) -> None:
        """Pins five selectors."""
        one, other = name_of(FIRST), name_of(FIRST + 1)
        selectors = [one, f"{one}@^1", f"{one}@1.1.0", f"{other}@^1.2", f"{other}@2.0.0"]
        found = await self.stub.ResolveTools(pb.ResolveToolsRequest(selectors=selectors))
        if [tool.version for tool in found.tools] != ["2.0.0", "1.3.0", "1.1.0", "1.3.0", "2.0.0"]:
            raise BenchmarkError(f"resolved to {[tool.version for tool in found.tools]}")

    def cost_of(self, act: Callable[[], Awaitable[None]], calls: int) -> Callable[[], Awaitable[float]]:
        """Returns a round of calls that tells the registry's CPU a call, µs."""

        async def measured() -> float:
            before = self.mesh.registry.cpu_s()
            await closed_loop(act, calls, IN_FLIGHT)
            return (self.mesh.registry.cpu_s() - before) / calls * 1e6

        return measured

    def cost_of_delivery(self, changes: int) -> Callable[[], Awaitable[float]]:
        """Returns a round of changes, made behind the registry's back, that tells its CPU a delivered change, µs."""
        tool = contract(FIRST, VERSIONS[0])

        async def move() -> None:
            self.port += 1
            await self.store.register(tool.name, tool.version, b"", tool.digest, f"127.0.0.1:{self.port}", seen=0)

        async def measured() -> float:
            begun = await self.store.revision()
            watch = self.stub.WatchTools(pb.WatchToolsRequest(after_revision=begun))
            before = self.mesh.registry.cpu_s()
            await asyncio.gather(*(move() for _ in range(changes)))
            async with asyncio.timeout(PATIENCE_S):
                seen = [(await watch.read()).revision for _ in range(changes)]
            cost_us = (self.mesh.registry.cpu_s() - before) / changes * 1e6
            watch.cancel()
            if seen != list(range(begun + 1, begun + changes + 1)):
                raise BenchmarkError("a watch has missed or repeated changes")
            return cost_us

        return measured


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures a page, a resolution and a delivered change at ten versions and at ten thousand; in full only."""
    if not effort.is_full:
        return []
    calls = 200 * effort.scale
    sides: dict[str, Side] = {}
    channels = []
    for name, many in (("few", FEW), ("many", MANY)):
        mesh = await scene.stage.mesh(f"catalog-{name}")
        pin_all(mesh.registry.pid, scene.stage.cores.serving)
        channels.append(grpc.aio.insecure_channel(mesh.registry.target))
        sides[name] = Side(mesh, CatalogStore(mesh.store), ToolRegistryServiceStub(channels[-1]))
        begin = FIRST * (many == FEW)
        await fill(sides[name].store, range(begin, begin + many))
    measures: dict[str, tuple[str, Callable[[Side], Callable[[], Awaitable[float]]]]] = {
        "catalog_list": ("a page of two tools", lambda side: side.cost_of(side.list_page, calls)),
        "catalog_resolve": ("five selectors resolved", lambda side: side.cost_of(side.resolve, calls)),
        "catalog_watch": ("a change delivered to a watch", lambda side: side.cost_of_delivery(calls)),
    }
    findings = []
    for name, (what, cost) in measures.items():
        found = await effort.interleaved({kind: cost(side) for kind, side in sides.items()})
        findings.append(
            Finding(
                name=name,
                what=f"{what} in a catalog of {MANY * len(VERSIONS):,} versions against one of {FEW * len(VERSIONS)}",
                unit="µs CPU of the registry",
                ours=found["many"],
                theirs=found["few"],
                goal=1.2,
                unequal=UNEQUAL,
            )
        )
    for channel, side in zip(channels, sides.values(), strict=True):
        await channel.close()
        await side.mesh.registry.stop()
    return findings
