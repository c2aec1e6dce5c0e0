"""An agent as its author writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshwright.agents.models.model import Model
from meshwright.core.errors import SetupError
from meshwright.core.ids import AGENT_ID, VERSION
from meshwright.registry.catalog import split_selector
from meshwright.registry.module import members
from meshwright.registry.tool import LocalTool


@dataclass(frozen=True, slots=True)
class Agent:
    """A name, what it is told to do, and what it may use.

    Attributes:
        name: `[a-z][a-z0-9-]{0,62}`; its address in the mesh.
        instructions: System text for the model.
        tools: Functions made by `@tool`, which run in the agent's process, and selectors (`docs.search@^1`) of tools
            that run elsewhere. What is not listed is denied.
        delegates: Agents it may hand work to; the model sees each as a tool `ask.NAME`.
        description: What it is good at, for people and for agents that delegate; by default the instructions.
        skills: Keywords of the same.
        version: Semantic version.
        model: A model of your own, or a spec (`offline`, `openai:NAME@URL`, `scripted:FILE`), in place of the mesh's.
        prepare: Called once in a thread before the agent is announced, for example to build an index.
    """

    name: str
    instructions: str
    tools: Sequence[LocalTool | str] = ()
    delegates: Sequence[str] = ()
    description: str = ""
    skills: Sequence[str] = ()
    version: str = "1.0.0"
    model: str | Model = ""
    prepare: Callable[[], None] | None = None
    local_tools: tuple[LocalTool, ...] = field(init=False, default=())
    selectors: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if not AGENT_ID.fullmatch(self.name):
            raise SetupError(f"agent name {self.name!r} must match {AGENT_ID.pattern}")
        if not VERSION.fullmatch(self.version):
            raise SetupError(f"agent {self.name}: version {self.version!r} is no semantic version")
        for one in self.tools:
            if isinstance(one, str):
                split_selector(one)
            elif not isinstance(one, LocalTool):
                raise SetupError(f"agent {self.name}: {one!r} is no tool: decorate the function with @tool")
        own = tuple(one for one in self.tools if isinstance(one, LocalTool))
        pins = tuple(f"{one.name}@{one.version}" if isinstance(one, LocalTool) else one for one in self.tools)
        object.__setattr__(self, "local_tools", own)
        object.__setattr__(self, "selectors", pins)


def load(spec: str) -> Agent:
    """Loads `MODULE:AGENT`, where MODULE is a module's name or a path ending in .py.

    Raises:
        SetupError: There is no such file, module or agent, or it fails to import; one line says which.
    """
    place, separator, attribute = spec.rpartition(":")
    if not separator or not place:
        raise SetupError(f"{spec!r} names no agent: write FILE.py:NAME or MODULE:NAME")
    agents = members(place, Agent)
    if attribute not in agents:
        raise SetupError(f"{place} has no agent {attribute!r}: agents in it are {', '.join(agents) or 'none'}")
    return agents[attribute]
