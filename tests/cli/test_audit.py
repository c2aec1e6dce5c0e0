"""`meshwright audit`: what an operator sees of the audit, and what tampering is found."""

import asyncio
import json
import time

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app
from meshwright.core.api_key import ApiKeys
from meshwright.core.audit import AuditReader, line_of
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.registry.store import Ledger

CHAIN, HEAD = "mw:{0}:audit:acme:chain", "mw:{0}:audit:acme:head"


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

    async def written(many, tenant="acme", kept=10_000):
        ledger = Ledger(store)
        for start in range(0, many, 500):
            calls = [
                ledger.refused((tenant, "ann", "t1"), line_of("ann", "SCOPE_MISSING", kept=kept, tool="pay@1.0.0"))
                for _ in range(min(500, many - start))
            ]
            await asyncio.gather(*calls)

    return written


@pytest.fixture
def replaced(store):
    """Writes a chain anew as somebody with all rights at the store might."""

    async def anew(change):
        rows = await store.client.xrange(CHAIN)
        await store.client.delete(CHAIN)
        for item_id, fields in change([(item_id.decode(), dict(fields)) for item_id, fields in rows]):
            await store.client.xadd(CHAIN, fields, id=item_id)

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
    rows[4][1][b"facts"] = b'{"by":"eve"}'
    return rows


def swapped(rows):
    rows[4][1], rows[5][1] = rows[5][1], rows[4][1]
    return rows


def inserted(rows):
    item_id = rows[9][0].partition("-")[0]
    return [*rows, (f"{item_id}-11", rows[4][1])]


TAMPERED = [
    (changed, "line 4: it does not follow"),
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
    assert found.rpartition("line 4: ")[2] in broken["fault"]
    assert other["fault"] is None
    before, line = broken["before"], broken["broken"]
    if before and line:
        assert before["number"] == broken["last"] < line["number"]
    shown = (await invoke("verify")).stdout
    assert all(f"{word}: " in shown for word in ("before", "broken", "after"))


async def test_two_lines_that_changed_places_are_found(invoke, write, replaced):
    await write(10)

    def exchanged(rows):
        (first, one), (second, two) = rows[4:6]
        return [*rows[:4], (first, two), (second, one), *rows[6:]]

    await replaced(exchanged)
    (broken,) = json.loads((await invoke("verify", "-o", "json")).stdout)
    assert broken["broken"]["number"] == 5
    assert broken["after"]["number"] == 6


async def test_a_chain_without_its_head_is_broken(invoke, write, store):
    await write(5)
    for content in (None, b"5 x", b"4 1 abc 1"):
        await store.client.delete(HEAD)
        if content:
            await store.client.set(HEAD, content)
        done = await invoke("verify", "-o", "json")
        assert done.exit_code == (0 if content == b"4 1 abc 1" else 1), "a newer line than the head's is one more"
    await store.client.set(HEAD, b"5 1 abc 1")
    assert "not the one that was written" in (await invoke("verify", "-o", "json")).stdout


async def test_a_chain_that_was_written_anew_as_a_whole_is_found_by_an_earlier_export(invoke, write, store, tmp_path):
    await write(10)
    file = tmp_path / "audit.jsonl"
    file.write_text((await invoke("export")).stdout)
    keys = [CHAIN, HEAD, "mw:{0}:audit"]
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
    await write(50, kept=100)
    file = tmp_path / "audit.jsonl"
    file.write_text((await invoke("export")).stdout)
    await write(500, kept=100)
    assert await store.client.xlen(CHAIN) <= 201
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 0, done.output
    (late,) = json.loads((await invoke("verify", "--against", file, "-o", "json")).stdout)
    assert "line 50, the last that was exported, has been trimmed since" in late["notes"]
    file.write_text((await invoke("export")).stdout)
    assert (await invoke("verify", file, at_store=False)).exit_code == 0
    first = (await store.client.xrange(CHAIN, count=1))[0][0]
    await store.client.xdel(CHAIN, first)
    assert (await invoke("verify")).exit_code == 1


async def test_a_chain_is_verified_while_it_is_written_and_trimmed(invoke, write):
    await write(150, kept=100)
    writing = asyncio.create_task(write(2_000, kept=100))
    while not writing.done():
        done = await invoke("verify")
        assert done.exit_code == 0, done.output
    await writing


async def test_ten_thousand_lines_are_verified_in_seconds(invoke, write):
    await write(10_000, kept=20_000)
    start = time.monotonic()
    done = await invoke("verify", "-o", "json")
    assert time.monotonic() - start < 10
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


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "0d", "9999-99"])
async def test_what_is_no_time_is_refused(invoke, text):
    assert isinstance((await invoke("list", "--since", text)).exception, InvalidRequestError)


async def test_a_line_whose_place_was_taken_is_written_and_found(invoke, write, store):
    await write(3)
    await store.client.xadd(CHAIN, {"event": "forged"}, id=f"{2**45}-4")
    await write(2)
    assert await store.client.xlen(CHAIN) == 6
    done = await invoke("verify", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["broken"]["event"] == "forged"
    assert [line.event for line in await AuditReader(store).read("acme")].count("tool_refused") == 5
