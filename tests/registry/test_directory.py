"""Rules of the directory: announcements and the cards that are made of them."""

import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.core.errors import InvalidRequestError
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, AnnounceAgentRequest, Endpoint
from meshwright.registry.directory import cards, checked_announcement, stored_announcement


def announcement(agent: dict | None = None, endpoint: dict | None = None, **changes) -> AnnounceAgentRequest:
    card = AgentCard(**({"agent_id": "adder", "version": "1.0.0"} | (agent or {})))
    place = Endpoint(
        **({"instance_id": "adder-1", "target": "127.0.0.1:7", "public_key": bytes(32)} | (endpoint or {}))
    )
    return AnnounceAgentRequest(agent=card, endpoint=place, **changes)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("agent.agent_id", announcement({"agent_id": "Adder"})),
        ("agent.agent_id", announcement({"agent_id": ""})),
        ("agent.agent_id", announcement({"agent_id": "registry"})),
        ("agent.agent_id", announcement({"agent_id": "outside"})),
        ("agent.version", announcement({"version": ""})),
        ("agent.version", announcement({"version": "1"})),
        ("endpoint.target", announcement(endpoint={"target": ""})),
        ("endpoint.target", announcement(endpoint={"target": "host"})),
        ("endpoint.target", announcement(endpoint={"target": "a host:1"})),
        ("endpoint.instance_id", announcement(endpoint={"instance_id": ""})),
        ("endpoint.instance_id", announcement(endpoint={"instance_id": "x" * 129})),
        ("endpoint.public_key", announcement(endpoint={"public_key": b"short"})),
        ("lease", announcement(lease=Duration(nanos=999_000_000))),
        ("lease", announcement(lease=Duration(seconds=121))),
        ("lease", announcement(lease=Duration(seconds=-5))),
    ],
)
def test_a_bad_announcement_is_refused_with_its_field(field, request_):
    with pytest.raises(InvalidRequestError) as caught:
        checked_announcement(request_)
    assert list(caught.value.fields) == [field]


def test_a_lease_is_what_was_asked_for_or_fifteen_seconds():
    assert checked_announcement(announcement()) == 15_000
    assert checked_announcement(announcement(lease=Duration(seconds=2, nanos=500_000_000))) == 2_500


def test_an_agent_without_a_key_may_be_announced():
    assert checked_announcement(announcement(endpoint={"public_key": b""}))


def test_a_renewal_is_stored_alike_whatever_lease_it_asks_for():
    renewed = announcement(lease=Duration(seconds=99))
    renewed.endpoint.lease_expire_time.GetCurrentTime()
    renewed.agent.endpoints.add(instance_id="made up")
    assert stored_announcement(renewed) == stored_announcement(announcement())
    assert stored_announcement(announcement({"skills": ["sums"]})) != stored_announcement(announcement())


def card_of(*announcements: AnnounceAgentRequest) -> AgentCard:
    known = {one.endpoint.instance_id: (stored_announcement(one), 1_000) for one in announcements}
    return cards(known)["adder"]


def test_a_card_has_the_endpoints_of_all_instances_and_no_keys():
    card = card_of(announcement(), announcement(endpoint={"instance_id": "adder-2", "target": "127.0.0.1:8"}))
    assert [endpoint.target for endpoint in card.endpoints] == ["127.0.0.1:7", "127.0.0.1:8"]
    assert all(endpoint.public_key == b"" for endpoint in card.endpoints)
    assert card.endpoints[0].lease_expire_time.seconds == 1


@pytest.mark.parametrize("versions", [("1.9.0", "1.10.0"), ("1.10.0", "1.9.0"), ("1.10.0-rc.1", "1.10.0")])
def test_the_newest_versions_words_count(versions):
    card = card_of(
        *(
            announcement({"version": version, "description": version}, {"instance_id": f"adder-{number}"})
            for number, version in enumerate(versions)
        )
    )
    assert (card.version, card.description) == ("1.10.0", "1.10.0")
    assert len(card.endpoints) == 2


def test_agents_are_kept_apart():
    other = announcement({"agent_id": "other"}, {"instance_id": "other-1"})
    known = {"a": (stored_announcement(announcement()), 0), "b": (stored_announcement(other), 0)}
    found = cards(known)
    assert sorted(found) == ["adder", "other"]
    assert not found["adder"].endpoints[0].HasField("lease_expire_time")
