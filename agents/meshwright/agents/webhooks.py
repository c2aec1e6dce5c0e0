"""Delivering webhooks: at least once, signed, tried again for a day; no endpoint waits for another."""

import asyncio
import random
import time

import structlog

from meshwright.agents.actor import together
from meshwright.agents.deliveries import Deliveries, Delivery
from meshwright.agents.reader import Reader
from meshwright.agents.webhook import Endpoint, signed
from meshwright.agents.webhook_event import body_of
from meshwright.core import telemetry
from meshwright.core.errors import MeshError, TaskNotFoundError
from meshwright.core.recurring import Recurring
from meshwright.registry.backends.http import wait_s
from meshwright.registry.egress import Request, Response

log = structlog.get_logger("webhooks")
AT_ONCE = 4
LEASE_S = 30.0
"""An attempt that was begun so long ago was broken off; the longest one takes half of it."""
FIRST_PAUSE_S, GROWTH, LONGEST_PAUSE_S = 5.0, 3.0, 3 * 3_600.0
LASTS_S = 86_400.0
"""So long after it has happened an event is tried."""
OK, TOO_FAR, GONE = 200, 300, 410


class Webhooks:
    """Delivers the events of one agent; processes of the same agent share the work.

    Args:
        reader: Where tasks live.
        deliveries: The queues.
        endpoints: Who wants to hear of the agent.
        poll_s: Seconds between two looks into a queue.
        lease_s: Seconds after which an attempt counts as broken off.
        first_pause_s: Seconds before the second attempt, about.
    """

    def __init__(
        self,
        reader: Reader,
        deliveries: Deliveries,
        endpoints: list[Endpoint],
        *,
        poll_s: float = 1.0,
        lease_s: float = LEASE_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._reader = reader
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._poll_s = poll_s
        self._lease_ms = int(lease_s * 1000)
        self._first_pause_s = first_pause_s

    async def run(self) -> None:
        """Delivers until it is cancelled; what it was about to deliver is taken by another process then."""
        await together([self._serve(endpoint) for endpoint in self._endpoints])

    async def _serve(self, endpoint: Endpoint) -> None:
        failing = Recurring()
        while True:
            try:
                waiting = [await self._deliver_some(endpoint, partition) for partition in self._deliveries.partitions]
                telemetry.WEBHOOK_QUEUE.labels(endpoint.name).set(sum(waiting))
            except MeshError as error:
                if failing.is_news():
                    log.warning("webhooks_wait", endpoint=endpoint.name, error=error.message)
            else:
                if failing.is_over():
                    log.info("webhooks_again", endpoint=endpoint.name)
            await asyncio.sleep(self._poll_s)

    async def _deliver_some(self, endpoint: Endpoint, partition: int) -> int:
        """Delivers what is due in a partition; returns how many events are left there."""
        while True:
            taken = await self._deliveries.take(partition, endpoint.hook.queue, lease_ms=self._lease_ms, most=AT_ONCE)
            if taken.dropped:
                log.error("webhook_events_dropped", endpoint=endpoint.name, many=taken.dropped, why="queue full")
                telemetry.WEBHOOKS.labels(endpoint.name, "dropped").inc(taken.dropped)
            await together([self._deliver(endpoint, delivery) for delivery in taken.deliveries])
            if len(taken.deliveries) < AT_ONCE:
                return taken.waiting

    async def _deliver(self, endpoint: Endpoint, delivery: Delivery) -> None:
        queue = endpoint.hook.queue
        try:
            response = await self._told(endpoint, delivery)
        except TaskNotFoundError:  # it has expired before anybody was here to tell
            await self._deliveries.drop(queue, delivery)
        except MeshError as error:
            await self._put_off(endpoint, delivery, error.message)
        except Exception:  # one event does not keep the others from being told
            log.exception("webhook_broken", endpoint=endpoint.name, event_id=delivery.event_id)
            await self._put_off(endpoint, delivery, "internal error")
        else:
            if is_taken(response):
                await self._deliveries.done(queue, delivery)
                telemetry.WEBHOOKS.labels(endpoint.name, "delivered").inc()
            elif response.status == GONE:
                left = await self._deliveries.unhook(queue)
                log.error("webhook_gone", endpoint=endpoint.name, left=left)
                telemetry.WEBHOOKS.labels(endpoint.name, "gone").inc(max(1, left))
            else:
                await self._put_off(endpoint, delivery, f"answered {response.status}", wait_s(response))

    async def _told(self, endpoint: Endpoint, delivery: Delivery) -> Response:
        """Makes one attempt.

        Raises:
            TaskNotFoundError: There is nothing to tell any more.
            MeshError: The endpoint could not be reached, or not in time.
        """
        body = await body_of(self._reader, delivery, has_texts=endpoint.has_texts)
        return await sent(endpoint, delivery.event_id, body)

    async def _put_off(self, endpoint: Endpoint, delivery: Delivery, why: str, said_s: float | None = None) -> None:
        """Has an event tried again later, unless its day is over."""
        pause_s = max(self._pause_s(delivery.attempt), said_s or 0.0)
        facts = {"endpoint": endpoint.name, "event_id": delivery.event_id, "attempt": delivery.attempt, "why": why}
        if (delivery.now_ms - delivery.time_ms) / 1000 + pause_s > LASTS_S:
            await self._deliveries.give_up(endpoint.hook.queue, delivery, why)
            log.error("webhook_given_up", **facts)
            telemetry.WEBHOOKS.labels(endpoint.name, "given_up").inc()
            return
        await self._deliveries.again(endpoint.hook.queue, delivery, pause_s, why)
        log.warning("webhook_failed", pause_s=round(pause_s, 1), **facts)
        telemetry.WEBHOOKS.labels(endpoint.name, "failed").inc()

    def _pause_s(self, attempt: int) -> float:
        pause_s = min(self._first_pause_s * GROWTH ** min(attempt - 1, 20), LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads attempts, no secret


async def sent(endpoint: Endpoint, message_id: str, body: bytes) -> Response:
    """Sends an event once, signed now.

    Raises:
        MeshError: The endpoint could not be reached, or not in time.
    """
    headers = {"content-type": "application/json", **signed(endpoint.keys, message_id, int(time.time()), body)}
    return await endpoint.egress.fetch(Request("POST", endpoint.url, headers, body=body), endpoint.timeout_s)


def is_taken(response: Response) -> bool:
    """Whether an endpoint has taken an event."""
    return OK <= response.status < TOO_FAR
