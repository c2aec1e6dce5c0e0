"""Claims: whatever a token holds, it names a caller or is refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core.errors import TokenExpiredError, TokenInvalidError, UnavailableError
from meshwright.gateway.claims import WRONG, Claims, Holder

CLAIMS = Claims("tenant", "")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=70) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=80,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["sub", "tenant", "scope", "scp", "aud"]), JSON))
def test_a_payload_names_a_caller_or_is_refused(payload):
    try:
        holder = CLAIMS.holder({"payload": payload})
    except TokenInvalidError:
        return
    assert (holder.tenant, holder.principal) == (payload["tenant"], payload["sub"])
    assert len(holder.scopes) <= 64
    assert all(scope.isascii() and " " not in scope for scope in holder.scopes)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b  c"}, {"a", "b", "c"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": ["a"], "scp": ["b"]}, {"a"}),
        ({"scope": None}, set()),
        ({"scope": {"a": True}}, set()),
        ({"scope": 7.0}, set()),
    ],
)
def test_scopes_come_as_words_or_as_a_list(claims, scopes):
    found = CLAIMS.holder({"payload": {"sub": "ann", "tenant": "acme"} | claims})
    assert found == Holder("acme", "ann", frozenset(scopes))


def test_a_default_tenant_stands_in_where_the_claim_is_missing_and_nowhere_else():
    lenient = Claims("org", "everyone")
    for claims in ({}, {"tenant": "acme"}):
        assert lenient.holder({"payload": {"sub": "ann"} | claims}).tenant == "everyone"
    assert lenient.holder({"payload": {"sub": "ann", "org": "acme"}}).tenant == "acme"
    for odd in ("", 7.0, None, ["acme", "other"], " acme"):
        with pytest.raises(TokenInvalidError):
            lenient.holder({"payload": {"sub": "ann", "org": odd}})


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({}, TokenInvalidError),
        ({"failure": {"code": 16.0, "message": "Jwt is expired"}}, TokenExpiredError),
        ({"failure": {"message": "Jwt verification fails"}}, TokenInvalidError),
        ({"failure": {"message": "Jwks remote fetch is failed"}}, UnavailableError),
        ({"failure": "odd"}, TokenInvalidError),
        ({"payload": "odd"}, TokenInvalidError),
    ],
)
def test_why_envoy_took_no_token_is_told_in_our_words(found, kind):
    with pytest.raises(kind) as caught:
        CLAIMS.holder(found)
    assert "Jw" not in caught.value.message


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_with_a_token_is_told(said):
    with pytest.raises(TokenInvalidError, match=re.escape(WRONG[said])):
        CLAIMS.holder({"failure": {"message": said}})
