"""`meshwright webhook`: what endpoints are told, telling it again, and whether they take what they are sent."""

import asyncio
import json
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, show, show_message, show_table
from meshwright.cli.steps import shortened
from meshwright.core.errors import BackendUnavailableError, MeshError, SetupError
from meshwright.gen.agents.v1.webhook_service_pb2 import (
    DeliveryState,
    ListDeliveriesRequest,
    ListDeliveriesResponse,
    RedeliverEventRequest,
    WebhookDelivery,
    WebhookEndpoint,
)

if TYPE_CHECKING:
    from meshwright.agents.webhook import Endpoint

app = typer.Typer(no_args_is_help=True, help="What webhooks are told: look at it, tell it again, try endpoints.")
TAKEN = "taken"
ENDPOINT_COLUMNS = ("AGENT", "ENDPOINT", "PLACE", "EVENTS", "PENDING", "DELIVERED", "GIVEN UP")
DELIVERY_COLUMNS = ("EVENT", "ENDPOINT", "TYPE", "TASK", "STATE", "TRIES", "WHEN", "LAST ERROR")
AgentName = Annotated[str, typer.Option("--agent", "-a", help="Only endpoints of this agent")]


class State(StrEnum):
    """Where the telling of an event stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


@app.command("list")
def list_deliveries(
    agent: AgentName = "",
    endpoint: Annotated[str, typer.Option(help="Only the endpoint of this name")] = "",
    state: Annotated[list[State] | None, typer.Option(help="Only events that stand so")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many events")] = 20,
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Lists endpoints and their events: given up, pending (the next one first), delivered."""
    states = [DeliveryState.Value(f"DELIVERY_STATE_{one.name}") for one in state or ()]
    request = ListDeliveriesRequest(agent_id=agent, endpoint=endpoint, states=states, page_size=limit)
    found: ListDeliveriesResponse = with_edge(edge, lambda mesh: mesh.call(mesh.webhooks.ListDeliveries, request))
    if output is not Format.TABLE:
        show_message(found, output)
        return
    show_table(ENDPOINT_COLUMNS, map(endpoint_row, found.endpoints))
    if found.deliveries:
        show("")
        show_table(DELIVERY_COLUMNS, map(delivery_row, found.deliveries))


def endpoint_row(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    """Writes an endpoint as a row."""
    counts = map(str, (endpoint.pending, endpoint.delivered, endpoint.given_up))
    events = "gone (410)" if endpoint.gone else ", ".join(endpoint.events)
    return endpoint.agent_id, endpoint.name, endpoint.place, events, *counts


def delivery_row(delivery: WebhookDelivery) -> tuple[str, ...]:
    """Writes an event as a row; when: the next attempt of a pending one, the last one of others."""
    state = DeliveryState.Name(delivery.state).removeprefix("DELIVERY_STATE_").lower().replace("_", " ")
    is_settled = delivery.HasField("settle_time")
    when = (delivery.settle_time if is_settled else delivery.next_attempt_time).ToJsonString()
    facts = delivery.event_id, delivery.endpoint, delivery.type, delivery.task_id, state, str(delivery.attempts)
    return *facts, when if is_settled else f"next {when}", shortened(delivery.last_error)


@app.command()
def redeliver(
    event_id: Annotated[str, typer.Argument(help="The event's id, as the list and the header webhook-id have it")],
    endpoint: Annotated[str, typer.Option(help="Which endpoint, where several were told")] = "",
    agent: AgentName = "",
    edge: EdgeUrl = None,
) -> None:
    """Has an event told again at once, under the same id, so that a receiver knows what it has seen."""
    request = RedeliverEventRequest(event_id=event_id, endpoint=endpoint, agent_id=agent)
    delivery = with_edge(edge, lambda mesh: mesh.call(mesh.webhooks.RedeliverEvent, request))
    show(
        f"{delivery.event_id}  is told to {delivery.endpoint} again: `meshwright webhook list` shows what becomes of it"
    )


@app.command("test")
def try_endpoints(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML file of endpoints, as MESHWRIGHT_WEBHOOKS names it")
    ],
    name: Annotated[str, typer.Argument(help="One endpoint  [default: all]")] = "",
) -> None:
    """Sends the endpoints of a file a signed event of the type meshwright.test, once, and shows their answers."""
    from meshwright.agents.webhook import load  # reads declarations, which takes half a second to import

    endpoints = [endpoint for endpoint in load(file) if name in ("", endpoint.name)]
    if not endpoints:
        raise SetupError(f"{file} has no webhook {name}")
    answers = asyncio.run(tried(endpoints))
    rows = zip(endpoints, answers, strict=True)
    show_table(("WEBHOOK", "URL", "ANSWER"), [(endpoint.name, endpoint.url, answer) for endpoint, answer in rows])
    if failed := [answer for answer in answers if answer != TAKEN]:
        raise BackendUnavailableError(f"{len(failed)} of {len(endpoints)} did not take the event: see above")


async def tried(endpoints: "list[Endpoint]") -> list[str]:
    """Sends all of them an event at once; returns what became of it."""
    return await asyncio.gather(*map(answer_of, endpoints))


async def answer_of(endpoint: "Endpoint") -> str:
    """Sends one endpoint an event; returns what became of it."""
    from meshwright.agents.webhooks import is_taken, sent

    message_id = f"msg_test_{secrets.token_hex(12)}"
    event = {
        "specversion": "1.0",
        "id": message_id,
        "source": "/meshwright",
        "type": "meshwright.test",
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {},
    }
    try:
        response = await sent(endpoint, message_id, json.dumps(event).encode())
    except MeshError as error:
        return error.message
    return TAKEN if is_taken(response) else f"answered {response.status}"
