"""Tests of the library's tools, each through the checks that a call passes in a mesh."""

import pytest
from tools import extend, fee

from meshwright.registry.testing import ToolBench

pytestmark = pytest.mark.asyncio


async def test_a_late_book_costs_twenty_cents_a_day() -> None:
    async with ToolBench(fee) as bench:
        call = await bench.call({"days_late": 3})
    assert call.result == {"cents": 60, "is_capped": False}


async def test_a_model_reads_what_is_wrong_with_its_arguments() -> None:
    async with ToolBench(fee) as bench:
        call = await bench.call({"days_late": -1})
    assert call.failure.startswith('{"error": {"reason": "INVALID_REQUEST"')
    assert "days_late" in call.failure


async def test_a_loan_is_extended_once_a_key() -> None:
    async with ToolBench(extend) as bench:
        first = await bench.call({"loan_id": "L-1"}, key="k")
        again = await bench.call({"loan_id": "L-1"}, key="k")
    assert first.result == again.result == {"loan_id": "L-1", "due": "2026-03-15"}
    assert again.is_replayed
    assert first.progress == ((0.5, "looking for L-1"),)


async def test_a_person_is_asked_once_others_have_had_their_say() -> None:
    async with ToolBench(extend) as bench:
        refused = await bench.call({"loan_id": "L-2"}, is_tainted=True)
        allowed = await bench.call({"loan_id": "L-2"}, is_tainted=True, is_approved=True)
    assert refused.error is not None
    assert refused.error.reason == "APPROVAL_REQUIRED"
    assert "ask the reader for the number" in allowed.failure
