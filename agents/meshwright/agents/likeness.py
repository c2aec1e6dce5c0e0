"""Likeness: what two questions must have in common, word for word, before their similarity counts. Pure.

Similar words do not make the same question: "revenue of 2023" and "revenue of 2024" are as close as two texts can be.
So whatever a question turns on (numbers, names, quotations, negations, opposites) has to be equal, in the same order.
"""

import re
import unicodedata
from collections import Counter

from meshwright.agents.sentences import STOP_WORDS, words

MOST_CHARS = 2_000
"""Longer questions are only compared as a whole."""
FEW = 2
"""One word in the place of another one."""

_TELLING = frozenset(
    """
    no not none never nor neither without cannot nothing nobody nowhere except but unless only hardly
    nicht kein keine keinen keinem keiner ohne nie niemals weder non ne pas jamais sans sin nunca ni nao sem
    all any some every each most more less fewer least best worst first last next previous before after until since
    above below over under up down out off from to into between against or if must should may will
    i my mine we our your he his she her they their who whom whose when where why how was were did
    today tomorrow yesterday now then ago week month year monday tuesday wednesday thursday friday saturday sunday
    january february march april may june july august september october november december
    zero one two three four five six seven eight nine ten eleven twelve hundred thousand million billion half double
    increase decrease rise fall grow shrink gain loss profit buy sell start stop begin end open close enable disable
    allow deny accept reject include exclude add remove create delete encrypt decrypt send receive maximum minimum twice
    high low higher lower highest lowest big small bigger smaller long short longer shorter longest shortest early late
    earlier later new old newer older newest oldest fast slow faster slower cheap expensive left right north south east
    west true false yes safe unsafe legal illegal possible impossible
    """.split()  # noqa: SIM905 - reads better than a list of quoted words
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|`[^`]*`|(?<!\w)'[^']*'(?!\w)|(?<!\w)‘[^’]*’(?!\w)")  # noqa: RUF001
_OWN = re.compile(r"['’][sS]$")  # noqa: RUF001 - as in "what's" and "Ann's"
_PUNCTUATION = ".,;:!?()[]{}\"'“”„«»‘’`"  # noqa: RUF001 - typographic quotation marks


def marks(text: str) -> list[str]:
    """Lists what another question must have, too, in this order.

    Quotations as they stand; then, in reading order: whatever holds anything but letters (numbers, dates, ids, amounts,
    addresses, paths), words with a capital, which may be names, and words that turn a question round.
    """
    plain = folded(text)
    found = _QUOTED.findall(plain)
    for piece in plain.split():
        bare = _OWN.sub("", piece.strip(_PUNCTUATION))
        if not bare:
            found += [piece] if set(piece) - set(_PUNCTUATION) else []
        elif is_mark(bare):
            found.append(bare.casefold() if bare.casefold() in _TELLING else bare)
    return found


def is_mark(word: str) -> bool:
    """Whether a question may turn on a word: it is no plain lower-case word of letters, or a telling one."""
    plain = word.casefold()
    if not word.isalpha() or word.upper() == word.lower() or plain in _TELLING:
        return True
    return word != word.lower() and plain not in STOP_WORDS


def is_alike(one: str, other: str) -> bool:
    """Whether two questions may have the same answer, as far as their words tell.

    The words that they share stand in the same order, so that the same is done to the same. They are the same words, or
    so many differ that it is another way to put it: one word that was replaced or added may be all that matters.
    """
    first, second = words(folded(one)), words(folded(other))
    many, others = Counter(first), Counter(second)
    shared = many & others
    differing = (many - others).total() + (others - many).total()
    if 0 < differing <= max(FEW, shared.total() // 3):
        return False
    return [word for word in first if word in shared] == [word for word in second if word in shared]


def folded(text: str) -> str:
    """Writes characters that look alike in one way."""
    return unicodedata.normalize("NFKC", text)
