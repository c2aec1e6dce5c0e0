"""Probes as a kubelet makes them: one question, its period, and how many answers in a row count."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from k8s.rehearsal.manifests import Thing
from meshwright.core.errors import SetupError

Ask = Callable[[], Awaitable[bool]]
MOST_BYTES = 4_096
FINE = range(200, 400)


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of a container, with Kubernetes' defaults.

    Attributes:
        ask: Asks once.
        delay_s: Seconds from the start to the first question.
        period_s: Seconds between questions.
        timeout_s: Seconds for an answer.
        failures: Bad answers in a row that count.
        successes: Good answers in a row that count.
    """

    ask: Ask
    delay_s: float
    period_s: float
    timeout_s: float
    failures: int
    successes: int

    @classmethod
    def of(cls, spec: Thing, address: str, ports: dict[str, int], execute: Callable[[list[str]], Ask]) -> "Probe":
        """Reads a probe.

        Args:
            spec: As the manifest has it.
            address: Of the pod.
            ports: Of the container, by name.
            execute: Makes the question of a command that is run in the container.

        Raises:
            SetupError: It asks in a way that is not known here.
        """
        return cls(
            _ask(spec, address, ports, execute),
            spec.get("initialDelaySeconds", 0),
            spec.get("periodSeconds", 10),
            spec.get("timeoutSeconds", 1),
            spec.get("failureThreshold", 3),
            spec.get("successThreshold", 1),
        )

    async def answer(self) -> bool:
        """Asks once; no answer in time is a bad one."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.ask()
        except (TimeoutError, OSError, grpc.aio.AioRpcError, asyncio.IncompleteReadError, ValueError):
            return False

    async def watch(self, heard: Callable[[bool], None]) -> None:
        """Asks for ever; tells each time when enough answers in a row agree."""
        await asyncio.sleep(self.delay_s)
        is_good, many = False, 0
        while True:
            now = await self.answer()
            is_good, many = now, many + 1 if now == is_good else 1
            if many >= (self.successes if is_good else self.failures):
                heard(is_good)
            await asyncio.sleep(self.period_s)


def _ask(spec: Thing, address: str, ports: dict[str, int], execute: Callable[[list[str]], Ask]) -> Ask:
    if "grpc" in spec:
        return lambda: _grpc(f"{address}:{spec['grpc']['port']}", spec["grpc"].get("service", ""))
    if "httpGet" in spec:
        http = spec["httpGet"]
        return lambda: _http(address, ports.get(http["port"], http["port"]), http)
    if "tcpSocket" in spec:
        port = spec["tcpSocket"]["port"]
        return lambda: _tcp(address, ports.get(port, port))
    if "exec" in spec:
        return execute(spec["exec"]["command"])
    raise SetupError(f"a probe asks by none of grpc, httpGet, tcpSocket and exec: {spec}")


async def _grpc(target: str, service: str) -> bool:
    async with grpc.aio.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        check: Any = health_pb2_grpc.HealthStub(channel).Check
        answer = await check(health_pb2.HealthCheckRequest(service=service))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _tcp(address: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    return True


async def _http(address: str, port: int, spec: Thing) -> bool:
    """Asks by HTTP/1.1; like the kubelet it does not look at certificates."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    is_tls = spec.get("scheme") == "HTTPS"
    reader, writer = await asyncio.open_connection(address, port, ssl=unverified if is_tls else None, limit=MOST_BYTES)
    try:
        head = f"GET {spec.get('path', '/')} HTTP/1.1\r\nhost: {address}:{port}\r\nuser-agent: kube-probe/1.37\r\n"
        writer.write(f"{head}connection: close\r\n\r\n".encode())
        status = await reader.readline()
    finally:
        writer.transport.abort()  # what follows the status is not read
    return int(status.split()[1] if len(status.split()) > 1 else 0) in FINE
