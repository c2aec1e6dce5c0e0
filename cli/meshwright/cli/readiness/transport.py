"""How clients are spoken to: TLS, its versions and certificate, and nothing without it."""

import asyncio
import datetime as dt
import ssl
import warnings

import h11
from cryptography import x509

from meshwright.cli.place import Place
from meshwright.cli.production import EXPIRES_SOON, is_of_development
from meshwright.cli.readiness.outcome import Outcome, good, missing
from meshwright.cli.readiness.peer import REQUEST_S, Answer, connected, exchanged
from meshwright.cli.readiness.survey import Survey, trusting
from meshwright.core.errors import MeshError, TlsRefusedError, UnavailableError

HTTP, HTTPS = 80, 443
MOVED = (301, 302, 307, 308)
HALF_A_YEAR_S = 15_552_000
"""For so long browsers are to come by TLS alone, at the least."""
NO_TLS = missing("clients speak plain text to the edge", "set MESHWRIGHT_EDGE_TLS_DIR")


async def shaken(place: Place, context: ssl.SSLContext) -> tuple[bytes, str, str]:
    """Shakes hands and hangs up; returns the certificate, TLS's version and the protocol that was agreed on.

    Raises:
        MeshError: There was no handshake.
    """
    try:
        async with asyncio.timeout(REQUEST_S):
            _, writer = await connected(place, context)
    except TimeoutError:
        raise UnavailableError(f"no handshake within {REQUEST_S:g} s") from None
    try:
        tls = writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) or b"", tls.version() or "", tls.selected_alpn_protocol() or ""
    finally:
        writer.transport.abort()


async def certificate(survey: Survey) -> Outcome:
    """Whether clients trust the edge's certificate, by its name, for a while yet."""
    place = survey.edge.place
    if not place.is_tls:
        return NO_TLS
    try:
        shown, _, _ = await shaken(place, trusting(survey.target.authority))
    except TlsRefusedError as error:
        return missing(error.message, "renew it, or name its authority by MESHWRIGHT_EDGE_CA")
    try:
        found = x509.load_der_x509_certificate(shown)
    except ValueError:
        return missing("it cannot be read", "renew it (docs/tls.md)")
    left = found.not_valid_after_utc - dt.datetime.now(dt.UTC)
    if left < EXPIRES_SOON:
        return missing(f"it expires in {left.days} days", "renew it (docs/tls.md)")
    if is_of_development(found):
        return missing("it is of a development authority", "use one that keeps its key to itself")
    return good(f"trusted for {place.host}, {left.days} days left")


async def versions(survey: Survey) -> Outcome:
    """Whether old kinds of TLS are refused."""
    place = survey.edge.place
    if not place.is_tls:
        return NO_TLS
    _, version, _ = await shaken(place, unchecked())
    try:
        _, old, _ = await shaken(place, of_old())
    except MeshError:
        return good(f"{version}; TLS 1.1 is refused")
    return missing(f"it still takes {old}", "set TLS 1.2 as the lowest, at the edge and at what stands before it")


def unchecked() -> ssl.SSLContext:
    """Looks at a server that need not be trusted; nothing is told to it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def of_old() -> ssl.SSLContext:
    """Speaks TLS 1.0 and 1.1 alone, as nobody should."""
    context = unchecked()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def plain_text(survey: Survey) -> Outcome:
    """Whether anything is answered without TLS, but that callers are to come by TLS."""
    place = survey.edge.place
    if not place.is_tls:
        return NO_TLS
    ports = [place.port] + [HTTP] * (place.port == HTTPS)
    told = [await answered_plainly(Place(place.host, port, is_tls=False)) for port in ports]
    if open_ports := [str(port) for port, is_open in zip(ports, told, strict=True) if is_open]:
        return missing(f"port {', '.join(open_ports)} answers plain HTTP", "close it, or redirect it to https://")
    return good(f"plain HTTP is not answered at {', '.join(map(str, ports))}")


async def answered_plainly(place: Place) -> bool:
    """Whether a request without TLS gets more than a pointer to TLS."""
    answer = await plain_answer(place)
    if answer is None:
        return False
    return not (answer.status in MOVED and answer.headers.get("location", "").startswith("https://"))


async def plain_answer(place: Place) -> Answer | None:
    """Asks without TLS and without a key; None: that is not answered."""
    head = h11.Request(method="GET", target="/health", headers=[("host", place.authority), ("connection", "close")])
    try:
        return await exchanged(place, head, b"", None)
    except MeshError:
        return None


async def strict(survey: Survey) -> Outcome:
    """Whether browsers are told never to come without TLS."""
    if not survey.edge.place.is_tls:
        return NO_TLS
    told = (await survey.edge.ask("GET", "/ready", is_keyed=False)).headers.get("strict-transport-security", "")
    age = told.partition("max-age=")[2].partition(";")[0].strip().strip('"')
    if not (age.isdecimal() and len(age) <= 12 and int(age) >= HALF_A_YEAR_S):  # noqa: PLR2004 - digits of an age
        return missing(f"strict-transport-security: {told or 'none'}", "let what stands before the edge pass it on")
    return good(f"strict-transport-security: max-age={age}")


async def http2(survey: Survey) -> Outcome:
    """Whether clients of gRPC find HTTP/2."""
    if not survey.edge.place.is_tls:
        return NO_TLS
    context = unchecked()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, _, protocol = await shaken(survey.edge.place, context)
    if protocol != "h2":
        return missing(f"it agrees on {protocol or 'nothing'}", "let ALPN offer h2, as gRPC needs it")
    return good("ALPN agrees on h2")
