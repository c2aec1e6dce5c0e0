"""`meshwright`: the command line, noun by noun."""

import sys

import typer

from meshwright.cli.commands import Commands

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)

FIRST_EXIT_CODE = 10
"""An error exits with this plus its gRPC code: NOT_FOUND (5) is 15."""


@app.callback(help="Runs a mesh of agents and talks to it.")
def meshwright() -> None:
    """Stands for the command without a noun."""


def main() -> None:
    """Runs a command; an error is one line on stderr and an exit code that says its kind."""
    try:
        app(standalone_mode=True)
    except BrokenPipeError:
        raise SystemExit(0) from None
    except Exception as error:
        from meshwright.cli.output import harmless
        from meshwright.core.mesh_error import MeshError  # brings gRPC, which help does without

        if not isinstance(error, MeshError):
            raise
        sys.stderr.write(f"error: {harmless(error.message)}\n")
        raise SystemExit(FIRST_EXIT_CODE + error.code.value[0]) from None


if __name__ == "__main__":
    main()
