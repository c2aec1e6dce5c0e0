"""What endpoints were told and are still to be told, as an operator of one tenant sees it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshwright.agents.deliveries import Delivery
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.core.audit import line_of
from meshwright.core.errors import DeliveryNotFoundError, InvalidRequestError, QueueFullError
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.webhook_service_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_PENDING,
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
)

MOST_ENDPOINTS = 256
OUTCOME_PARTS = 8
"""State, attempt, the six parts of an event, and why."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An endpoint as its host has declared it.

    Attributes:
        agent_id: Of whose tasks it is told.
        queue: Names its queue.
        events: What it is told.
        name: How people call it.
        place: Its host:port.
    """

    agent_id: str
    queue: str
    events: Sequence[str]
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of one endpoint: counts, and some of its events."""

    endpoint: WebhookEndpoint
    deliveries: list[WebhookDelivery]


class WebhookHistory:
    """The events of all endpoints of a mesh."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store

    async def endpoints(self, tenant: str, agent_id: str = "", name: str = "") -> list[Declared]:
        """Lists endpoints that may be told of a tenant's tasks, by agent and name.

        Args:
            tenant: Whose.
            agent_id: Only this agent's; empty: all.
            name: Only those of this name; empty: all.

        Raises:
            InvalidRequestError: There are too many.
        """
        (lines,) = await self._store.run(("HGETALL", partition_key(0, "endpoints")))
        found = [
            one
            for agent, text in lines.items()
            for one in declared(agent.decode(), text.decode(), tenant)
            if agent_id in ("", one.agent_id) and name in ("", one.name)
        ]
        if len(found) > MOST_ENDPOINTS:
            problem = f"{len(found)} endpoints are too many to show: name an agent"
            raise InvalidRequestError(problem, fields={"agent_id": problem})
        return sorted(found, key=lambda one: (one.agent_id, one.name))

    async def see(self, tenant: str, endpoint: Declared, most: int) -> Seen:
        """Counts a tenant's events of an endpoint, and shows the first of each state in each partition."""
        (gone,) = await self._store.run(("HEXISTS", partition_key(0, "gone"), endpoint.queue))
        shown = WebhookEndpoint(agent_id=endpoint.agent_id, name=endpoint.name, place=endpoint.place, gone=bool(gone))
        shown.events.extend(endpoint.events)
        found: list[WebhookDelivery] = []
        for partition in range(self._store.partitions):
            slot = partition_key(partition, "hooks")
            arguments = partition, endpoint.queue, segment(tenant), most
            pending, waiting, delivered, taken, given_up, left = await self._store.call(
                LIBRARY.function("look"), slot, *arguments
            )
            shown.pending += pending
            shown.delivered += delivered
            shown.given_up += given_up
            found += await self._waiting(partition, endpoint, waiting)
            found += settled(partition, endpoint, taken, DELIVERY_STATE_DELIVERED)
            found += settled(partition, endpoint, left, DELIVERY_STATE_GIVEN_UP)
        return Seen(shown, found)

    async def _waiting(self, partition: int, endpoint: Declared, pairs: list[bytes]) -> list[WebhookDelivery]:
        """Reads pending events with what is known of their last attempts."""
        events = [Delivery.parse(partition, entry.decode(), 0, 0) for entry in pairs[::2]]
        if not events:
            return []
        ids = [event.event_id for event in events]
        (outcomes,) = await self._store.run(("HMGET", partition_key(partition, "outcomes", endpoint.queue), *ids))
        found = []
        for event, outcome, time_ms in zip(events, outcomes, pairs[1::2], strict=True):
            known, why = parsed_outcome(partition, outcome) if outcome else (event, "")
            shown = shown_delivery(endpoint, known, DELIVERY_STATE_PENDING, why)
            shown.next_attempt_time.FromMilliseconds(int(float(time_ms)))
            found.append(shown)
        return found

    async def redeliver(
        self, tenant: str, event_id: str, agent_id: str = "", name: str = "", *, by: str
    ) -> WebhookDelivery:
        """Has an event told again at once.

        Args:
            tenant: Whose.
            event_id: As `Delivery.event_id` has it.
            agent_id: Whose endpoint; empty: any agent's.
            name: Which endpoint; empty: the only one that an attempt was made at.
            by: The principal that wants it.

        Raises:
            DeliveryNotFoundError: No attempt at it is known.
            InvalidRequestError: Several endpoints were told of it.
            TaskNotFoundError: There is nothing to tell any more.
            QueueFullError: The endpoint has too many events before it.
        """
        found = []
        for endpoint in await self.endpoints(tenant, agent_id, name):
            found += await self._tried(tenant, endpoint, event_id)
        if not found:
            raise unknown(event_id)
        if len(found) > 1:
            names = ", ".join(endpoint.name for endpoint, _, _ in found)
            problem = f"several endpoints are told of {event_id}: name one of {names}"
            raise InvalidRequestError(problem, fields={"endpoint": problem})
        ((endpoint, event, why),) = found
        await self._journal.record(event.name)
        slot = partition_key(event.partition, "hooks")
        line = line_of(by, agent=endpoint.agent_id, endpoint=endpoint.name, task=event.name.task_id)
        arguments = event.partition, endpoint.queue, event_id, segment(tenant), line
        answer = await self._store.call(LIBRARY.function("retell"), slot, *arguments)
        if answer == b"UNKNOWN":  # it was forgotten meanwhile
            raise unknown(event_id)
        if answer == b"FULL":
            raise QueueFullError(f"the queue of {endpoint.name} is full: try again later", retry_after_s=60)
        return shown_delivery(endpoint, event, DELIVERY_STATE_PENDING, why)

    async def _tried(self, tenant: str, endpoint: Declared, event_id: str) -> list[tuple[Declared, Delivery, str]]:
        """Finds an event of a tenant that an attempt was made at, and why that failed."""
        partitions = range(self._store.partitions)
        keys = [partition_key(partition, "outcomes", endpoint.queue) for partition in partitions]
        outcomes = await self._store.run(*(("HGET", key, event_id) for key in keys))
        parsed = [parsed_outcome(place, outcome) for place, outcome in enumerate(outcomes) if outcome]
        return [(endpoint, event, why) for event, why in parsed if event.name.tenant == tenant]


def unknown(event_id: str) -> DeliveryNotFoundError:
    """Makes the error for an event that nobody was told."""
    return DeliveryNotFoundError(
        f"no attempt at the event {event_id} is known: `meshwright webhook list` shows what endpoints were told"
    )


def declared(agent_id: str, text: str, tenant: str) -> Iterator[Declared]:
    """Reads those endpoints of an agent that may be told of a tenant's tasks."""
    for line in text.splitlines():
        queue, events, tenants, name, place = line.split(" ")
        if tenants == "*" or segment(tenant) in tenants.split(","):
            yield Declared(agent_id, queue, events.split(","), name, place)


def parsed_outcome(partition: int, outcome: bytes) -> tuple[Delivery, str]:
    """Reads an event as its last attempt left it, and why that failed."""
    _, attempt, *event, why = outcome.decode().split(" ", OUTCOME_PARTS)
    return Delivery.parse(partition, " ".join(event), int(attempt), 0), why


def settled(
    partition: int, endpoint: Declared, triples: list[bytes], state: DeliveryState.ValueType
) -> Iterator[WebhookDelivery]:
    """Reads events that are settled."""
    for time_ms, outcome in zip(triples[1::3], triples[2::3], strict=True):
        event, why = parsed_outcome(partition, outcome)
        shown = shown_delivery(endpoint, event, state, why)
        shown.settle_time.FromMilliseconds(int(float(time_ms)))
        yield shown


def shown_delivery(endpoint: Declared, event: Delivery, state: DeliveryState.ValueType, why: str) -> WebhookDelivery:
    """Shows an event as far as all states have it."""
    shown = WebhookDelivery(
        event_id=event.event_id,
        agent_id=endpoint.agent_id,
        endpoint=endpoint.name,
        type=event.kind,
        task_id=event.name.task_id,
        state=state,
        attempts=event.attempt,
        last_error=why,
    )
    shown.event_time.FromMilliseconds(event.time_ms)
    return shown
