"""An address as it may be shown."""

from urllib.parse import urlsplit


def public_url(url: str) -> str:
    """Returns what may be shown of a URL: neither user nor password, query nor fragment."""
    try:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "an address that cannot be read"
    if "@" in parts.path:  # a password with a slash ends before its host
        return "an address that cannot be read"
    return f"{parts.scheme}://{place}{parts.path if place or parts.scheme == 'unix' else ''}"
