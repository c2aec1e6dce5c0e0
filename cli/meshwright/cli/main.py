"""`meshwright`: the command line, noun by noun."""

import sys

import typer

from meshwright.cli import (
    agent,
    bench,
    certs,
    cost,
    demo,
    dev,
    doctor,
    eval,  # noqa: A004 - the command's name
    key,
    run,
    session,
    store,
    task,
    tool,
    webhook,
)
from meshwright.cli.chaos import command
from meshwright.cli.output import harmless
from meshwright.core.errors import MeshError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Runs a mesh of agents and talks to it.")
app.command("dev")(dev.dev)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("eval")(eval.evaluate)
app.command("chaos")(command.chaos)
app.command("bench")(bench.bench)
app.command("cost")(cost.cost)
app.command("certs")(certs.certs)
app.command("doctor")(doctor.doctor)
app.command("check-config")(doctor.check_config)
app.add_typer(task.app, name="task")
app.add_typer(session.app, name="session")
app.add_typer(agent.app, name="agent")
app.add_typer(tool.app, name="tool")
app.add_typer(store.app, name="store")
app.add_typer(webhook.app, name="webhook")
app.add_typer(key.app, name="key")

FIRST_EXIT_CODE = 10
"""An error exits with this plus its gRPC code: NOT_FOUND (5) is 15."""


def main() -> None:
    """Runs a command; an error is one line on stderr and an exit code that says its kind."""
    try:
        app(standalone_mode=True)
    except MeshError as error:
        sys.stderr.write(f"error: {harmless(error.message)}\n")
        raise SystemExit(FIRST_EXIT_CODE + error.code.value[0]) from None
    except BrokenPipeError:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
