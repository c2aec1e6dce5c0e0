"""The catalog: every scenario, in the order in which they are played."""

import importlib
from collections.abc import Iterable, Sequence

from meshwright.cli.chaos.scenario import Row, Scenario, Setting
from meshwright.core.errors import InvalidRequestError

HOME = "meshwright.cli.chaos"


def scenario(name: str, module: str, title: str, *, is_quick: bool = True) -> Scenario:
    """Names a scenario whose `play` lives in a module of this package, which is imported when it is played."""

    async def play(setting: Setting) -> Row:
        row: Row = await importlib.import_module(f"{HOME}.{module}").play(setting)
        return row

    return Scenario(name, title, play, is_quick)


SCENARIOS: Sequence[Scenario] = (
    scenario("kills", "kills", "kill -9 at every step boundary, every kind of process"),
    scenario("load", "load", "random kills under load"),
    scenario("power", "power", "power cuts of the store"),
    scenario("zombies", "zombies", "workers stopped past their lease"),
    scenario("store-outage", "outage", "the store away for longer than a lease"),
    scenario("restarts", "restarts", "rolling restarts under load"),
    scenario("upgrade", "upgrade", "rolling upgrades with tasks in flight"),
    scenario("full-store", "full_store", "memory full, disk full, the log rewritten under load"),
    scenario("mutants", "mutants", "a mechanism taken out: do the scenarios notice?"),
    scenario("network", "network", "delay, blackhole, reset, half-close and 1 KB/s on every hop"),
    scenario("bad-input", "bad_input", "mutated wires, JSON through Envoy, hostile schemas"),
    scenario("resume", "resume", "streams cut at random places"),
    scenario("overload", "overload", "four times the capacity"),
    scenario("fairness", "fairness", "one tenant fills the queue, another one works"),
    scenario("delegation", "delegation", "one task at once, delegating to itself"),
    scenario("soak", "soak", "steady work: memory, files and pending entries stay flat"),
)


def chosen(names: Iterable[str]) -> list[Scenario]:
    """Returns the scenarios of these names; of no name: those that are quick.

    Raises:
        InvalidRequestError: There is no such scenario.
    """
    wanted = list(names)
    known = {one.name: one for one in SCENARIOS}
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidRequestError(f"there is no scenario {unknown[0]!r}: there are {', '.join(known)}")
    return [known[name] for name in wanted] if wanted else [one for one in SCENARIOS if one.is_quick]
