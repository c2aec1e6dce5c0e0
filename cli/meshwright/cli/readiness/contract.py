"""Whether the mesh serves this version's contract, and whether all of it is up, more than once."""

import hashlib
import json
from importlib.resources import files
from typing import get_args

from meshwright.cli.readiness.outcome import Outcome, counted, few, good, missing, unseen
from meshwright.cli.readiness.peer import Answer
from meshwright.cli.readiness.survey import MOST_AGENTS, Survey
from meshwright.core.announced_keys import EdgeKeys
from meshwright.core.errors import MeshError, RateLimitedError
from meshwright.core.settings import Auth
from meshwright.gateway import openapi
from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthResponse, HealthStatus

OK = 200
REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
GRPC = {"content-type": "application/grpc", "te": "trailers"}
NO_MESSAGE = bytes(5)
"""gRPC's frame around an empty message."""
WHOLE = 2
"""Instances of which one may be lost."""


async def answers(survey: Survey) -> Outcome:
    """Whether the edge is up, and all behind it."""
    health = await survey.edge.ask("GET", "/health", is_keyed=False)
    if health.status != OK:
        return missing(f"/health answers {health.status}", "see the edge's log; it may be draining")
    ready = await survey.edge.ask("GET", "/ready", is_keyed=False)
    if ready.status != OK:
        return missing(f"/ready answers {ready.status}: {ready.error.message}", "start what is away, or see its log")
    return good(f"/health and /ready answer 200, within {1000 * max(health.took_s, ready.took_s):.0f} ms")


async def interface(survey: Survey) -> Outcome:
    """Whether the documents of the interface are those of this version."""
    document = await survey.edge.ask("GET", "/openapi.json", is_keyed=False)
    descriptors = await survey.edge.ask("GET", "/assets/descriptors.binpb", is_keyed=False)
    for name, answer in (("/openapi.json", document), ("/assets/descriptors.binpb", descriptors)):
        if answer.status != OK:
            return missing(f"{name} answers {answer.status}", answer.advice("the edge must serve it"))
    digest = hashlib.sha256(descriptors.body).hexdigest()
    if digest != own_digest():
        return missing(f"the descriptor set is another one: {digest[:12]}, not {own_digest()[:12]}", SAME_VERSION)
    rendered = (json.dumps(openapi.render(auth), ensure_ascii=False) for auth in get_args(Auth))
    if read_json(document.body) not in map(json.loads, rendered):
        return missing("the OpenAPI document is another one than this version's", SAME_VERSION)
    return good(f"OpenAPI document and descriptor set {digest[:12]} are this version's")


SAME_VERSION = "run the doctor of the mesh's version, or bring the gateway to this one"


def own_digest() -> str:
    """Returns the digest of this version's descriptor set."""
    return hashlib.sha256((files("meshwright.gen") / "descriptors.binpb").read_bytes()).hexdigest()


def read_json(text: bytes) -> object:
    """Reads JSON that nobody vouches for; None: it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


async def reflection(survey: Survey) -> Outcome:
    """Whether the edge tells its contract by gRPC's reflection."""
    for path in REFLECTION:
        answer = await survey.edge.ask("POST", path, NO_MESSAGE, GRPC)
        if not is_closed(answer):
            return missing(f"{path.split('/')[1]} is served at the edge", "unset MESHWRIGHT_REFLECTION")
    return good("the edge does not serve it")


def is_closed(answer: Answer) -> bool:
    """Whether a call of gRPC was refused before any message came."""
    if answer.status != OK:
        return True
    return answer.headers.get("grpc-status", "0") != "0" and not answer.body


async def serving(survey: Survey) -> Outcome:
    """Whether every agent says of itself that it works."""
    healths = await survey.healths()
    if not healths:
        return missing("no agent is here", "start the agents")
    unasked = [told for told in healths.values() if isinstance(told, RateLimitedError)]
    asked = {name: told for name, told in healths.items() if not isinstance(told, RateLimitedError)}
    ill = [f"{name}: {why}" for name, told in asked.items() if (why := illness(told))]
    if ill:
        return missing(few(ill), "see the agent's log; docs/runbooks says more")
    if unasked:
        raise unasked[0]
    rest = len(await survey.cards()) - MOST_AGENTS
    return good(f"{counted(len(healths), 'agent')}: SERVING" + (f"; {rest} were not asked" if rest > 0 else ""))


def illness(told: HealthResponse | MeshError) -> str:
    """Says what an agent lacks; empty: nothing."""
    if isinstance(told, MeshError):
        return told.message
    if told.status == HEALTH_STATUS_SERVING:
        return ""
    ill = [one.name for one in told.dependencies if one.status != HEALTH_STATUS_SERVING]
    word = HealthStatus.Name(told.status).removeprefix("HEALTH_STATUS_")
    return word + (f" ({', '.join(ill)})" if ill else "")


async def versions(survey: Survey) -> Outcome:
    """Whether agents serve the contract of this version."""
    cards = await survey.cards()
    others = [f"{card.agent_id} {card.version}" for card in cards if card.contract_digest != own_digest()]
    if others:
        return missing(f"{few(others)}: another contract than this version's", "replace their processes")
    return good(f"{counted(len(cards), 'agent')} with descriptor set {own_digest()[:12]}")


async def instances(survey: Survey) -> Outcome:
    """Whether an agent goes on where one process of it is lost."""
    cards = await survey.cards()
    many = {card.agent_id: sum(not one.draining for one in card.endpoints) for card in cards}
    alone = [f"{name}: {count}" for name, count in many.items() if count < WHOLE]
    if alone or not many:
        return missing(
            f"instances that take calls: {few(alone) or 'none'}", "run two of each at least, on two machines"
        )
    return good(f"{counted(len(many), 'agent')}, each of {min(many.values())} instances or more")


async def edges(survey: Survey) -> Outcome:
    """Whether another edge goes on where one is lost; the store knows, from outside they look like one."""
    if not survey.target.store_url:
        return unseen("edges share one address", "set MESHWRIGHT_STORE_ADMIN_URL for this command")
    async with survey.stores.opened(survey.target.store_url) as store:
        many = len(await EdgeKeys(store).alive())
    if many < WHOLE:
        return missing(f"{counted(many, 'edge')} running", "run two gateways at least, each with its Envoy")
    return good(f"{many} edges running")
