"""Claims: whatever a token holds, it names a caller or is refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core.credential import Credential
from meshwright.core.errors import TokenExpiredError, TokenInvalidError, UnavailableError
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gateway.claims import LATEST_S, WRONG, Claims, Holder, end_of
from meshwright.gen.agents.v1.identity_pb2 import Identity

CLAIMS = Claims("tenant", "")
TIMED = {"exp": 101.0}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=70) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=80,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["sub", "tenant", "scope", "scp", "aud", "exp"]), JSON))
def test_a_payload_names_a_caller_or_is_refused(payload):
    try:
        holder = CLAIMS.holder({"payload": TIMED | payload})
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
    found = CLAIMS.holder({"payload": TIMED | {"sub": "ann", "tenant": "acme"} | claims})
    assert found == Holder("acme", "ann", frozenset(scopes), Credential(ends=161_000))


def test_a_default_tenant_stands_in_where_the_claim_is_missing_and_nowhere_else():
    lenient = Claims("org", "everyone")
    for claims in ({}, {"tenant": "acme"}):
        assert lenient.holder({"payload": TIMED | {"sub": "ann"} | claims}).tenant == "everyone"
    assert lenient.holder({"payload": TIMED | {"sub": "ann", "org": "acme"}}).tenant == "acme"
    for odd in ("", 7.0, None, ["acme", "other"], " acme"):
        with pytest.raises(TokenInvalidError):
            lenient.holder({"payload": TIMED | {"sub": "ann", "org": odd}})


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


@pytest.mark.parametrize(("exp", "ends"), [(1_000, 1_060_000), (1_000.5, 1_060_000), (-5, 60_000), (1e300, None)])
def test_the_end_of_a_token_is_that_of_the_edge(exp, ends):
    end = end_of({"exp": exp})
    assert end == (ends or (LATEST_S + CLOCKS_S) * 1000)
    Identity().credential_end_time.FromMilliseconds(end)


@pytest.mark.parametrize("exp", [None, "soon", True, [], float("nan")])
def test_a_token_whose_end_is_no_time_is_refused(exp):
    with pytest.raises(TokenInvalidError):
        CLAIMS.holder({"payload": {"tenant": "acme", "sub": "ann", "exp": exp}})
