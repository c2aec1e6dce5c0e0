"""What an expression of PromQL reads: names of metrics, and labels by which it chooses and sums."""

import re
from dataclasses import dataclass

SELECTOR = re.compile(r"\b((?:meshwright|envoy|process)[a-z_]*(?::\w+)*\w*|up\b)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
OF_SCRAPES = frozenset({"instance", "job", "mesh_role", "le"})
"""Labels that targets have where they are scraped, and that of buckets."""


@dataclass(frozen=True)
class Read:
    """What an expression reads.

    Attributes:
        chosen: By metric, the labels that it is chosen by, with values that have to be there.
        grouped: Labels that it sums by.
    """

    chosen: list[tuple[str, list[tuple[str, str, str]]]]
    grouped: set[str]


def read(expression):
    """Takes an expression apart."""
    grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
    bare = GROUPING.sub("", expression)
    return Read([(name, MATCHER.findall(labels)) for name, labels in SELECTOR.findall(bare)], grouped - OF_SCRAPES)
