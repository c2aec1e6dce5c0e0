"""Options that several commands share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import structlog
import typer

from meshwright.cli.edge import Edge
from meshwright.cli.output import Format
from meshwright.cli.settings import CliSettings
from meshwright.core.errors import CredentialsMissingError

EdgeUrl = Annotated[str | None, typer.Option("--edge", help="URL of the edge  [default: http://127.0.0.1:8080]")]
Principal = Annotated[
    str, typer.Option(help="Whose, where it is another's of your tenant: needs the scope tasks:read_all")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed")]
T = TypeVar("T")


def with_edge(url: str | None, work: Callable[[Edge], Awaitable[T]]) -> T:
    """Runs a command's work against the edge that it names.

    Raises:
        CredentialsMissingError: It wants to know who is calling, and nobody has said; says by which variable.
    """

    async def run() -> T:
        settings = CliSettings.load(edge=url)
        edge = Edge(settings.edge, settings.api_key, authority=settings.edge_ca)
        try:
            return await work(edge)
        except CredentialsMissingError:
            if settings.api_key:
                raise
            raise CredentialsMissingError(
                "say who is calling: set MESHWRIGHT_API_KEY to an API key of this mesh, or to a token"
            ) from None
        finally:
            await edge.close()

    with quiet():
        return asyncio.run(run())


@contextmanager
def quiet() -> Iterator[None]:
    """Logs nothing: what a command has to say of a failure is its error."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        structlog.configure(**before)
