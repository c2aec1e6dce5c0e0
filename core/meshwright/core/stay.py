"""Stays: open calls of callers from outside, each of which ends with the credential that has opened it."""

import asyncio
import time
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from meshwright.core.credential import Credential
from meshwright.core.errors import MeshError
from meshwright.core.identity import LIFE_S, credential_of
from meshwright.core.process import ended
from meshwright.core.recurring import Recurring
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gen.agents.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from meshwright.core.revocations import Revocations  # who only calls others needs no store

log = structlog.get_logger("stay")
LOOK_S, READ_S = 1.0, 1.0
"""How often it is looked who has to go, and how long the store is waited for meanwhile."""
MARGIN_MS = (LIFE_S + CLOCKS_S) * 1000
"""What was revoked since so long before the last look is read again: a call may begin with an identity of that age."""


class Stay:
    """One open call; runs while it is entered.

    A stream that has to go while a response is on its way ends once that has been sent, so that its caller is told why;
    one whose caller takes nothing is cut at the next look.

    Attributes:
        credential: What has opened it; None: nothing that could end.
        is_sending: Whether a response is on its way.
    """

    __slots__ = ("_before", "_error", "_is_cancelled", "_stays", "_task", "credential", "is_sending")

    def __init__(self, stays: "Stays", credential: Credential | None) -> None:
        self._stays = stays
        self._error: MeshError | None = None
        self._is_cancelled = False
        self.credential = credential
        self.is_sending = False

    def __enter__(self) -> Self:
        """Begins to be looked after."""
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task, "a call runs in a task"
        self._task = task
        self._before = task.cancelling()
        self._stays.enter(self)
        return self

    def end(self, error: MeshError) -> None:
        """Ends the call; to be repeated until it has left."""
        is_stuck = self._error is not None
        self._error = error
        if not self._is_cancelled and (is_stuck or not self.is_sending):
            self._is_cancelled = True
            self._task.cancel()

    def sent(self) -> None:
        """Goes on after a response was sent.

        Raises:
            MeshError: The call has had to end meanwhile.
        """
        self.is_sending = False
        if self._error:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says why the call was ended.

        Raises:
            MeshError: It was, and nobody else has cancelled it.
        """
        self._stays.leave(self)
        if not self._is_cancelled or self._error is None:
            return
        if self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise self._error from error


class Stays:
    """The stays of a process: one clock for all of them, which stands while there is none.

    Args:
        revocations: Which keys were revoked; None: nobody with a key stays here.
    """

    def __init__(self, revocations: "Revocations | None") -> None:
        self._revocations = revocations
        self._open: dict[Credential, set[Stay]] = {}
        self._read_ms = MARGIN_MS
        self._failing = Recurring()
        self._looking: asyncio.Task[None] | None = None

    def of(self, identity: Identity | None) -> Stay:
        """Returns the stay of a call, to be entered.

        Args:
            identity: Of the caller; None: it is no caller from outside.
        """
        return Stay(self, credential_of(identity) if identity else None)

    def enter(self, stay: Stay) -> None:
        """Looks after a stay from now on."""
        if stay.credential is None:
            return
        self._open.setdefault(stay.credential, set()).add(stay)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), context=Context())  # not as a part of this call

    def leave(self, stay: Stay) -> None:
        """Forgets a stay."""
        if stay.credential is None:
            return
        others = self._open[stay.credential]
        others.remove(stay)
        if not others:
            del self._open[stay.credential]

    async def close(self) -> None:
        """Looks after nobody any more."""
        if self._looking:
            await ended(self._looking)

    async def _look(self) -> None:
        """Ends who has to go, until nobody is there."""
        while self._open:
            await asyncio.sleep(LOOK_S)
            now_ms = time.time() * 1000
            for credential in [one for one in self._open if one.is_over(now_ms)]:
                self._end(credential, credential.expired())
            revoked = await self._revoked()
            for credential in [one for one in self._open if one.key_id in revoked and not one.is_over(now_ms)]:
                self._end(credential, credential.revoked())

    async def _revoked(self) -> frozenset[str]:
        """Returns which keys were revoked of late; what cannot be read now is read at one of the next looks."""
        if self._revocations is None or not any(one.key_id for one in self._open):
            return frozenset()
        try:
            async with asyncio.timeout(READ_S):
                self._read_ms, revoked = await self._revocations.since(self._read_ms - MARGIN_MS)
        except Exception as error:  # noqa: BLE001 - whatever it is, streams of revoked keys have to end later
            if self._failing.is_news():
                log.warning("revocations_not_read", error=str(error) or repr(error))
            return frozenset()
        if self._failing.is_over():
            log.info("revocations_read_again")
        return revoked

    def _end(self, credential: Credential, error: MeshError) -> None:
        """Ends all that a credential has opened."""
        stays = list(self._open[credential])
        log.info("calls_ended", key_id=credential.key_id, many=len(stays), reason=error.reason)
        for stay in stays:
            stay.end(error)
