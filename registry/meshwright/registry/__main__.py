"""`python -m meshwright.registry`: the registry's process."""

from meshwright.core import process
from meshwright.core.process import Process
from meshwright.core.settings import Settings


async def main(running: Process) -> None:
    """Serves the registry as the environment says."""
    settings = Settings.load()
    from meshwright.registry.serving import serve

    await serve(settings, running)


if __name__ == "__main__":
    process.run(main)
