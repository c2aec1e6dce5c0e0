"""The commands by name, each in a module that is imported when it is called: help and typing errors come at once."""

import importlib
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

FOR_CODE = re.compile(r"\n\n(?=(?:Args|Raises|Returns|Yields):\n)")


class Place(NamedTuple):
    """Where a command is, and what the list of commands says of it.

    Attributes:
        module: Below `meshwright.cli`.
        name: A function, or a group of commands, of that module.
        help: The first line of its own help.
    """

    module: str
    name: str
    help: str


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "dev": Place(
            "dev",
            "dev",
            "Runs store, registry, agents, gateway and Envoy; starts again what dies; stops all of it on Ctrl-C.",
        ),
        "demo": Place(
            "demo",
            "demo",
            "Starts a whole mesh, asks it a question of your files, draws the steps, prints the answer, stops.",
        ),
        "run": Place("run", "run", "Asks a question and prints the answer."),
        "eval": Place(
            "eval",
            "evaluate",
            "Asks an agent what its set holds, in a mesh of its own, and checks what becomes of it.",
        ),
        "chaos": Place(
            "chaos.command",
            "chaos",
            "Breaks a real mesh on purpose and reports which promises held; exits with 1 where one did not.",
        ),
        "bench": Place(
            "bench",
            "bench",
            "Measures what calls, tasks and watchers cost; works in a checkout, where the benchmarks are.",
        ),
        "cost": Place(
            "cost",
            "cost",
            "Sums what your tenant's ended tasks have cost.",
        ),
        "task": Place(
            "task",
            "app",
            "Submit, look at, watch and cancel tasks; decide what they wait for.",
        ),
        "trace": Place(
            "trace",
            "trace",
            "Draws a task with its children as a tree: what was done when, how long it took, what it cost.",
        ),
        "session": Place(
            "session",
            "app",
            "Look at conversations, pin facts to them, export and delete them.",
        ),
        "agent": Place("agent", "app", "See who is here, and begin a new one."),
        "tool": Place(
            "tool",
            "app",
            "See which tools there are, mark their versions, and call one.",
        ),
        "key": Place("key", "app", "API keys: make one, see which there are, revoke one."),
        "audit": Place(
            "audit",
            "app",
            "The audit: who did what; look at it, export it, verify that it is whole.",
        ),
        "certs": Place(
            "certs",
            "certs",
            "Makes a development authority, once, and certificates for mTLS inside the mesh (MESHWRIGHT_TLS_DIR).",
        ),
        "doctor": Place(
            "doctor",
            "doctor",
            "Looks at the environment's settings, certificates and store, and says what to do, a line each.",
        ),
        "check-config": Place(
            "doctor",
            "check_config",
            "Renders Envoy's configuration from the environment's settings, and has Envoy validate it.",
        ),
        "store": Place("store", "app", "Prepares a store for production."),
        "webhook": Place(
            "webhook",
            "app",
            "What webhooks are told: look at it, tell it again, try endpoints.",
        ),
    }
)


class Commands(TyperGroup):
    """The group of all commands: known by their outlines until one of them is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=place.help) for name, place in PLACES.items()}

    def make_context(self, *words: Any, **options: Any) -> Any:
        """Reads the words before the command's name; what is wrong with them is one line."""
        try:
            return super().make_context(*words, **options)
        except typer.TyperException as error:
            raise told(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; what is wrong with its words is one line."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise told(error) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that is called, and imports it."""
        name, outline, rest = super().resolve_command(ctx, args)
        return name, outline and loaded(outline.name or ""), rest


def told(error: Any) -> Exception:
    """Prints what is wrong with the words of a command line, in one line as all errors; returns what ends the program.

    Of a value it is told without the words of the library that found it.
    """
    if type(error).__name__ == "NoArgsIsHelpError":  # has printed help; typer does not export it
        return typer.Exit(error.exit_code)
    from meshwright.cli.output import harmless

    context = getattr(error, "ctx", None)
    help_is = f" (see {context.command_path} --help)" if context else ""
    said = " ".join(error.format_message().replace("Value error, ", "", 1).split()).removesuffix(".")
    sys.stderr.write(f"error: {harmless(said)}{help_is}\n")
    return typer.Exit(error.exit_code)


def loaded(name: str) -> Any:
    """Imports a command, as click calls it."""
    place = PLACES[name]
    found = getattr(importlib.import_module(f"meshwright.cli.{place.module}"), place.name)
    if isinstance(found, typer.Typer):
        return for_users(get_group(found))
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return for_users(get_command(alone))


def for_users(command: Any) -> Any:
    """Takes out of a command's help what its docstring says to those who call it from code."""
    if command.help:
        command.help = FOR_CODE.split(command.help)[0]
    for inner in getattr(command, "commands", {}).values():
        for_users(inner)
    return command
