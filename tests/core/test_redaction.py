"""Redaction: what this process holds, and what looks like a secret, is in no text that others read."""

import base64
import json
import string
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshwright.core import redaction
from meshwright.core.redaction import LEAST_CHARS, MASK, Held, Mask, redacted, spellings

SECRET = "s3cr3t/of ours+="
VISIBLE = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=LEAST_CHARS, max_size=60)


@pytest.fixture
def held(monkeypatch):
    """What a process holds that holds nothing yet."""
    fresh = Held()
    monkeypatch.setattr(redaction, "HELD", fresh)
    return fresh


class TestHeld:
    @pytest.mark.parametrize(
        "spelled",
        [
            SECRET,
            SECRET.upper(),
            quote(SECRET, safe=""),
            SECRET.encode().hex(),
            SECRET.encode().hex().upper(),
            base64.b64encode(SECRET.encode()).decode(),
            base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        ],
    )
    def test_a_secret_is_masked_however_it_comes_back(self, held, spelled):
        held.add(SECRET)
        assert redacted(f"it said: {spelled}!") == f"it said: {MASK}!"
        assert redacted(f"— {spelled}") == f"— {MASK}"

    @given(secret=VISIBLE, before=st.text(max_size=20), after=st.text(max_size=20))
    @example(secret="." * LEAST_CHARS, before="", after="")
    def test_whatever_is_held_is_in_no_text(self, secret, before, after):
        text = Mask(spellings(secret)).text(before + secret + after)
        assert secret not in text.replace(MASK, "\0")

    def test_what_is_too_short_to_be_kept_out_tears_no_text(self, held):
        held.add("a", "", "1234567")
        assert redacted("a cat has 1234567 lives") == "a cat has 1234567 lives"

    @pytest.mark.parametrize(
        ("url", "password"),
        [
            ("redis://user:correct-horse@host:6379/0", "correct-horse"),
            ("redis://:correct-horse@host:6379/0", "correct-horse"),
            ("unix:///run/store.sock?password=correct-horse&db=0", "correct-horse"),
            ("redis://user:correct%2Fhorse@host:6379/0", "correct/horse"),
            ("redis://user:correct@horse@[host:port", "correct@horse"),
        ],
    )
    def test_the_password_of_an_address_is_kept_out_even_where_the_address_is_no_good(self, held, url, password):
        held.add_url(url)
        assert password not in redacted(f"AUTH {password} was refused")

    def test_an_address_without_a_password_hides_nothing(self, held):
        held.add_url("redis://127.0.0.1:6379/0")
        held.add_url("unix:///run/store.sock")
        assert redacted("127.0.0.1:6379 and /run/store.sock") == "127.0.0.1:6379 and /run/store.sock"


LOOKS = {
    "an API key of a mesh": "mwk_0123456789ab_" + "0f" * 32,
    "a key that was cut": "mwk_0123456789ab_" + "0f" * 10,
    "a key of a provider": "sk-proj-" + "aB3" * 12,
    "a token": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlIG9m",
    "a private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDx7lqkYH5\n-----END PRIVATE KEY-----",
    "a private key in JSON": json.dumps("-----BEGIN EC PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDx7lqkYH5"),
}


@pytest.mark.parametrize("secret", LOOKS.values(), ids=LOOKS)
def test_what_has_the_form_of_a_secret_is_taken_out_wherever_it_is_from(secret):
    text = redacted(f"the peer said: {secret}, and left")
    assert "[redacted" in text
    assert "0f0f" not in text
    assert not any(part in text for part in ("aB3aB3", "eyJzdWIi", "MC4CAQ"))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("dial rediss://mw-agent:hunter2X9@store:6380/0 failed", "hunter2X9"),
        ("authorization: Bearer abc123def456ghi789", "abc123def456ghi789"),
        ("connect failed: password=hunter2X9 host=db", "hunter2X9"),
        ('{"api_key": "abc123DEF456"}', "abc123DEF456"),
    ],
)
def test_credentials_are_found_by_what_stands_before_them(text, secret):
    assert secret not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "internal error 0f3a9c: the server's log says more",
        "the request of task t1 is not as it was written; restore the store, or delete the task or session",
        "the API key 0123456789ab was revoked: ask for another one",
        "no answer within 5 s",
    ],
)
def test_plain_words_stay_as_they_are(text):
    assert redacted(text) == text
