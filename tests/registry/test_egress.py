"""The way out: what is never called, what is called by a pinned address, and what an answer may not do to us."""

import asyncio
import gzip
import ipaddress
import socket
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    EgressRefusedError,
    MeshError,
    ResultTooLargeError,
    SetupError,
    ToolFailedError,
)
from meshwright.registry.addresses import checked_host, refusal
from meshwright.registry.egress import Egress, Limits, Request, parsed

GET = "GET"
INWARD = [
    "http://127.0.0.1:{port}/",
    "http://127.1.2.3:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data",
    "http://168.63.129.16:{port}/",
    "http://100.64.0.1:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.31.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://2130706433:{port}/",
    "http://127.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost:{port}/",
    "http://localhost.:{port}/",
    "http://LOCALHOST:{port}/",
    "http://public.example@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@public.example/",
    "http://user:pass@localhost:{port}/",
    "http://127.0.0.1:{port}\\@public.example/",
    "http:///127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://127。0。0。1:{port}/",
    "//127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:{port}/a b",
    "http://127.0.0.1:{port}/#x",
    "http://",
    "",
]


def resolving(*answers):
    """Answers one list of addresses after the other; counts the questions."""

    async def resolve(host, port):
        resolve.asked += 1
        return answers[min(resolve.asked, len(answers)) - 1]

    resolve.asked = 0
    return resolve


@pytest.mark.parametrize("url", INWARD)
async def test_what_leads_inward_is_refused_and_nothing_is_connected(outside, answered, url):
    service = await outside(answered("secret"), host="0.0.0.0")
    with pytest.raises(EgressRefusedError):
        await Egress().fetch(Request(GET, url.format(port=service.port)), 5)
    assert service.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["169.254.169.254"],
        ["8.8.8.8", "10.0.0.1"],
        ["2606:4700::1111", "::ffff:127.0.0.1"],
        ["fe80::1%eth0"],
        ["no address"],
    ],
)
async def test_a_name_is_refused_where_one_of_its_addresses_leads_inward(outside, answered, addresses):
    service = await outside(answered("secret"))
    egress = Egress(resolve=resolving(addresses))
    with pytest.raises(EgressRefusedError, match=r"inward\.example"):
        await egress.fetch(Request(GET, f"http://inward.example:{service.port}/"), 5)
    assert service.connections == 0


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "224.0.0.1", "0.0.0.0", "::ffff:10.0.0.1"])
async def test_no_allowance_opens_a_metadata_service_or_a_reserved_network(address):
    egress = Egress(["next.door:80"], resolve=resolving([address]))
    with pytest.raises(EgressRefusedError):
        await egress.addresses("next.door", 80)


async def test_an_allowance_opens_one_host_at_one_port(outside, answered):
    service, other = await outside(answered("here")), await outside(answered("there"))
    egress = Egress([service.place])
    assert (await egress.fetch(Request(GET, f"http://{service.place}/"), 5)).body == b"here"
    for url in (f"http://{other.place}/", f"http://localhost:{service.port}/", f"http://127.0.0.2:{service.port}/"):
        with pytest.raises(EgressRefusedError):
            await egress.fetch(Request(GET, url), 5)
    assert other.connections == 0


@pytest.mark.parametrize(
    "place", ["", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "0177.0.0.1:80", "a b:80", "*:80"]
)
def test_an_allowance_that_is_no_host_and_port_is_told(place):
    with pytest.raises(SetupError, match="allow: "):
        Egress([place])


async def test_the_address_that_was_checked_is_the_one_that_is_called(outside, answered):
    good = await outside(answered("good"))
    evil = await outside(answered("evil"), host="127.0.0.2", port=good.port)
    resolve = resolving(["127.0.0.1"], ["127.0.0.2"])
    egress = Egress([f"service.test:{good.port}"], resolve=resolve)
    response = await egress.fetch(Request(GET, f"http://service.test:{good.port}/x?y=1"), 5)
    assert (response.body, resolve.asked, evil.connections) == (b"good", 1, 0)
    assert good.requests[0].startswith(b"GET /x?y=1 HTTP/1.1\r\n")
    assert f"host: service.test:{good.port}\r\n".encode() in good.requests[0].lower()


async def test_a_name_that_is_gone_or_a_port_that_is_closed_may_be_tried_again(unused_port):
    async def gone(host, port):
        raise socket.gaierror(-2, "unknown")

    with pytest.raises(BackendUnavailableError, match="has no address"):
        await Egress(resolve=gone).fetch(Request(GET, "http://gone.example/"), 5)
    with pytest.raises(BackendUnavailableError, match="cannot be reached") as caught:
        await Egress([f"127.0.0.1:{unused_port}"]).fetch(Request(GET, f"http://127.0.0.1:{unused_port}/"), 5)
    assert caught.value.is_retryable


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_the_next_address_of_a_name_is_tried_where_one_does_not_answer(outside, answered):
    service = await outside(answered("here"), host="127.0.0.3")
    egress = Egress([f"service.test:{service.port}"], resolve=resolving(["127.0.0.2", "127.0.0.3"]))
    assert (await egress.fetch(Request(GET, f"http://service.test:{service.port}/"), 5)).body == b"here"


async def test_a_certificate_is_held_against_the_name_although_an_address_is_called(outside, answered, authority):
    service = await outside(answered("private"), ssl=authority.server)
    places = [f"service.test:{service.port}", f"other.test:{service.port}"]
    egress = Egress(places, ca_file=authority.ca_file, resolve=resolving(["127.0.0.1"]))
    assert (await egress.fetch(Request(GET, f"https://{places[0]}/"), 5)).body == b"private"
    with pytest.raises(BackendUnavailableError, match="certificate is not valid"):
        await egress.fetch(Request(GET, f"https://{places[1]}/"), 5)
    with pytest.raises(BackendUnavailableError, match="certificate is not valid"):
        await Egress(places, resolve=resolving(["127.0.0.1"])).fetch(Request(GET, f"https://{places[0]}/"), 5)
    assert len(service.requests) == 1


def test_authorities_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(SetupError, match=r"ca_file: .*nowhere\.pem cannot be read"):
        Egress(ca_file=tmp_path / "nowhere.pem")


async def test_the_environment_sets_no_proxy(outside, answered, monkeypatch):
    service, proxy = await outside(answered("direct")), await outside(answered("by proxy"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{proxy.place}")
    assert (await Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 5)).body == b"direct"
    assert proxy.connections == 0


async def test_a_redirect_is_an_answer_unless_some_are_allowed(outside, answered):
    service = await outside(answered("", "302 Found", Location="/elsewhere"))
    response = await Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 5)
    assert (response.status, service.connections) == (302, 1)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//[::1]:{port}/",
        "http://169.254.169.254/",
        "http://2130706433:{port}/",
        "file:///etc/passwd",
        "http://[::1",
        "http://u:p@x.example/",
    ],
)
async def test_a_redirect_inward_is_refused_and_nothing_is_connected(outside, answered, location):
    inner = await outside(answered("secret"), host="0.0.0.0")
    service = await outside(answered("", "302 Found", Location=location.format(port=inner.port)))
    egress = Egress([service.place], limits=Limits(redirects=5))
    with pytest.raises(EgressRefusedError):
        await egress.fetch(Request(GET, f"http://{service.place}/"), 5)
    assert (service.connections, inner.connections) == (1, 0)


async def test_redirects_without_end_are_cut(outside, answered):
    service = await outside(answered("", "302 Found", Location="/again"))
    egress = Egress([service.place], limits=Limits(redirects=3))
    with pytest.raises(EgressRefusedError, match="more than 3 times"):
        await egress.fetch(Request(GET, f"http://{service.place}/"), 5)
    assert service.connections == 4


@pytest.mark.parametrize(
    ("status", "method", "then", "has_body"),
    [
        ("301 Moved", "POST", "GET", False),
        ("302 Found", "POST", "GET", False),
        ("303 See Other", "PUT", "GET", False),
        ("302 Found", "PUT", "PUT", True),
        ("307 Temporary Redirect", "POST", "POST", True),
        ("308 Permanent Redirect", "POST", "POST", True),
    ],
)
async def test_a_redirect_keeps_or_drops_method_and_body_by_the_rules_of_http(
    outside, answered, status, method, then, has_body
):
    target = await outside(answered("done"))
    service = await outside(answered("", status, Location=f"http://{target.place}/new"))
    egress = Egress([service.place, target.place], limits=Limits(redirects=1))
    request = Request(
        method, f"http://{service.place}/", {"Content-Type": "application/json"}, {"Authorization": "canary"}, b"{}"
    )
    assert (await egress.fetch(request, 5)).body == b"done"
    (sent,) = target.requests
    assert sent.startswith(f"{then} /new ".encode())
    assert (sent.endswith(b"{}"), b"content-type" in sent.lower()) == (has_body, has_body)
    assert b"canary" in service.requests[0]
    assert b"canary" not in sent  # another origin


async def test_a_secret_stays_on_the_same_origin_and_tls_is_never_left(outside, answered, authority):
    def answer(request):
        return answered("done") if b"/new" in request else answered("", "302 Found", Location="/new")

    service = await outside(answer)
    egress = Egress([service.place], limits=Limits(redirects=1))
    await egress.fetch(Request(GET, f"http://{service.place}/", secrets={"Authorization": "canary"}), 5)
    assert all(b"canary" in sent for sent in service.requests)
    plain = await outside(answered("plain"))
    tls = await outside(answered("", "302 Found", Location=f"http://{plain.place}/"), ssl=authority.server)
    places = [f"service.test:{tls.port}", plain.place]
    egress = Egress(places, limits=Limits(redirects=1), ca_file=authority.ca_file, resolve=resolving(["127.0.0.1"]))
    with pytest.raises(EgressRefusedError, match="out of TLS"):
        await egress.fetch(Request(GET, f"https://{places[0]}/"), 5)
    assert plain.connections == 0


def bomb(mebibytes):
    """Compresses that many MiB of nothing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


async def test_a_compression_bomb_is_unpacked_up_to_the_limit_only(outside, answered):
    service = await outside(answered(bomb(200), Content_Encoding="gzip"))
    began = time.process_time()
    with pytest.raises(ResultTooLargeError, match="ask for less"):
        await Egress([service.place], limits=Limits(body_bytes=2**20)).fetch(
            Request(GET, f"http://{service.place}/"), 10
        )
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"text", mtime=0)),
        ("x-gzip", gzip.compress(b"text", mtime=0)),
        ("deflate", zlib.compress(b"text")),
        ("deflate", zlib.compress(b"text", wbits=-15)),
        ("identity", b"text"),
    ],
)
async def test_compressed_answers_are_read(outside, answered, encoding, body):
    service = await outside(answered(body, Content_Encoding=encoding))
    assert (await Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 5)).body == b"text"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"text", mtime=0)[:-4]),
        ("gzip", gzip.compress(b"text", mtime=0) + b"more"),
        ("br", b"text"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"text", mtime=0), mtime=0)),
    ],
)
async def test_a_body_that_is_not_compressed_as_it_says_is_a_failure(outside, answered, encoding, body):
    service = await outside(answered(body, Content_Encoding=encoding))
    with pytest.raises(ToolFailedError, match="broken body"):
        await Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 5)


def dripping(head, piece):
    """Writes a head, then a piece twenty times a second."""

    async def write(writer):
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    return write


def flooding(head, piece):
    """Writes a head, then a piece again and again, as fast as it is taken."""

    async def write(writer):
        writer.write(head)
        while True:
            writer.write(piece * (1 + 2**16 // len(piece)))
            await writer.drain()
            await asyncio.sleep(0)  # both sides share one loop

    return write


async def silent(writer):
    await asyncio.sleep(30)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
endless = flooding(CHUNKED, b"400\r\n" + bytes(2**10) + b"\r\n")
slow = dripping(OK + b"Content-Length: 1000\r\n\r\n", b"x")
slow_head = dripping(OK, b"X: y\r\n")
flood = flooding(OK, b"X-Filler: " + b"y" * 1000 + b"\r\n")
one_endless_header = flooding(OK + b"X: ", b"y")
interim = flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")
chunk_extension = flooding(CHUNKED + b"1;", b"y")
trailers = flooding(CHUNKED + b"0\r\n", b"X: y\r\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (endless, ResultTooLargeError),
        (slow, DeadlineExceededError),
        (slow_head, DeadlineExceededError),
        (silent, DeadlineExceededError),
        (flood, ToolFailedError),
        (one_endless_header, ToolFailedError),
        (interim, ToolFailedError),
        (chunk_extension, ToolFailedError),
        (trailers, ToolFailedError),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n", ToolFailedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", ToolFailedError),
        (b"220 smtp.example ESMTP\r\n\r\n", ToolFailedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut", BackendUnavailableError),
        (b"HTTP/1.1 200 OK\r\n", BackendUnavailableError),
        (b"", BackendUnavailableError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ToolFailedError),
    ],
)
async def test_an_answer_that_never_ends_or_is_none_fails_in_time(outside, answer, error):
    service = await outside(answer)
    began = time.monotonic()
    with pytest.raises(error):
        await Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 1)
    assert time.monotonic() - began < 20


async def test_a_resolver_and_a_handshake_that_hang_end_in_time(outside, authority):
    async def hanging(host, port):
        await asyncio.sleep(30)

    with pytest.raises(BackendUnavailableError, match=r"no connection within 0\.2 s"):
        await Egress(limits=Limits(connect_s=0.2), resolve=hanging).fetch(Request(GET, "http://slow.example/"), 5)
    service = await outside(silent)
    egress = Egress([service.place], limits=Limits(connect_s=0.2), ca_file=authority.ca_file)
    with pytest.raises(BackendUnavailableError, match=r"no connection within 0\.2 s"):
        await egress.fetch(Request(GET, f"https://{service.place}/"), 5)


async def test_a_call_that_is_cancelled_leaves_no_connection(outside):
    is_closed = asyncio.Event()

    async def watching(writer):
        try:
            while True:
                writer.write(b"HTTP/1.1 102 Processing\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            is_closed.set()

    service = await outside(watching)
    call = asyncio.create_task(Egress([service.place]).fetch(Request(GET, f"http://{service.place}/"), 30))
    async with asyncio.timeout(5):
        while not service.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])
        await is_closed.wait()
    assert call.cancelled()


def test_neither_a_request_nor_its_repr_shows_a_secret():
    assert "canary" not in repr(Request(GET, "https://a.example/", secrets={"Authorization": "canary"}))


LOCAL = ["10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"]


@given(st.sampled_from(LOCAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_no_spelling_of_an_inner_address_gets_out(address):
    packed = int(address)
    embedded = [
        ipaddress.IPv6Address(packed | 0xFFFF << 32),
        ipaddress.IPv6Address(packed),
        ipaddress.IPv6Address(0x2002 << 112 | packed << 80),
        ipaddress.IPv6Address(0x20010000 << 96 | packed),
        ipaddress.IPv6Address(0x64FF9B << 96 | packed),
    ]
    for one in [address, *embedded]:
        assert refusal(str(one), is_allowed=False)
    for spelled in (
        str(packed),
        hex(packed),
        f"0{packed:o}",
        f"{address}.",
        ".".join(hex(part) for part in address.packed),
    ):
        with pytest.raises(EgressRefusedError):
            checked_host(spelled)


@given(st.ip_addresses())
def test_what_is_called_is_public_by_the_standard_library_too(address):
    if not refusal(str(address), is_allowed=False):
        assert not (address.is_private)
        assert not (address.is_loopback)
        assert not (address.is_link_local)
        assert not (address.is_reserved)
        assert not (address.is_multicast)
        assert not (address.is_unspecified)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_called(address):
    assert refusal(address, is_allowed=False) == ""


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text):
    for url in (text, f"http://{text}", f"https://host.example/{text}"):
        try:
            target = parsed(url)
        except MeshError:
            continue
        assert str(parsed(str(target))) == str(target)
        assert target.target.isascii()
        assert not set(target.target) & set(" \r\n\t#")
