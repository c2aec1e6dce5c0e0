"""Tools of a library: what a late book costs, and keeping one for longer."""

import asyncio
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from meshwright.registry import current_invocation, tool

CENTS = {"book": 20, "film": 100}
MOST_CENTS = 1_000
LOANS = {"L-1": date(2026, 3, 1)}


class Fee(BaseModel):
    """What is owed for a loan that comes back late."""

    cents: Annotated[int, Field(ge=0, description="Owed by the reader")]
    is_capped: bool = Field(description="More days would not cost more")


class Loan(BaseModel):
    """A loan as it stands now."""

    loan_id: str
    due: date


@tool(name="loans.fee", effect="pure", timeout_s=2)
def fee(
    days_late: Annotated[int, Field(ge=0, le=3_650, description="Whole days after the due date")],
    kind: Annotated[Literal["book", "film"], Field(description="What was borrowed")] = "book",
) -> Fee:
    """Says what a late return costs. Use it before you tell a reader what they owe."""
    owed = days_late * CENTS[kind]
    return Fee(cents=min(owed, MOST_CENTS), is_capped=owed >= MOST_CENTS)


@tool(name="loans.extend", effect="non_idempotent", approval="when_tainted", timeout_s=10)
async def extend(
    loan_id: Annotated[str, Field(pattern=r"^L-[0-9]+$", description="As printed on the slip")],
    days: Annotated[int, Field(ge=1, le=28)] = 14,
) -> Loan:
    """Keeps a loan for longer, once. Fails where the loan is not known."""
    current_invocation().progress(0.5, f"looking for {loan_id}")
    await asyncio.sleep(0)
    if loan_id not in LOANS:
        raise LookupError(f"no loan {loan_id}: ask the reader for the number on the slip")
    LOANS[loan_id] += timedelta(days=days)
    return Loan(loan_id=loan_id, due=LOANS[loan_id])
