"""Sieves: what they let nobody look at holds nothing that anybody would have found."""

import re
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.guardrails import leakage, normalise, pii
from meshwright.agents.guardrails.normalise import Normal
from meshwright.core import secret_forms
from meshwright.core.sieve import Sieve

AHEAD = {
    normalise: ("_IS_DISGUISED", "_IS_SPACED", "_IS_ENCODED"),
    pii: (
        *("_IS_EMAIL", "_IS_NUMBER", "_IS_CARD", "_IS_IBAN", "_IS_IPV4", "_IS_IPV6", "_IS_ABROAD", "_IS_AT_HOME"),
        *("_IS_NATIONAL_ID", "_IS_ANY"),
    ),
    secret_forms: ("_HAS_FORM", "_IS_NAMED", "_IS_TOLD", "_IS_LINKED", "_IS_BEARER", "_IS_ANY"),
}
"""Sieves that save a closer look; those that decide for themselves are not among them."""
FORMS = [
    *(normalise._SPACED, normalise._BASE64, normalise._HEX, normalise._PERCENT),
    *(pii._EMAIL, pii._NUMBER, pii._CARD, pii._IPV4, pii._IPV6, pii._ABROAD, pii._AT_HOME, pii._LETTERED),
    *(re.compile(one.form) for one in pii.NATIONAL_IDS),
    *(re.compile(one.source) for one in secret_forms.FORMS if one.kind not in ("json web token", "private key")),
    *(secret_forms._TOLD, secret_forms._IN_URL),
]
WORDS = [
    *("Bearer abc123def456ghi", "basic YW5uOmh1bnRlcjI=", "password=hunter2X", "apiKey\x1fabc123X", "x9Y8z7"),
    *("call ", "Tel.: ", "ſms", "téléphone ", "SSN ", "tax id\n", "steuer-idnummer: ", "pesel\x1f", "BSN ", "aadhaar"),  # noqa: RUF001
    *("password", "Passwort lautet ", "api_key = ", "the secret is `", "toKen\x1f", "pwd\t:=", "4111 1111 1111 1111"),
    *("٤١١١ ١١١١ ١١١١ ١١١١", "+٤٩ ٣٠ ٩٠١٨٢٠", "DE89 3704 0044 0532 0130 00", "078-05-1120", "8.8.8.8", "a@b.de"),  # noqa: RUF001
    *("QUtJQVo3UTJNNE44UDFSNVQ5V1g=", "\ud800", "\x1e", "\x1f", "\n", " ", "é", "中"),
]
FORMED = st.one_of(list(map(st.from_regex, FORMS)))
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=8) | FORMED, max_size=6).map("".join)


@pytest.fixture(autouse=True, scope="module")
def _every_form_counts():
    """Leaves checksums and plans out of account, of which chance meets few."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("is_card", "is_iban", "is_phone", "is_public", "_is_valid"):
            patch.setattr(pii, name, lambda *_: True)
        yield


@contextmanager
def open_sieves():
    """Lets everything pass: the plain way."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in AHEAD.items():
            for name in names:
                patch.setattr(getattr(module, name), "may_pass", lambda _: True)
        yield


@given(TEXTS)
def test_what_is_found_is_the_same_without_them(text):
    quick = (Normal(text).text, Normal(text).words, sorted(pii.spans(text)), sorted(secret_forms.spans(text)))
    with open_sieves():
        assert quick == (
            Normal(text).text,
            Normal(text).words,
            sorted(pii.spans(text)),
            sorted(secret_forms.spans(text)),
        )


@given(FORMED, st.text(max_size=8))
def test_a_form_by_itself_is_the_same_without_them(form, before):
    for word in ("", "password: ", "tel ", "ssn nhs sin steuer-id bsn pesel pnr cpf aadhaar tfn ", "FI21 1234 5600 00"):
        text = f"{before} {word}{form}"
        quick = (sorted(pii.spans(text)), sorted(secret_forms.spans(text)))
        with open_sieves():
            assert quick == (sorted(pii.spans(text)), sorted(secret_forms.spans(text)))


INSTRUCTIONS = [f"word{number} " for number in range(20)]


@given(st.lists(st.sampled_from([*INSTRUCTIONS, "x", ". "]) | st.just("".join(INSTRUCTIONS[2:12])), max_size=30))
def test_instructions_are_found_whether_or_not_their_words_are_held_against_the_texts_first(pieces):
    text = Normal("".join(pieces))
    for window in leakage.windows_of("".join(INSTRUCTIONS)):
        assert window.inner <= text.words or window.text not in " ".join(text.tokens)


def test_half_a_surrogate_pair_passes():
    assert Sieve("never").may_pass("a\ud800")
    assert not Sieve("never").may_pass("a")
