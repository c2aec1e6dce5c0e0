"""Hosts that the edge answers to: told where nobody from elsewhere is among them."""

import pytest

from meshwright.gateway.hosts import unreachable
from meshwright.gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("edge_host", "allowed_hosts", "is_unreachable"),
    [
        ("127.0.0.1", "localhost", False),
        ("::1", "[::1]", False),
        ("0.0.0.0", "localhost 127.0.0.1 [::1]", True),
        ("10.0.0.1", "localhost", True),
        ("0.0.0.0", "localhost mesh.example.org", False),
        ("0.0.0.0", "10.0.0.1", False),
        ("0.0.0.0", "[2001:db8::1]", False),
    ],
)
def test_an_edge_beyond_loopback_needs_a_host_beyond_loopback(edge_host, allowed_hosts, is_unreachable):
    told = unreachable(GatewaySettings(edge_host=edge_host, allowed_hosts=allowed_hosts))
    assert bool(told) == is_unreachable
    assert not told or edge_host in told
