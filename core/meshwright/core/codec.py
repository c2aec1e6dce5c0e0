"""The codec: content is encrypted before it reaches the store. Pure but for the file of keys.

A master key, known by its id, gives a wrapping key to each tenant (HKDF-SHA256). That one wraps data keys, random ones,
each for one place in the store; a data key encrypts what is written there (AES-256-GCM). A wrapped key and what was
encrypted begin with two bytes that begin neither UTF-8 nor Protocol Buffers nor JSON: so what was written before there
were keys is told from what was not.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshwright.core.errors import ContentKeyMissingError, DataLossError, SetupError
from meshwright.core.key_file import read_key
from meshwright.core.redaction import HELD

VARIABLE = "MESHWRIGHT_CONTENT_KEYS_FILE"
MARK = b"\xff\x01"
"""Begins what is encrypted: a byte that no text begins with, and the version of the form."""
KEY_BYTES, NONCE_BYTES, TAG_BYTES, ID_BYTES = 32, 12, 16, 8
OVERHEAD = len(MARK) + ID_BYTES + NONCE_BYTES + TAG_BYTES
"""Bytes that content grows by."""
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MOST_KEYS = 64
MIXED, UNMIXED = b"\x01", b"\x00"
KEPT_TENANTS = 1_024


@dataclass(frozen=True, slots=True)
class SealPlace:
    """What a data key is for.

    Attributes:
        tenant: Whose content.
        key: Where the wrapped data key stands in the store.
    """

    tenant: str
    key: str


@dataclass(frozen=True, slots=True)
class Seal:
    """A data key, opened.

    Attributes:
        place: What it is for.
        wrapped: As the store holds it; empty: there is none.
        is_on: Whether this process encrypts at all.
        is_mixed: Whether the place may hold content from before it had a key.
    """

    place: SealPlace
    wrapped: bytes = b""
    is_on: bool = False
    is_mixed: bool = True
    _key_id: bytes = b""
    _key: AESGCM | None = field(default=None, repr=False)

    @property
    def is_missing(self) -> bool:
        """Whether content cannot be written here for want of a data key."""
        return self.is_on and self._key is None

    def is_of(self, content: bytes) -> bool:
        """Whether content was encrypted with this data key, or not at all."""
        return not content.startswith(MARK) or content[len(MARK) : len(MARK) + ID_BYTES] == self._key_id

    def encrypt(self, kind: str, content: bytes) -> bytes:
        """Encrypts content; where this process has no keys it stays as it is.

        Args:
            kind: What it is and whose within the place: it can be read as nothing else.
            content: Any bytes.
        """
        if self._key is None:
            assert not self.is_on, "content is written without a data key"
            return content
        nonce = os.urandom(NONCE_BYTES)
        head = MARK + self._key_id
        return head + nonce + self._key.encrypt(nonce, content, self._bound(head, kind))

    def decrypt(self, kind: str, content: bytes) -> bytes:
        """Reads what `encrypt` wrote, and what was written before there were keys.

        Raises:
            DataLossError: It was changed, moved, or written with a key that is gone.
            ContentKeyMissingError: This process has no keys.
        """
        if not content.startswith(MARK):
            if self.is_mixed and not content.startswith(MARK[:1]) and not self._is_ours(content):
                return content
            raise lost(f"what is stored at {self.place.key} ({kind}) is not as it was written")
        if not self.is_on:
            raise ContentKeyMissingError(f"content is encrypted, and this process has no keys: set {VARIABLE}")
        if self._key is None or not self.is_of(content):
            raise lost(f"the data key of {self.place.key} ({kind}) is gone: what it stood for was deleted")
        start = len(MARK) + ID_BYTES
        head, nonce, body = content[:start], content[start : start + NONCE_BYTES], content[start + NONCE_BYTES :]
        try:
            return self._key.decrypt(nonce, body, self._bound(head, kind))
        except (InvalidTag, ValueError):
            raise lost(f"what is stored at {self.place.key} ({kind}) is not as it was written") from None

    def _is_ours(self, content: bytes) -> bool:
        """Whether content bears the id of this data key, whatever it begins with."""
        return bool(self._key_id) and content[len(MARK) : len(MARK) + ID_BYTES] == self._key_id

    def _bound(self, head: bytes, kind: str) -> bytes:
        return b"\0".join((head, self.place.tenant.encode(), self.place.key.encode(), kind.encode()))


class ContentKeys:
    """Master keys by their ids; the first is for writing.

    Args:
        keys: At least one, of 32 bytes each.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self.first = next(iter(self._keys))
        self._tenant_key = lru_cache(KEPT_TENANTS)(self._derived)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file of lines `ID KEY`, each key 32 bytes in Base64; empty lines and those after `#` do not count.

        Raises:
            SetupError: It cannot be read, or a line is none; what it holds is not repeated.
        """
        keys: dict[str, bytes] = {}
        for number, line in enumerate(read_key(path, VARIABLE).splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            key_id, key = words[0], decoded(words[1]) if len(words) == 2 else b""  # noqa: PLR2004 - an id and a key
            if not KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES:
                form = f"ID KEY, the key {KEY_BYTES} bytes in Base64 (openssl rand -base64 {KEY_BYTES})"
                raise SetupError(f"{VARIABLE}: line {number} of {path} is no key: write {form}")
            if key_id in keys:
                raise SetupError(f"{VARIABLE}: line {number} of {path} repeats the id {key_id}: each key has its own")
            keys[key_id] = key
            HELD.add(words[1], key.hex())
        if not 0 < len(keys) <= MOST_KEYS:
            raise SetupError(f"{VARIABLE}: {path} must hold 1..{MOST_KEYS} keys")
        return cls(keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, the first is for writing."""
        return tuple(self._keys)

    def of_tenant(self, key_id: str, tenant: str) -> AESGCM:
        """Returns a tenant's wrapping key.

        Raises:
            ContentKeyMissingError: There is no master key of that id.
        """
        if key_id not in self._keys:
            raise ContentKeyMissingError(
                f"content key {key_id} is not here: add it to {VARIABLE}, below the first, and start again",
                metadata={"content_key": key_id},
            )
        return self._tenant_key(key_id, tenant)

    def _derived(self, key_id: str, tenant: str) -> AESGCM:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"meshwright tenant\0" + tenant.encode())
        return AESGCM(derived.derive(self._keys[key_id]))


class Codec:
    """Makes and opens data keys.

    Args:
        keys: Master keys; None: nothing is encrypted, and what is cannot be read.
    """

    def __init__(self, keys: ContentKeys | None = None) -> None:
        self.keys = keys

    @classmethod
    def of(cls, path: str) -> Self:
        """Makes the codec that a setting names; empty: without keys.

        Raises:
            SetupError: The file holds no keys.
        """
        return cls(ContentKeys.read(Path(path)) if path else None)

    @property
    def is_on(self) -> bool:
        """Whether content is encrypted."""
        return self.keys is not None

    def fresh(self, place: SealPlace, *, is_mixed: bool = False) -> Seal:
        """Makes a data key; without master keys, none.

        Args:
            place: What it is for.
            is_mixed: Whether there may be content already.
        """
        if self.keys is None:
            return Seal(place)
        data_key = AESGCM.generate_key(8 * KEY_BYTES)
        wrapped = wrapped_with(self.keys, place, data_key, is_mixed=is_mixed)
        return opened(place, wrapped, data_key, is_mixed=is_mixed)

    def open(self, place: SealPlace, wrapped: bytes | None) -> Seal:
        """Opens a data key as the store holds it.

        Raises:
            ContentKeyMissingError: Its master key is not here.
            DataLossError: It was changed or moved, or wrapped with another master key of that id.
        """
        if not wrapped:
            return Seal(place, is_on=self.is_on)
        _, data_key, is_mixed = self._unwrapped(place, wrapped)
        return opened(place, wrapped, data_key, is_mixed=is_mixed)

    def rewrapped(self, place: SealPlace, wrapped: bytes) -> bytes:
        """Wraps a data key with the first master key, as it stays where it was wrapped with that one.

        The data key stays what it is, and so does what is encrypted with it.

        Raises:
            ContentKeyMissingError: Its master key is not here.
            DataLossError: It was changed or moved, or wrapped with another master key of that id.
        """
        keys, data_key, is_mixed = self._unwrapped(place, wrapped)
        if wrapping_id(place, wrapped) == keys.first:
            return wrapped
        return wrapped_with(keys, place, data_key, is_mixed=is_mixed)

    def _unwrapped(self, place: SealPlace, wrapped: bytes) -> tuple[ContentKeys, bytes, bool]:
        """Returns the master keys, the data key itself, and whether the place may hold older content."""
        key_id = wrapping_id(place, wrapped)
        if self.keys is None:
            raise ContentKeyMissingError(
                f"content is encrypted with key {key_id}, and this process has no keys: set {VARIABLE}",
                metadata={"content_key": key_id},
            )
        start = len(MARK) + 2 + len(key_id)
        head, nonce, body = wrapped[:start], wrapped[start : start + NONCE_BYTES], wrapped[start + NONCE_BYTES :]
        try:
            data_key = self.keys.of_tenant(key_id, place.tenant).decrypt(nonce, body, bound(head, place))
        except (InvalidTag, ValueError):
            told = f"it was changed, or content key {key_id} is another one here"
            raise lost(f"the data key at {place.key} cannot be opened: {told}", content_key=key_id) from None
        return self.keys, data_key, head[len(MARK) : len(MARK) + 1] == MIXED


def wrapped_with(keys: ContentKeys, place: SealPlace, data_key: bytes, *, is_mixed: bool) -> bytes:
    """Wraps a data key with the first master key."""
    key_id, nonce = keys.first, os.urandom(NONCE_BYTES)
    head = MARK + (MIXED if is_mixed else UNMIXED) + bytes([len(key_id)]) + key_id.encode()
    return head + nonce + keys.of_tenant(key_id, place.tenant).encrypt(nonce, data_key, bound(head, place))


def opened(place: SealPlace, wrapped: bytes, data_key: bytes, *, is_mixed: bool) -> Seal:
    """Makes a seal of a data key."""
    key_id = hashlib.sha256(b"meshwright data key\0" + data_key).digest()[:ID_BYTES]
    return Seal(place, wrapped, is_on=True, is_mixed=is_mixed, _key_id=key_id, _key=AESGCM(data_key))


def wrapping_id(place: SealPlace, wrapped: bytes) -> str:
    """Returns the id of the master key that a data key was wrapped with.

    Raises:
        DataLossError: It is no wrapped key.
    """
    start = len(MARK) + 2
    if not wrapped.startswith(MARK) or len(wrapped) < start:
        raise lost(f"what is stored at {place.key} is no data key of a known form")
    try:
        key_id = wrapped[start : start + wrapped[start - 1]].decode()
    except UnicodeDecodeError:
        key_id = ""
    if not KEY_ID.fullmatch(key_id):
        raise lost(f"what is stored at {place.key} is no data key of a known form")
    return key_id


def bound(head: bytes, place: SealPlace) -> bytes:
    """Spells what a wrapped key is bound to."""
    return b"\0".join((head, place.tenant.encode(), place.key.encode()))


def lost(message: str, **facts: str) -> DataLossError:
    """Builds the refusal of what cannot be trusted."""
    return DataLossError(f"{message}; restore the store, or delete the task or session", metadata=facts)


def decoded(text: str) -> bytes:
    """Reads Base64; what is none is empty."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
