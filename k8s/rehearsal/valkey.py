"""Stands in for Valkey's image: `python -m k8s.rehearsal.valkey valkey-server's arguments`.

The Valkey of the package has no TLS. So an Envoy ends TLS, at the port and with the certificate of the arguments, and
passes bytes on to Valkey's socket; all other arguments are Valkey's own. It becomes Valkey: what ends that ends the
container, and Envoy with it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshwright.core.tether import tethered
from meshwright.core.valkey import binary
from meshwright.gateway import envoy

OPENS = 'until [ -S "$1" ]; do sleep 0.05; done; exec "$2" --disable-hot-restart --concurrency 1 -l error -c "$3"'


def options(arguments: list[str]) -> dict[str, str]:
    """Reads `--name value ...`."""
    return {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


def front(address: str, told: dict[str, str], socket: str) -> dict[str, Any]:
    """Writes the configuration of the Envoy in front."""
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    shown = {"filename": told["tls-cert-file"]}, {"filename": told["tls-key-file"]}
    context = {"tls_certificates": [{"certificate_chain": shown[0], "private_key": shown[1]}]}
    chain = {
        "filters": [{"name": "tcp", "typed_config": {"@type": proxy, "stat_prefix": "store", "cluster": "store"}}],
        "transport_socket": {"name": "tls", "typed_config": {"@type": tls, "common_tls_context": context}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    cluster = {"name": "store", "type": "STATIC", "connect_timeout": "1s"}
    place = {"socket_address": {"address": address, "port_value": int(told["tls-port"])}}
    assigned = {"load_assignment": {"cluster_name": "store", "endpoints": [{"lb_endpoints": [endpoint]}]}}
    return {
        "static_resources": {
            "listeners": [{"name": "store", "address": place, "filter_chains": [chain]}],
            "clusters": [cluster | assigned],
        }
    }


def main(arguments: list[str], address: str, folder: Path) -> None:
    """Starts Envoy in front and becomes Valkey.

    Args:
        arguments: Valkey's.
        address: Of the pod.
        folder: Takes socket and configuration.
    """
    told = options(arguments)
    socket, configuration = folder / "store.sock", folder / "front.json"
    socket.unlink(missing_ok=True)
    configuration.write_text(json.dumps(front(address, told, str(socket))))
    own = [word for name, value in told.items() if not name.startswith("tls-") for word in (f"--{name}", value)]
    opens = ["/bin/sh", "-c", OPENS, "front", str(socket), str(envoy.find()), str(configuration)]
    subprocess.Popen(tethered(*opens), stdin=subprocess.DEVNULL)
    valkey = str(binary())
    os.execv(valkey, [valkey, *own, "--unixsocket", str(socket), "--unixsocketperm", "600"])


if __name__ == "__main__":
    main(sys.argv[1:], os.environ["REHEARSAL_ADDRESS"], Path(os.environ["REHEARSAL_FOLDER"]))
