"""Redaction: what this process holds as a secret, or what looks like one, is taken out of text that others read."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from meshwright.core.secret_forms import may_hold, spans
from meshwright.core.text_span import without

MASK = "[secret]"
LEAST_CHARS = 8
"""A shorter secret could not be kept out of texts without tearing them."""

PASSWORD = re.compile(r"://[^:]*:(.+)@|[?&]password=([^&]+)")
"""In the address of a store."""


def spellings(secret: str) -> set[str]:
    """Returns how a secret may come back: as it is, percent-encoded, in Base64 and in hexadecimal digits."""
    raw = secret.encode()
    forms = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {secret, quote(secret, safe=""), raw.hex(), *forms, *(form.rstrip("=") for form in forms)}


class Mask:
    """Covers known secrets in texts, in upper case and in lower case.

    Args:
        spelled: The `spellings` of each.
    """

    def __init__(self, spelled: Iterable[str] = ()) -> None:
        found = sorted(set(spelled), key=len, reverse=True)
        self._folded = [one.lower() for one in found]
        self._pattern = re.compile("|".join(map(re.escape, found)), re.IGNORECASE) if found else None

    def __bool__(self) -> bool:
        """Whether there is anything to cover."""
        return self._pattern is not None

    def text(self, text: str) -> str:
        """Returns a text with a mask in place of every secret."""
        return self._pattern.sub(MASK, text) if self._pattern and self.may_cover(text) else text

    def may_cover(self, text: str) -> bool:
        """Whether a secret may be in a text: a quick look, which most texts pass."""
        if not text.isascii():
            return bool(self)
        folded = text.lower()
        return any(one in folded for one in self._folded)


class Held:
    """The secrets that this process holds, all of them from its settings and the files that those name."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._mask = Mask()

    def add(self, *secrets: str) -> None:
        """Keeps secrets out of all that is redacted from now on; shorter ones than `LEAST_CHARS` cannot be kept out."""
        new = {one for one in secrets if len(one) >= LEAST_CHARS} - self._secrets
        if new:
            self._secrets |= new
            self._mask = Mask(one for secret in self._secrets for one in spellings(secret))

    def add_url(self, url: str) -> None:
        """Keeps the password of an address out, as it stands there and as it is meant; the address may be no good."""
        for found in PASSWORD.findall(url):
            self.add(*found, *map(unquote, found))

    def text(self, text: str) -> str:
        """Returns a text with a mask in place of every secret."""
        return self._mask.text(text)

    def may_be_in(self, text: str) -> bool:
        """Whether a secret may be in a text: a quick look."""
        return self._mask.may_cover(text)


HELD = Held()
"""One a process: who reads a secret adds it, and whoever writes for others looks for all."""


def may_hold_secrets(texts: Iterable[str]) -> bool:
    """Whether `redacted` may change one of some texts: one quick look at all of them."""
    joined = "\n".join(texts)
    return HELD.may_be_in(joined) or may_hold(joined)


def redacted(text: str) -> str:
    """Returns a text without secrets: those that this process holds, and whatever has the form of one.

    The time is linear in its length.
    """
    masked = HELD.text(text)
    found = list(spans(masked))
    return without(masked, found) if found else masked
