"""The codec: what it wrote comes back, and nothing else does: not what was changed, not what was moved."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.codec import ID_BYTES, MARK, NONCE_BYTES, OVERHEAD, Codec, ContentKeys, SealPlace
from meshwright.core.errors import ContentKeyMissingError, DataLossError, SetupError
from meshwright.gen.agents.v1.step_event_pb2 import LlmCall, StepEvent

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLACE = SealPlace("acme", "slot:seal:acme/ann/t1")
CODEC = Codec(ContentKeys({"old": OLD}))
SEAL = CODEC.fresh(PLACE)


def line(key_id, key=OLD):
    return f"{key_id} {base64.b64encode(key).decode()}\n"


@given(content=st.binary(max_size=4_096), kind=st.text(max_size=50))
def test_what_was_written_comes_back(content, kind):
    sealed = SEAL.encrypt(kind, content)
    assert SEAL.decrypt(kind, sealed) == content
    assert CODEC.open(PLACE, SEAL.wrapped).decrypt(kind, sealed) == content
    assert len(sealed) == len(content) + OVERHEAD
    assert sealed != SEAL.encrypt(kind, content)


@given(content=st.binary(max_size=100), at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_byte_that_was_changed_anywhere_is_told(content, at, flip):
    sealed = bytearray(SEAL.encrypt("event", content))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises(DataLossError):
        SEAL.decrypt("event", bytes(sealed))


@pytest.mark.parametrize(
    "at",
    [0, 1, len(MARK), len(MARK) + ID_BYTES, len(MARK) + ID_BYTES + NONCE_BYTES, -1],
    ids=["mark", "version", "key id", "nonce", "content", "tag"],
)
@pytest.mark.parametrize("is_mixed", [False, True])
def test_a_byte_of_each_part_counts_also_where_older_content_is_read(at, is_mixed):
    seal = CODEC.fresh(PLACE, is_mixed=is_mixed)
    sealed = bytearray(seal.encrypt("event", b"content"))
    sealed[at] ^= 1
    with pytest.raises(DataLossError):
        seal.decrypt("event", bytes(sealed))


@given(cut=st.integers(0, OVERHEAD + 6))
def test_what_was_cut_short_is_told(cut):
    sealed = SEAL.encrypt("event", b"content")
    with pytest.raises(DataLossError):
        SEAL.decrypt("event", sealed[:cut])


@given(at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_data_key_that_was_changed_anywhere_is_told(at, flip):
    wrapped = bytearray(SEAL.wrapped)
    wrapped[at % len(wrapped)] ^= flip
    with pytest.raises((DataLossError, ContentKeyMissingError)):
        CODEC.open(PLACE, bytes(wrapped))


@pytest.mark.parametrize(
    "other", [SealPlace("other", PLACE.key), SealPlace("acme", "slot:seal:acme/ann/t2")], ids=["tenant", "place"]
)
def test_nothing_can_be_moved_to_another_place(other):
    with pytest.raises(DataLossError):
        CODEC.open(other, SEAL.wrapped)
    with pytest.raises(DataLossError, match="gone"):
        CODEC.fresh(other).decrypt("event", SEAL.encrypt("event", b"content"))


def test_nothing_can_be_read_as_something_else():
    with pytest.raises(DataLossError):
        SEAL.decrypt("request/t1", SEAL.encrypt("event/t1", b"content"))


def test_content_from_before_is_read_only_where_there_may_be_some():
    assert CODEC.open(PLACE, None).decrypt("event", b"plain") == b"plain"
    assert CODEC.fresh(PLACE, is_mixed=True).decrypt("event", b"plain") == b"plain"
    with pytest.raises(DataLossError):
        SEAL.decrypt("event", b"plain")


def test_whether_there_may_be_content_from_before_cannot_be_changed():
    wrapped = bytearray(SEAL.wrapped)
    wrapped[len(MARK)] ^= 1
    with pytest.raises(DataLossError):
        CODEC.open(PLACE, bytes(wrapped))


@given(text=st.text(min_size=1), number=st.integers(0, 2**31 - 1))
def test_no_text_and_no_event_looks_encrypted(text, number):
    assert not text.encode().startswith(MARK[:1])
    event = StepEvent(step=number, llm_call=LlmCall(text=text)).SerializeToString()
    assert not event.startswith(MARK[:1])


class TestRotation:
    def test_older_keys_still_read_and_the_first_one_writes(self):
        both = Codec(ContentKeys({"new": NEW, "old": OLD}))
        sealed = SEAL.encrypt("event", b"content")
        assert both.open(PLACE, SEAL.wrapped).decrypt("event", sealed) == b"content"
        fresh = both.fresh(PLACE)
        with pytest.raises(ContentKeyMissingError, match="new") as missing:
            CODEC.open(PLACE, fresh.wrapped)
        assert missing.value.metadata["content_key"] == "new"

    def test_another_key_of_the_same_id_is_told_by_its_id(self):
        with pytest.raises(DataLossError, match="content key old") as wrong:
            Codec(ContentKeys({"old": NEW})).open(PLACE, SEAL.wrapped)
        assert wrong.value.metadata["content_key"] == "old"

    def test_a_tenant_has_keys_of_its_own(self):
        keys = ContentKeys({"old": OLD})
        nonce = os.urandom(NONCE_BYTES)
        assert keys.of_tenant("old", "a").encrypt(nonce, b"x", None) != keys.of_tenant("old", "b").encrypt(
            nonce, b"x", None
        )


class TestWithoutKeys:
    def test_content_stays_as_it_is(self):
        seal = Codec().fresh(PLACE)
        assert (seal.wrapped, seal.encrypt("event", b"content")) == (b"", b"content")
        assert seal.decrypt("event", b"content") == b"content"

    def test_what_is_encrypted_is_refused_by_the_name_of_its_key(self):
        with pytest.raises(ContentKeyMissingError, match="old"):
            Codec().open(PLACE, SEAL.wrapped)
        with pytest.raises(ContentKeyMissingError, match="MESHWRIGHT_CONTENT_KEYS_FILE"):
            Codec().fresh(PLACE).decrypt("event", SEAL.encrypt("event", b"content"))


class TestFile:
    def written(self, tmp_path, text):
        path = tmp_path / "content.keys"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def test_the_first_key_is_for_writing(self, tmp_path):
        keys = ContentKeys.read(self.written(tmp_path, f"# keys\n\n{line('new', NEW)}{line('old')}"))
        assert (keys.first, keys.ids) == ("new", ("new", "old"))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("k1\n", "line 1"),
            (f"{line('k1')}k2 not-base64!\n", "line 2"),
            (line("k1", OLD[:31]), "line 1"),
            (line("k" * 65), "line 1"),
            (line("k1").strip() + " more\n", "line 1"),
            (line("k1") + line("k1", NEW), "repeats the id k1"),
            ("# nothing\n", "1..64"),
            ("".join(line(f"k{number}") for number in range(65)), "1..64"),
        ],
    )
    def test_what_holds_no_keys_is_refused_and_not_repeated(self, tmp_path, text, told):
        with pytest.raises(SetupError, match=told) as refused:
            ContentKeys.read(self.written(tmp_path, text))
        assert base64.b64encode(OLD).decode() not in refused.value.message

    def test_no_file_is_refused(self, tmp_path):
        with pytest.raises(SetupError, match="MESHWRIGHT_CONTENT_KEYS_FILE"):
            Codec.of(str(tmp_path / "none"))

    def test_no_setting_is_no_codec(self):
        assert not Codec.of("").is_on
