"""What tests of the readiness list share: a certificate that is trusted, and TLS with it."""

import pytest

from meshwright.cli.authority import Wanted
from meshwright.core.role import Role
from tests.cli.liar import shown
from tests.e2e.checked import public_authority


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """An authority, and a certificate of it for localhost."""
    made = public_authority(tmp_path_factory.mktemp("certs"))
    made.issue(Wanted(Role.EDGE, hosts=("localhost",)), 90)
    return made


@pytest.fixture
def tls(public):
    return shown(public.folder / Role.EDGE, "h2", "http/1.1")
