"""`python -m meshwright.registry`: the registry's process."""

from meshwright.core import process
from meshwright.core.process import Process
from meshwright.registry.settings import RegistrySettings


async def main(running: Process) -> None:
    """Serves the registry as the environment says."""
    settings = RegistrySettings.load()
    from meshwright.registry.serving import serve

    await serve(settings, running)


if __name__ == "__main__":
    process.run(main)
