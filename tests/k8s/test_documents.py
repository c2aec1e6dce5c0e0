"""What the documentation has people ask of a cluster is there to be asked."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PAGES = sorted(REPO.glob("docs/**/*.md"))
SELECTED = re.compile(r"kubectl\b.*?\s(?:-l|--selector)[ =]'?([\w./-]+)=([\w.-]+)")
"""A label and its value; one in capital letters stands for what the reader puts there."""
FOUND = sorted(
    {(page.relative_to(REPO).as_posix(), *found) for page in PAGES for found in SELECTED.findall(page.read_text())}
)


def pod_labels(overlays):
    """Labels of the pods of all overlays."""
    templates = [
        one["spec"]["template"] for some in overlays.values() for one in some if "template" in one.get("spec", {})
    ]
    return [template["metadata"].get("labels", {}) for template in templates]


def test_pages_select_pods():
    assert len(FOUND) > 2


@pytest.mark.parametrize(("page", "label", "value"), FOUND)
def test_a_selector_of_the_documentation_selects_pods(overlays, page, label, value):
    values = {labels[label] for labels in pod_labels(overlays) if label in labels}
    assert values if value.isupper() else value in values, f"{page}: {label} of pods is one of {sorted(values)}"
