"""Scopes of a task: kept in its record, handed to its children as they are."""

import pytest

from meshwright.agents.journal import Journal
from meshwright.agents.run import Run
from meshwright.core.errors import GrantInvalidError
from meshwright.core.grant import Signer

HELD = ("docs.read", "mail")


async def test_they_outlive_the_worker_that_accepted_the_task(store, made):
    one = Journal(store, "one", lease_s=0.05)
    await one.accept(made.task(scopes=HELD), claim=True)
    two = Journal(store, "two")
    claim = None
    while claim is None:
        await two.sweep(0)
        claim = (await two.claim(0, "worker")).claim
    record = await two.record(claim.name)
    assert (record.attempt, record.scopes) == (2, HELD)
    run = Run(claim=claim, record=record, journal=two, feeds=None, signer=Signer("two-1"))
    assert tuple(run.grant().scopes) == HELD


async def test_a_task_without_any_has_none(journal, made):
    await journal.accept(made.task(), claim=False)
    assert (await journal.record(made.name())).scopes == ()


@pytest.mark.parametrize("claim", [False, True])
async def test_a_child_has_its_parents_or_none(journal, made, claim):
    parent = made.task(scopes=HELD)
    await journal.accept(parent, claim=False)
    for wider in (("*",), (*HELD, "people"), ("mail",)):
        with pytest.raises(GrantInvalidError, match="other scopes than the parent"):
            await journal.accept(made.child(parent, "c1", scopes=wider), claim=claim)
    for call_id, scopes in (("c1", HELD), ("c2", ())):
        child = made.child(parent, call_id, scopes=scopes)
        await journal.accept(child, claim=claim)
        assert (await journal.record(child.name)).scopes == scopes


async def test_the_child_of_a_task_that_was_accepted_before_there_were_scopes_has_none(journal, store, made):
    from meshwright.core.store import partition_key

    parent = made.task()
    await journal.accept(parent, claim=False)
    await store.client.hdel(partition_key(0, "task", parent.name.ref), "scopes")
    assert (await journal.record(parent.name)).scopes == ()
    with pytest.raises(GrantInvalidError):
        await journal.accept(made.child(parent, scopes=("*",)), claim=False)
    await journal.accept(made.child(parent), claim=False)
