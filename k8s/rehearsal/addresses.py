"""Addresses: every pod has one of its own on loopback, since its ports are fixed, and every service has one."""

import random
import re
from collections.abc import Iterable

from meshwright.cli.ports import is_free
from meshwright.core.errors import SetupError

TRIES = 50
SOME_PORT = 7099
MOST = 250


class Addresses:
    """Hands out addresses of a network 127.x.y.0/24 that nobody else on this machine uses.

    Linux answers on all of 127.0.0.0/8 without any preparation.

    Raises:
        SetupError: There is none, or the system has but one loopback address.
    """

    def __init__(self) -> None:
        self._network = _free_network()
        self._given = 0
        self._names: dict[str, str] = {}

    def new(self) -> str:
        """Returns an address that nobody had before."""
        self._given += 1
        if self._given > MOST:
            raise SetupError(f"more than {MOST} pods were started: rehearse fewer rounds")
        return f"{self._network}.{self._given}"

    def of(self, name: str) -> str:
        """Returns the address of a name: a service, or a pod that keeps its name."""
        if name not in self._names:
            self._names[name] = self.new()
        return self._names[name]

    def alias(self, name: str, other: str) -> None:
        """Gives a name the address of another one."""
        self._names[name] = self.of(other)

    def resolved(self, text: str, own: str) -> str:
        """Writes addresses in the place of names in a setting, as a resolver would find them.

        Args:
            text: `registry:7070`, `rediss://user:password@store:6379/0`, `0.0.0.0`.
            own: Address of the pod: what it calls 0.0.0.0, all of its own, is this one here.
        """
        found = re.sub(r"\b0\.0\.0\.0\b", own, text)
        return _pattern(self._names).sub(lambda name: self._names[name[0]], found)


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds names where hosts stand: a service's before a port, a name with dots anywhere; agents bear names too."""
    words = [re.escape(name) + ("" if "." in name else r"(?=:\d)") for name in names]
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(words) or '(?!)'})(?![\w.-])")


def _free_network() -> str:
    for _ in range(TRIES):
        network = f"127.{random.randint(16, 250)}.{random.randint(0, 255)}"
        if is_free(f"{network}.1", SOME_PORT):
            return network
    raise SetupError("no free address on loopback: the rehearsal needs Linux, which has 127.0.0.0/8")
