"""The store: one client, every key, and libraries of server-side functions."""

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import NoPermissionError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

from meshwright.core import telemetry, tracing
from meshwright.core.codec import VARIABLE, Codec, SealPlace
from meshwright.core.errors import (
    AuditBlockedError,
    DataLossError,
    InternalError,
    JournalNewerError,
    MeshError,
    SealedOtherwiseError,
    SetupError,
    StoreDeniedError,
    StoreFullError,
    StoreUnavailableError,
)
from meshwright.core.public_url import public_url
from meshwright.core.redaction import HELD
from meshwright.core.wire import Wire, open_wire

Reply = Any
Argument = str | int | bytes

INSTALL = "run `meshwright store install` of this version with the address of an admin"
PATIENCE_S = 5.0
"""How long a starting process waits for a store that starts as well."""

FIRST_PAUSE_S, RECONNECTS_S = 0.02, 0.6
"""A connection that was cut is made again after pauses that double, for so long altogether."""
MOST_CONNECTIONS = 64
SEEN_S = 10.0
"""How often a process that uses functions is heard of at least."""
PASSING = ("LOADING", "BUSY", "MISCONF", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN")
"""How refusals begin that may pass: the store starts, cannot write, or has no primary."""
FULL_RETRY_S = 10.0
"""After this time a caller who was refused for a full store may try again."""

MESH = "mesh"
"""The partition of what belongs to no task: directory, catalog, partition count."""

NOUNS = frozenset(
    """
    task log seen blob children tail ready line tenants virtual running suspects isolating pinned wake leases
    deadlines expiry ending outbox index inputs inbox lapses dead tomb boot ledger partitions instances revision changes
    tool tools hosts aliases sunsets session sessions members turns ticket memory vectors ages origin audit quota escrow
    costs hooks endpoints deliveries attempts outcomes delivered givenup dropped gone answer answers apikey apikeys edge
    revoked seal issuer
    """.split()  # noqa: SIM905 - reads better than a list of quoted words
)
"""Every noun a key may hold; functions in Lua spell keys through the same prologue."""

LABEL = "meshwright"
"""Begins the label of our connections."""

KEY = re.compile(r"mw:\{([^{}:]+)\}:([a-z]+)(?::(.+))?", re.DOTALL)
SAFE = re.compile(r"[A-Za-z0-9_.~-]*")
"""What `quote` leaves as it is."""

PROLOGUE = """
local function key(p, noun, name)
  return 'mw:{' .. p .. '}:' .. noun .. (name and (':' .. name) or '')
end
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
""" + Path(__file__).with_name("audit.lua").read_text()
"""What stands in front of every library: how keys are spelled, the time, and the audit."""


def partition_key(partition: int | str, noun: str, name: str = "") -> str:
    """Spells a key: `mw:{partition}:noun[:name]`; what shares a partition shares a slot."""
    assert noun in NOUNS, noun
    return f"mw:{{{partition}}}:{noun}" + (f":{name}" if name else "")


def key_parts(key: str) -> tuple[str, str, str] | None:
    """Reads what `partition_key` spelled: partition, noun and name; None: it is no key of ours."""
    found = KEY.fullmatch(key)
    return (found[1], found[2], found[3] or "") if found else None


def key_patterns(slots: str, noun: str) -> tuple[str, str]:
    """Spells the globs that match all keys of a noun in some partitions, themselves a glob."""
    assert noun in NOUNS, noun
    return f"mw:{{{slots}}}:{noun}", f"mw:{{{slots}}}:{noun}:*"


def reference(tenant: str, principal: str, task_id: str) -> str:
    """Names a task in keys: tenant and principal are part of it, so nobody can reach another's by its id."""
    return "/".join(map(segment, (tenant, principal, task_id)))


def segment(name: str) -> str:
    """Escapes what could be taken for a part of a key."""
    return name if SAFE.fullmatch(name) else quote(name, safe="")


def partition_of(tenant: str, root_task_id: str, partitions: int) -> int:
    """Places a task and all its descendants into one partition."""
    if partitions == 1:
        return 0
    digest = hashlib.sha256(f"{tenant}\0{root_task_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % partitions


def key_place(key_id: str) -> SealPlace:
    """Names where the trace of a master key stands: a data key that nothing is encrypted with."""
    return SealPlace("", f"{partition_key(MESH, 'seal')}:{key_id}")


class Library:
    """A set of functions loaded into the store under names that hold their version: versions live side by side."""

    def __init__(self, name: str, source: str) -> None:
        version = hashlib.sha256((PROLOGUE + source).encode()).hexdigest()[:10]
        self.name = f"mw_{name}_{version}"
        self.code = f"#!lua name={self.name}\n{PROLOGUE}\n{source.replace('VERSION', version)}"
        self._version = version

    def function(self, name: str) -> str:
        """Returns the name under which the store knows a function."""
        return f"{name}_{self._version}"


def label_of(libraries: Sequence[Library]) -> str:
    """Spells what the store lists our connections under: the libraries whose functions we call."""
    return f"{LABEL}({';'.join(library.name for library in libraries)})"


class Store:
    """A connection pool to the store whose errors belong to our tree.

    Args:
        url: `redis://`, `rediss://` or `unix://` address.
        libraries: Loaded on `open` and again whenever the store has lost them, where the URL's user may.
        codec: Encrypts content; None: this process neither reads nor writes any.
    """

    def __init__(self, url: str, *libraries: Library, timeout_s: float = 5.0, codec: Codec | None = None) -> None:
        self.url = url
        HELD.add_url(url)
        self.codec = codec or Codec()
        self._has_content = codec is not None
        self._libraries = libraries
        self._label = label_of(libraries)
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=MOST_CONNECTIONS,
                timeout=timeout_s,
                protocol=3,
                socket_timeout=None,  # would go through asyncio.wait_for, which on 3.11 may swallow a cancellation
                socket_connect_timeout=timeout_s,
                health_check_interval=0,
                driver_info=DriverInfo(self._label, None),
                retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.02), retries=3),
                retry_on_error=[StoreConnectionError, StoreTimeoutError],
            )
            self.client: redis.Redis = redis.Redis.from_pool(pool)
        except ValueError:  # its text may hold a part of the password
            forms = "redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix:///PATH"
            raise SetupError(f"MESHWRIGHT_STORE_URL is no address of a store: write {forms}") from None
        self.partitions = 1
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._dialing = asyncio.Lock()
        self._is_closed = False
        self._under_way = 0
        self._is_idle = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def open(self, partitions: int | None = None) -> None:
        """Checks the store, loads the functions and settles the number of partitions.

        Args:
            partitions: What this process is set to, written where the store is new; None: what the store says.

        Raises:
            SetupError: The store does not answer, is too old, would lose accepted tasks, has other partitions, or
                holds content whose keys are not here.
        """
        try:
            await self._wait()
            async with asyncio.timeout(self._timeout_s):
                await self._check_durability()
                await self._load()
                await self._settle(partitions)
                if self._has_content:
                    await self._check_keys()
        except (RedisError, OSError) as error:
            raise SetupError(f"the store at {public_url(self.url)} cannot be used: {words_of(error)}") from None
        if self._libraries and not self._keeping:
            self._keeping = asyncio.create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        """Stays connected while there is nothing to ask: the store's admin sees by it who uses which functions."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._asked("PING")
            await asyncio.sleep(SEEN_S)

    async def _settle(self, partitions: int | None) -> None:
        key = partition_key(MESH, "partitions")
        found = await self.client.get(key)
        if found is None and partitions:
            try:
                await self.client.set(key, partitions, nx=True)
            except NoPermissionError:
                raise SetupError(f"the store is new, and its user may not write how it is parted: {INSTALL}") from None
            found = await self.client.get(key)
        self.partitions = int(found or 1)
        if partitions not in (None, self.partitions):
            raise SetupError(f"the store was started with MESHWRIGHT_PARTITIONS={self.partitions}, not {partitions}")

    async def _check_keys(self) -> None:
        """Holds master keys against those that content was written with: each has left a data key under its id."""
        noun, keys = partition_key(MESH, "seal"), self.codec.keys
        (found,) = await self.run(("HGETALL", noun))
        known: dict[str, bytes] = {key_id.decode(): wrapped for key_id, wrapped in found.items()}
        if keys is None or (known and not known.keys() & set(keys.ids)):
            if known:
                ids = ", ".join(sorted(known))
                raise SetupError(
                    f"content in the store is encrypted with {ids}: set {VARIABLE} to a file with these keys"
                )
            return
        for key_id in known.keys() & set(keys.ids):
            self._check_key(key_id, known[key_id])
        if keys.first not in known:
            fresh = self.codec.fresh(key_place(keys.first)).wrapped
            _, kept = await self.run(("HSETNX", noun, keys.first, fresh), ("HGET", noun, keys.first))
            self._check_key(keys.first, kept)

    def _check_key(self, key_id: str, wrapped: bytes) -> None:
        try:
            self.codec.open(key_place(key_id), wrapped)
        except DataLossError:
            raise SetupError(f"{VARIABLE}: key {key_id} is not the one that content was encrypted with") from None

    async def _wait(self) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self.client.ping()
            except (StoreConnectionError, StoreTimeoutError, OSError):
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    async def _check_durability(self) -> None:
        info = await self.client.info()
        if int(str(info["redis_version"]).partition(".")[0]) < 7:  # noqa: PLR2004
            raise SetupError(f"the store at {public_url(self.url)} is older than 7.0: functions are missing")
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            raise SetupError("the store evicts keys: set maxmemory-policy noeviction, or accepted tasks can vanish")
        if not info.get("aof_enabled", 1):
            raise SetupError("the store keeps no log of its writes: set appendonly yes, or accepted tasks can vanish")
        with contextlib.suppress(ResponseError):  # a store that is run for us may not tell
            if (await self.client.config_get("appendfsync")).get("appendfsync", "always") != "always":
                raise SetupError("the store writes late: set appendfsync always, or accepted tasks can vanish")

    async def _load(self) -> None:
        for library in self._libraries:
            if await self.client.function_list(library=library.name):
                continue
            try:
                await self.client.function_load(library.code)
            except NoPermissionError:
                missing = f"the store does not hold {library.name}, the functions that this version needs"
                raise SetupError(f"{missing}, and its user may not load them: {INSTALL}") from None
            except ResponseError as error:
                if "already exists" not in str(error):
                    raise SetupError(f"the store refused {library.name}: {error}") from None

    async def close(self) -> None:
        """Closes every connection, once what is still under way has ended: it might open one again."""
        self._is_closed = True
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._under_way:
            await self._is_idle.wait()
        if self._wire:
            self._wire.close()
        await self.client.aclose()

    def _enter(self) -> None:
        if self._is_closed:
            raise InternalError("the store was closed by this process")
        self._under_way += 1

    def _leave(self) -> None:
        self._under_way -= 1
        if self._is_closed and not self._under_way:
            self._is_idle.set()

    async def call(self, function: str, key: str, *arguments: Argument) -> Reply:
        """Runs a function; `key` picks the slot.

        Raises:
            StoreUnavailableError: No answer; it may or may not have run, and every function may be repeated.
            StoreFullError: It would add to a store that is full.
            StoreDeniedError: The store's user may not do it.
            InternalError: The function itself failed, or the store was closed.
        """
        self._enter()
        try:
            with tracing.store_span("FCALL", function):
                return await self._called("FCALL", function, 1, key, *arguments)
        except (RedisError, OSError) as error:
            raise failure(error) from None
        finally:
            self._leave()

    async def _called(self, *command: Argument) -> Reply:
        try:
            return await self._asked(*command)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        async with asyncio.timeout(self._timeout_s):
            await self._load()  # the store was replaced by an empty one
        return await self._asked(*command)

    async def _asked(self, *command: Argument) -> Reply:
        """Asks over the wire; where that was cut, once it stands again: what may have run may run again."""
        pause, waited = FIRST_PAUSE_S, 0.0
        while True:
            try:
                wire = self._wire if self._wire and self._wire.is_open else await self._dialed()
                return await wire.ask(*command)
            except StoreConnectionError:
                if waited >= RECONNECTS_S:
                    raise
            await asyncio.sleep(pause)
            pause, waited = 2 * pause, waited + pause

    async def _dialed(self) -> Wire:
        async with self._dialing:
            if self._wire is None or not self._wire.is_open:
                self._wire = await open_wire(self.url, self._timeout_s, self._label)
            return self._wire

    async def run(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Sends commands in one round trip (no transaction) and returns their replies; raises as `call` does."""
        name = str(commands[0][0]) if len(commands) == 1 else "PIPELINE"
        self._enter()
        try:
            with tracing.store_span(name, commands=len(commands)):
                async with asyncio.timeout(self._timeout_s):
                    pipeline = self.client.pipeline(transaction=False)
                    for command in commands:
                        pipeline.execute_command(*command)
                    return await pipeline.execute()
        except (RedisError, OSError) as error:
            raise failure(error) from None
        finally:
            self._leave()


ERRNO = re.compile(r"(?:Error |\(|\[Errno )(-?\d+)")
"""Where redis-py, or the system of several addresses, writes the system's number, beside an address."""
OWN_ERRORS: Mapping[str, tuple[type[MeshError], str]] = {
    "AUDIT": (AuditBlockedError, "a key of the audit holds no chain: `meshwright audit verify` names it"),
    "SEALED": (SealedOtherwiseError, "another process wrote here first: try again"),
    "NEWER": (JournalNewerError, "a newer version of the mesh wrote this: ask a process of that version"),
}
"""By the first word of what our own functions raise."""


def failure(error: RedisError | OSError) -> MeshError:
    """Says in our own tree what the client or the store raised, and counts it."""
    told = failure_of(error)
    telemetry.STORE_FAILURES.labels(told.reason).inc()
    return told


def failure_of(error: RedisError | OSError) -> MeshError:
    """Says in our own tree what the client or the store raised."""
    text = str(error)
    if isinstance(error, StoreConnectionError | StoreTimeoutError | OSError):
        return StoreUnavailableError(f"the store does not answer: {outage(error)}", retry_after_s=1)
    if text.startswith("OOM") or isinstance(error, OutOfMemoryError):
        return StoreFullError("the store is full: try again later", retry_after_s=FULL_RETRY_S)
    if text.startswith("NOPERM") or isinstance(error, NoPermissionError):
        hint = "give the user of MESHWRIGHT_STORE_URL what `meshwright store acl` prints"
        return StoreDeniedError(f"the store refused: {text}; {hint}")
    if own := OWN_ERRORS.get(text.partition(" ")[0]):
        kind, told = own
        return kind(told)
    if text.startswith(PASSING) or not isinstance(error, ResponseError):
        return StoreUnavailableError(f"the store cannot serve this now: {text}", retry_after_s=1)
    return InternalError(f"the store refused a command: {text}")


def outage(error: RedisError | OSError) -> str:
    """Says what became of a connection; callers from outside read it, so that it names no address."""
    if isinstance(error, StoreTimeoutError | TimeoutError):
        return "no reply in time"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := ERRNO.search(str(error))):
        number = int(found[1])
    if number is None:
        return "the connection was lost"
    return os.strerror(number) if number > 0 else "its name is not known"  # below zero: of the resolver


def words_of(error: RedisError | OSError) -> str:
    """Says why a store cannot be used; whoever starts a process reads it, and what the store itself says of it."""
    text = str(error)
    if isinstance(error, OSError | StoreTimeoutError) or (ERRNO.match(text) and "[SSL" not in text):
        return outage(error)
    return text.rstrip(".")
