"""Where a server is, as a URL names it."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from meshwright.core.errors import SetupError
from meshwright.core.public_url import public_url


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is.

    Attributes:
        host: A name or an address, without brackets.
        port: TCP port.
        is_tls: Whether it is spoken to by TLS.
        prefix: Path that all requests begin with; empty: none.
    """

    host: str
    port: int
    is_tls: bool
    prefix: str = ""

    @property
    def authority(self) -> str:
        """What the header `host` says."""
        return self._bracketed if self.port == (443 if self.is_tls else 80) else self.address

    @property
    def address(self) -> str:
        """Returns `host:port`, as gRPC dials it."""
        return f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @classmethod
    def of(cls, url: str) -> Self:
        """Reads a URL.

        Raises:
            SetupError: It is none of `http://` or `https://`, or holds what does not belong into it.
        """
        if (found := cls._read(url)) is None:
            raise SetupError(f"{shown(url)!r} is no URL of a server: write https://HOST:PORT, without user and query")
        return found

    @classmethod
    def of_edge(cls, url: str) -> Self:
        """Reads the URL of an edge, which has no path: calls of gRPC cannot have one in front.

        Raises:
            SetupError: It is none.
        """
        found = cls._read(url)
        if found is None or found.prefix:
            forms = "http://HOST:PORT or https://HOST:PORT, without a path"
            raise SetupError(f"{shown(url)!r} is no URL of an edge: write {forms}")
        return found

    @classmethod
    def _read(cls, url: str) -> Self | None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        is_tls = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not host or "@" in url:
            return None
        if parts.query or parts.fragment or not url.isprintable() or not url.isascii() or " " in url:
            return None
        return cls(host, port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))


def shown(url: str) -> str:
    """Returns what may be shown of an address that cannot be used: a password may stand in it, or a token."""
    return public_url(url) if set(url) & set("@?#") else url
