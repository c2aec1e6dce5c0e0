"""Text as rules compare it: the tricks that hide words from a pattern are undone, within bounds. Pure."""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from urllib.parse import unquote

from meshwright.core.sieve import Sieve

MAX_LAYERS = 2
"""How often what was decoded is decoded again."""
MAX_DECODED = 1_024
"""Pieces that are decoded, of one text."""
MAX_PIECE = 2**20
"""Characters of one piece."""

_ALIKE = "аеорсухіјѕһԁԛԝвкмнтгьαοερτυικνχωμβηӏɑɡıł∣ⅼøđ"  # noqa: RUF001 - that is the point
_CONFUSABLE = str.maketrans(_ALIKE, "aeopcyxijshdqwbkmhtrbaoeptuiknxwubnlagilllod")
"""Cyrillic, Greek and other letters that look like Latin ones, and that NFKD leaves as they are."""
_IS_ALIKE = re.compile(f"[{_ALIKE}]")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
"""Unicode's tag characters show nothing and spell ASCII."""
_TAG_BASE = 0xE0000
_QUOTES = str.maketrans("‘’‚‛“”„«»´", "''''\"\"\"\"\"'")  # noqa: RUF001 - what it folds
_IS_SPECIAL = re.compile("[‘’‚‛“”„«»´\U000e0020-\U000e007e]")  # noqa: RUF001 - the same
UNSEEN = re.compile(
    "[\u00ad\u0300-\u036f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e01ef]+"
)
"""Accents, variation selectors, what joins or turns letters, what has no width, half surrogate pairs."""
_BLANK = re.compile("[\u2800\u3164\uffa0]")
"""What looks like a blank, and is a letter or a sign to Unicode."""
_LEET = str.maketrans("01345678@$!|", "oieasbtbasil")
_PUNCTUATION = str.maketrans(dict.fromkeys("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x1e\x1f", " "))
_EMPHASIS = str.maketrans("", "", "*`~")
_TAG = re.compile(r"</?[a-z][a-z0-9]{0,15}(?:\s[^<>]{0,200})?/?>")
_SPACED = re.compile(r"\b(?:[^\W\d_][ ._*-]){4,64}[^\W\d_]\b")
_IS_SPACED = Sieve("(?:[^0-9 ._*-][ ._*-]){4}[^0-9 ._*-]")
_IS_LEET = Sieve("[013457@$!|][a-z]")
_LEET_WORD = re.compile(r"[a-z0134578@$!|]{3,24}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_HEX = re.compile(r"[2-7][0-9a-fA-F](?:(?:[ ,]|\\x|\\u00|,? ?0x)?[2-7][0-9a-fA-F]){11,}")
"""ASCII letters, digits and blanks, and nothing else."""
_IS_TURNED_ROUND = Sieve("snoitcurtsni", "tpmorp metsys", "erongi", "dragersid")
_IS_ROTATED = Sieve("vafgehpgvba", "flfgrz cebzcg", "vtaber nyy", "qvfertneq")
_BETWEEN_HEX = re.compile(r"[ ,]|\\x|\\u00|0x")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}(?:[\w.+-]{0,40}%[0-9a-fA-F]{2}){2,}[\w.+-]{0,40}")
_IS_DISGUISED = Sieve.before(_IS_SPACED, _IS_LEET, _IS_TURNED_ROUND, _IS_ROTATED)
_LEAST_READABLE = 0.85
_READABLE = " \n.,:;'\"-@/+=_"
_ASCII = re.compile(rb"[\t\n\x20-\x7e]{16,}")
"""As much of it in a row is no chance."""
_IS_ENCODED = Sieve(
    "[A-Za-z0-9+/_-]{20}",
    "[2-7][0-9a-fA-F](?:[ ,]?[2-7][0-9a-fA-F]){11}",
    r"\\x[2-7]",
    r"\\u00[2-7]",
    "0x[2-7]",
    "%[0-9a-fA-F]{2}",
)


class Normal:
    """A text in several readings: as it is, folded to plain small letters, and what was hidden in it.

    Args:
        text: Of any length; the time is linear in it.

    Attributes:
        text: All readings, folded, one after the other on lines of their own.
    """

    def __init__(self, text: str) -> None:
        self._pieces = folded(text).split()
        self._hidden = list(hidden_in(text, plain := " ".join(self._pieces)))
        self.text = "\n".join([plain, *self._hidden])

    @cached_property
    def tokens(self) -> list[str]:
        """The words of all readings, in their order."""
        return _tokens(self.text)

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of all readings."""
        return frozenset(_tokens(" ".join([*set(self._pieces), *self._hidden])))  # many stand there more than once


def hidden_in(text: str, plain: str) -> Iterator[str]:
    """Returns further readings of a text.

    Args:
        text: As it was given.
        plain: The same, folded.
    """
    yield from (" ".join(folded(piece).split()) for piece in decoded(text))
    if not _IS_DISGUISED.may_pass(plain):
        return
    if _IS_SPACED.may_pass(plain):
        yield from changed(plain, _SPACED.sub(_joined, plain))
    if _IS_LEET.may_pass(plain):
        yield from changed(plain, _LEET_WORD.sub(_unleeted, plain))
    if _IS_TURNED_ROUND.may_pass(plain):
        yield plain[::-1]
    if _IS_ROTATED.may_pass(plain):
        yield codecs.decode(plain, "rot13")


def _tokens(text: str) -> list[str]:
    return text.translate(_PUNCTUATION).split()


def changed(before: str, after: str) -> list[str]:
    """Returns a reading that differs from the one before."""
    return [after] if after != before else []


def folded(text: str) -> str:
    """Returns a text in small plain letters: no accents, no look-alikes, nothing invisible, no markup."""
    if not text.isascii():
        text = visible(text)
    if "&" in text:
        text = html.unescape(html.unescape(text))
        text = text if text.isascii() else visible(text)
    text = text.lower()
    if "<" in text:
        text = _TAG.sub("", text.replace("<!--", " ").replace("-->", " "))
    if "*" in text or "`" in text or "~" in text:
        text = text.translate(_EMPHASIS)
    return text.replace(" _", " ").replace("_ ", " ") if "_" in text else text


def visible(text: str) -> str:
    """Returns what a reader sees of a text, in ASCII letters where they look the same."""
    if _IS_SPECIAL.search(text):
        text = _TAGS.sub(_untagged, text).translate(_QUOTES)
    text = _BLANK.sub(" ", text)
    text = UNSEEN.sub("", unicodedata.normalize("NFKD", text)).lower()
    return text.translate(_CONFUSABLE) if _IS_ALIKE.search(text) else text


def decoded(text: str) -> list[str]:
    """Returns what stands in a text as base64, hexadecimal or percent signs, if it is readable text.

    Args:
        text: Where to look; what was found is looked at once more.
    """
    found: list[str] = []
    layer = [text]
    for _ in range(MAX_LAYERS):
        layer = [piece for one in layer for _, _, piece in encoded(one)][: MAX_DECODED - len(found)]
        found += layer
        if not layer or len(found) >= MAX_DECODED:
            break
    return found


def encoded(text: str) -> Iterator[tuple[int, int, str]]:
    """Returns where something readable stands in a text as base64, hexadecimal or percent signs, and what it is."""
    if _IS_ENCODED.may_pass(text):
        yield from islice(_encoded(text), MAX_DECODED)


def _encoded(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _BASE64.finditer(text):
        if piece := _readable(_from_base64(match[0][:MAX_PIECE])):
            yield *match.span(), piece
    for match in _HEX.finditer(text):
        digits = _BETWEEN_HEX.sub("", match[0][: 4 * MAX_PIECE])
        if piece := _readable(bytes.fromhex(digits[: len(digits) // 2 * 2])):
            yield *match.span(), piece
    if "%" in text:
        for match in _PERCENT.finditer(text):
            yield *match.span(), unquote(match[0][:MAX_PIECE], errors="ignore")


def _from_base64(piece: str) -> bytes:
    plain = piece.rstrip("=").replace("-", "+").replace("_", "/")
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return b""


def _readable(data: bytes) -> str:
    """Returns bytes as text, what is readable among others too; empty: nothing is."""
    data = data.replace(b"\0", b"")  # half of UTF-16
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    shown = sum(char.isalnum() or char in _READABLE for char in text)
    if text and shown >= _LEAST_READABLE * len(text):
        return text
    return " ".join(match[0].decode() for match in _ASCII.finditer(data))


def _untagged(match: re.Match[str]) -> str:
    return f" {''.join(chr(ord(char) - _TAG_BASE) for char in match[0])} "


def _joined(match: re.Match[str]) -> str:
    marks = set(match[0]) & set("._*-")
    words = match[0].split(" ") if marks else [match[0]]  # a blank among other marks is one between words
    return " ".join("".join(char for char in word if char.isalpha()) for word in words)


def _unleeted(match: re.Match[str]) -> str:
    return match[0] if match[0].isalpha() or match[0].isdigit() else match[0].translate(_LEET)
