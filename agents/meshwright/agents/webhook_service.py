"""WebhookService: what endpoints were told, and telling it again; every agent serves it, for all of the mesh."""

import re

import structlog

from meshwright.agents.deliveries import ENDPOINT_NAME
from meshwright.agents.webhook_history import WebhookHistory
from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import AGENT_ID, Form, checked
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.webhook_service_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_PENDING,
    DeliveryState,
    ListDeliveriesRequest,
    ListDeliveriesResponse,
    RedeliverEventRequest,
    WebhookDelivery,
)
from meshwright.gen.agents.v1.webhook_service_pb2_grpc import WebhookServiceServicer

log = structlog.get_logger("webhooks")
MAX_PAGE, DEFAULT_PAGE = 200, 50
ORDER = (DELIVERY_STATE_GIVEN_UP, DELIVERY_STATE_PENDING, DELIVERY_STATE_DELIVERED)
"""As somebody looks for what needs attention."""
EVENT_ID = Form(re.compile(r"msg_[0-9a-f]{32}"), "msg_ and 32 hex digits")


class WebhookService(WebhookServiceServicer):
    """Lists deliveries, and delivers again."""

    def __init__(self, history: WebhookHistory) -> None:
        self._history = history

    async def ListDeliveries(self, request: ListDeliveriesRequest, context: Context) -> ListDeliveriesResponse:
        caller = CALLER.get()
        size, states = size_of(request), states_of(request)
        response = ListDeliveriesResponse()
        found: list[WebhookDelivery] = []
        for endpoint in await self._history.endpoints(caller.tenant, *named(request)):
            seen = await self._history.see(caller.tenant, endpoint, size)
            response.endpoints.append(seen.endpoint)
            found = first(size, found + [one for one in seen.deliveries if one.state in states])
        response.deliveries.extend(found)
        return response

    async def RedeliverEvent(self, request: RedeliverEventRequest, context: Context) -> WebhookDelivery:
        caller = CALLER.get()
        event_id = checked("event_id", request.event_id, EVENT_ID)
        delivery = await self._history.redeliver(caller.tenant, event_id, *named(request), by=caller.principal)
        facts = {"endpoint": delivery.endpoint, "event_id": event_id, "by": caller.principal}
        log.info("webhook_redelivered", agent=delivery.agent_id, **facts)
        return delivery


def named(request: ListDeliveriesRequest | RedeliverEventRequest) -> tuple[str, str]:
    """Returns the agent and the endpoint that a request names; empty: any.

    Raises:
        InvalidRequestError: A name is none.
    """
    agent_id = request.agent_id and checked("agent_id", request.agent_id, AGENT_ID)
    return agent_id, request.endpoint and checked("endpoint", request.endpoint, ENDPOINT_NAME)


def size_of(request: ListDeliveriesRequest) -> int:
    """Returns how many deliveries are wanted.

    Raises:
        InvalidRequestError: Too many, or less than none.
    """
    if not 0 <= request.page_size <= MAX_PAGE:
        problem = f"must be 1..{MAX_PAGE}, or 0 for {DEFAULT_PAGE}"
        raise InvalidRequestError("page_size is out of range", fields={"page_size": problem})
    return request.page_size or DEFAULT_PAGE


def states_of(request: ListDeliveriesRequest) -> set[DeliveryState.ValueType]:
    """Returns the states that are wanted.

    Raises:
        InvalidRequestError: One is none.
    """
    if any(state not in ORDER for state in request.states):
        problem = "must be DELIVERY_STATE_PENDING, _DELIVERED or _GIVEN_UP"
        raise InvalidRequestError(f"states {problem}", fields={"states": problem})
    return set(request.states or ORDER)


def first(many: int, deliveries: list[WebhookDelivery]) -> list[WebhookDelivery]:
    """Returns the first deliveries by state; those that come next first, then those that were settled last."""

    def place(one: WebhookDelivery) -> tuple[int, int]:
        is_pending = one.state == DELIVERY_STATE_PENDING
        time = one.next_attempt_time.ToMilliseconds() if is_pending else -one.settle_time.ToMilliseconds()
        return ORDER.index(one.state), time

    return sorted(deliveries, key=place)[:many]
