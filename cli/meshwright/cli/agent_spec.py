"""A user's agent on the command line, `FILE.py:NAME`, and what it is called before its process has told."""

import ast
from pathlib import Path
from typing import NamedTuple

from meshwright.core.ids import AGENT_ID

MAX_BYTES = 2**20


class AgentSpec(NamedTuple):
    """One process of an agent.

    Attributes:
        name: Of the process, until it has told the agent's name.
        spec: What it runs.
        log: Name of its log.
    """

    name: str
    spec: str
    log: str


def own_agents(specs: list[str]) -> list[AgentSpec]:
    """Names a user's agents; a log is called like its agent where the file says how, else `work-helper`."""
    return [AgentSpec(name, spec, declared_name(spec) or name) for spec, name in zip(specs, names(specs), strict=True)]


def worker_of(agent: AgentSpec, number: int) -> AgentSpec:
    """Names a process that only runs an agent's tasks."""
    return AgentSpec(f"{agent.name}-worker-{number}", agent.spec, f"{agent.log}-worker-{number}")


def names(specs: list[str]) -> list[str]:
    """Names processes by file and variable, the second and later ones with a number: `work-helper-1`."""
    places = (spec.rpartition(":") for spec in specs)
    plain = [f"{Path(place).stem}-{attribute}" for place, _, attribute in places]
    return [name + (f"-{index}" if index else "") for index, name in enumerate(plain)]


def declared_name(spec: str) -> str:
    """Reads off a file, without running it, how the agent of a variable is called; empty: it does not say."""
    place, _, variable = spec.rpartition(":")
    path = Path(place if place.endswith(".py") else f"{place.replace('.', '/')}.py")
    try:
        with path.open("rb") as file:
            tree = ast.parse(file.read(MAX_BYTES))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # its process says what is wrong
        return ""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and is_of(node, variable):
            return name_in(node.value)
    return ""


def is_of(node: ast.Assign | ast.AnnAssign, variable: str) -> bool:
    """Whether a statement gives a variable its value."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == variable for target in targets)


def name_in(value: ast.expr) -> str:
    """Returns the name in `Agent("name", ...)`; empty: it is no such call, or no name."""
    if not isinstance(value, ast.Call):
        return ""
    given = [keyword.value for keyword in value.keywords if keyword.arg == "name"] or value.args[:1]
    name = given[0].value if given and isinstance(given[0], ast.Constant) else ""
    return name if isinstance(name, str) and AGENT_ID.fullmatch(name) else ""
