"""`meshwright audit`: what an operator sees of the audit, and what tampering is found."""

import asyncio
import hashlib
import json
import time

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app
from meshwright.core.api_key import ApiKeys
from meshwright.core.audit import AuditReader, line_of
from meshwright.core.audit_chain import AuditLine
from meshwright.core.errors import AuditBlockedError, InvalidRequestError, SetupError, StoreDeniedError
from meshwright.core.role import Role
from meshwright.core.store_user import rules
from meshwright.registry.audit_trimming import AuditTrimming
from meshwright.registry.store import Ledger

LINES, COUNT = "mw:{0}:audit:acme:lines", "mw:{0}:audit:acme:count"


@pytest.fixture
def invoke(store):
    """Runs the command at the store of the test, in a thread of its own."""

    async def run(*arguments, at_store=True):
        line = ["audit", *map(str, arguments), *(["--store", store.url] if at_store else [])]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    return run


@pytest.fixture
def write(store):
    """Writes lines as a tool host does."""

    async def written(many, tenant="acme"):
        ledger = Ledger(store)
        for start in range(0, many, 500):
            calls = [
                ledger.refused((tenant, "ann", "t1"), line_of("ann", "SCOPE_MISSING", tool="pay@1.0.0"))
                for _ in range(min(500, many - start))
            ]
            await asyncio.gather(*calls)

    return written


@pytest.fixture
def replaced(store):
    """Writes a chain anew as somebody with all rights at the store might."""

    async def anew(change):
        rows = await store.client.lrange(LINES, 0, -1)
        await store.client.delete(LINES)
        if rows := change(rows):
            await store.client.rpush(LINES, *rows)

    return anew


async def test_lines_are_listed_newest_last_and_a_program_reads_them(invoke, store):
    keys = ApiKeys(store)
    _, made = await keys.create("ci", ["tasks:read"], tenant="acme", principal="bot")
    await keys.revoke(made.key_id)
    await keys.revoke(made.key_id)
    listed = [json.loads(line) for line in (await invoke("list", "-o", "jsonl")).stdout.splitlines()]
    assert [(one["event"], one["about"], one["tenant"]) for one in listed] == [
        ("key_created", made.key_id, "acme"),
        ("key_revoked", made.key_id, "acme"),
    ]
    assert listed[0]["facts"] == {"by": "(operator)", "principal": "bot", "scopes": "tasks:read"}
    assert json.loads((await invoke("list", "-o", "json", "--limit", 1)).stdout) == listed[1:]
    table = (await invoke("list")).stdout
    assert "key_revoked" in table
    assert "(operator)" in table
    assert (await invoke("list", "--tenant", "other", "-o", "jsonl")).stdout == ""
    assert (await invoke("list", "--since", "2100-01-01", "-o", "jsonl")).stdout == ""
    assert len((await invoke("list", "--since", "1h", "-o", "jsonl")).stdout.splitlines()) == 2


async def test_a_whole_audit_is_verified_in_the_store_and_as_a_file(invoke, write, tmp_path):
    await write(25)
    await write(3, "other")
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 0, done.output
    assert [(one["tenant"], one["lines"], one["fault"]) for one in json.loads(done.stdout)] == [
        ("acme", 25, None),
        ("other", 3, None),
    ]
    file = tmp_path / "audit.jsonl"
    file.write_text((await invoke("export")).stdout)
    assert len(file.read_text().splitlines()) == 28
    offline = await invoke("verify", file, at_store=False)
    assert offline.exit_code == 0, offline.output
    await write(2)
    assert (await invoke("verify", "--against", file)).exit_code == 0
    assert (await invoke("verify", "--since", "1h")).exit_code == 0


def changed(rows):
    rows[4] = rows[4].replace(b'"ann"', b'"eve"')
    return rows


def swapped(rows):
    return [*rows[:4], rows[5], rows[4], *rows[6:]]


def inserted(rows):
    return [*rows, rows[4].replace(b"-5 ", b"-11 ")]


TAMPERED = [
    (changed, "it does not follow from line 4"),
    (swapped, "lines 5 to 5 are missing"),
    (lambda rows: [rows[1], rows[0], *rows[2:]], "line 1 stands after line 2"),
    (lambda rows: [*rows[:8], rows[9], rows[8]], "lines 9 to 9 are missing"),
    (lambda rows: [rows[0].replace(b'"ann"', b'"eve"'), *rows[1:]], "it is not what the chain began with"),
    (lambda rows: [*rows[:9], rows[9].replace(b'"ann"', b'"eve"')], "it does not follow from line 9"),
    (lambda rows: [*rows[:5], b"anything", *rows[5:]], "it is no line of the audit"),
    (lambda rows: [*rows, rows[9]], "line 10 stands after line 10"),
    (lambda rows: rows[:4] + rows[5:], "lines 5 to 5 are missing"),
    (lambda rows: rows[2:], "lines 1 to 2 are missing"),
    (lambda rows: rows[:7], "lines 8 to 10, the newest, are missing"),
    (lambda rows: rows[:0], "lines 1 to 10, the newest, are missing"),
    (inserted, "it does not follow from line 10"),
]


@pytest.mark.parametrize(("change", "found"), TAMPERED)
async def test_what_was_done_to_a_chain_is_found_and_shown_with_its_neighbours(invoke, write, replaced, change, found):
    await write(10)
    await write(3, "other")
    await replaced(change)
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1, done.output
    broken, other = json.loads(done.stdout)
    assert found in broken["fault"]
    assert other["fault"] is None
    before = broken["before"]
    if before:
        assert before["number"] == broken["last"]
    shown = (await invoke("verify")).stdout
    assert all(f"{word}: " in shown for word in ("before", "broken", "after"))


async def test_two_lines_that_say_what_the_other_said_are_found(invoke, write, replaced):
    await write(10)

    def exchanged(rows):
        (first, one), (second, two) = (row.split(b" ", 2)[:2] for row in rows[4:6])
        return [*rows[:4], b" ".join([two, first]), b" ".join([one, second]), *rows[6:]]

    await replaced(exchanged)
    (broken,) = json.loads((await invoke("verify", "-o", "json")).stdout)
    assert broken["fault"] == "it is no line of the audit"
    assert broken["last"] == 4
    assert broken["after"]["event"] == "(unreadable)"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "its counter says 0, and line 5 is there"),
        (b"4", "its counter says 4, and line 5 is there"),
        (b"7", "lines 6 to 7, the newest, are missing"),
        (b"5 x", "its key holds no chain"),
    ],
)
async def test_a_counter_that_was_changed_is_found(invoke, write, store, content, found):
    await write(5)
    await store.client.delete(COUNT)
    if content:
        await store.client.set(COUNT, content)
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["fault"] == found


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        ([LINES], "lines 1 to 5, the newest, are missing"),
        ([LINES, COUNT], "it is on the list of chains, and nothing of it is there"),
    ],
)
async def test_a_chain_that_is_gone_is_found(invoke, write, store, gone, found):
    await write(5)
    await write(2, "other")
    await store.client.delete(*gone)
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1
    assert [one["fault"] for one in json.loads(done.stdout)] == [found, None]


@pytest.mark.parametrize("key", [LINES, COUNT])
async def test_a_key_that_holds_something_else_is_named_and_other_chains_are_verified(invoke, write, store, key):
    await write(2)
    await write(3, "other")
    await store.client.delete(key)
    await store.client.hset(key, "a", "b")
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1, done.output
    assert [(one["lines"], one["fault"]) for one in json.loads(done.stdout)] == [
        (0, "its key holds no chain"),
        (3, None),
    ]
    assert "BROKEN: its key holds no chain" in (await invoke("verify")).stdout
    with pytest.raises(AuditBlockedError, match="meshwright audit verify"):
        await write(1)


@pytest.mark.parametrize("garbage", [b"", b" ", b"x", b"\xff\x00", b"a" * 100_000, b"0" * 40 + b" 1-1 a b"])
async def test_what_is_no_line_is_named_and_the_next_line_goes_on_from_it(invoke, write, store, garbage):
    await write(3)
    await write(3, "other")
    await store.client.rpush(LINES, garbage)
    await write(2)
    broken, other = json.loads((await invoke("verify", "-o", "json")).stdout)
    assert (broken["last"], broken["fault"], other["fault"]) == (3, "it is no line of the audit", None)
    assert broken["broken"]["link"] == hashlib.sha1(garbage, usedforsecurity=False).hexdigest()
    assert broken["after"]["number"] == 4
    lines = await AuditReader(store).read("acme")
    fourth = next(line for line in lines if line.number == 4)
    assert fourth.link == fourth.linked(broken["broken"]["link"])
    assert [line.number for line in lines if line.number] == [1, 2, 3, 4, 5]


async def test_a_forged_line_from_the_future_does_not_take_the_later_ones_along(invoke, write, store):
    await write(1)
    (last,) = await AuditReader(store).read("acme")
    forged = AuditLine("0", "acme", 2, 10**14, "x", "", "", "{}", "")
    said = f"{forged.time_ms}-2 x   {forged.text}"
    await store.client.rpush(LINES, f"{forged.linked(last.link)} {said}")
    await store.client.incr(COUNT)
    await write(1)
    assert max(line.time_ms for line in await AuditReader(store).read("acme") if line.number != 2) < 10**13
    (broken,) = json.loads((await invoke("verify", "-o", "json")).stdout)
    assert (broken["last"], broken["fault"]) == (2, "it is older than the line before it")


async def test_a_name_that_is_nobodys_is_named(invoke, write, store):
    await write(2)
    await store.client.sadd("mw:{0}:audit::tenants", b"\xff", "no:body")
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1
    assert [one["fault"] is None for one in json.loads(done.stdout)] == [True, False, False]


async def test_a_chain_that_was_written_anew_as_a_whole_is_found_by_an_earlier_export(invoke, write, store, tmp_path):
    await write(10)
    file = tmp_path / "audit.jsonl"
    file.write_text((await invoke("export")).stdout)
    keys = [LINES, COUNT, "mw:{0}:audit::tenants"]
    await store.client.delete(*keys)
    assert (await invoke("verify")).exit_code == 0, "nothing in the store tells of it"
    assert "the whole chain is missing" in (await invoke("verify", "--against", file, "-o", "json")).stdout
    await write(12)
    done = await invoke("verify", "--against", file, "-o", "json")
    assert done.exit_code == 1
    assert "line 10 is not the one that was exported" in done.stdout
    await store.client.delete(*keys)
    await write(5)
    assert (
        "lines 6 to 10 were exported and are missing"
        in (await invoke("verify", "--against", file, "-o", "json")).stdout
    )


async def test_a_trimmed_chain_is_whole_and_says_what_an_export_lacks(invoke, write, store, tmp_path):
    await write(50)
    file = tmp_path / "audit.jsonl"
    file.write_text((await invoke("export")).stdout)
    await write(500)
    await AuditTrimming(store, 100).trim()
    assert 100 <= await store.client.llen(LINES) <= 200
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 0, done.output
    (late,) = json.loads((await invoke("verify", "--against", file, "-o", "json")).stdout)
    assert "line 50, the last that was exported, has been trimmed since" in late["notes"]
    file.write_text((await invoke("export")).stdout)
    assert (await invoke("verify", file, at_store=False)).exit_code == 0
    await store.client.lpop(LINES)
    assert (await invoke("verify")).exit_code == 1


async def test_a_chain_is_verified_while_it_is_written_and_trimmed(invoke, write, store):
    await write(150)
    writing = asyncio.create_task(write(2_000))

    async def trimmed():
        while not writing.done():
            await AuditTrimming(store, 100).trim()
            await asyncio.sleep(0.05)

    trimming = asyncio.create_task(trimmed())
    while not writing.done():
        done = await invoke("verify")
        assert done.exit_code == 0, done.output
    await asyncio.gather(writing, trimming)


async def test_ten_thousand_lines_are_verified_in_seconds(invoke, write):
    await write(10_000)
    start = time.monotonic()
    done = await invoke("verify", "-o", "json")
    assert time.monotonic() - start < 40
    assert json.loads(done.stdout)[0]["lines"] == 10_000


async def test_a_changed_file_is_found_and_what_is_no_export_is_refused(invoke, write, tmp_path):
    await write(10)
    file = tmp_path / "audit.jsonl"
    lines = (await invoke("export")).stdout.splitlines()
    file.write_text("\n".join([*lines[:3], lines[3].replace("pay@", "see@"), *lines[4:]]))
    done = await invoke("verify", file, "-o", "json", at_store=False)
    assert done.exit_code == 1
    (broken,) = json.loads(done.stdout)
    assert (broken["before"]["number"], broken["broken"]["number"], broken["after"]["number"]) == (3, 4, 5)
    for text in ("nothing", "{}", "x" * 100_000):
        file.write_text(f"{lines[0]}\n{text}\n")
        done = await invoke("verify", file, at_store=False)
        assert isinstance(done.exception, InvalidRequestError)
        assert "line 2" in done.exception.message
    done = await invoke("verify", tmp_path / "none", at_store=False)
    assert isinstance(done.exception, SetupError)


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize("output", ["table", "jsonl"])
async def test_a_file_without_a_line_proves_nothing(invoke, write, tmp_path, against, output):
    await write(2)
    file = tmp_path / "audit.jsonl"
    file.touch()
    done = await invoke("verify", *(["--against"] if against else []), file, "-o", output, at_store=against)
    assert done.exit_code == 1
    assert "holds no line of an audit: nothing was verified" in done.stderr


@pytest.mark.parametrize(
    "told",
    [
        lambda line: line.replace('"number": 2', '"number": 2, "number": 2'),
        lambda line: line.replace('"by": "ann"', '"by": "eve", "by": "ann"'),
        lambda line: line.replace("{", '{"note": "x", ', 1),
    ],
)
async def test_a_line_that_says_more_than_its_link_holds_is_refused(invoke, write, tmp_path, told):
    await write(3)
    file = tmp_path / "audit.jsonl"
    lines = (await invoke("export")).stdout.splitlines()
    assert told(lines[1]) != lines[1]
    file.write_text("\n".join([lines[0], told(lines[1]), lines[2]]))
    done = await invoke("verify", file, at_store=False)
    assert isinstance(done.exception, InvalidRequestError)
    assert "line 2: this is no line of an exported audit" in done.exception.message


async def test_a_user_of_the_store_without_rights_is_told_whose_address_is_needed(write, store):
    await write(1)
    await store.client.execute_command("ACL", "SETUSER", "mw-gateway", "on", ">secret", *rules(Role.GATEWAY))
    line = ["audit", "list", "--store", store.url.replace("unix://", "unix://mw-gateway:secret@")]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    await store.client.execute_command("ACL", "DELUSER", "mw-gateway")
    assert isinstance(done.exception, StoreDeniedError)
    assert "mw-admin" in done.exception.message
    assert "MESHWRIGHT_STORE_ADMIN_URL" in done.exception.message


async def test_an_exported_chain_without_its_beginning_is_broken(invoke, write, tmp_path):
    await write(6)
    file = tmp_path / "audit.jsonl"
    lines = (await invoke("export")).stdout.splitlines()
    moved = [line.replace('"tenant": "acme"', '"tenant": "other"') for line in lines[4:]]
    for texts, tenant, number in ((lines[1:], "acme", 2), ([*lines[:4], *moved], "other", 5)):
        file.write_text("\n".join(texts))
        done = await invoke("verify", file, "-o", "json", at_store=False)
        assert done.exit_code == 1, done.output
        (broken,) = [one for one in json.loads(done.stdout) if one["fault"]]
        assert (broken["tenant"], broken["broken"]["number"]) == (tenant, number)
        assert f"lines 1 to {number - 1} are missing" in broken["fault"]


async def test_an_export_from_some_time_on_is_verified_as_a_part(invoke, write, tmp_path):
    await write(3)
    file = tmp_path / "audit.jsonl"
    lines = (await invoke("export")).stdout.splitlines()
    file.write_text("\n".join(lines[1:]))
    done = await invoke("verify", file, "--partial", "-o", "json", at_store=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["notes"] == ["what stood before its first line is not in the file"]
    file.write_text("\n".join([lines[1], lines[2].replace("pay@", "see@")]))
    assert (await invoke("verify", file, "--partial", at_store=False)).exit_code == 1
    done = await invoke("verify", "--partial")
    assert isinstance(done.exception, InvalidRequestError)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "0d", "9999-99"])
async def test_what_is_no_time_is_refused(invoke, text):
    assert isinstance((await invoke("list", "--since", text)).exception, InvalidRequestError)
