"""API keys: made once, shown once, kept as a hash; every look at one asks the store, and a revoked one is dead."""

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from meshwright.core.audit import OPERATOR, line_of
from meshwright.core.errors import (
    ApiKeyNotFoundError,
    InvalidRequestError,
    KeyExpiredError,
    KeyRevokedError,
    KeyUnknownError,
    MeshError,
)
from meshwright.core.identity import checked_name, checked_scopes
from meshwright.core.ids import Form, checked
from meshwright.core.revocations import Revocations
from meshwright.core.store import MESH, Library, Store, partition_key, segment

LIBRARY = Library("keys", Path(__file__).with_name("api_key.lua").read_text())
PREFIX = "mwk_"
KEY = re.compile(r"mwk_(?P<key_id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{64})")
KEY_ID = Form(re.compile(r"[0-9a-f]{12}"), "12 digits of 0-9a-f")
MOST_KEYS = 10_000
KEPT_MS = 30 * 86_400_000
"""So long after its end a key can still be told from one that never was."""
LONGEST_S = 3_650 * 86_400
KNOWN_MS = 100
"""So long an edge remembers whose a key is that it has seen: see `callers.lua`."""
CLOCKS_MS = 20
"""By so much clocks may go apart within that time."""
USE_MS = 60_000
"""How coarse the time of the last use is."""


UNKNOWN = "the API key is none of this mesh's: ask its operator for one"
NO_HASH = b"0" * 64
"""Stands in for the hash of a key that is not there: it is compared all the same."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; not the key.

    Attributes:
        key_id: 12 hexadecimal digits.
        name: For people.
        tenant: In whose name its holder acts.
        principal: As whom.
        scopes: What it may do.
        created: When it was made, in milliseconds of the store's clock.
        expires: When it ends, in milliseconds; 0: never.
        revoked: When it was revoked, in milliseconds; 0: it was not.
        used: When it was last used, in milliseconds, a minute more or less; 0: never.
    """

    key_id: str
    name: str
    tenant: str
    principal: str
    scopes: frozenset[str]
    created: int
    expires: int = 0
    revoked: int = 0
    used: int = 0

    @classmethod
    def parse(cls, key_id: str, fields: Mapping[bytes, bytes]) -> "ApiKey":
        """Reads a record."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            key_id=key_id,
            name=texts["name"],
            tenant=texts["tenant"],
            principal=texts["principal"],
            scopes=frozenset(texts["scopes"].split()),
            created=int(texts["created"]),
            expires=int(texts.get("expires", 0)),
            revoked=int(texts.get("revoked", 0)),
            used=int(texts.get("used", 0)),
        )


class ApiKeys:
    """The keys of a mesh.

    Args:
        store: Holds `LIBRARY`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revocations = Revocations(store)

    async def create(
        self,
        name: str,
        scopes: Collection[str],
        *,
        tenant: str,
        principal: str = "",
        life_s: int = 0,
        by: str = OPERATOR,
    ) -> tuple[str, ApiKey]:
        """Makes a key.

        Args:
            name: For people.
            scopes: What its holder may do; one at least.
            tenant: In whose name.
            principal: As whom; empty: as the key's name.
            life_s: Seconds until it ends; 0: it does not.
            by: The principal that wants it.

        Returns:
            The key itself, which is kept nowhere, and what is known of it.

        Raises:
            InvalidRequestError: A part of it is wrong, or there are too many keys.
        """
        now, keys = await self._ids()
        if len(keys) >= MOST_KEYS:
            raise InvalidRequestError(f"there are {MOST_KEYS} keys: revoke some; they are gone after 30 days")
        if not scopes:
            raise InvalidRequestError("a key without scopes opens nothing", fields={"scopes": "is required"})
        named = checked_name("name", name)
        made = ApiKey(
            key_id=secrets.token_hex(6),
            name=named,
            tenant=checked_name("tenant", tenant),
            principal=checked_name("principal", principal or named),
            scopes=checked_scopes(scopes),
            created=now,
            expires=now + life_s * 1000 if life_s else 0,
        )
        secret = secrets.token_hex(32)
        fields: dict[str, str | int] = {
            "hash": hashed(secret),
            "name": made.name,
            "tenant": made.tenant,
            "principal": made.principal,
            "scopes": " ".join(sorted(made.scopes)),
            "created": made.created,
            "expires": made.expires,
        }
        flat = [part for field in fields.items() for part in field]
        kept_ms = life_s * 1000 + KEPT_MS if life_s else 0
        line = line_of(by, principal=made.principal, scopes=" ".join(sorted(made.scopes)))
        await self._call("make", made.key_id, segment(made.tenant), line, kept_ms, *flat)
        return f"{PREFIX}{made.key_id}_{secret}", made

    async def _call(self, function: str, *arguments: str | int) -> int:
        return int(await self._store.call(LIBRARY.function(function), INDEX, *arguments))

    async def _ids(self) -> tuple[int, list[str]]:
        """Returns the store's time in milliseconds, and the ids of keys, those that are gone included."""
        (seconds, micros), ids = await self._store.run(("TIME",), ("SMEMBERS", INDEX))
        return int(seconds) * 1000 + int(micros) // 1000, sorted(key_id.decode() for key_id in ids)

    async def all(self) -> list[ApiKey]:
        """Returns what is known of all keys, the newest first; those whose end is long past are forgotten."""
        _, found, gone = await self._known()
        if gone:
            await self._store.run(("SREM", INDEX, *gone))
        return found

    async def valid(self) -> list[ApiKey]:
        """Returns what is known of keys that open something now, the newest first; changes nothing."""
        now, found, _ = await self._known()
        return [one for one in found if not one.revoked and (not one.expires or one.expires > now)]

    async def _known(self) -> tuple[int, list[ApiKey], set[str]]:
        """Returns the store's time in milliseconds, the keys, and the ids of those that are gone."""
        now, ids = await self._ids()
        records = await self._store.run(*(("HGETALL", place_of(key_id)) for key_id in ids)) if ids else []
        known = {key_id: fields for key_id, fields in zip(ids, records, strict=True) if b"hash" in fields}
        found = [ApiKey.parse(key_id, fields) for key_id, fields in known.items()]
        return now, sorted(found, key=lambda one: (-one.created, one.key_id)), set(ids) - set(known)

    async def find(self, key_id: str) -> ApiKey | None:
        """Returns what is known of the key with an id; None: there is none.

        Raises:
            InvalidRequestError: It is no id of a key.
        """
        (fields,) = await self._store.run(("HGETALL", place_of(checked("key_id", key_id, KEY_ID))))
        return ApiKey.parse(key_id, fields) if b"hash" in fields else None

    async def revoke(self, key_id: str, *, by: str = OPERATOR) -> ApiKey:
        """Revokes a key, and ends the streams that it has opened; returns when no edge remembers it any more.

        One that was revoked stays as it is.

        Args:
            key_id: Which.
            by: The principal that wants it.

        Raises:
            ApiKeyNotFoundError: There is none of that id.
        """
        known = await self.find(key_id)
        line = line_of(by)
        if known is None or not await self._call("revoke", key_id, segment(known.tenant), line, KEPT_MS):
            raise ApiKeyNotFoundError(f"no API key {key_id} is here: `meshwright key list` shows which are")
        (seconds, micros), fields = await self._store.run(("TIME",), ("HGETALL", place_of(key_id)))
        now = int(seconds) * 1000 + int(micros) // 1000
        await self._revocations.note(key_id, now)  # after it opens nothing any more: no new stream is missed
        await asyncio.sleep((KNOWN_MS + CLOCKS_MS) / 1000)
        return ApiKey.parse(key_id, fields)

    async def verify(self, text: str) -> ApiKey:
        """Returns what is known of a key that somebody shows.

        Who has not its secret does not learn whether there is such a key.

        Raises:
            KeyUnknownError: It is none.
            KeyRevokedError: It was one.
            KeyExpiredError: It was one.
            StoreUnavailableError: It cannot be looked up.
        """
        parts = KEY.fullmatch(text)
        if parts is None:
            raise KeyUnknownError(UNKNOWN)
        key_id, secret = parts.groups()
        (seconds, micros), fields = await self._store.run(("TIME",), ("HGETALL", place_of(key_id)))
        if not hmac.compare_digest(hashed(secret).encode(), fields.get(b"hash", NO_HASH)):
            raise KeyUnknownError(UNKNOWN)
        known = ApiKey.parse(key_id, fields)
        now = int(seconds) * 1000 + int(micros) // 1000
        if known.revoked:
            raise KeyRevokedError(f"the API key {key_id} was revoked: ask for another one")
        if known.expires and known.expires <= now:
            raise KeyExpiredError(f"the API key {key_id} has expired: ask for another one")
        if now - known.used > USE_MS:
            with contextlib.suppress(MeshError):  # a full store takes no note, and still knows its keys
                await self._store.run(("HSET", place_of(key_id), "used", now))
        return known


INDEX = partition_key(MESH, "apikeys")


def place_of(key_id: str) -> str:
    """Spells where a key's record is."""
    return partition_key(MESH, "apikey", key_id)


def hashed(secret: str) -> str:
    """Returns what is kept of a secret, SHA-256 in hex: of 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()
