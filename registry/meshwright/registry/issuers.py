"""Issuers: whose signatures count, and for what."""

from meshwright.core.announced_keys import EdgeKeys, RegistryKeys
from meshwright.core.errors import KeyNotFoundError
from meshwright.core.grant import Signer
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AnnounceAgentRequest
from meshwright.registry.store import DirectoryStore


class Issuers:
    """Finds the keys of all that sign: registries, edges, and instances of agents.

    Args:
        signer: Of this registry.
        registries: Keys of the others.
        edges: Keys of edges.
        directory: Where instances are announced.
    """

    def __init__(self, signer: Signer, registries: RegistryKeys, edges: EdgeKeys, directory: DirectoryStore) -> None:
        self._signer = signer
        self._registries = registries
        self._edges = edges
        self._directory = directory

    async def find(self, key_id: str) -> IssuerKey:
        """Returns the key of who is here.

        Raises:
            KeyNotFoundError: Nobody of that name is.
        """
        if key_id == self._signer.key_id:
            return IssuerKey(self._signer.public_key, "", frozenset())
        if registry := await self._registries.find(key_id):
            return IssuerKey(registry, "", frozenset())
        if edge := await self._edges.find(key_id):
            return IssuerKey(edge, "", frozenset(), is_edge=True)
        announcement = await self._directory.instance(key_id)
        if announcement is None:
            raise KeyNotFoundError(f"no instance {key_id} is here")
        announced = AnnounceAgentRequest.FromString(announcement)
        agent = announced.agent
        return IssuerKey(
            announced.endpoint.public_key, agent.agent_id, frozenset(agent.tools), frozenset(agent.delegates)
        )
