"""Whether a mesh is there at all, before its items are looked at."""

from meshwright.cli.place import Place
from meshwright.cli.readiness.contract import OK, read_json
from meshwright.cli.readiness.peer import Answer, Peer
from meshwright.cli.readiness.transport import plain_answer, shaken, unchecked
from meshwright.core.errors import MeshError, RateLimitedError, TlsRefusedError, UnavailableError

BAD_REQUEST = 400
"""Of HTTP: so servers that want TLS answer plain text."""
HEALTHY = {"status": "ok"}
TITLE = "Meshwright"
"""Of the OpenAPI document."""


async def recognised(edge: Peer, url: str) -> None:
    """Returns where a mesh answers, and where nobody can tell yet: a certificate or a limit is in the way.

    Raises:
        TlsRefusedError: It speaks plain text.
        UnavailableError: Nobody is there, or somebody else.
    """
    absent = f"no mesh is at {url}"
    try:
        await edge.reach()
        why = [await otherness(edge, path) for path in ("/health", "/openapi.json")]
    except RateLimitedError:
        return
    except (TlsRefusedError, UnavailableError) as error:
        if edge.place.is_tls and await is_plain(edge.place):
            todo = "write http://, or set MESHWRIGHT_EDGE_TLS_DIR for its gateway"
            raise TlsRefusedError(f"{url} speaks plain text: {todo}") from None
        if isinstance(error, TlsRefusedError):
            return
        raise UnavailableError(f"{absent}: {error.message}; name its edge") from None
    if all(why):
        raise UnavailableError(f"{absent}: {why[0]}; name its edge")


async def otherness(edge: Peer, path: str) -> str:
    """Says what is answered in place of what a mesh answers; empty: it is that."""
    answer = await edge.ask("GET", path, is_keyed=False)
    return "" if is_ours(answer) else f"{path} answers {answer.status}" + " with something else" * (answer.status == OK)


def is_ours(answer: Answer) -> bool:
    """Whether an answer is one of a mesh, of whatever version."""
    match read_json(answer.body):
        case {"info": {"title": title}}:
            return answer.status == OK and title == TITLE
        case told:
            return answer.status == OK and told == HEALTHY


async def is_plain(place: Place) -> bool:
    """Whether a server shakes no hands, and answers without."""
    try:
        await shaken(place, unchecked())
    except MeshError:
        answer = await plain_answer(Place(place.host, place.port, is_tls=False))
        return answer is not None and answer.status != BAD_REQUEST
    return False
