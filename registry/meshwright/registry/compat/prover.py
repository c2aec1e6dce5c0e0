"""What rules may ask of the comparison that applies them."""

from collections.abc import Iterable
from typing import Protocol

from meshwright.registry.compat.case import Case
from meshwright.registry.compat.document import Document, Place
from meshwright.registry.compat.rule import Differences


class Prover(Protocol):
    """Compares a narrow schema with a wide one: does the wide one accept all that the narrow one does?"""

    wide: Document

    def prove(self, places: Iterable[Place], wide: Place) -> Differences:
        """Says why what fits some parts of the narrow schema may not fit a part of the wide one; empty: it does."""
        ...

    def holds(self, case: Case, wide: Place) -> Differences:
        """Says the same of a case of the narrow schema."""
        ...

    def same(self, narrow: Place, wide: Place) -> bool:
        """Whether two parts are the same, word by word."""
        ...

    def disjoint(self, case: Case, wide: Place) -> bool:
        """Whether it is sure that no value of a case fits a part of the wide schema."""
        ...
