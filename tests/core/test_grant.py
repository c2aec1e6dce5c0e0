"""Grants: signed, short-lived, bound to their issuer, never wider than its list."""

import time

import pytest

from meshwright.core import signed_token
from meshwright.core.errors import GrantInvalidError, KeyNotFoundError, PermissionDeniedError, UnavailableError
from meshwright.core.grant import MAX_AGE_S, Signer, Verifier, check_tool, is_call
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.agents.v1.grant_pb2 import Grant, SignedGrant


class Keys:
    """Announced keys, and how often they were asked for."""

    def __init__(self, *issuers: tuple[Signer, str], tools: tuple[str, ...] = ("add@1.0.0", "docs.search@^1")) -> None:
        self.lookups = 0
        self.keys = {one.key_id: IssuerKey(one.public_key, agent, frozenset(tools)) for one, agent in issuers}

    async def __call__(self, key_id: str) -> IssuerKey:
        self.lookups += 1
        if key_id not in self.keys:
            raise KeyNotFoundError(f"no instance {key_id} is here")
        return self.keys[key_id]


def granted(**changes) -> Grant:
    fields = {"tenant": "t", "principal": "p", "agent_id": "adder", "task_id": "task", "tools": ["add@1.0.0"]}
    return Grant(**(fields | changes))


@pytest.fixture
def signer():
    return Signer("adder-1")


async def test_a_signed_grant_is_read_as_it_was_made(signer):
    grant = granted(root_task_id="root", depth=2, fence=7)
    read = await Verifier(Keys((signer, "adder"))).verify(signer.sign(grant))
    assert read.expire_time.seconds == pytest.approx(time.time() + MAX_AGE_S, abs=2)
    read.ClearField("expire_time")
    assert read == grant


def test_signing_leaves_the_callers_grant_as_it_is(signer):
    grant = granted()
    grant.expire_time.FromSeconds(int(time.time()) + 10 * MAX_AGE_S)
    before = grant.SerializeToString()
    signer.sign(grant)
    assert grant.SerializeToString() == before


async def test_a_wish_for_a_shorter_life_is_kept_and_a_longer_one_is_cut(signer):
    verifier = Verifier(Keys((signer, "adder")))
    now = int(time.time())
    short, long = granted(), granted()
    short.expire_time.FromSeconds(now + 20)
    long.expire_time.FromSeconds(now + 20 * MAX_AGE_S)
    assert (await verifier.verify(signer.sign(short))).expire_time.seconds == now + 20
    assert (await verifier.verify(signer.sign(long))).expire_time.seconds <= now + MAX_AGE_S + 1


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: SignedGrant(grant=granted(tenant="other").SerializeToString(), signature=token.signature),
        lambda token: SignedGrant(grant=token.grant, signature=b""),
        lambda token: SignedGrant(grant=token.grant, signature=bytes(64)),
        lambda token: SignedGrant(grant=token.grant + b"\x0a\x01x", signature=token.signature),
    ],
    ids=["changed", "unsigned", "zeros", "appended"],
)
async def test_a_forged_grant_is_refused(signer, forge):
    forged = forge(SignedGrant.FromString(signer.sign(granted())))
    forged.key_id = signer.key_id
    with pytest.raises(GrantInvalidError, match="not signed"):
        await Verifier(Keys((signer, "adder"))).verify(forged.SerializeToString())


@pytest.mark.parametrize("token", [b"\xff\xff", b"\x0a\x02\xff\xff", b"\x1a\x01\xff"])
async def test_what_is_no_grant_is_refused(signer, token):
    with pytest.raises(GrantInvalidError):
        await Verifier(Keys((signer, "adder"))).verify(token)


async def test_a_key_that_nobody_announced_is_refused(signer):
    with pytest.raises(GrantInvalidError):
        await Verifier(Keys()).verify(signer.sign(granted()))


async def test_another_instances_key_does_not_fit(signer):
    stranger = Signer(signer.key_id)
    with pytest.raises(GrantInvalidError):
        await Verifier(Keys((signer, "adder"))).verify(stranger.sign(granted()))


async def test_a_broken_announced_key_fits_nothing(signer):
    keys = Keys((signer, "adder"))
    keys.keys[signer.key_id] = IssuerKey(b"short", "adder", frozenset())
    with pytest.raises(GrantInvalidError):
        await Verifier(keys).verify(signer.sign(granted()))


async def test_an_agent_cannot_sign_for_another_agent(signer):
    with pytest.raises(GrantInvalidError, match="adder signed a grant for banker"):
        await Verifier(Keys((signer, "adder"))).verify(signer.sign(granted(agent_id="banker")))


async def test_an_agent_that_is_called_as_the_registry_signs_nothing(signer):
    with pytest.raises(GrantInvalidError, match="signed a grant for registry"):
        await Verifier(Keys((signer, "registry"))).verify(signer.sign(granted(agent_id="registry")))


def test_a_grant_of_a_call_from_outside_is_the_registrys_and_of_no_task():
    assert is_call(granted(agent_id="registry"))
    assert not is_call(granted(agent_id="registry", root_task_id="t"))
    assert not is_call(granted())


async def test_an_agent_cannot_grant_tools_beyond_its_own_list(signer):
    with pytest.raises(GrantInvalidError, match=r"bank\.pay"):
        await Verifier(Keys((signer, "adder"))).verify(signer.sign(granted(tools=["add@1.0.0", "bank.pay@1.0.0"])))


async def test_a_task_keeps_its_pin_when_its_agent_moves_on_to_another_version(signer):
    grant = granted(tools=["add@0.9.0", "docs.search@2.0.0"])
    assert (await Verifier(Keys((signer, "adder"))).verify(signer.sign(grant))).tools == grant.tools


async def test_the_registry_signs_for_callers_without_an_agent():
    registry = Signer("registry-1")
    grant = granted(agent_id="registry", tools=["any.tool@1.0.0"])
    assert (await Verifier(Keys((registry, ""), tools=())).verify(registry.sign(grant))).agent_id == "registry"


async def test_an_expired_grant_is_refused_also_when_it_was_good_before(signer, monkeypatch):
    verifier = Verifier(Keys((signer, "adder")))
    token = signer.sign(granted())
    await verifier.verify(token)
    now = time.time()
    monkeypatch.setattr(signed_token.time, "time", lambda: now + MAX_AGE_S + 1)
    with pytest.raises(GrantInvalidError, match="expired"):
        await verifier.verify(token)


async def test_a_grant_that_lives_too_long_is_refused_though_it_is_signed(signer, monkeypatch):
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(signed_token.time, "time", lambda: now + 3600)
        token = signer.sign(granted())
    with pytest.raises(GrantInvalidError, match="expired"):
        await Verifier(Keys((signer, "adder"))).verify(token)


async def test_a_grant_is_looked_up_once_and_what_is_remembered_is_bounded(signer, monkeypatch):
    monkeypatch.setattr(signed_token, "KEPT_TOKENS", 3)
    keys = Keys((signer, "adder"))
    verifier = Verifier(keys)
    tokens = [signer.sign(granted(task_id=f"t-{number}")) for number in range(5)]
    for token in [tokens[0], tokens[0], *tokens]:
        await verifier.verify(token)
    assert keys.lookups == 5
    assert len(verifier._checked) == 3
    await verifier.verify(tokens[0])
    assert keys.lookups == 6


async def test_a_directory_that_is_away_is_not_the_callers_fault(signer):
    async def away(_key_id):
        raise UnavailableError("the registry does not answer")

    with pytest.raises(UnavailableError):
        await Verifier(away).verify(signer.sign(granted()))


def test_a_tool_is_denied_unless_the_grant_names_its_very_version():
    check_tool(granted(), "add@1.0.0")
    for pin in ("add@1.0.1", "add", "sub@1.0.0", ""):
        with pytest.raises(PermissionDeniedError):
            check_tool(granted(), pin)
    with pytest.raises(PermissionDeniedError):
        check_tool(granted(tools=[]), "add@1.0.0")
