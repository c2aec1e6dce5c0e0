"""WebhookService: what endpoints were told, within bounds, each tenant's its own, and told again under the same id."""

import pytest

from meshwright.agents.deliveries import Deliveries, Hook
from meshwright.agents.webhook_history import WebhookHistory
from meshwright.agents.webhook_service import WebhookService
from meshwright.core.audit import AuditReader
from meshwright.core.errors import (
    DeliveryNotFoundError,
    InvalidRequestError,
    QueueFullError,
    TaskNotFoundError,
)
from meshwright.core.interceptors import CALLER, Caller
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.webhook_service_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_PENDING,
    ListDeliveriesRequest,
    RedeliverEventRequest,
)

CRM = Hook("worker/crm", ("task_ended",), (), "crm", "crm.example:443")
ACME = Hook("worker/acme", ("task_ended",), ("acme inc",), "acme", "acme.example:443")


@pytest.fixture
async def deliveries(store):
    """The queues of an agent with one endpoint for all tenants and one for another tenant alone."""
    made = Deliveries(store, "worker")
    await made.hook([CRM, ACME])
    return made


@pytest.fixture
def end(journal, made, claimed):
    """Runs a task to its end."""

    async def ended(task_id, tenant="default"):
        task = made.task(task_id)
        task = type(task)(made.name(task_id, tenant=tenant), task.agent_id, task.hash, task.request, task.timeout_ms)
        await journal.finish(await claimed(task), "COMPLETED", [made.result()])

    return ended


@pytest.fixture
def take(deliveries):
    """Takes the one event that is due."""

    async def taken(queue="worker/crm"):
        (found,) = (await deliveries.take(0, queue, lease_ms=60_000, most=4)).deliveries
        return found

    return taken


@pytest.fixture
def service(journal):
    """The service, with a context that nobody needs."""
    made = WebhookService(WebhookHistory(journal))

    class Asked:
        async def list(self, **fields):
            return await made.ListDeliveries(ListDeliveriesRequest(**fields), None)

        async def again(self, event_id, **fields):
            return await made.RedeliverEvent(RedeliverEventRequest(event_id=event_id, **fields), None)

    return Asked()


@pytest.fixture
def as_caller():
    """Calls as somebody else for the rest of the test, which runs in a context of its own."""
    return lambda **facts: CALLER.set(Caller(**facts))


async def test_every_state_is_shown_with_tries_error_and_times(deliveries, service, end, take):
    await end("t1")
    await deliveries.done("worker/crm", await take())
    await end("t2")
    await deliveries.give_up("worker/crm", await take(), "answered 500")
    await end("t3")
    await deliveries.again("worker/crm", await take(), 600, "took\nlonger than 1 s \udcff" + "x" * 1_000)
    await end("t4")
    listed = await service.list()
    (crm,) = listed.endpoints
    assert (crm.agent_id, crm.name, crm.place, list(crm.events)) == ("worker", "crm", CRM.place, ["task_ended"])
    assert (crm.pending, crm.delivered, crm.given_up, crm.gone) == (2, 1, 1, False)
    left, fresh, later, taken = listed.deliveries
    assert [one.task_id for one in (left, fresh, later, taken)] == ["t2", "t4", "t3", "t1"]
    assert (left.state, left.attempts, left.last_error) == (DELIVERY_STATE_GIVEN_UP, 1, "answered 500")
    assert (taken.state, taken.attempts, taken.last_error) == (DELIVERY_STATE_DELIVERED, 1, "")
    assert (fresh.state, fresh.attempts) == (DELIVERY_STATE_PENDING, 0)
    assert later.last_error.startswith("took longer than 1 s ?xxx")
    assert len(later.last_error.encode()) == 200
    assert 590 <= later.next_attempt_time.ToSeconds() - later.event_time.ToSeconds() <= 610
    assert taken.settle_time.ToMilliseconds() >= taken.event_time.ToMilliseconds()
    assert [one.task_id for one in (await service.list(page_size=1)).deliveries] == ["t2"]
    assert [one.task_id for one in (await service.list(states=[DELIVERY_STATE_PENDING])).deliveries] == ["t4", "t3"]
    assert not (await service.list(agent_id="another")).endpoints


@pytest.mark.parametrize("outcome", ["delivered", "given up", "put off"])
async def test_an_event_is_told_again_at_once_under_its_id(deliveries, service, end, take, outcome, store):
    await end("t1")
    first = await take()
    if outcome == "delivered":
        await deliveries.done("worker/crm", first)
    elif outcome == "given up":
        await deliveries.give_up("worker/crm", first, "answered 500")
    else:
        await deliveries.again("worker/crm", first, 600, "answered 500")
    again = await service.again(first.event_id)
    assert (again.state, again.endpoint, again.event_id) == (DELIVERY_STATE_PENDING, "crm", first.event_id)
    (line,) = [one for one in await AuditReader(store).read("default") if one.event == "webhook_redelivered"]
    assert line.about == first.event_id
    assert line.facts == {"by": "default", "agent": "worker", "endpoint": "crm", "task": "t1"}
    assert (await service.again(first.event_id)).event_id == first.event_id
    (crm,) = (await service.list()).endpoints
    assert (crm.pending, crm.delivered, crm.given_up) == (1, 0, 0)
    second = await take()
    assert (second.event_id, second.entry) == (first.event_id, first.entry)
    await deliveries.done("worker/crm", second)
    (crm,) = (await service.list()).endpoints
    assert (crm.pending, crm.delivered, crm.given_up) == (0, 1, 0)


async def test_a_tenant_sees_its_own_events_and_endpoints_alone(deliveries, service, end, take, as_caller):
    await end("t1", tenant="acme inc")
    theirs = await take()
    await deliveries.give_up("worker/crm", theirs, "answered 500")
    await end("t2")
    listed = await service.list()
    assert [one.name for one in listed.endpoints] == ["crm"]
    assert [one.task_id for one in listed.deliveries] == ["t2"]
    with pytest.raises(DeliveryNotFoundError):
        await service.again(theirs.event_id)
    as_caller(tenant="acme inc")
    listed = await service.list()
    assert [one.name for one in listed.endpoints] == ["acme", "crm"]
    assert {(one.endpoint, one.task_id) for one in listed.deliveries} == {("acme", "t1"), ("crm", "t1")}
    assert (await service.again(theirs.event_id)).endpoint == "crm"


async def test_where_several_were_told_one_is_named(deliveries, service, end, take, as_caller):
    as_caller(tenant="acme inc")
    await end("t1", tenant="acme inc")
    event = await take()
    for queue in ("worker/crm", "worker/acme"):
        await deliveries.done(queue, event if queue == "worker/crm" else await take(queue))
    with pytest.raises(InvalidRequestError, match="acme, crm") as refused:
        await service.again(event.event_id)
    assert set(refused.value.fields) == {"endpoint"}
    assert (await service.again(event.event_id, endpoint="acme", agent_id="worker")).endpoint == "acme"


async def test_deliveries_are_their_tenants_whichever_principal_looks(deliveries, service, end, take, as_caller):
    await end("t1")
    event = await take()
    await deliveries.give_up("worker/crm", event, "answered 500")
    as_caller(principal="bob", scopes=frozenset({"webhooks"}))
    assert [one.task_id for one in (await service.list()).deliveries] == ["t1"]
    assert (await service.again(event.event_id)).event_id == event.event_id


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"page_size": 201}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"states": [77]}, "states"),
        ({"states": [0]}, "states"),
        ({"agent_id": "No Agent"}, "agent_id"),
        ({"endpoint": "x\n"}, "endpoint"),
    ],
)
async def test_a_listing_says_which_field_is_wrong(service, fields, wrong):
    with pytest.raises(InvalidRequestError) as refused:
        await service.list(**fields)
    assert set(refused.value.fields) == {wrong}


async def test_what_cannot_be_told_again_is_said(service, deliveries, end, take, store):
    with pytest.raises(InvalidRequestError):
        await service.again("t1")
    with pytest.raises(DeliveryNotFoundError):
        await service.again("msg_" + "0" * 32)
    await end("t1")
    event = await take()
    await deliveries.done("worker/crm", event)
    queue = partition_key(0, "deliveries", "worker/crm")
    await store.client.zadd(queue, {f"task_ended other/default/x{n} - - 0 1": 2**50 for n in range(10_000)})
    with pytest.raises(QueueFullError):
        await service.again(event.event_id)
    await store.client.delete(partition_key(0, "task", event.name.ref), queue)
    with pytest.raises(TaskNotFoundError):
        await service.again(event.event_id)


async def test_of_settled_events_the_last_thousand_are_kept_for_a_week(deliveries, service, end, take, store):
    await end("t0")
    event = await take()
    await deliveries.done("worker/crm", event)
    (now, _) = await store.client.time()
    listed = partition_key(0, "delivered", "worker/crm")
    outcomes = partition_key(0, "outcomes", "worker/crm")
    await store.client.zadd(listed, {f"msg_{n}": now * 1000 + n for n in range(1_000)})
    await store.client.hset(outcomes, mapping={f"msg_{n}": f"delivered 1 {event.entry} " for n in range(1_000)})
    await store.client.zadd(listed, {event.event_id: now * 1000 - 1})
    await end("t1")
    await deliveries.done("worker/crm", await take())
    assert await store.client.zscore(listed, event.event_id) is None
    assert not await store.client.hexists(outcomes, event.event_id)
    (crm,) = (await service.list(page_size=200)).endpoints
    assert crm.delivered == 1_001
    assert 0 < await store.client.pttl(listed) <= 7 * 86_400_000
    await store.client.zadd(listed, {f"msg_{n}": 1 for n in range(50)})
    await end("t2")
    await deliveries.done("worker/crm", await take())
    (crm,) = (await service.list(page_size=200)).endpoints
    assert crm.delivered == 952
    assert len((await service.list(page_size=200)).deliveries) == 200


async def test_an_endpoint_that_is_gone_is_shown_as_such_and_one_that_is_not_declared_is_not(deliveries, service):
    await deliveries.unhook("worker/crm")
    (crm,) = (await service.list()).endpoints
    assert crm.gone
    await deliveries.hook([])
    assert not (await service.list()).endpoints
