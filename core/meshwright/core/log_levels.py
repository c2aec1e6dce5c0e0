"""Levels of loggers: what a process says, in all and part by part, and how that changes while it runs."""

import asyncio
import datetime as dt
import difflib
import importlib.util
import logging
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from meshwright.core.errors import SetupError
from meshwright.core.ids import Form
from meshwright.core.small_file import at_once, state_of

INSTALLED = frozenset(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))
"""Folders of libraries."""
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
LOGGERS = {
    "agent": "Start and end of an agent's process",
    "answers": "Answers that are kept for like questions",
    "audit": "Calls of pure tools, lines that the audit did not take, and its trimming",
    "authorization": "Who calls the edge",
    "call": "Calls that are served, at `debug`; those that failed inside",
    "channel": "Connections to other services",
    "desk": "Acceptance of tasks",
    "discovery": "What Envoy is told of instances",
    "envoy": "Envoy's bootstrap",
    "feed": "Streams of events",
    "gateway": "Start and end of the gateway, and its routes",
    "guard": "Guardrails",
    "handover": "Tasks that are handed to a person",
    "inbox": "Questions to people",
    "key": "Files that hold keys",
    "keys": "API keys",
    "log": "The log itself",
    "metrics": "The metrics listener",
    "models": "Failures and circuits of models; calls of them, at `debug`",
    "prices": "What models cost",
    "registry": "Start and end of the registry",
    "registry_client": "What the registry tells",
    "responses": "Answers from before",
    "runner": "Ends of tasks",
    "signing": "Keys that edges and registries sign with",
    "stay": "Streams whose caller may not stay",
    "summary": "Summaries of conversations",
    "supervisor": "Child tasks",
    "tasks": "Tasks of others",
    "tls": "Certificates",
    "tool_host": "Start and end of a tool host; tools and their calls",
    "toolbox": "Tools that an agent looks for",
    "webhooks": "Webhooks",
    "worker": "Claims, leases and sweeps; tasks that are handed back",
}
MOST_BYTES = 4_096
LOOK_S = 1.0
"""How often the file is looked at."""
OTHERS = Form(re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"), "1 to 64 letters, digits, _, . or -, a letter or _ first")
"""Names of loggers that are not ours."""
NEAR = 0.81
"""How like a name of ours a name must be to be taken for a misspelt one, 0 to 1."""
FORM = "write LEVEL or LOGGER=LEVEL, with commas between: info,call=debug"


@dataclass(frozen=True, slots=True)
class Levels:
    """Which events are written.

    Attributes:
        base: The least level of loggers that are not named.
        own: The least level of those that are, and of those below them: `mine` counts for `mine.orders`.
    """

    base: int = logging.INFO
    own: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, base: int = logging.INFO) -> Self:
        """Reads `LEVEL` and `LOGGER=LEVEL`, with commas between; what stands last wins.

        Args:
            text: At most `MOST_BYTES` characters.
            base: Where no level stands alone.

        Raises:
            SetupError: It names no level, a logger that may be one of ours misspelt, or more of a library than it says.
        """
        own: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            logger, level = (one.strip() for one in part.rpartition("=")[::2])
            level = level.lower()
            if level not in LEVELS:
                raise SetupError(f"{level[:40]!r} is no level: use {', '.join(LEVELS)}; {FORM}")
            if "=" not in part:
                base = LEVELS[level]
            else:
                own[named(logger, LEVELS[level])] = LEVELS[level]
        return cls(base, own)

    def of(self, logger: str) -> int:
        """Returns the least level of a logger."""
        while logger and logger not in self.own:
            logger = logger.rpartition(".")[0]
        return self.own.get(logger, self.base)

    def __str__(self) -> str:
        names = {number: name for name, number in LEVELS.items()}
        return ",".join([names[self.base], *(f"{logger}={names[level]}" for logger, level in self.own.items())])


def named(logger: str, level: int) -> str:
    """Returns a logger's name as it counts: one of ours in small letters, another one as it stands.

    Raises:
        SetupError: It is none, is near to one of ours, or is a library's, which says warnings and worse alone.
    """
    ours = logger.lower()
    if ours in LOGGERS:
        return ours
    if not OTHERS.fullmatch(logger):
        raise SetupError(f"{logger[:40]!r} is no logger: it has {OTHERS.words}; {FORM}")
    if near := difflib.get_close_matches(ours, LOGGERS, 1, NEAR):
        raise SetupError(f"{logger!r} is no logger here; do you mean {near[0]!r}? docs/logs.md lists them")
    if level < logging.WARNING and is_of_library(logger):
        raise SetupError(f"{logger!r} is a library's logger: libraries say warnings and worse, whatever is set")
    return logger


def is_of_library(logger: str) -> bool:
    """Whether a logger is named like a module that is installed, and needs no mesh, or of Python itself."""
    module = logger.partition(".")[0]
    if module in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(module)  # of the outermost module, so nothing is imported
    except ValueError:  # the program itself
        return False
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else []
    is_installed = any(Path(place).is_relative_to(folder) for place in places if place for folder in INSTALLED)
    return is_installed and not needs_mesh(module)


def needs_mesh(package: str) -> bool:
    """Whether an installed package requires Meshwright, as those of agents do."""
    try:
        required = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return False
    return any(re.match(r"meshwright\b", one) for one in required)


class LevelFile:
    """Levels that an operator writes into a file; they end by themselves, so that nobody forgets them.

    Args:
        path: The file; it need not be there.
        usual: Levels without it.
        lasts_s: Seconds after which the usual ones hold again, from when the file was read; 0: never.
        use: Takes levels that hold from now on.
        log: Says what was read.
    """

    def __init__(self, path: Path, usual: Levels, lasts_s: float, use: Callable[[Levels], None], log: Any) -> None:
        self._path = path
        self._usual = usual
        self._lasts_s = lasts_s
        self._use = use
        self._log = log
        self._seen = (0, 0, 0)
        self._ends: float | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks at the file now, and each second as long as a loop runs."""
        self.look(loop.time())
        loop.call_later(LOOK_S, self.watch, loop)

    def look(self, now: float) -> None:
        """Takes up what has changed since the last look; `now`: seconds of a clock that only goes on."""
        state = state_of(self._path)
        if state != self._seen:
            self._seen = state
            self._take_up(now)
        elif self._ends is not None and now >= self._ends:
            self._ends = None
            self._use(self._usual)
            self._log.info("log_levels_ended", path=str(self._path), levels=str(self._usual))

    def _take_up(self, now: float) -> None:
        """Reads the file; one that cannot be used changes nothing."""
        try:
            text = content_of(self._path)
            levels = Levels.parse(text, self._usual.base) if text else self._usual
        except SetupError as error:
            self._log.warning("log_levels_kept", path=str(self._path), error=error.message)
            return
        self._use(levels)
        self._ends = now + self._lasts_s if text and self._lasts_s else None
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self._lasts_s) if self._ends is not None else None
        facts = {"until": until.isoformat(timespec="seconds")} if until else {}
        self._log.info("log_levels_read", path=str(self._path), levels=str(levels), **facts)


def content_of(path: Path) -> str:
    """Reads levels, without comments, which begin with `#`; empty: there are none, or no file.

    Raises:
        SetupError: It cannot be read, or is no short text.
    """
    try:
        with open(path, "rb", opener=at_once) as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise SetupError(f"the file of levels cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MOST_BYTES or not content.isascii():
        raise SetupError(f"the file of levels holds more than {MOST_BYTES} bytes, or what is not ASCII; {FORM}")
    lines = (line.partition("#")[0].strip() for line in content.decode("ascii").splitlines())
    return ",".join(filter(None, lines))
