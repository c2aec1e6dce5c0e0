"""Whether the process beside this one takes new calls, as an exit code: `python -m meshwright.core.healthy [liveness]`.

It is started again and again, so it imports next to nothing: with `core.settings` and grpc it would take ten times as
long. It asks the port for probes one question, in HTTP/2 as it goes over the wire.
"""

import os
import socket
import struct
import sys
import time

WITHIN_S = 3.0
MOST_BYTES = 16_384
"""Of an answer; a health check's is some 200."""
PATH = b"/grpc.health.v1.Health/Check"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
HEAD = 9
"""Bytes in front of each frame: length (3), kind, flags, stream (4)."""
SERVING = bytes([0, 0, 0, 0, 2, 0x08, 1])
"""A message of gRPC, uncompressed, of two bytes: the field `status` is SERVING."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Spells a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def question(service: str) -> bytes:
    """Spells a whole call of `Check`: the headers are written out, so that no table is needed (RFC 7541, 6.2.2)."""
    name = service.encode()
    headers = b"\x83\x86"  # :method POST, :scheme http
    headers += b"\x04" + bytes([len(PATH)]) + PATH
    headers += b"\x01\x06health"  # :authority
    headers += b"\x0f\x10\x10application/grpc"  # content-type
    headers += b"\x00\x02te\x08trailers"
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    message = b"\0" + struct.pack(">I", len(request)) + request
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers)
        + frame(DATA, END_STREAM, 1, message)
    )


def answer(sock: socket.socket, ends: float) -> bytes:
    """Reads the data of the first stream to its end; empty: there was none.

    Raises:
        OSError: The connection ends before, takes too long, or says too much.
    """
    read, data = b"", b""
    taken = 0
    while True:
        while len(read) < HEAD or len(read) < HEAD + int.from_bytes(read[:3], "big"):
            sock.settimeout(max(0.001, ends - time.monotonic()))
            more = sock.recv(4_096)
            taken += len(more)
            if not more or taken > MOST_BYTES or time.monotonic() > ends:
                raise ConnectionError("no answer of a health check")
            read += more
        length, kind, flags = int.from_bytes(read[:3], "big"), read[3], read[4]
        payload, read = read[HEAD : HEAD + length], read[HEAD + length :]
        if kind == DATA:
            data += payload
        if kind in {RST_STREAM, GOAWAY} or (kind in {DATA, HEADERS} and flags & END_STREAM):
            return data


def serves(host: str, port: int, service: str = "") -> bool:
    """Asks the port for probes whether a process takes new calls, or, as `liveness`, whether it still turns.

    Raises:
        OSError: Nobody answers there as a health check does, within three seconds.
    """
    ends = time.monotonic() + WITHIN_S
    with socket.create_connection((host, port), timeout=WITHIN_S) as sock:
        sock.sendall(question(service))
        return answer(sock, ends) == SERVING


def place() -> tuple[str, int]:
    """Reads where probes are answered, by the names and defaults of `core.settings`; an address that means all is here.

    Raises:
        ValueError: No port is set.
    """
    host = os.environ.get("MESHWRIGHT_HEALTH_HOST") or os.environ.get("MESHWRIGHT_HOST") or "127.0.0.1"
    port = os.environ.get("MESHWRIGHT_HEALTH_PORT", "")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"MESHWRIGHT_HEALTH_PORT={port!r}: set it to the port that tells probes of health, such as 7099"
        )
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - nothing is bound


def main(arguments: list[str]) -> int:
    """Answers by the exit code; what keeps it from 0 is one line on stderr."""
    if arguments not in ([], ["liveness"]):
        sys.stderr.write("usage: python -m meshwright.core.healthy [liveness]\n")
        return 1
    try:
        host, port = place()
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    try:
        is_serving = serves(host, port, *arguments)
    except OSError as error:
        sys.stderr.write(f"error: nobody answers for health at {host}:{port}: {error.strerror or error}\n")
        return 1
    if not is_serving:
        sys.stderr.write(f"error: {host}:{port} takes no new calls\n")
    return 0 if is_serving else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
