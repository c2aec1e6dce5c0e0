"""Scopes that the mesh itself knows, so that a slip of the pen opens no key that opens nothing. Pure."""

from difflib import get_close_matches

from meshwright.core.access import READ_ALL, RULES
from meshwright.core.errors import InvalidRequestError
from meshwright.core.scope import EVERYTHING, covers

KNOWN = frozenset({rule.scope for rule in RULES.values()} - {""} | {READ_ALL})
NAMED = frozenset(rule.scope for rule in RULES.values() if rule.is_named)
"""Scopes that a name may follow."""
NOUNS = frozenset(scope.partition(":")[0] for scope in KNOWN)
ALIKE = 0.8
"""How alike two words are of which one is meant: 1 is the same."""


def opens_methods(scope: str) -> bool:
    """Tells whether a scope opens something of the mesh; else it can be one of a tool alone.

    Raises:
        InvalidRequestError: It is one of the mesh that is spelled wrongly; names what may be meant.
    """
    if scope == EVERYTHING or any(covers((scope,), known) for known in KNOWN):
        return True
    if any(scope.startswith(f"{known}:") for known in NAMED):
        return True
    meant = get_close_matches(scope, sorted(KNOWN | NOUNS), n=1, cutoff=ALIKE)
    noun = scope.partition(":")[0]
    if meant or noun in NOUNS:
        names = meant or sorted(known for known in KNOWN if known.startswith(f"{noun}:"))
        raise InvalidRequestError(
            f"{scope!r} is no scope of the mesh: is {' or '.join(names)} meant?", fields={"scopes": "docs/identity.md"}
        )
    return False
