"""Personal data: found by form, held against checksums, taken out."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from meshwright.agents.guardrails.expressions import compiled, windows
from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.agents.guardrails.look import look
from meshwright.core.sieve import Sieve
from meshwright.core.text_span import Span, said, without

Kind = Literal["e-mail", "phone", "card", "iban", "national id", "ip"]
KINDS: tuple[Kind, ...] = ("e-mail", "phone", "card", "iban", "national id", "ip")
CONTEXT = 48
"""Characters before a number in which a word says what it is."""

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+'-]{1,64}(?: ?@ ?| ?\[at\] ?| ?\(at\) ?|%40|&#64;|&#x40;|\\u0040)"
    r"(?:[\w-]{1,63}(?:\.| ?\[dot\] ?| ?\(dot\) ?)){1,8}(?:xn--[a-zA-Z0-9-]{2,59}|[a-zA-Z]{2,24})(?![^\W_]|@)"
)
_IS_EMAIL = Sieve(r"@|at\]|at\)|%40|&#64;|&#x40;|\\u0040")
_NUMBER = re.compile(r"\d(?:[ ./()_-]{0,3}\d){6,}")
_ASCII_NUMBER = re.compile(r"[0-9](?:[ ./()_-]{0,3}[0-9]){6,}")
"""The same, twice as quick, where there are no other digits."""
_IS_NUMBER = Sieve(r"\p{Nd}(?:[ ./()_-]{0,3}\p{Nd}){6}")
_CARD = re.compile(r"[2-6](?<![\w.-].)(?<!\d[ -].)(?:[ -]?\d){11,18}(?![\d-]|\.\d)")
_CARD_APART = re.compile(
    r"[2-6](?<![\w.-].)\d{3}(?P<mark>[ ./_-]{1,3})(?:\d{4}(?P=mark)\d{4}(?P=mark)\d{1,4}|\d{6}(?P=mark)\d{4,5})(?![\d-]|\.\d)"
)
"""The same in groups with other marks in between, the same ones everywhere: numbers of a list have commas."""
_IS_CARD = Sieve(r"[2-6](?:[ ./_-]{0,3}\p{Nd}){11}")
_IBAN = re.compile(
    r"\d(?<=[A-Za-z]{2}\d)(?<![A-Za-z0-9][A-Za-z]{2}\d)\d(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
"""From its third character on: digits are rarer than letters."""
_IS_IBAN = Sieve(r"[A-Za-z]{2}\p{Nd}{2}(?:[ -]?[A-Za-z0-9]{4}){2}")
_IPV4 = re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IS_IPV4 = Sieve(r"\p{Nd}(?:\.\p{Nd}{1,3}){3}")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:|:){2,7}(?:[0-9a-fA-F]{1,4})?(?![\w:])")
_IS_IPV6 = Sieve(":[0-9a-fA-F]{0,4}:")
_NO_ADDRESS = re.compile(r"(?i)\b(?:version|release|build|section|chapter|oid|v)[ :]*$")
_ABROAD = re.compile(r"[+0](?<![\w+].)(?:(?<=\+)|0)[1-9](?:[ ./()-]{0,3}\d){6,14}(?!\d)")
_AT_HOME = re.compile(r"[(\d](?<![\w.+#-].)\d{1,5}\)?(?:[ ./-]{0,2}\d){4,10}(?![\w]|[.-]\d)")
_IS_ABROAD = Sieve(r"(?:\+0?|00)[1-9](?:[ ./()-]{0,3}\p{Nd}){6}")
_PHONE_WORDS = (
    "(?i:tel|telephone|telefon|t[eé]l[eé]phone|phone|mobile|mobil|cell|cellphone|fax|call|ring|handy|whatsapp|sms|text|dial|"
    "hotline|callback|reach|contact|ph|m[oó]vil|portable)s?"
)
_PHONE_WORD = re.compile(rf"\b{_PHONE_WORDS}\b[^\d\n]{{0,24}}$")
_IS_AT_HOME = Sieve(_PHONE_WORDS + r"[^0-9\n]{0,24}[(\p{Nd}]")
_LETTERED = re.compile(r"\d{2}(?:\d{2}[A-Z]|[A-Z]\d{2})")
Windows = Sequence[tuple[int, int]]
"""Parts of a text in which numbers stand."""
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "BR", "AU")
"""Whose spellings of numbers without a country are tried."""


@dataclass(frozen=True, slots=True)
class NationalId:
    """A number that a state gives a person.

    Attributes:
        form: How it is written.
        checker: Module of python-stdnum that knows its checksum or ranges.
        word: What stands before it; empty: its form alone says enough.
        hint: What a text holds in which it stands.
    """

    form: str
    checker: str
    word: str
    hint: str


def national_id(form: str, checker: str, word: str = "") -> NationalId:
    """Writes one."""
    named = rf"(?i)\b(?:{word})\b[^\d\n]{{0,24}}$" if word else ""
    plain = form.replace(r"\d", r"[^\x00-/:-\x7f]")  # digits, and all that is no ASCII: other digits are among it
    hint = rf"(?i:{word})[^\n]{{0,{CONTEXT}}}{plain}" if word else plain
    return NationalId(rf"(?<![\w.-]){form}(?![\w]|[.-]\d)", checker, named, hint)


ISSUERS: tuple[tuple[str, str, Sequence[int]], ...] = (
    ("4", "4", (13, 16, 19)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("30", "30", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14,)),
    ("35", "35", range(16, 20)),
    ("60", "60", range(16, 20)),
    ("62", "62", range(16, 20)),
    ("64", "65", range(16, 20)),
    ("50", "50", range(12, 20)),
    ("56", "58", range(12, 20)),
    ("63", "63", range(12, 20)),
    ("67", "67", range(12, 20)),
)
"""Beginnings of card numbers, from the first to the last, and how many digits they may have (ISO/IEC 7812)."""
NATIONAL_IDS = (
    national_id(r"\d{3}-\d{2}-\d{4}", "stdnum.us.ssn"),
    national_id(r"\d{9}", "stdnum.us.ssn", "ssn|social security(?: number| no)?"),
    national_id(r"\d{3}[ -]?\d{3}[ -]?\d{4}", "stdnum.gb.nhs", "nhs(?: number| no)?"),
    national_id(r"\d{3}[ -]?\d{3}[ -]?\d{3}", "stdnum.ca.sin", "sin|social insurance(?: number)?"),
    national_id(
        r"\d{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{3}", "stdnum.de.idnr", "steuer-?id\\w*|idnr|steueridentifikationsnummer|tax id"
    ),
    national_id(r"[12][ ]?\d{2}[ ]?(?:0[1-9]|1[0-2])[ ]?(?:\d{2}|2[AB])[ ]?\d{3}[ ]?\d{3}[ ]?\d{2}", "stdnum.fr.nir"),
    national_id(r"\d{8}-?[A-HJ-NP-TV-Z]", "stdnum.es.dni"),
    national_id(r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", "stdnum.es.nie"),
    national_id(r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", "stdnum.it.codicefiscale"),
    national_id(r"\d{9}", "stdnum.nl.bsn", "bsn|burgerservicenummer|sofinummer"),
    national_id(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "stdnum.be.nn"),
    national_id(r"\d{11}", "stdnum.pl.pesel", "pesel"),
    national_id(r"\d{6}(?:\d{2})?[-+]\d{4}", "stdnum.se.personnummer", "personnummer|personal number|pnr"),
    national_id(r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]", "stdnum.fi.hetu"),
    national_id(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "stdnum.br.cpf"),
    national_id(r"\d{11}", "stdnum.br.cpf", "cpf"),
    national_id(r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", "stdnum.in_.aadhaar", "aadhaar|aadhar|uidai"),
    national_id(r"[A-Z]{3}[PCFHATBLJG][A-Z]\d{4}[A-Z]", "stdnum.in_.pan"),
    national_id(r"756\.\d{4}\.\d{4}\.\d{2}", "stdnum.ch.ssn"),
    national_id(r"\d{3}[ ]?\d{3}[ ]?\d{3}", "stdnum.au.tfn", "tfn|tax file(?: number)?"),
)
"""A checksum of one digit lets every tenth number pass: bare digits count only beside a word that names them."""
_IS_NATIONAL_ID = Sieve(*(one.hint for one in NATIONAL_IDS))


_IS_ANY = Sieve.before(_IS_EMAIL, _IS_IPV6, Sieve(r"\p{Nd}"))


@dataclass(frozen=True)
class Pii:
    """Takes personal data out, or stops at it.

    Names and addresses have no form: this rule does not find them, the Presidio adapter does.

    Attributes:
        kinds: What is looked for.
        action: What follows.
        points: Where it stands.
        name: In the journal.
    """

    kinds: Sequence[Kind] = KINDS
    action: Action = "redact"
    points: Sequence[Point] = ("tool_result", "output")
    name: str = "pii"

    def check(self, subject: Subject) -> Verdict:
        """Looks for personal data."""
        pieces = look(subject.text, lambda text: spans(text, self.kinds))
        if not pieces:
            return ALLOW
        return Verdict(self.action, said(pieces), without(subject.text, pieces) if self.action == "redact" else "")


def spans(text: str, kinds: Sequence[Kind] = KINDS) -> list[Span]:
    """Finds personal data in a text; the time is linear in its length."""
    if not _IS_ANY.may_pass(text):
        return []
    number = _ASCII_NUMBER if text.isascii() else _NUMBER
    places = number.finditer(text) if _IS_NUMBER.may_pass(text) else ()
    numbers = list(windows((match.span() for match in places), CONTEXT))
    return [span for kind in kinds for span in FINDERS[kind](text, numbers)]


def found(form: re.Pattern[str], text: str, places: Windows) -> Iterator[re.Match[str]]:
    """Finds a form in parts of a text."""
    for begin, end in places:
        yield from form.finditer(text, begin, end)


def _emails(text: str, _: Windows) -> Iterator[Span]:
    if _IS_EMAIL.may_pass(text):
        for match in _EMAIL.finditer(text):
            yield Span(match.start(), match.end(), "e-mail")


def _cards(text: str, numbers: Windows) -> Iterator[Span]:
    if not _IS_CARD.may_pass(text):
        return
    for form in (_CARD, _CARD_APART):
        for match in found(form, text, numbers):
            if is_card(digits_of(match[0])):
                yield Span(match.start(), match.end(), "card")


def is_card(digits: str) -> bool:
    """Whether digits are a payment card's: an issuer's beginning, its length, Luhn's checksum."""
    lengths = next((lengths for first, last, lengths in ISSUERS if first <= digits[: len(first)] <= last), ())
    return len(digits) in lengths and len(set(digits)) > 1 and is_luhn(digits)


def is_luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's (ISO/IEC 7812-1)."""
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])) % 10 == 0


def _ibans(text: str, numbers: Windows) -> Iterator[Span]:
    for match in found(_IBAN, text, numbers if _IS_IBAN.may_pass(text) else ()):
        start = match.start() - 2
        written = text[start : match.end()]
        for end in word_ends(written):
            if is_iban(written[:end].replace(" ", "").replace("-", "").upper()):
                yield Span(start, start + end, "iban")
                break


def word_ends(written: str) -> list[int]:
    """Returns where something may end that words of four letters may follow: the furthest first."""
    return [len(written), *(at for at in reversed(range(len(written))) if written[at] in " -")]


def is_iban(plain: str) -> bool:
    """Whether letters and digits are an IBAN: its country's length, and 1 modulo 97 (ISO 13616)."""
    from stdnum import iban

    return bool(iban.is_valid(plain))


def _national_ids(text: str, numbers: Windows) -> Iterator[Span]:
    if not _IS_NATIONAL_ID.may_pass(text):
        return
    lettered = windows((match.span() for match in _LETTERED.finditer(text)), CONTEXT)
    both = list(windows(sorted([*numbers, *lettered]), 0))
    for one in NATIONAL_IDS:
        for match in found(compiled(one.form), text, both):
            before = text[max(0, match.start() - CONTEXT) : match.start()]
            if (not one.word or compiled(one.word).search(before)) and _is_valid(one.checker, match[0]):
                yield Span(match.start(), match.end(), "national id")


def _is_valid(checker: str, number: str) -> bool:
    import importlib

    return bool(importlib.import_module(checker).is_valid(number))


def _addresses(text: str, _: Windows) -> Iterator[Span]:
    for form in (form for form, sieve in ((_IPV4, _IS_IPV4), (_IPV6, _IS_IPV6)) if sieve.may_pass(text)):
        for match in form.finditer(text):
            if is_public(match[0]) and not _NO_ADDRESS.search(text, max(0, match.start() - CONTEXT), match.start()):
                yield Span(match.start(), match.end(), "ip")


def is_public(address: str) -> bool:
    """Whether an IP address is one that leads to somebody."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast


def _phones(text: str, numbers: Windows) -> Iterator[Span]:
    for match in found(_ABROAD, text, numbers if _IS_ABROAD.may_pass(text) else ()):
        number = "+" + match[0][2:] if match[0].startswith("00") else match[0]
        if is_phone(number, ()):
            yield Span(match.start(), match.end(), "phone")
    for match in found(_AT_HOME, text, numbers if _IS_AT_HOME.may_pass(text) else ()):
        if _PHONE_WORD.search(text, max(0, match.start() - CONTEXT), match.start()) and is_phone(match[0], _REGIONS):
            yield Span(match.start(), match.end(), "phone")


def is_phone(number: str, regions: Sequence[str]) -> bool:
    """Whether a number can be dialled: with its country, or in one of some regions."""
    import phonenumbers

    for region in regions or (None,):
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def digits_of(text: str) -> str:
    """Returns the digits of a text."""
    return "".join(char for char in text if char.isdigit())


FINDERS: dict[Kind, Callable[[str, Windows], Iterator[Span]]] = {
    "e-mail": _emails,
    "phone": _phones,
    "card": _cards,
    "iban": _ibans,
    "national id": _national_ids,
    "ip": _addresses,
}
