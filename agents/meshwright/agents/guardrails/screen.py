"""Text on its way to watchers while the model writes it: only what rules have let pass."""

import re
from collections.abc import Callable

from meshwright.agents.models.model import OnText

LONGEST = 2_000
"""Characters after which text is looked at though no sentence has ended, up to a blank between two words."""
FARTHEST = 16_000
"""Characters after which it is looked at though there is no such blank."""
_BETWEEN_WORDS = re.compile(r"[a-zA-Z,]\s(?=[a-zA-Z])")
"""Where neither a number nor an address is cut in two."""
_END = re.compile(r"[.!?…。！？][\"')\]]*\s|\n")  # noqa: RUF001 - full-width stops end sentences too


class Screen:
    """Holds text back until its sentence has ended, and shows what is left of it.

    What spans two sentences is not seen here. The answer is looked at as a whole before it is written.

    Args:
        show: Takes what may be seen.
        passed: Returns what rules leave of a piece; None: nothing, nor of what follows.
    """

    def __init__(self, show: OnText, passed: Callable[[str], str | None]) -> None:
        self._show = show
        self._passed = passed
        self._held = ""
        self._is_shut = False

    def add(self, text: str) -> None:
        """Takes a piece of text."""
        if self._is_shut:
            return
        self._held += text
        ends = [end.end() for end in _END.finditer(self._held, max(0, len(self._held) - len(text) - 3))]
        cut = ends[-1] if ends else self._cut()
        if cut:
            ready, self._held = self._held[:cut], self._held[cut:]
            self._release(ready)

    def _cut(self) -> int:
        """Returns where text without an end is cut; 0: it is held back."""
        if len(self._held) <= LONGEST:
            return 0
        gaps = [gap.end() for gap in _BETWEEN_WORDS.finditer(self._held, len(self._held) - LONGEST)]
        return gaps[-1] if gaps else len(self._held) * (len(self._held) > FARTHEST)

    def restart(self) -> None:
        """Drops what is held back: another model begins anew."""
        self._held, self._is_shut = "", False

    def close(self) -> None:
        """Shows what is left: the model has stopped."""
        if self._held and not self._is_shut:
            self._release(self._held)
        self._held = ""

    def _release(self, ready: str) -> None:
        shown = self._passed(ready)
        if shown is None:
            self._is_shut = True
        elif shown:
            self._show(shown)


class Open:
    """Shows everything at once: there is no rule."""

    def __init__(self, show: OnText) -> None:
        self.add = show

    def restart(self) -> None:
        """Holds nothing back."""

    def close(self) -> None:
        """Holds nothing back."""
