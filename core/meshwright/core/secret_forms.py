"""Forms of secrets: keys, tokens and passwords, found in a text by how they look. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshwright.core.sieve import Sieve
from meshwright.core.text_span import Span


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of secret looks; looked for only where one of its marks stands."""

    kind: str
    marks: Sequence[str]
    source: str


def form(kind: str, marks: str, source: str) -> Form:
    """Writes a form."""
    return Form(kind, marks.split(), rf"(?<![A-Za-z0-9]){source}")


_END = r"(?![A-Za-z0-9])"
FORMS = (
    form("mesh key", "mwk_", r"mwk_[0-9a-f]{12}_[0-9a-f]{16,64}"),
    form("aws key", "AKIA ASIA", rf"A(?:KIA|SIA)[0-9A-Z]{{16}}{_END}"),
    form(
        "github token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255})",
    ),
    form("gitlab token", "glpat-", r"glpat-[\w-]{20,64}"),
    form("slack token", "xox xapp-", r"(?:xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250})"),
    form("slack webhook", "hooks.slack.com", r"https://hooks\.slack\.com/services/[A-Za-z0-9/]{20,90}"),
    form("api key", "sk- pk- rk-", r"(?:sk-(?:ant-|proj-|svcacct-|or-v1-)[\w-]{20,220}|sk-[A-Za-z0-9]{32,64})"),
    form(
        "stripe key", "k_live_ k_test_ whsec_", r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,120}|whsec_[A-Za-z0-9]{24,64})"
    ),
    form("google key", "AIza ya29. GOCSPX-", r"(?:AIza[\w-]{35}|ya29\.[\w-]{30,220}|GOCSPX-[\w-]{20,40})"),
    form("hugging face token", "hf_", rf"hf_[A-Za-z0-9]{{30,40}}{_END}"),
    form("package token", "npm_ pypi-", r"(?:npm_[A-Za-z0-9]{36}|pypi-[\w-]{40,250})"),
    form("sendgrid key", "SG.", r"SG\.[\w-]{16,32}\.[\w-]{16,64}"),
    form("telegram token", ":AA", rf"\d{{8,10}}:AA[\w-]{{33}}{_END}"),
    form("json web token", "eyJ", r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,16000}\.[\w-]{10,4000}"),
    form("azure key", "AccountKey= SharedAccessKey=", r"(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,90}={0,2}"),
    form(
        "private key",
        "-----BEGIN",
        r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s,:\\-]{16,16384}(?:-----END (?:[A-Z]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?",
    ),
)
_HAS_FORM = Sieve(*(re.escape(mark) for one in FORMS for mark in one.marks))
_IN_URL = re.compile(r"://[^\s/:@]{0,64}:([^\s/]{3,256})(?=@[\w.-])")
_BEARER = re.compile(r"(?:[Bb]earer|BEARER|[Bb]asic) ([A-Za-z0-9._~+/-]{12,16000}={0,2})")
_NAMES_ANOTHER = r"(?!(?i:passw(?:or[dt]|d)|pwd|passphrase|secret|key|token)=)"
"""A value ends where the name of another one begins: what follows `failed: ` in `failed: password=...` is none."""
_VALUE = re.compile(
    r"[:=\x1f][>=]?[ \t]{0,4}\\{0,3}[\"'`]?"
    rf"({_NAMES_ANOTHER}[^\s\"'`,;<>(){{}}\[\]:=\\](?:{_NAMES_ANOTHER}[^\s\"'`,;<>(){{}}\[\]\\]|\\(?![\\\"'])){{5,4095}})"
)
_TOLD = re.compile(r" (?:is|was|lautet)(?: now| still)?:? [\"'`]?([^\s\"'`,;<>(){}\[\]]{6,256})")
"""The form of a sentence: the password is ..."""
_BETWEEN = r"(?:\\{0,3}[\"'])?[ \t:]{0,4}(?:\x1f?\x1evalue)?"
"""Between a name and what comes before its value; in laid out JSON the two may be values of one object."""
_NAME = re.compile(
    r"(?i)(?:(?<![a-z])(?:[a-z]{1,20}[_-]){0,3}|(?-i:(?<=[a-z])(?=[A-Z])))(?:password|passwd|passwort|pwd|passphrase|secret|api[_ -]?key|access[_ -]?key|"
    r"auth[_ -]?token|access[_ -]?token|refresh[_ -]?token|client[_ -]?secret|private[_ -]?key|secret[_ -]?key|token)"
    rf"{_BETWEEN}$"
)
_IS_LINKED = Sieve("://")
_IS_BEARER = Sieve("(?:earer|BEARER|asic) ")
_NAME_CHARS = 64
_PASSWORD = re.compile(
    r"(?:(?i:password|passwd|passwort|passphrase)|pwd)(?:\x1f?\x1evalue)?\x1f([^\s\x1e\x1f]{4,4096})(?![^\x1e])"
)
"""A value under such a name, whatever it looks like."""
_ENDS_NAME = r"(?i:passw(?:or[dt]|d)|pwd|passphrase|secret|key|token)" + _BETWEEN
_IS_NAMED = Sieve(_ENDS_NAME + r"[:=\x1f]")
_IS_TOLD = Sieve(_ENDS_NAME + " (?:is|was|lautet)")
_IS_ANY = Sieve.before(_HAS_FORM, _IS_LINKED, _IS_BEARER, _IS_NAMED, _IS_TOLD)
_PLACEHOLDER = re.compile(
    r"(?i)^(?:[x*.•_-]+|.*(?:example|placeholder|changeme|change-me|your[_-]?|redacted|dummy|sample|insert|todo|none|null|undefined|"
    r"required|optional|string|xxxx|\*\*\*|\.\.\.|process\.env|os\.environ|getenv|settings\.|config\.|self\.|vault:|secrets?\.|ref:).*|"
    r"\$\{?\w.*|%\w+%?|true|false|\d{1,5}|https?://.*)$"
)
_LEAST_CLASSES = 2


def may_hold(text: str) -> bool:
    """Whether a secret may be in a text, or in one of those that it was joined of: a quick look."""
    return _IS_ANY.may_pass(text)


def spans(text: str) -> Iterator[Span]:
    """Finds secrets in a text; the time is linear in its length."""
    if not may_hold(text):
        return
    if _HAS_FORM.may_pass(text):
        yield from _formed(text)
    if _IS_LINKED.may_pass(text):
        yield from (Span(*match.span(1), "password") for match in _IN_URL.finditer(text) if _is_secret(match[1]))
    if _IS_BEARER.may_pass(text):
        yield from (Span(*match.span(1), "credential") for match in _BEARER.finditer(text) if _is_random(match[1]))
    if _IS_NAMED.may_pass(text):
        yield from (Span(*match.span(1), "secret") for match in _VALUE.finditer(text) if _is_named(text, match))
        yield from (Span(*match.span(1), "secret") for match in _PASSWORD.finditer(text) if _is_secret(match[1]))
    if _IS_TOLD.may_pass(text):
        yield from (Span(*match.span(1), "secret") for match in _TOLD.finditer(text) if _is_named(text, match))


def _formed(text: str) -> Iterator[Span]:
    for one in FORMS:
        if any(mark in text for mark in one.marks):
            yield from (Span(match.start(), match.end(), one.kind) for match in re.finditer(one.source, text))


def _is_named(text: str, match: re.Match[str]) -> bool:
    """Whether a value looks like a secret and stands behind a word for one."""
    return _is_mixed(match[1].rstrip(".")) and bool(
        _NAME.search(text[max(0, match.start() - _NAME_CHARS) : match.start()])
    )


def _is_secret(value: str) -> bool:
    return not _PLACEHOLDER.match(value) and value.lower() not in ("password", "pass", "secret", "pwd")


def _is_mixed(value: str) -> bool:
    """Whether what follows a name is a secret rather than a word or the name of one."""
    kinds = (str.islower, str.isupper, str.isdigit)
    classes = sum(any(is_kind(char) for char in value) for is_kind in kinds) + (not value.isalnum())
    has_digit = any(char.isdigit() for char in value)
    return _is_secret(value) and classes >= _LEAST_CLASSES and (has_digit or classes > _LEAST_CLASSES)


def _is_random(value: str) -> bool:
    has_both = any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
    return has_both and _is_secret(value)
