"""Names of services become addresses where hosts stand, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.manifests import Manifests
from k8s.rehearsal.secrets import Secrets
from k8s.rehearsal.volumes import Volumes
from meshwright.core.errors import SetupError

OWN = "127.9.9.9"
WORDS = st.text("abcdefghijklmnopqrstuvwxyz.-/@:_ 0123456789", max_size=40)


@pytest.fixture(scope="module")
def known():
    addresses = Addresses()
    for name in ("registry", "store", "trader"):
        addresses.of(name)
    addresses.alias("mesh.example.org", "registry")
    return addresses


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("registry:7070", "{registry}:7070"),
        ("rediss://mw-agent:x@store:6379/0?ssl_ca_certs=/store/ca.pem", "rediss://mw-agent:x@{store}:6379/0?ssl_ca_certs=/store/ca.pem"),
        ("mesh.example.org", "{registry}"),
        ("localhost mesh.example.org", "localhost {registry}"),
        ("0.0.0.0", OWN),
        ("trader", "trader"),
        ("old-registry:7070", "old-registry:7070"),
        ("registry.other:7070", "registry.other:7070"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("k8s.rehearsal.agents:trader", "k8s.rehearsal.agents:trader"),
        ("/usr/bin/store", "/usr/bin/store"),
    ],
)  # fmt: skip
def test_hosts_are_resolved(known, text, resolved):
    assert known.resolved(text, OWN) == resolved.format(registry=known.of("registry"), store=known.of("store"))


@given(WORDS)
def test_a_text_without_names_stays_as_it_is(text):
    addresses = Addresses()
    addresses.of("name-of-nobody")
    assert addresses.resolved(text, OWN) == text or "0.0.0.0" in text


def test_nobody_has_the_address_of_another_and_a_name_keeps_its_own():
    addresses = Addresses()
    given_out = [addresses.new(), addresses.of("one"), addresses.new(), addresses.of("two")]
    assert len(set(given_out)) == 4
    assert addresses.of("one") == given_out[1]


def test_more_pods_than_addresses_are_refused():
    addresses = Addresses()
    assert len({addresses.new() for _ in range(250)}) == 250
    with pytest.raises(SetupError, match="rehearse fewer rounds"):
        addresses.new()


def volumes(folder, *volumes, **objects):
    manifests = Manifests(
        [{"kind": "ConfigMap", "metadata": {"name": name}, "data": data} for name, data in objects.items()]
    )
    return Volumes(
        folder / "pod",
        {"volumes": list(volumes)},
        {"data": folder / "kept"},
        manifests,
        Secrets(folder, manifests, Addresses()),
    )


def mounts(**paths):
    return {"volumeMounts": [{"name": name, "mountPath": path} for name, path in paths.items()]}


def test_mount_paths_become_folders(tmp_path):
    made = volumes(tmp_path, {"name": "own", "emptyDir": {}}, {"name": "other", "emptyDir": {}})
    written = made.paths(mounts(own="/own", other="/own-files", data="/data"))
    own, other = tmp_path / "pod/own", tmp_path / "pod/other"
    assert written("/own") == str(own)
    assert written("/own/file") == f"{own}/file"
    assert written("url?ca=/own/ca.pem&x=/own-files") == f"url?ca={own}/ca.pem&x={other}"
    assert written("/usr/own /ownership /data") == f"/usr/own /ownership {tmp_path}/kept"
    assert own.is_dir()


def test_a_secret_is_there_as_the_manifest_says(tmp_path):
    source = {"secretName": "content-keys", "defaultMode": 0o440, "items": [{"key": "content.keys", "path": "keys"}]}
    volumes(tmp_path, {"name": "keys", "secret": source})
    file = tmp_path / "pod/keys/keys"
    assert file.read_bytes().startswith(b"k1 ")
    assert file.stat().st_mode & 0o777 == 0o440


def test_a_config_map_is_there_whole(tmp_path):
    volumes(tmp_path, {"name": "limits", "configMap": {"name": "limits"}}, limits={"a.yaml": "a: 1"})
    assert (tmp_path / "pod/limits/a.yaml").read_text() == "a: 1"


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"secret": {"secretName": "content-keys", "items": [{"key": "other", "path": "x"}]}}, "other"),
        ({"secret": {"secretName": "nobodys"}}, "nobodys"),
        ({"configMap": {"name": "nobodys"}}, "nobodys"),
        ({"hostPath": {"path": "/"}}, "hostPath"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, volume, words):
    with pytest.raises(SetupError, match=words):
        volumes(tmp_path, {"name": "one", **volume})
