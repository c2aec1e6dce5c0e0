"""The tools `memory.remember` and `memory.recall`: long-term memory as a model uses it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meshwright.agents.journal import Journal
from meshwright.agents.memory import Memory
from meshwright.agents.recall import MOST_HITS, MOST_TEXT_CHARS, Hit, LongTermMemory, Origin, Place
from meshwright.agents.task import TaskName
from meshwright.core.errors import InvalidRequestError, PermissionDeniedError, SetupError, TaskNotFoundError
from meshwright.core.grant import REGISTRY
from meshwright.core.ids import root_of
from meshwright.registry import tool
from meshwright.registry.invocation import Invocation, current_invocation
from meshwright.registry.tool import LocalTool

REMEMBER, RECALL = "memory.remember", "memory.recall"
EMBEDDED = {REMEMBER: "fact", RECALL: "about"}
"""By tool, the argument that is embedded."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered now, and under which id."""

    memory_id: str
    text: str
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory, how similar it is to what was asked, and where it comes from."""

    text: str
    similarity: float
    task_id: str
    session_id: str
    agent_id: str
    time: str
    may_be_from_others: bool


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the tools of one process work with.

    Attributes:
        long_term: Where memories are kept.
        memory: Where facts are pinned.
        journal: Tells the session of a task.
    """

    long_term: LongTermMemory
    memory: Memory
    journal: Journal


def memory_tools(keeping: Callable[[], Keeping]) -> tuple[LocalTool, LocalTool]:
    """Makes the tools; what they work with is asked for with each call."""

    @tool(name=REMEMBER, effect="idempotent")
    async def remember(
        fact: Annotated[str, Field(min_length=1, max_length=MOST_TEXT_CHARS, description="A fact, complete by itself")],
        *,
        pin: Annotated[bool, Field(description="Show it in every later prompt of this conversation, too")] = False,
    ) -> Remembered:
        """Remembers a fact for later conversations with the same person. Remember what will still matter then."""
        invocation, kept_by = current_invocation(), keeping()
        name = caller_of(invocation)
        session_id = invocation.session_id or await session_above(kept_by.journal, name)
        if pin:
            if not session_id:
                problem = "the task has no session that it could be pinned to: leave pin out"
                raise InvalidRequestError(problem, fields={"arguments/pin": "needs a session"})
            await kept_by.memory.pin(name, session_id, fact, task_id=invocation.task_id)
        origin = Origin(invocation.task_id, session_id, invocation.is_tainted)
        place = Place(name, invocation.agent_id)
        kept = await kept_by.long_term.remember(place, invocation.key, fact, origin, invocation.embedding)
        return Remembered(kept.memory_id, kept.text, pin)

    @tool(name=RECALL, effect="pure")
    async def recall(
        about: Annotated[str, Field(min_length=1, max_length=MOST_TEXT_CHARS, description="What to look for")],
        most: Annotated[int, Field(ge=1, le=MOST_HITS, description="How many memories")] = 5,
    ) -> list[Recalled]:
        """Finds what was remembered in earlier conversations with the same person, the most similar first."""
        invocation = current_invocation()
        place = Place(caller_of(invocation), invocation.agent_id)
        found = await keeping().long_term.recall(place, about, most, invocation.embedding)
        return [_recalled(hit) for hit in found]

    return remember, recall


def caller_of(invocation: Invocation) -> TaskName:
    """Names the task that calls.

    Raises:
        PermissionDeniedError: It is none: memories belong to an agent.
    """
    if invocation.agent_id in ("", REGISTRY):
        raise PermissionDeniedError("memories belong to an agent: this is called by an agent's task alone")
    return TaskName(invocation.tenant, invocation.principal, invocation.task_id)


async def session_above(journal: Journal, name: TaskName) -> str:
    """Returns the session of the task at the top, for one below it; empty: it has none, or is at the top itself."""
    root = root_of(name.task_id)
    if root == name.task_id:
        return ""
    try:
        return (await journal.record(name.sibling(root))).session_id
    except TaskNotFoundError:
        return ""


def _recalled(hit: Hit) -> Recalled:
    memory = hit.memory
    return Recalled(
        text=memory.text,
        similarity=hit.similarity,
        task_id=memory.task_id,
        session_id=memory.session_id,
        agent_id=memory.agent_id,
        time=memory.create_time.ToJsonString(),
        may_be_from_others=memory.tainted,
    )


def kept_nowhere() -> Keeping:
    """Stands where a process would be.

    Raises:
        SetupError: Always.
    """
    raise SetupError("memories are kept by the process of an agent: Agent(remembers=True) brings these tools")


remember, recall = memory_tools(kept_nowhere)
"""The tools as their contracts are; a process makes its own."""
