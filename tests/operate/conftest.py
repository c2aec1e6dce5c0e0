"""What tests of a delivery share: a cluster that kubectl finds."""

import contextlib

import pytest

from tests.operate.api_server import Cluster, Handler, credentials, serving
from tests.operate.delivering import (
    NAME,
    image,
)


@pytest.fixture
def in_cluster(tmp_path, monkeypatch):
    """Puts a workload into a cluster that kubectl finds, and returns the cluster."""
    with contextlib.ExitStack() as running:

        def put(name=NAME, *, is_rolled=True):
            made = Cluster(name, image("stable", name), is_rolled=is_rolled)
            url = running.enter_context(serving(Handler, cluster=made))
            (tmp_path / "config").write_text(credentials(url))
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
            monkeypatch.setenv("HOME", str(tmp_path))
            return made

        yield put
