"""Signed tokens: what their verifiers have in common, whatever it is that was signed."""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from meshwright.core.errors import KeyNotFoundError, MeshError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.identity_pb2 import Identity

KEPT_TOKENS = 4096
CLOCKS_S = 60
"""How much clocks of other machines may differ."""

Content = TypeVar("Content", Grant, Identity)


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """An instance's public key and what its agent may grant; `agent_id` is empty for the registry."""

    public_key: bytes
    agent_id: str
    tools: frozenset[str]
    delegates: frozenset[str] = frozenset()
    is_edge: bool = False
    """It signs identities, and no grants."""


KeyLookup = Callable[[str], Awaitable[IssuerKey]]


class Signed(NamedTuple, Generic[Content]):
    """A token that was taken apart, not yet believed."""

    content: Content
    payload: bytes
    signature: bytes
    key_id: str


class TokenVerifier(ABC, Generic[Content]):
    """Checks tokens against the announced keys of those who sign them, and remembers those it has checked.

    Args:
        lookup: Finds the key of an issuer.
    """

    error: ClassVar[type[MeshError]]
    name: ClassVar[str]
    issuer: ClassVar[str]
    renewal: ClassVar[str]
    life_s: ClassVar[int]
    """How far ahead the end of a token may be, with what clocks differ."""

    def __init__(self, lookup: KeyLookup) -> None:
        self.lookup = lookup
        self._checked: dict[bytes, Content] = {}

    async def verify(self, token: bytes) -> Content:
        """Returns what a token says.

        Raises:
            MeshError: `error`: it is forged, expired, or signed by nobody who is here.
        """
        content = self._checked.get(token)
        if content is None:
            content = await self._check(token)
            while len(self._checked) >= KEPT_TOKENS:
                del self._checked[next(iter(self._checked))]
            self._checked[token] = content
        if not 0 < content.expire_time.seconds - time.time() <= self.life_s:
            raise self.error(f"the {self.name} has expired: {self.renewal}")
        return content

    async def _check(self, token: bytes) -> Content:
        try:
            signed = self.read(token)
        except DecodeError:
            raise self.error(f"the {self.name} cannot be read") from None
        try:
            key = await self.lookup(signed.key_id)
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signed.signature, signed.payload)
        except (InvalidSignature, KeyNotFoundError, ValueError):
            raise self.error(f"the {self.name} was not signed by {self.issuer} that is here") from None
        self.check(key, signed.content)
        return signed.content

    @abstractmethod
    def read(self, token: bytes) -> Signed[Content]:
        """Takes a token apart.

        Raises:
            DecodeError: It is none.
        """

    @abstractmethod
    def check(self, key: IssuerKey, content: Content) -> None:
        """Holds what was signed against who signed it.

        Raises:
            MeshError: `error`: it may not say that.
        """
