"""Verdicts as people and programs read them."""

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from xml.etree import ElementTree as ET

from meshwright.agents.evals.suite import Verdict
from meshwright.cli.output import show, show_table
from meshwright.cli.steps import shortened

UNFIT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, however it is spelled."""


class Form(StrEnum):
    """How verdicts are printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"


def score(verdicts: Sequence[Verdict]) -> float:
    """Returns the share of cases that passed, 0 to 1."""
    return sum(verdict.is_passed for verdict in verdicts) / len(verdicts)


def show_verdicts(verdicts: Sequence[Verdict], form: Form) -> None:
    """Prints verdicts on stdout."""
    if form is Form.JSON:
        show(json.dumps({"score": score(verdicts), "cases": [as_json(one) for one in verdicts]}, indent=2))
    elif form is Form.JUNIT:
        show(junit(verdicts))
    else:
        show_table(
            ("AGENT", "CASE", "VERDICT", "STEPS", "TOKENS", "SECONDS", "WHAT IS WRONG"),
            (
                (
                    one.agent,
                    one.case,
                    word(one),
                    str(one.steps),
                    str(one.tokens),
                    f"{one.seconds:.1f}",
                    "\n".join(map(shortened, one.failures)),
                )
                for one in verdicts
            ),
        )


def word(verdict: Verdict) -> str:
    """Names a verdict; a pass without the judge that the case asks for says so."""
    if not verdict.is_passed:
        return "failed"
    return "passed" if verdict.is_judged else "passed, not judged"


def as_json(verdict: Verdict) -> dict[str, object]:
    """Writes a verdict as JSON data."""
    return {
        "agent": verdict.agent,
        "id": verdict.case,
        "passed": verdict.is_passed,
        "judged": verdict.is_judged,
        "failures": list(verdict.failures),
        "finish": verdict.finish,
        "steps": verdict.steps,
        "tokens": verdict.tokens,
        "seconds": round(verdict.seconds, 3),
        "output": verdict.output,
    }


def junit(verdicts: Sequence[Verdict]) -> str:
    """Writes verdicts as JUnit's XML: a suite for each agent."""
    root = ET.Element("testsuites", _counts(verdicts))
    for agent in dict.fromkeys(verdict.agent for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.agent == agent]
        suite = ET.SubElement(root, "testsuite", {"name": agent, **_counts(own)})
        for one in own:
            facts = {"classname": agent, "name": one.case, "time": f"{one.seconds:.3f}"}
            case = ET.SubElement(suite, "testcase", facts)
            if one.failures:
                told = [UNFIT.sub("\ufffd", failure) for failure in one.failures]
                ET.SubElement(case, "failure", {"message": told[0]}).text = "\n".join(told)
            ET.SubElement(case, "system-out").text = UNFIT.sub("\ufffd", one.output)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    failed = sum(not verdict.is_passed for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(failed), "time": f"{seconds:.3f}"}
