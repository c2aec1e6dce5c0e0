"""The mesh as the doctor sees it: its edge, what the edge tells of agents and tools, and what else may be looked at."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from meshwright.cli.place import Place
from meshwright.cli.readiness.once import Once
from meshwright.cli.readiness.peer import Peer
from meshwright.cli.readiness.trial import Trial, trial
from meshwright.cli.stores import Stores
from meshwright.core.channel import AUTHORITY_ADVICE
from meshwright.core.errors import MeshError
from meshwright.core.tls import read_authorities
from meshwright.gen.agents.v1.agent_service_pb2 import HealthResponse
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, ListAgentsResponse
from meshwright.gen.registry.v1.tool_registry_service_pb2 import ListToolsResponse, Tool

PAGE = 100
MOST_PAGES = 10
"""So many pages are read of a list: a thousand agents, or tools, and fewer where their contracts are large."""
MOST_AGENTS = 100
"""So many agents are asked how they are: a key has a rate."""
P = TypeVar("P", ListAgentsResponse, ListToolsResponse)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be looked at.

    Attributes:
        url: Of the edge.
        api_key: Who calls; empty: nobody.
        authority: File of the authorities that the edge's certificate may be of; empty: the public ones.
        agent: Agent that is given a real task; empty: none.
        prometheus: URL of a Prometheus that scrapes the mesh; empty: none.
        store_url: Of the store; empty: it is not looked at.
        otlp_endpoint: Where the mesh sends its spans; empty: nowhere, as far as is known.
    """

    url: str
    api_key: str = ""
    authority: str = ""
    agent: str = ""
    prometheus: str = ""
    store_url: str = ""
    otlp_endpoint: str = ""


class Survey:
    """Looks at a mesh; what several items need is asked for once.

    Args:
        target: What is to be looked at.
        stores: Opens its store.

    Raises:
        SetupError: A URL or the file of authorities is none.
    """

    def __init__(self, target: Target, stores: Stores) -> None:
        self.target = target
        self.stores = stores
        self.edge = Peer(Place.of_edge(target.url), target.api_key, trusting(target.authority))
        self.prometheus = Peer(Place.of(target.prometheus), "", trusting("")) if target.prometheus else None
        self.cards = Once(self._cards)
        self.healths = Once(self._healths)
        self.tools = Once(self._tools)
        self.trial: Once[Trial] = Once(lambda: trial(self.edge, target.agent))

    async def _cards(self) -> list[AgentCard]:
        pages = await self._pages("/v1/agents", ListAgentsResponse)
        return [card for page in pages for card in page.agents]

    async def _tools(self) -> list[Tool]:
        return [tool for page in await self._pages("/v1/tools", ListToolsResponse) for tool in page.tools]

    async def _pages(self, path: str, kind: type[P]) -> list[P]:
        pages, token = list[P](), ""
        while (token or not pages) and len(pages) < MOST_PAGES:
            query = f"?page_size={PAGE}" + (f"&page_token={quote(token, safe='')}" if token else "")
            page = await self.edge.read(path + query, kind())
            pages.append(page)
            token = page.next_page_token
        return pages

    async def _healths(self) -> dict[str, HealthResponse | MeshError]:
        names = [card.agent_id for card in (await self.cards())[:MOST_AGENTS]]
        told = await asyncio.gather(
            *(self._read_or_why(f"/v1/agents/{quote(name, safe='')}/health", HealthResponse()) for name in names)
        )
        return dict(zip(names, told, strict=True))

    async def _read_or_why(self, path: str, message: HealthResponse) -> HealthResponse | MeshError:
        try:
            return await self.edge.read(path, message)
        except MeshError as error:
            return error


def trusting(authority: str) -> ssl.SSLContext:
    """Checks certificates against the authorities of a file; empty: the public ones.

    Raises:
        SetupError: The file cannot be used.
    """
    pem = read_authorities(Path(authority), AUTHORITY_ADVICE).decode() if authority else None
    return ssl.create_default_context(cadata=pem)
