"""Pages of a list: how long one is, and where the next one begins. Pure."""

import base64
import binascii
import re

from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import TOOL_NAME, VERSION

MAX_PAGE = 200
DEFAULT_PAGE = 50
MAX_TOKEN = 256
POSITION = re.compile(r"(?P<name>\S{1,64}) (?P<version>\S{0,64})")


def page_size(wanted: int) -> int:
    """Returns the page size that a request means.

    Raises:
        InvalidRequestError: It is out of range.
    """
    if not 0 <= wanted <= MAX_PAGE:
        raise InvalidRequestError("page_size out of range", fields={"page_size": f"1..{MAX_PAGE}; 0: {DEFAULT_PAGE}"})
    return wanted or DEFAULT_PAGE


def page_token(name: str, version: str = "") -> str:
    """Returns the cursor behind a tool, or behind one of its versions; what is registered later does not move it."""
    return base64.urlsafe_b64encode(f"{name} {version}".encode()).decode()


def position(token: str) -> tuple[str, str]:
    """Returns the tool and the version that a cursor stands behind; empty: the beginning, or behind all versions.

    Raises:
        InvalidRequestError: It is no cursor.
    """
    if not token:
        return "", ""
    try:
        text = (
            base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode() if len(token) <= MAX_TOKEN else ""
        )
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    match = POSITION.fullmatch(text)
    if not match or not TOOL_NAME.fullmatch(match["name"]) or not VERSION.fullmatch(match["version"] or "0.0.0"):
        hint = "next_page_token of the page before; empty: the first page"
        raise InvalidRequestError("page_token is no cursor of this list", fields={"page_token": hint})
    return match["name"], match["version"]
