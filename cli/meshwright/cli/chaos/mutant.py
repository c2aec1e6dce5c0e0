"""A mutant: an agent's process in which the mechanism behind one promise was taken out.

`python -m meshwright.cli.chaos.mutant NAME meshwright.agents MODULE:AGENT` changes the functions of the journal or the
code of the runtime in this process, and then runs the module as if nothing had happened. Nothing in the runtime knows
about it.
"""

import contextlib
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

from meshwright.core.errors import SetupError

NEWER_JOURNAL = "newer-journal"
EVERYSEC = "everysec"
"""A mutant of the store alone: whoever breaks the store sets it."""


def rewritten(*changes: tuple[str, str]) -> Callable[[], None]:
    """Makes a mutant that rewrites functions of the store before they are loaded.

    Args:
        changes: Patterns and what takes the place of each match. Each has to match somewhere: a mutant that changes
            nothing would pass for a promise that nobody checks.
    """

    def apply() -> None:
        from meshwright.core import store

        plain = store.Library.__init__
        missing = {pattern for pattern, _ in changes}

        def init(self: store.Library, name: str, source: str, *rest: Any) -> None:
            for pattern, replacement in changes:
                source, times = re.subn(pattern, replacement, source)
                if times:
                    missing.discard(pattern)
            plain(self, name, source, *rest)

        store.Library.__init__ = init  # type: ignore[method-assign]
        import meshwright.agents.journal
        import meshwright.registry.store  # noqa: F401

        if missing:
            raise SetupError(f"the mutant does not fit the functions any more: {sorted(missing)}")

    return apply


def acting_first() -> None:
    """Makes the mutant that calls the tools of a step before the step is journaled."""
    from meshwright.agents.actor import Actor
    from meshwright.agents.models.model import Call
    from meshwright.agents.planner import Planner
    from meshwright.agents.values import arguments_of
    from meshwright.core.errors import MeshError

    actors: list[Actor] = []
    init, ask = Actor.__init__, Planner.ask

    def remembered(self: Actor, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        actors.append(self)

    async def act_and_tell(self: Planner, run: Any, prompt: Any) -> Any:
        step = await ask(self, run, prompt)
        planned = {call.call_id: call for call in step[0].llm_call.planned_calls}
        for intent in (event.tool_call for event in step if event.HasField("tool_call")):
            call = Call(intent.call_id, intent.tool, arguments_of(planned[intent.call_id]))
            with contextlib.suppress(MeshError):
                await actors[0]._outcome(run, call, intent)  # noqa: SLF001
        return step

    Actor.__init__ = remembered  # type: ignore[method-assign]
    Planner.ask = act_and_tell  # type: ignore[method-assign]


NO_FENCE = rewritten(
    (r"if facts\[1\] ~= a\[3\] then", "if false then"),
    (r"if facts\[1\] == a\[i \+ 1\] then", "if true then"),
    (r"if seen > fence then", "if false then"),
)
RELEASE_EARLY = rewritten((r"redis\.call\('ZADD', key\(p, 'leases'\),[^\n]*\)", ""))
NO_SWEEP = rewritten((r"if not is_grace\(", "if false and not is_grace("))
NEWER = rewritten((r"\A", "-- a newer version\n"))
MUTANTS: dict[str, Callable[[], None]] = {
    "no-fence": NO_FENCE,
    "no-intent": acting_first,
    "release-early": RELEASE_EARLY,
    "no-sweep": NO_SWEEP,
    EVERYSEC: lambda: None,
    NEWER_JOURNAL: NEWER,
}


def main(arguments: Sequence[str]) -> None:
    """Becomes the module that is named after the mutant."""
    name, module, *rest = arguments
    MUTANTS[name]()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
