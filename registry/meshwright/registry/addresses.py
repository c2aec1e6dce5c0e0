"""Which addresses a tool host may call, and how they must be spelled. Pure."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from meshwright.core.errors import EgressRefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
MAX_HOST = 253
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What makes a host's last part a number: such a host is an IPv4 address to many a resolver."""
PLACE = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+):(?P<port>[1-9][0-9]{0,4})")


def networks(*written: str) -> tuple[Network, ...]:
    """Reads networks."""
    return tuple(ip_network(one) for one in written)


GLOBAL_6 = ip_network("2000::/3")
"""All of IPv6 that is routed: IPv4-mapped and NAT64 addresses, unique local and link-local ones lie elsewhere."""
NEVER = networks(
    "0.0.0.0/8",
    "169.254.0.0/16",  # link-local, and the metadata service of most clouds
    "168.63.129.16/32",  # Azure's own services, by a public address
    "100.100.100.200/32",  # Alibaba's metadata service
    "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
    "192.0.2.0/24",
    "192.88.99.0/24",  # 6to4 relays
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",  # Teredo and other protocol assignments
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "3fff::/20",
    "fd00:ec2::254/128",  # Amazon's metadata service
    "fd20:ce::254/128",  # Google's
)
LOCAL = networks("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
"""Networks next door: called only where a declaration allows the very host and port."""


def refusal(address: str, *, is_allowed: bool) -> str:
    """Tells why an address is not called; empty: it may be.

    Args:
        address: As a resolver gave it.
        is_allowed: Whether the declaration allows a network next door.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "is no address"
    if getattr(parsed, "scope_id", None):
        return "names a network interface"
    if within(parsed, NEVER):
        return "is reserved or a metadata service"
    if within(parsed, LOCAL):
        return "" if is_allowed else "is private"
    is_routed = parsed.version == 4 or parsed in GLOBAL_6  # noqa: PLR2004 - IPv4
    return "" if is_routed else "is reserved, or stands for another address"


def within(address: Address, among: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of some networks."""
    return any(address in network for network in among if network.version == address.version)


def checked_host(host: str) -> str:
    """Returns a host in its one spelling: a name in small letters, or an address (IPv6 in brackets).

    Raises:
        EgressRefusedError: It is spelled as no host should be: a number, a trailing dot, a zone.
    """
    plain = host.lower()
    try:
        if plain.startswith("["):
            return f"[{IPv6Address(without_zone(plain[1:-1]))}]"
        if NUMBER.fullmatch(plain.rpartition(".")[2]):
            return str(IPv4Address(plain))
    except ValueError:
        raise EgressRefusedError(f"{host!r:.80} is no host: write an address as 192.0.2.1 or [2001:db8::1]") from None
    if len(plain) > MAX_HOST or not NAME.fullmatch(plain):
        raise EgressRefusedError(f"{host!r:.80} is no host: write a name in ASCII without a dot at its end")
    return plain


def without_zone(address: str) -> str:
    """Returns an IPv6 address that names no network interface.

    Raises:
        ValueError: It does.
    """
    if "%" in address:
        raise ValueError("a zone id")
    return address


def checked_place(place: str) -> tuple[str, int]:
    """Splits `host:port` and returns both in their one spelling.

    Raises:
        EgressRefusedError: It is no such pair.
    """
    match = PLACE.fullmatch(place)
    if not match or int(match["port"]) > 65_535:  # noqa: PLR2004 - the last port
        raise EgressRefusedError(f"{place!r:.80} is no host:port")
    return checked_host(match["host"]), int(match["port"])
