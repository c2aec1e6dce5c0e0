"""`meshwright webhook`: whether the endpoints that a host declares take what they are sent."""

import asyncio
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.cli.output import show_table
from meshwright.core.errors import BackendUnavailableError, MeshError, SetupError

if TYPE_CHECKING:
    from meshwright.agents.webhook import Endpoint

app = typer.Typer(no_args_is_help=True, help="Tries webhooks.")
TAKEN = "taken"


@app.callback()
def webhooks() -> None:
    """Tries webhooks."""


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
