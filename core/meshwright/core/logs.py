"""Logs: one line of JSON an event on stderr, of listed fields, without secrets; levels change while a process runs."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from meshwright.core import tracing
from meshwright.core.errors import SetupError
from meshwright.core.log_levels import LEVELS, LOGGERS, LevelFile, Levels
from meshwright.core.log_line import line_of
from meshwright.core.settings import Settings

FAILED = "process_failed"
"""The event of an error that nobody caught."""
log = structlog.get_logger("log")


class Sink:
    """Writes the lines of one logger to stderr.

    Attributes:
        name: The logger's.
        level: The least that it writes.
    """

    _turn = threading.Lock()

    def __init__(self, name: str, level: int) -> None:
        self.name = name
        self.level = level

    def write(self, line: str) -> None:
        """Writes a line; whoever logs goes on where nobody reads it any more, or the disk is full."""
        with self._turn, contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = write


class Sinks:
    """Makes the sinks of all loggers, and sets their levels.

    Libraries say warnings and worse alone, whatever the levels: below that they quote what they send. A logger of
    `logging` that the levels name is an agent's or a tool's own, and has its level.
    """

    def __init__(self) -> None:
        self._levels = Levels()
        self._named: frozenset[str] = frozenset()
        self._sinks: dict[str, Sink] = {}

    def __call__(self, name: str = "") -> Sink:
        """Returns the sink of a logger."""
        sink = self._sinks.get(name)
        if sink is None:
            sink = self._sinks[name] = Sink(name, self._levels.of(name))
        return sink

    def use(self, levels: Levels) -> None:
        """Sets the levels of loggers, from now on."""
        self._levels = levels
        for name, sink in self._sinks.items():
            sink.level = levels.of(name)
        logging.getLogger().setLevel(max(levels.base, logging.WARNING))
        for name in self._named.difference(levels.own):
            logging.getLogger(name).setLevel(logging.NOTSET)
        self._named = frozenset(levels.own).difference(LOGGERS)
        for name in self._named:
            logging.getLogger(name).setLevel(levels.own[name])


class Origin:
    """Adds where an event comes from: process, logger and trace; what the event says itself stays."""

    def __init__(self, service: str, instance: str) -> None:
        self._facts = {"service": service, "instance": instance}

    def __call__(self, logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Adds it to an event."""
        name = {"logger": logger.name} if isinstance(logger, Sink) else {}
        return {**self._facts, **name, **tracing.current_ids(), **event}


def configure(settings: Settings, service: str, instance: str) -> None:
    """Sets up the log of this process, with the file of levels where one is named.

    Raises:
        SetupError: The levels cannot be read.
    """
    try:
        levels = Levels.parse(settings.log_level)
    except SetupError as error:
        raise SetupError(f"MESHWRIGHT_LOG_LEVEL={settings.log_level[:80]!r}: {error.message}") from None
    sinks = write_lines(levels, service, instance)
    catch_the_rest()
    if settings.log_levels_file:
        file = LevelFile(Path(settings.log_levels_file), levels, settings.log_levels_s, sinks.use, log)
        file.watch(asyncio.get_running_loop())


def write_lines(levels: Levels, service: str, instance: str) -> Sinks:
    """Writes one JSON object a line to stderr, of our events and of what libraries warn of."""
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Origin(service, instance),
    ]
    sinks = Sinks()
    structlog.configure(
        processors=[*steps, rendered],
        wrapper_class=logger_of,  # type: ignore[arg-type] # is called as a class is
        logger_factory=sinks,
        cache_logger_on_first_use=False,  # levels change
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *steps],
        )
    )
    logging.basicConfig(handlers=[libraries])
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # what a library cannot spell is not worth a traceback beside the lines
    sinks.use(levels)
    return sinks


LOGGERS_BY_LEVEL: dict[int, Any] = {level: structlog.make_filtering_bound_logger(level) for level in LEVELS.values()}


def logger_of(sink: Sink, processors: Iterable[structlog.typing.Processor], context: dict[str, Any]) -> Any:
    """Returns a logger for one event, of a class that skips what is below the sink's level now."""
    return LOGGERS_BY_LEVEL[sink.level](sink, processors, context)


def rendered(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    """Writes an event, the last of the steps."""
    return line_of(event)


def catch_the_rest() -> None:
    """Has errors that nobody caught told in one line, too: Python's own words are many, and hold what they hold."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            log.critical(FAILED, exc_info=(kind, error, trace))

    sys.excepthook = tell
    threading.excepthook = lambda told: tell(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: tell(told.exc_type, told.exc_value, told.exc_traceback)
