"""The parts of a mesh as `/ready` tells of them: in counts, since whoever asks may be a stranger. Pure."""

from collections import Counter
from collections.abc import Iterable

from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthResponse

AGENTS, MODEL = "agents", "model"
WORDS = {AGENTS: "do not answer", MODEL: "are left alone after failures"}
OTHERS = "agents find it away, or too full"
NAMED = "by name: the health of agents, or their logs"


def parts_of(healths: Iterable[HealthResponse | None]) -> dict[str, str]:
    """Counts what is away.

    Args:
        healths: What each agent says of itself; None: it does not answer.

    Returns:
        By part (`agents`, `store`, `registry`, `model`): `ok`, or how many of them are not. No names: those of models
        hold files and addresses.
    """
    many, away = Counter[str](), Counter[str]()
    for health in healths:
        many[AGENTS] += 1
        away[AGENTS] += health is None
        for dependency in health.dependencies if health else ():
            part = dependency.name.partition(" ")[0]
            many[part] += 1
            away[part] += dependency.status != HEALTH_STATUS_SERVING
    return {part: told(part, away[part], many[part]) for part in many}


def told(part: str, away: int, many: int) -> str:
    """Says how a part stands."""
    return f"{away} of {many} {WORDS.get(part, OTHERS)} ({NAMED})" if away else "ok"
