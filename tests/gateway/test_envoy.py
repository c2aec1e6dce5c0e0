"""Envoy's bootstrap on disk: who runs on an old one is told."""

import pytest
import structlog.testing

from meshwright.core.errors import SetupError
from meshwright.gateway import envoy
from meshwright.gateway.serving import write_configuration
from meshwright.gateway.settings import GatewaySettings


async def test_a_bootstrap_that_a_running_envoy_has_not_read_is_told(tmp_path):
    async def told(port):
        with structlog.testing.capture_logs() as lines:
            await write_configuration(GatewaySettings(folder=str(tmp_path), port=port))
        return [line["event"] for line in lines]

    assert [await told(port) for port in (8082, 8082, 8083, 8083)] == [[], [], ["bootstrap_changed"], []]


def test_a_folder_without_a_bootstrap_is_no_place_for_envoy(tmp_path):
    with pytest.raises(SetupError, match=r"holds no envoy\.json: start `python -m meshwright\.gateway` first"):
        envoy.run(GatewaySettings(folder=str(tmp_path)))


@pytest.mark.parametrize("value", ["nohost", "host:0", "host:70000"])
def test_a_service_of_limits_without_host_and_port_is_told(value):
    with pytest.raises(SetupError, match="MESHWRIGHT_LIMIT_SERVICE="):
        GatewaySettings.load(limit_service=value)
