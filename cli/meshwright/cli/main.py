"""`meshwright`: the command line, noun by noun."""

import os
import sys

try:
    import typer

    from meshwright.cli.commands import Commands
except KeyboardInterrupt:  # Ctrl-C before there is anything that could take it
    raise SystemExit(130) from None

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)

FIRST_EXIT_CODE = 10
"""An error exits with this plus its gRPC code: NOT_FOUND (5) is 15."""


@app.callback(help="Runs a mesh of agents and talks to it.")
def meshwright() -> None:
    """Stands for the command without a noun."""


def main() -> None:
    """Runs a command; an error is one line on stderr and an exit code that says its kind."""
    if "GRPC_VERBOSITY" not in os.environ:
        os.putenv("GRPC_VERBOSITY", "NONE")  # read as gRPC is imported; out of os.environ: children log as ever
    try:
        app(standalone_mode=True)
    except BrokenPipeError:
        raise SystemExit(0) from None
    except Exception as error:
        from meshwright.cli.output import harmless
        from meshwright.core.errors import SetupError
        from meshwright.core.mesh_error import MeshError  # brings gRPC, which help does without

        if isinstance(error, OSError):
            error = SetupError(of_system(error))
        if not isinstance(error, MeshError):
            raise
        sys.stderr.write(f"error: {harmless(error.message)}\n")
        leave_output()
        raise SystemExit(FIRST_EXIT_CODE + error.code.value[0]) from None


def of_system(error: OSError) -> str:
    """Says what the system refused; where it names no file, something could not be printed or written."""
    why = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {why}" if error.filename else f"{why}: look at where this command prints and writes"


def leave_output() -> None:
    """Lets go of what stdout did not take: Python would try to print it again at the end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
