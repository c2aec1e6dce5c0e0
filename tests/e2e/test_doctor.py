"""`meshwright doctor --production URL` at real meshes: one that lacks nothing, and one for one machine."""

import asyncio
import json
import re
import time

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app
from meshwright.core.announced_keys import KEPT_S, EdgeKeys
from meshwright.core.api_key import ApiKeys
from meshwright.core.grant import Signer
from meshwright.core.store import MESH, Store, partition_key
from tests.e2e.checked import Checked, items

UNSEEN = {f"observability: {name}" for name in ("targets", "alert rules", "alerts")} | {"environment: settings"}
"""What this mesh has not: a Prometheus, and an environment of its own."""


@pytest.fixture(scope="module")
async def checked(tmp_path_factory):
    mesh = Checked(tmp_path_factory.mktemp("mesh"))
    try:
        await mesh.start()
        yield mesh
    finally:
        await mesh.stop()


async def looked(mesh, *arguments, **settings):
    """Runs the command in a thread of its own: gateways of the mesh run in this one."""
    return await asyncio.to_thread(mesh.doctor, mesh.url, *arguments, **settings)


async def test_a_mesh_as_production_wants_it_lacks_nothing(checked):
    began = time.monotonic()
    done = await looked(checked, "--agent", "clerk", "-o", "json", otlp_endpoint="http://127.0.0.1:4317")
    found = items(done)
    assert {name for name, one in found.items() if one["state"] != "ok"} == UNSEEN, done.output
    assert (done.exit_code, time.monotonic() - began < 40) == (0, True)
    assert "SERVING" in found["contract: agents"]["seen"]
    assert found["contract: edges"]["seen"] == "2 edges running"
    assert found["durability: cost"]["seen"].endswith("are listed for its session")
    assert found["guardrails: prompts"]["seen"] == "1 agent open to callers, each with 7 guardrails or more"
    assert found["cost: budget"]["seen"] == "a tenant's day costs at most US$ 5.00"
    assert found["cost: prices"]["seen"] == "1 model, none without a price"


async def test_the_list_fits_a_terminal_and_ends_with_sums(checked):
    done = await looked(checked)
    *rows, sums = done.stdout.splitlines()
    assert all(len(row.rstrip()) <= 120 for row in rows), done.stdout
    assert rows[0].split()[:3] == ["STATE", "ITEM", "WHAT"]
    assert [row.split()[0] for row in rows[1:4]] == ["ok", "ok", "ok"]
    assert sums.startswith("32 ok, 0 missing, 9 not seen"), done.stdout
    assert checked.key not in done.output


async def test_without_its_store_and_its_key_less_is_seen_and_nothing_is_missing(checked):
    found = items(await looked(checked, "-o", "json", api_key="", store_admin_url=""))
    assert not [name for name, one in found.items() if one["state"] == "missing"]
    assert {"contract: edges", "durability: audit", "contract: agents", "limits: rates"} <= {
        name for name, one in found.items() if one["state"] == "not seen"
    }


async def test_a_key_of_few_scopes_sees_less(checked):
    found = items(await looked(checked, "-o", "json", api_key=await checked.key_of("tasks:read")))
    unseen = found["contract: agents"]
    assert (unseen["state"], "agents:read" in unseen["seen"]) == ("not seen", True)
    assert found["limits: bodies"]["state"] == "ok"


async def test_a_key_that_nobody_knows_is_told(checked):
    done = await looked(checked, "-o", "json", api_key="mwk_0011223344556677_unknown")
    assert (done.exit_code, items(done)["identity: this key"]["state"]) == (1, "missing")


async def test_the_environment_of_a_process_is_looked_at_too(checked):
    found = items(await looked(checked, "-o", "json", store_url=checked.store_url))
    about = {name for name, one in found.items() if one["group"] == "environment" and one["state"] == "missing"}
    assert {"environment: identity", "environment: services"} <= about


async def test_an_edge_that_is_alone_is_told_and_one_that_is_gone_does_not_count(checked):
    store = Store(checked.store_url)
    await store.open()
    keys = EdgeKeys(store)
    try:
        assert len(await keys.alive()) == 2
        await keys.announce(Signer(f"{EdgeKeys.prefix}third"))
        assert len(await keys.alive()) == 3
        await store.client.expire(partition_key(MESH, "edge", f"{EdgeKeys.prefix}third"), KEPT_S - 20)
        assert f"{EdgeKeys.prefix}third" not in await keys.alive()
    finally:
        await store.close()


async def test_a_store_without_edges_and_audit_lacks_both(checked, valkey, store):
    found = items(await looked(checked, "-o", "json", store_admin_url=valkey.url))
    assert (found["contract: edges"]["state"], found["contract: edges"]["seen"]) == ("missing", "0 edges running")
    assert found["durability: audit"]["state"] == "missing"


async def test_keys_that_never_end_or_open_everything_are_told(checked, valkey, store):
    keys = ApiKeys(store)
    await keys.create("ended", ["*"], tenant="acme", life_s=1)
    _, revoked = await keys.create("revoked", ["*"], tenant="acme")
    await keys.revoke(revoked.key_id)
    await keys.create("good", ["tasks:read"], tenant="acme", life_s=86_400)
    while len(await keys.valid()) > 1:
        await asyncio.sleep(0.05)
    found = items(await looked(checked, "-o", "json", store_admin_url=valkey.url))["identity: API keys"]
    assert (found["state"], found["seen"]) == ("ok", "1 key: each ends, none opens everything")
    await keys.create("endless", ["tasks:read"], tenant="acme")
    await keys.create("wide", ["*"], tenant="acme", life_s=86_400)
    found = items(await looked(checked, "-o", "json", store_admin_url=valkey.url))["identity: API keys"]
    assert found["state"] == "missing"
    assert re.fullmatch(r"wide \(\w+\) opens everything, endless \(\w+\) never ends", found["seen"])


async def test_an_audit_that_was_changed_is_told(checked, valkey, store):
    await EdgeKeys(store).announce(Signer(f"{EdgeKeys.prefix}one"))
    await checked.key_of("tasks:read", store=store)
    (lines,) = await store.client.keys("*:audit:acme:lines")
    await store.client.rpush(lines, "anything")
    found = items(await looked(checked, "-o", "json", store_admin_url=valkey.url))
    assert found["durability: audit"]["state"] == "missing"
    assert "acme: " in found["durability: audit"]["seen"]
    assert found["contract: edges"]["seen"] == "1 edge running"


def test_a_mesh_of_one_machine_lacks_what_strangers_must_meet(dev, monkeypatch):
    done = CliRunner().invoke(app, ["doctor", f"http://127.0.0.1:{dev.port}", "--production", "-o", "json"])
    lacks = {name for name, one in items(done).items() if one["state"] == "missing"}
    assert done.exit_code == 1
    assert lacks >= {"transport: certificate", "identity: no key", "contract: agents' instances", "cost: budget"}
    assert not lacks & {"contract: interface", "contract: agents", "tools: contracts", "guardrails: prompts"}


@pytest.mark.parametrize(
    "arguments", [("https://x",), ("--agent", "clerk"), ("--production", "--prometheus", "http://x")]
)
def test_a_running_mesh_is_named_by_its_url_for_production(arguments):
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert (done.exit_code, "--production URL" in done.output) == (2, True), done.output


def test_the_environment_alone_is_told_as_data_too(monkeypatch, valkey):
    monkeypatch.setenv("MESHWRIGHT_STORE_URL", valkey.url)
    done = CliRunner().invoke(app, ["doctor", "--production", "-o", "jsonl"])
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert {"group": "environment", "item": "identity", "state": "missing"}.items() <= told[0].items()
