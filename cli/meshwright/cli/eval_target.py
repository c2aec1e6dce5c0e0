"""What `meshwright eval` is pointed at: an agent and the set beside it."""

import importlib
import sys
from pathlib import Path

from meshwright.agents.agent import Agent, load
from meshwright.agents.evals.case import read_set
from meshwright.agents.evals.suite import Suite
from meshwright.agents.library.bundle import BUNDLED, bundled, spec_of
from meshwright.core.errors import InvalidRequestError

SET = "evals.jsonl"
FILE, VARIABLE = "agent.py", "agent"
MOST_NAMED = 10
FORMS = f"one of {', '.join(BUNDLED)}, FILE.py:NAME, MODULE:NAME, a folder with {FILE} and {SET}, or a project with one"


def suites(target: str, file: Path | None, others: list[str]) -> list[Suite]:
    """Finds agents and sets.

    Args:
        target: See `FORMS`; empty: all bundled agents.
        file: The set, in place of the one beside the agent.
        others: Further agents of the mesh, as `dev` takes them.

    Raises:
        InvalidRequestError: There is no such target, or a set is wrong.
        SetupError: An agent cannot be loaded.
    """
    if file is not None and not target:
        raise InvalidRequestError(f"--set belongs to one agent: name {FORMS}", fields={"target": "is required"})
    beside = [_loaded(spec) for spec in others]
    found = [_found(name) for name in ([target] if target else BUNDLED)]
    chosen = [(agent, file or folder / SET) for agent, folder in found]
    for agent, path in chosen:
        if not path.is_file():
            form = '{"id": "tax", "prompt": "…", "checks": {"contains": ["267.5"]}}'
            message = f"there is no set {path} for {agent.name}: name one with --set FILE.jsonl, a case a line: {form}"
            raise InvalidRequestError(message, fields={"set": "a file of JSON lines"})
    return [Suite(agent, read_set(path), path.parent, beside) for agent, path in chosen]


def _found(target: str) -> tuple[Agent, Path]:
    """Returns an agent and the folder in which its set lies."""
    if target in BUNDLED:
        return bundled(target), _folder(spec_of(target))
    if ":" in target:
        return _loaded(target), _folder(target)
    folder = _package(Path(target))
    return _loaded(f"{folder / FILE}:{VARIABLE}"), folder


def _package(folder: Path) -> Path:
    """Returns the folder with an agent: the one that is named, or the only one in it, as in a project.

    Raises:
        InvalidRequestError: There is none, or there are several.
    """
    if (folder / FILE).is_file():
        return folder
    inside = sorted(file.parent for file in folder.glob(f"*/{FILE}"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(map(str, inside[:MOST_NAMED]))
        message = f"{str(folder)!r} holds several agents: name one of {names}"
        raise InvalidRequestError(message, fields={"target": "names several agents"})
    raise InvalidRequestError(f"there is no agent {str(folder)!r}: name {FORMS}", fields={"target": "names no agent"})


def _loaded(spec: str) -> Agent:
    """Loads an agent; a file that belongs to a package is imported as a part of it, whatever is installed."""
    place, separator, name = spec.rpartition(":")
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, which starts agents otherwise
        return load(spec)
    path = Path(place).resolve()
    parts = [path.stem]
    while (path.parent / "__init__.py").is_file():
        path = path.parent
        parts.insert(0, path.name)
    if len(parts) == 1:
        return load(spec)
    sys.path.insert(0, str(path.parent))
    return load(f"{'.'.join(parts)}{separator}{name}")


def _folder(spec: str) -> Path:
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place).parent
    return Path(importlib.import_module(place).__file__ or "").parent
