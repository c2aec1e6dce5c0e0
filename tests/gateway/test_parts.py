"""What `/ready` tells of the parts of a mesh: counts, and no names."""

from hypothesis import given
from hypothesis import strategies as st

from meshwright.gateway.parts import parts_of
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HEALTH_STATUS_DEGRADED,
    HEALTH_STATUS_NOT_SERVING,
    HEALTH_STATUS_SERVING,
    DependencyHealth,
    HealthResponse,
)

WELL, AWAY = HEALTH_STATUS_SERVING, HEALTH_STATUS_NOT_SERVING
SECRET = "scripted:/srv/secret/replies.yaml"


def health(model=WELL, store=WELL, name=SECRET):
    return HealthResponse(
        agent_id="payroll",
        dependencies=[
            DependencyHealth(name="store", status=store, detail="the store at redis://10.0.0.1 cannot be used"),
            DependencyHealth(name="registry", status=WELL),
            DependencyHealth(name=f"model {name}", status=model, detail=f"{name} failed too often"),
        ],
    )


def test_a_mesh_that_is_well_is_ok_in_all_its_parts():
    assert parts_of([health(), health()]) == dict.fromkeys(("agents", "store", "registry", "model"), "ok")


def test_what_is_away_is_counted():
    told = parts_of([health(AWAY), health(HEALTH_STATUS_DEGRADED), health(), None, health(store=AWAY)])
    assert told["agents"].startswith("1 of 5 do not answer")
    assert told["model"].startswith("2 of 4 are left alone")
    assert told["store"].startswith("1 of 4 agents find it away")
    assert told["registry"] == "ok"


@given(
    st.lists(
        st.none() | st.builds(health, st.sampled_from([WELL, AWAY]), st.sampled_from([WELL, AWAY]), st.just(SECRET))
    )
)
def test_nothing_is_named(healths):
    said = str(parts_of(healths))
    for inside in ("payroll", "secret", "10.0.0.1", "too often"):
        assert inside not in said
