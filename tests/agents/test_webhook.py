"""Webhooks as a host declares them: what the file may hold, what is refused, and how things are signed."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.webhook import load, signed
from meshwright.core.errors import SetupError
from tests.agents.webhook_world import KEY, NEXT_KEY, NEXT_SECRET, SECRET

GOOD = """
webhooks:
  - name: crm
    url: https://crm.example/hooks
    secrets: [{env: HOOK_SECRET}]
"""


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """Loads a declaration for the agent `support`."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    (tmp_path / "next").write_text(NEXT_SECRET + "\n")

    def read(text, agent_id="support"):
        file = tmp_path / "webhooks.yaml"
        file.write_text(text)
        return load(file, agent_id)

    return read


def test_an_endpoint_is_told_everything_unless_declared_otherwise(declared):
    (endpoint,) = declared(GOOD)
    assert (endpoint.name, endpoint.url, list(endpoint.keys)) == ("crm", "https://crm.example/hooks", [KEY])
    assert list(endpoint.hook.events) == ["input_requested", "task_ended"]
    assert str(endpoint.hook).endswith(" input_requested,task_ended *")
    assert not endpoint.has_texts
    assert KEY.decode() not in repr(endpoint)


def test_two_secrets_are_held_while_they_are_exchanged(declared):
    (endpoint,) = declared(GOOD.replace("[{env: HOOK_SECRET}]", "[{file: next}, {env: HOOK_SECRET}]"))
    assert list(endpoint.keys) == [NEXT_KEY, KEY]


def test_only_the_agents_that_are_named_tell_it_anything(declared):
    text = GOOD + "    agents: [support, sales]\n"
    assert len(declared(text)) == 1
    assert declared(text, "research") == []


def test_another_url_is_another_endpoint(declared):
    (one,), (other,) = declared(GOOD), declared(GOOD.replace("/hooks", "/other"))
    assert one.hook.queue != other.hook.queue
    assert one.hook.queue == declared(GOOD)[0].hook.queue


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("webhooks:", "hooks:"), "webhooks"),
        (("name: crm", "name: CRM"), "name"),
        (("https://crm.example/hooks", "http://crm.example/hooks"), "https only"),
        (("https://crm.example/hooks", "ftp://crm.example/hooks"), "URL"),
        (("https://crm.example/hooks", "https://user:pass@crm.example/"), "URL"),
        (("HOOK_SECRET", "NO_SUCH"), "NO_SUCH"),
        (("{env: HOOK_SECRET}", "{file: nowhere}"), "nowhere"),
        (("{env: HOOK_SECRET}", "{}"), "either env or file"),
        (("[{env: HOOK_SECRET}]", "[]"), "secrets"),
        (("[{env: HOOK_SECRET}]", "[{file: a}, {file: b}, {file: c}]"), "secrets"),
        (("secrets", "keys"), "secrets: is required"),
        (("name: crm", "name: crm\n    events: [started]"), "events"),
        (("name: crm", "name: crm\n    agents: [No]"), "agents"),
        (("name: crm", "name: crm\n    allow: [nowhere]"), "allow"),
        (("name: crm", "name: crm\n    timeout_s: 16"), "timeout_s"),
        (("name: crm", "name: crm\n    ca_file: nowhere.pem"), "ca_file"),
        (("webhooks:", "webhooks: *x\nx: &x"), "line"),
        (("webhooks:", "webhooks: [\n#"), ""),
    ],
)
def test_a_mistake_is_told_in_one_line(declared, change, told):
    with pytest.raises(SetupError) as error:
        declared(GOOD.replace(*change))
    assert "webhooks.yaml" in error.value.message
    assert told in error.value.message
    assert "\n" not in error.value.message


def test_a_name_stands_once(declared):
    with pytest.raises(SetupError, match="crm stands twice"):
        declared(GOOD + GOOD.replace("webhooks:\n", ""))


@pytest.mark.parametrize(
    "secret", ["k" * 32, "whsec_", "whsec_!!!!!!!!!!!!", "whsec_" + "QUFB" * 7, "whsec_" + "QUFB" * 22]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(declared, monkeypatch, secret):
    monkeypatch.setenv("HOOK_SECRET", secret)
    with pytest.raises(SetupError) as error:
        declared(GOOD)
    assert secret == "whsec_" or secret not in error.value.message


def test_the_file_has_to_be_there(tmp_path):
    with pytest.raises(SetupError, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml", "support")


def test_the_signature_is_that_of_the_standard_s_own_example():
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


@given(st.binary(min_size=24, max_size=64), st.binary(min_size=24, max_size=64), st.binary(max_size=500))
def test_each_key_signs(one, other, body):
    first, second = signed([one, other], "msg_1", 1, body)["webhook-signature"].split(" ")
    for key, signature in ((one, first), (other, second)):
        good = hmac.new(key, b"msg_1.1." + body, hashlib.sha256).digest()
        assert signature == "v1," + base64.b64encode(good).decode()
