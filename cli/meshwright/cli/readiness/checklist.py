"""The readiness list: its items in their order, and looking at all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from meshwright.cli.readiness import contract, durability, identity, limits, monitoring, tools, transport
from meshwright.cli.readiness.outcome import Outcome, missing, unseen
from meshwright.cli.readiness.presence import recognised
from meshwright.cli.readiness.survey import Survey, Target
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    CredentialsMissingError,
    MeshError,
    RateLimitedError,
    ScopeMissingError,
    StoreDeniedError,
    TlsRefusedError,
)

TOTAL_S = 60.0
"""Bounds everything; what is not known by then is missing."""
CLEAR_UP = "see the logs of what is asked, of registry and of store, and look again"
LESS = "look again when there is less to do, or from an address that may ask more"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a mesh needs before strangers may reach it.

    Attributes:
        group: What it belongs to.
        name: What it is.
        wants: What is to be seen of it.
        look: Looks.
    """

    group: str
    name: str
    wants: str
    look: Callable[[Survey], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Line:
    """One item as it was found.

    Attributes:
        group: What it belongs to.
        name: What it is.
        outcome: What was found.
    """

    group: str
    name: str
    outcome: Outcome

    def told(self) -> dict[str, str]:
        """Returns it as JSON data."""
        found = self.outcome
        return {"group": self.group, "item": self.name, "state": found.state, "seen": found.seen, "todo": found.todo}


ITEMS = (
    Item("contract", "mesh", "`/health` and `/ready` answer 200", contract.answers),
    Item("contract", "interface", "OpenAPI document and descriptor set are this version's", contract.interface),
    Item("contract", "reflection", "the edge serves none", contract.reflection),
    Item("contract", "agents", "each says SERVING", contract.serving),
    Item("contract", "agents' contract", "each serves this version's descriptor set", contract.versions),
    Item("contract", "agents' instances", "two or more of each take calls", contract.instances),
    Item("contract", "edges", "two or more run (store)", contract.edges),
    Item(
        "transport", "certificate", "trusted, of the host, not a development one, 14 days left", transport.certificate
    ),
    Item("transport", "TLS", "1.2 or newer; 1.1 is refused", transport.versions),
    Item("transport", "plain text", "no plain HTTP, or a redirect to `https://`", transport.plain_text),
    Item("transport", "HSTS", "`strict-transport-security` of half a year or more", transport.strict),
    Item("transport", "HTTP/2", "ALPN agrees on `h2`", transport.http2),
    Item("identity", "no key", "401", identity.no_key),
    Item("identity", "wrong key", "401", identity.wrong_key),
    Item("identity", "this key", "it is taken", identity.own_key),
    Item("identity", "API keys", "each ends, none has the scope `*` (store)", identity.api_keys),
    Item("identity", "spoofed headers", "`x-mesh-*` of a caller change nothing", identity.spoofed),
    Item("identity", "inside", "no page of Envoy's admin interface, no metrics", identity.inside),
    Item("identity", "internal calls", "calls between processes are refused", identity.internal),
    Item("identity", "foreign host", "refused", identity.hosts),
    Item("identity", "foreign origin", "refused, and allowed to read nothing", identity.origins),
    Item("limits", "bodies", "more than 4 MiB are 413 within 2 s", limits.bodies),
    Item("limits", "depth", "JSON of 20,000 levels is refused within 2 s", limits.depth),
    Item("limits", "rates", "answers say how many calls are left; nothing is provoked", limits.rates),
    Item("limits", "deadlines", "a call of 1 ms ends with 504", limits.deadlines),
    Item(
        "durability",
        "accepted once",
        "sent twice it is one task, another of its id is 409 (task)",
        durability.accepted_once,
    ),
    Item("durability", "streams", "steps go on after the middle one, none lost, none twice (task)", durability.resumed),
    Item("durability", "billed once", "sent again it costs nothing more (task)", durability.billed_once),
    Item("durability", "cost", "the costs list what it cost (task)", durability.cost_listed),
    Item(
        "durability",
        "audit",
        "its chains of the last hour are whole; exporting them is yours (store)",
        durability.audited,
    ),
    Item("observability", "trace", "the task has one, and spans leave for a collector (task, OTLP)", durability.traced),
    Item("observability", "targets", "all of the mesh's are up (Prometheus)", monitoring.targets),
    Item("observability", "alert rules", "loaded, and this version's (Prometheus)", monitoring.rules),
    Item("observability", "alerts", "none of the mesh's fires (Prometheus)", monitoring.silence),
    Item("tools", "contracts", "each has a description and a schema", tools.contracts),
    Item("tools", "versions", "agents use none that is deprecated or not there", tools.deprecated),
    Item("tools", "breakers", "those of models are closed; of tools see alerts", tools.breakers),
    Item("cost", "budget", "agents that are open to callers bound a tenant's day", tools.budgets),
    Item("cost", "prices", "each model has one", tools.prices),
    Item("guardrails", "prompts", "agents that are open to callers have some", tools.guardrails),
)


async def looked_at(target: Target, stores: Stores) -> list[Line]:
    """Looks at all items, each by itself.

    Args:
        target: What is to be looked at.
        stores: Opens the store.

    Returns:
        A line for each item, in their order.

    Raises:
        SetupError: What is to be looked at is named wrongly.
        TlsRefusedError: It speaks plain text.
        UnavailableError: Nobody is there, or somebody else.
    """
    survey = Survey(target, stores)
    ends = asyncio.get_running_loop().time() + TOTAL_S
    await recognised(survey.edge, target.url)
    return list(await asyncio.gather(*(line_of(item, survey, ends) for item in ITEMS)))


async def line_of(item: Item, survey: Survey, ends: float) -> Line:
    """Looks at an item; where that fails, says why."""
    try:
        async with asyncio.timeout_at(ends):
            outcome = await item.look(survey)
    except TimeoutError:
        outcome = overdue(survey)
    except MeshError as error:
        outcome = failed(error, survey)
    return Line(item.group, item.name, outcome)


def overdue(survey: Survey) -> Outcome:
    """Says what it means that an item took too long: a mesh that was asked too much may be as it should be."""
    seen = f"nothing is known after {TOTAL_S:g} s"
    if survey.edge.pace.is_slowed:
        return unseen(f"{seen}: the mesh takes few requests", LESS)
    return missing(seen, CLEAR_UP)


def failed(error: MeshError, survey: Survey) -> Outcome:
    """Says what an error means for an item: whoever may not look has not found anything missing."""
    if isinstance(error, ScopeMissingError):
        return unseen(error.message, "give the key that scope, and look again")
    if isinstance(error, StoreDeniedError):
        return unseen(error.message, "set MESHWRIGHT_STORE_ADMIN_URL for this command")
    if isinstance(error, RateLimitedError):
        return unseen(error.message, LESS)
    if isinstance(error, CredentialsMissingError) and not survey.edge.has_key:
        return unseen("it needs a key, which goes by TLS alone", "set MESHWRIGHT_API_KEY, write https://")
    if isinstance(error, TlsRefusedError):
        return missing(error.message, "see transport: certificate")
    return missing(error.message, CLEAR_UP)
