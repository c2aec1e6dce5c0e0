"""`python -m meshwright.gateway`: the gateway's process."""

from meshwright.core import process
from meshwright.core.process import Process
from meshwright.gateway.settings import GatewaySettings


async def main(running: Process) -> None:
    """Serves the gateway as the environment says."""
    settings = GatewaySettings.load()
    from meshwright.gateway.serving import serve

    await serve(settings, running)


if __name__ == "__main__":
    process.run(main)
