"""An agent as its author writes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from meshwright.agents.caching import CacheMode, CacheScope, Caching
from meshwright.agents.context import DEFAULT_WINDOW, READ_RESULT, SMALLEST_WINDOW
from meshwright.agents.escalation import Escalates
from meshwright.agents.guardrails.guardrail import Guardrail
from meshwright.agents.guardrails.policy import DEFAULT, check_guardrails
from meshwright.agents.inputs import LONGEST_S, STRICTNESS, Approval, Policy, Silence
from meshwright.agents.models.model import Model
from meshwright.agents.outage import MAX_TEXT, SORRY, OnOutage, Outage
from meshwright.agents.typed import ResultType
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.ids import AGENT_ID, TOOL_NAME, VERSION
from meshwright.registry.catalog import split_selector
from meshwright.registry.module import members
from meshwright.registry.tool.hosted import HostedTool

Summaries = Literal["extract", "model"]
WIDEST_WINDOW = 10_000_000
ChildFailure = Literal["tell", "retry", "other"]
CHILD_FAILURES = get_args(ChildFailure)
MOST_CHILDREN, MOST_AT_ONCE = 100, 32
WISHES = Escalates(["asked_for_person"])
NEVER = Escalates(())


@dataclass(frozen=True, slots=True)
class Agent:
    """A name, what it is told to do, and what it may use.

    Attributes:
        name: `[a-z][a-z0-9-]{0,62}`; its address in the mesh.
        instructions: System text for the model.
        tools: Functions made by `@tool` and declared tools (`toolfile.load`), which run in the agent's process, and
            selectors (`docs.search@^1`) of tools that run elsewhere. What is not listed is denied.
        delegates: Agents it may hand work to; the model sees each as a tool `ask.NAME`.
        description: What it is good at, for people and for agents that delegate; by default the instructions.
        skills: Keywords of the same.
        version: Semantic version.
        model: A model of your own, in place of the mesh's; or specs (`offline`, `openai:NAME@URL`, `anthropic:NAME`)
            and names from the file of models, by commas: each is asked where those before it cannot answer.
        approvals: By tool name (`*`: any), when a person is asked before a call: `never`, `when_tainted` (after content
            that others wrote has entered the conversation) or `always`; the tool's own rule counts where stricter.
        asks_people: Whether it may ask a person: the model sees a tool `ask.person`.
        escalates: When it calls for a person by itself; by default where whoever asks wants to speak to one, if it
            `asks_people`, else never. `Escalates()` looks for every signal.
        stakes: Names of tools whose every call waits for approval, before other questions in the inbox.
        answer_within_s: How long a question stays open, at most 30 days; meanwhile the task's clock stands still.
        on_silence: What follows when nobody answers: `refuse` what was asked for and go on, or `fail`.
        four_eyes: Whoever asked for a task does not decide on what it waits for, but for the agent's own questions:
            another principal of the tenant does; see docs/identity.md.
        on_outage: What follows when no model answers, a tool cannot be reached or a budget is used up: `fail` (the end
            of a budget gives what there is), or `degrade`: give less, and say so.
        outage_text: What it says when no model answers and it is to degrade.
        cache: Whether questions are answered from before: `off`, `exact` (the same question) or `semantic` (one that is
            alike, too); see docs/models.md.
        cache_for_s: Seconds for which an answer is given again, 1 to 30 days.
        cache_threshold: How similar a question has to be, as a cosine, 0.5..1.
        cache_scope: Who is given an answer again: the same `principal`, or everyone of the `tenant`.
        same_version: A task stays with the version that began it; otherwise any version goes on with it.
        callable_by: Who may give it tasks: agents' names, `outside` for callers that are no agents; empty: everyone.
        context_window: Tokens that its model can read and write in one call, 4,096 at least; prompts are kept within.
        summaries: What stands for what is left out of prompts: `extract`, sentences as they stood, or `model`: a
            summary that the model writes, paid from the task's budget.
        remembers: Whether it has `memory.remember` and `memory.recall`, which reach beyond the session.
        guardrails: Rules for what goes in and comes out, in their order; see docs/guardrails.md. `()` switches all
            off, and the marks around content of others too.
        recursive: Whether it takes tasks that come from below its own; an agent among its own delegates does.
        max_children: How many tasks one of its tasks may hand to delegates, 1..100.
        max_children_at_once: How many of them in one answer, 1..32.
        on_child_failure: What follows where a delegate fails: `tell` the model, `retry` once with the same agent, or
            give it to an `other` delegate that has a skill in common.
        output_schema: JSON Schema, of type object, of the results that it gives where a request names none; None: text.
        prepare: Called once in a thread before the agent is announced, for example to build an index.
    """

    name: str
    instructions: str
    tools: Sequence[HostedTool | str] = ()
    delegates: Sequence[str] = ()
    description: str = ""
    skills: Sequence[str] = ()
    version: str = "1.0.0"
    model: str | Model = ""
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    asks_people: bool = False
    escalates: Escalates | None = None
    stakes: Sequence[str] = ()
    answer_within_s: float = 7 * 86_400
    on_silence: Silence = "refuse"
    four_eyes: bool = False
    on_outage: OnOutage = "fail"
    outage_text: str = SORRY
    cache: CacheMode = "off"
    cache_for_s: float = 3_600
    cache_threshold: float = 0.95
    cache_scope: CacheScope = "principal"
    same_version: bool = False
    callable_by: Sequence[str] = ()
    context_window: int = DEFAULT_WINDOW
    summaries: Summaries = "extract"
    remembers: bool = False
    guardrails: Sequence[Guardrail] = DEFAULT
    recursive: bool = False
    max_children: int = 32
    max_children_at_once: int = 8
    on_child_failure: ChildFailure = "tell"
    output_schema: Mapping[str, Any] | None = None
    prepare: Callable[[], None] | None = None
    local_tools: tuple[HostedTool, ...] = field(init=False, default=())
    selectors: tuple[str, ...] = field(init=False, default=())
    result_type: ResultType | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not AGENT_ID.fullmatch(self.name):
            raise SetupError(f"agent name {self.name!r} must be {AGENT_ID.words}")
        if not VERSION.fullmatch(self.version):
            raise SetupError(f"agent {self.name}: version {self.version!r} is no semantic version")
        for one in self.tools:
            if isinstance(one, str):
                split_selector(one)
            elif not isinstance(one, HostedTool):
                raise SetupError(f"agent {self.name}: {one!r} is no tool: decorate the function with @tool")
        for name in (*self.delegates, *self.callable_by):
            if not AGENT_ID.fullmatch(name):
                raise SetupError(f"agent {self.name}: {name!r} is no agent's name")
        self._check_rules()
        self._check_context()
        self._check_delegation()
        self.caching.check(self.name)
        check_guardrails(self.name, self.guardrails)
        own = tuple(one for one in self.tools if isinstance(one, HostedTool))
        pins = tuple(f"{one.name}@{one.version}" if isinstance(one, HostedTool) else one for one in self.tools)
        object.__setattr__(self, "local_tools", own)
        object.__setattr__(self, "selectors", pins)
        if self.output_schema is not None:
            object.__setattr__(self, "result_type", self._result_type(self.output_schema))

    def _check_rules(self) -> None:
        for name, rule in self.approvals.items():
            if rule not in STRICTNESS:
                raise SetupError(f"agent {self.name}: approval {rule!r} of {name} is none of {', '.join(STRICTNESS)}")
        if self.on_silence not in ("refuse", "fail"):
            raise SetupError(f"agent {self.name}: on_silence is refuse or fail, not {self.on_silence!r}")
        if self.on_outage not in ("fail", "degrade"):
            raise SetupError(f"agent {self.name}: on_outage is fail or degrade, not {self.on_outage!r}")
        if not 0 < len(self.outage_text.strip()) <= MAX_TEXT:
            raise SetupError(f"agent {self.name}: outage_text must have 1..{MAX_TEXT} characters")
        if not 1 <= self.answer_within_s <= LONGEST_S:
            raise SetupError(f"agent {self.name}: answer_within_s must be 1..{LONGEST_S} (30 days)")
        if self.asks_people and "person" in self.delegates:
            raise SetupError(f"agent {self.name}: a delegate called person and asks_people exclude each other")
        if self.escalates and "low_confidence" in self.escalates.signals and "escalation" in self.delegates:
            raise SetupError(f"agent {self.name}: a delegate called escalation and low_confidence exclude each other")
        if isinstance(self.stakes, str) or not all(TOOL_NAME.fullmatch(name) for name in self.stakes):
            raise SetupError(f"agent {self.name}: stakes are names of tools, not {self.stakes!r}")

    def _check_context(self) -> None:
        if not SMALLEST_WINDOW <= self.context_window <= WIDEST_WINDOW:
            raise SetupError(f"agent {self.name}: context_window must be {SMALLEST_WINDOW}..{WIDEST_WINDOW} tokens")
        if self.summaries not in ("extract", "model"):
            raise SetupError(f"agent {self.name}: summaries is extract or model, not {self.summaries!r}")
        reserved = {READ_RESULT, *(("memory.remember", "memory.recall") if self.remembers else ())}
        for one in self.tools:
            name = one.partition("@")[0] if isinstance(one, str) else one.name
            if name in reserved:
                raise SetupError(f"agent {self.name}: the mesh itself gives it {name}: leave it out of tools")

    def _check_delegation(self) -> None:
        if self.on_child_failure not in CHILD_FAILURES:
            known = ", ".join(CHILD_FAILURES)
            raise SetupError(f"agent {self.name}: on_child_failure is {known}, not {self.on_child_failure!r}")
        for name, most in (("max_children", MOST_CHILDREN), ("max_children_at_once", MOST_AT_ONCE)):
            if not 1 <= getattr(self, name) <= most:
                raise SetupError(f"agent {self.name}: {name} must be 1..{most}")

    def _result_type(self, schema: Mapping[str, Any]) -> ResultType:
        try:
            return ResultType.parse(schema)
        except InvalidRequestError as error:
            raise SetupError(f"agent {self.name}: {error.message}") from None
        except TypeError as error:
            raise SetupError(f"agent {self.name}: output_schema is no JSON: {error}") from None

    @property
    def is_recursive(self) -> bool:
        """Whether it takes tasks that come from below its own."""
        return self.recursive or self.name in self.delegates

    @property
    def policy(self) -> Policy:
        """How it asks people."""
        return Policy(self.answer_within_s, self.on_silence, self.four_eyes)

    @property
    def outage(self) -> Outage:
        """What it does when it cannot give what it should."""
        return Outage(self.on_outage == "degrade", self.outage_text)

    @property
    def escalation(self) -> Escalates:
        """When it calls for a person."""
        return self.escalates or (WISHES if self.asks_people else NEVER)

    @property
    def caching(self) -> Caching:
        """How it gives answers from before."""
        return Caching(self.cache, self.cache_for_s, self.cache_threshold, self.cache_scope)

    def approval_of(self, tool: str) -> Approval:
        """Returns its own rule for a tool."""
        if tool in self.stakes:
            return "always"
        return self.approvals.get(tool, self.approvals.get("*", "never"))


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
