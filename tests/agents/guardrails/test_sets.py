"""How often rules are right: precision and recall on named sets, printed (`make guardrails`) and held above a floor.

Whoever wrote the rules wrote the sets, and rules were corrected by what they got wrong in them. `injection_unseen` was
written afterwards, in wordings that no pattern was made for, and no rule was changed for it: that is what to expect of
somebody who knows the patterns.
"""

import json
from pathlib import Path

import pytest

from meshwright.agents.guardrails import ContentPolicy, Injection, Leakage, Pii, Secrets
from meshwright.agents.guardrails.guardrail import Subject

DATA = Path(__file__).parent / "data"
INSTRUCTIONS = (DATA / "instructions.txt").read_text()
SETS = {  # rule, point, floor of precision and of recall
    "injection": (Injection(), "tool_result", 0.97, 0.90),
    "injection_unseen": (Injection(), "tool_result", 0.90, 0.05),
    "content": (ContentPolicy(), "input", 0.97, 0.95),
    "pii": (Pii(), "tool_result", 0.98, 0.98),
    "secrets": (Secrets(), "tool_result", 0.98, 0.98),
    "leakage": (Leakage(), "output", 0.98, 0.90),
}
LEAST_POSITIVE, LEAST_NEGATIVE = 60, 100


def rows(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]


def is_found(rule, point, text):
    return rule.check(Subject(point, text, instructions=INSTRUCTIONS)).action != "allow"


@pytest.mark.parametrize("name", SETS)
def test_rules_are_right_often_enough(name, record_property):
    rule, point, least_precision, least_recall = SETS[name]
    found = [(is_found(rule, point, row["text"]), row) for row in rows(name)]
    true = sum(hit and row["is"] for hit, row in found)
    false = [row["text"] for hit, row in found if hit and not row["is"]]
    missed = [row["text"] for hit, row in found if row["is"] and not hit]
    precision, recall = true / max(1, true + len(false)), true / (true + len(missed))
    by = "form and checksum" if name == "pii" else "comparison" if name == "leakage" else "patterns only"
    print(
        f"\n{name:18} {by:18} precision {precision:.3f}  recall {recall:.3f}  "
        f"({true + len(missed)} positive, {len(found) - true - len(missed)} negative)"
    )
    assert precision >= least_precision, false
    assert recall >= least_recall, missed


@pytest.mark.parametrize("name", [name for name in SETS if not name.endswith("_unseen")])
def test_sets_are_large_enough_and_without_repetition(name):
    texts = [row["text"] for row in rows(name)]
    positive = sum(row["is"] for row in rows(name))
    assert len(set(texts)) == len(texts)
    assert positive >= LEAST_POSITIVE
    assert len(texts) - positive >= LEAST_NEGATIVE


def test_every_category_of_content_is_found_by_name():
    rule = ContentPolicy()
    for row in rows("content"):
        if row["is"]:
            assert row["category"] in rule.check(Subject("input", row["text"])).reason, row["text"]


def test_every_kind_of_personal_data_is_taken_out_and_named():
    rule = Pii()
    for row in rows("pii"):
        if row["is"]:
            verdict = rule.check(Subject("output", row["text"]))
            assert f"[redacted {row['kind']}]" in verdict.text, row["text"]
            assert not any(word in verdict.reason for word in row["text"].split() if any(map(str.isdigit, word)))
