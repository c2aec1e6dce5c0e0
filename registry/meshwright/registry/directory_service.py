"""AgentDirectoryService: protobuf to domain objects and back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from meshwright.core.errors import AgentNotFoundError, MeshError
from meshwright.core.ids import AGENT_ID, checked
from meshwright.core.interceptors import Context
from meshwright.core.peer import check_agent
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as pb
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceServicer
from meshwright.registry.authority import check_guarded
from meshwright.registry.directory import cards, checked_announcement, stored_announcement
from meshwright.registry.follower import Follower
from meshwright.registry.issuers import Issuers
from meshwright.registry.page import page_size
from meshwright.registry.store import DirectoryStore

SWEEP_S = 1.0
RECENT_CHANGES = 100


class AgentDirectory(AgentDirectoryServiceServicer):
    """Who is here: instances under leases, kept in the store."""

    def __init__(self, store: DirectoryStore, issuers: Issuers, *, is_asking: bool = False) -> None:
        self._store = store
        self._issuers = issuers
        self._is_asking = is_asking
        self.follower = Follower("agents", store.revision, store.changes)

    async def sweep(self) -> None:
        """Removes silent instances, for as long as the service runs."""
        while True:
            with contextlib.suppress(MeshError):
                await self._store.expire()
            await asyncio.sleep(SWEEP_S)

    async def AnnounceAgent(self, request: pb.AnnounceAgentRequest, context: Context) -> pb.AnnounceAgentResponse:
        lease_ms = checked_announcement(request)
        agent_id, instance_id = request.agent.agent_id, request.endpoint.instance_id
        check_agent(context, agent_id)
        check_guarded(is_open=request.open, is_asking=self._is_asking)
        ends = await self._store.announce(agent_id, instance_id, stored_announcement(request), lease_ms)
        response = pb.AnnounceAgentResponse()
        response.lease_expire_time.FromMilliseconds(ends)
        return response

    async def WithdrawAgent(self, request: pb.WithdrawAgentRequest, context: Context) -> pb.WithdrawAgentResponse:
        check_agent(context, request.agent_id)
        await self._store.withdraw(request.agent_id, request.instance_id)
        return pb.WithdrawAgentResponse()

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.AgentCard:
        checked("agent_id", request.agent_id, AGENT_ID)
        card = (await self._cards()).get(request.agent_id)
        if card is None:
            raise AgentNotFoundError(f"no agent {request.agent_id} is here: `meshwright agent list` shows who is")
        return card

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        size = page_size(request.page_size)
        known = await self._cards()
        names = sorted(name for name in known if name > request.page_token)
        page = names[:size]
        following = page[-1] if len(names) > size else ""
        return pb.ListAgentsResponse(agents=[known[name] for name in page], next_page_token=following)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        issuer = await self._issuers.find(request.key_id)
        return pb.GetKeyResponse(
            public_key=issuer.public_key,
            agent_id=issuer.agent_id,
            tools=sorted(issuer.tools),
            delegates=sorted(issuer.delegates),
            edge=issuer.is_edge,
        )

    async def WatchAgents(
        self, request: pb.WatchAgentsRequest, context: Context
    ) -> AsyncIterator[pb.WatchAgentsResponse]:
        start, revision = self.follower.start, request.after_revision
        if not revision:
            revision = await self._store.revision()
            known = await self._cards()
            for card in known.values():
                yield pb.WatchAgentsResponse(revision=revision, agent=card)
            # who listed the agents just before this must not keep one that has gone since
            lately = await self._store.changes(max(0, revision - RECENT_CHANGES))
            for name in {name for _, name in lately} - set(known):
                gone_card = pb.AgentCard(agent_id=name)
                yield pb.WatchAgentsResponse(revision=revision, agent=gone_card, removed=True)
        while True:
            changes = await self.follower.after(revision, start)
            known = await self._cards()
            for name in dict.fromkeys(name for _, name in changes):
                gone = name not in known
                card = pb.AgentCard(agent_id=name) if gone else known[name]
                yield pb.WatchAgentsResponse(revision=changes[-1][0], agent=card, removed=gone)
            revision = changes[-1][0]

    async def _cards(self) -> dict[str, pb.AgentCard]:
        return cards(await self._store.instances())
