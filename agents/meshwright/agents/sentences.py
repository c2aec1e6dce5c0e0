"""Text into sentences and words: plain text and Markdown, no language model."""

import re
from collections.abc import Iterator

LONGEST_SENTENCE = 600
"""Characters; text without full stops (logs, tables) is cut at spaces."""
LONGEST_CODE = 3
"""Lines of a code block that may still be read as part of the sentence before it."""

_ABBREVIATIONS = frozenset(
    ["al", "approx", "ca", "cf", "co", "corp", "dr", "e.g", "i.e", "inc", "jr", "ltd", "mr", "mrs", "ms", "prof", "vs"]
)
_BEFORE_NUMBERS = frozenset(
    ["art", "ch", "chap", "eq", "est", "fig", "figs", "no", "nos", "nr", "p", "pp", "ref", "sec", "tab", "vol"]
)
_STOP_TEXT = """
a about above after again all also am an and any are aren't as ask at be because been before being below between both
but by can can't cannot could couldn't did didn't do does doesn't doing don't done down during each few find for from
further get give had has hasn't have having he help her here hers him his how i i'd i'll i'm i've if in into is isn't it
it's its just kindly know let like list many may me might more most much must my no nor not now of off on once only or
other our ours out over own per please same shall she should show so some such tell than thank thanks that that's the
their theirs them then there these they this those through to too under until up us use used using very want was we were
what what's when where which while who whom whose why will with within without would you you'd you're your yours
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())
"""Words that say nothing about a subject."""

SHORTEST_STEM = 3
"""Characters that stay of a word whatever its ending."""

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"\s{0,3}#{1,6}(\s|$)")
_RULE = re.compile(r"\s{0,3}([-=*_])(\s*\1){2,}\s*$")
_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_QUOTE = re.compile(r"\s{0,3}(?:>\s?)+")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\s+\"[^\"\n]*\")?\)")
_EMPHASIS = re.compile(r"(?:\*\*|~~)(?=\S)|(?<=\S)(?:\*\*|~~)")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+")  # noqa: RUF001 - full-width stops end sentences too
_ACRONYM = re.compile(r"(?:[a-z]\.)*[a-z]")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 - typographic apostrophes stand inside words


def sentences(text: str) -> list[str]:
    """Splits text into sentences.

    Markdown is read as a person would: each list item and table row stands for itself, headings, rules and code blocks
    are left out (a few lines of code after a colon stay with their sentence), links and emphasis lose their marks.

    Args:
        text: Plain text or Markdown of any length; the time is linear in it.

    Returns:
        Sentences in reading order, white space collapsed, each of at most `LONGEST_SENTENCE` characters.
    """
    return [sentence for block in _blocks(text) for part in _split(block) for sentence in _bounded(part)]


def words(text: str) -> list[str]:
    """Finds the words that carry meaning: lower case, without stop words, cut to a rough stem.

    Args:
        text: Any text.

    Returns:
        Stems in reading order, repeated ones included: `Caches are cached` gives `["cach", "cach"]`.
    """
    found = (match.group().lower().replace("’", "'") for match in _WORD.finditer(text))  # noqa: RUF001
    return [
        stem(word)
        for word in found
        if word not in STOP_WORDS and (len(word) > 1 or word.isdigit() or not word.isascii())
    ]


def stem(word: str) -> str:
    """Cuts the commonest English endings, so that `stores`, `stored` and `storing` meet."""
    word = word.removesuffix("'s")
    if word.endswith("ies") and len(word) > SHORTEST_STEM + 1:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > SHORTEST_STEM:
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            word = word.removesuffix(ending)
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > SHORTEST_STEM else word


def _blocks(text: str) -> Iterator[str]:
    """Yields paragraphs, list items and table rows, each on one line."""
    block: list[str] = []
    for line in _prose(text):
        if not line.strip() and _leads_in(block):
            continue
        starts_anew, content = _content(line)
        if starts_anew:
            is_heading = _is_underline(line) and len(block) == 1
            yield from () if is_heading else _joined(block)
            block = []
        if content:
            block.append(content)
    yield from _joined(block)


def _prose(text: str) -> Iterator[str]:
    """Yields the lines outside of code blocks; short code after a colon becomes the next line of its sentence."""
    code: list[str] | None = None
    last = ""
    for line in text.splitlines():
        if _FENCE.match(line):
            if code and len(code) <= LONGEST_CODE and last.rstrip().endswith(":"):
                yield ", ".join(f"`{each}`" for each in code)
            code = [] if code is None else None
        elif code is not None:
            code += [line.strip()] if line.strip() else []
        else:
            last = line if line.strip() else last
            yield line


def _content(line: str) -> tuple[bool, str]:
    """Tells whether a line ends the block before it, and what it says itself."""
    line = _QUOTE.sub("", line, count=1)
    if not line.strip() or _HEADING.match(line) or _RULE.match(line) or not line.strip(" \t|:-"):
        return True, ""
    if line.lstrip().startswith("|"):
        return True, _plain(", ".join(cell.strip() for cell in line.strip().strip("|").split("|") if cell.strip()))
    bullet = _BULLET.match(line)
    return bool(bullet), _plain(line[bullet.end() :] if bullet else line)


def _plain(line: str) -> str:
    return _EMPHASIS.sub("", _LINK.sub(r"\1", line)).strip()


def _is_underline(line: str) -> bool:
    """Tells whether a line can make the one above it a heading."""
    return bool(_RULE.match(line)) and line.strip()[0] in "-="


def _leads_in(block: list[str]) -> bool:
    return bool(block) and block[-1].endswith(":")


def _joined(block: list[str]) -> Iterator[str]:
    text = " ".join(" ".join(block).split())
    if any(character.isalnum() for character in text):
        yield text


def _split(block: str) -> Iterator[str]:
    """Yields the sentences of one line of text."""
    start = 0
    for end in _END.finditer(block):
        if _ends_sentence(block, start, end):
            yield block[start : end.end()].strip()
            start = end.end()
    if rest := block[start:].strip():
        yield rest


def _ends_sentence(block: str, start: int, end: re.Match[str]) -> bool:
    """Tells a full stop from the dot of an abbreviation, an initial or an ellipsis in mid-sentence."""
    following = block[end.end() : end.end() + 2].lstrip()[:1]
    if following.islower():
        return False
    if end.group()[0] != ".":
        return True
    before = block[max(start, end.start() - 12) : end.start()].rpartition(" ")[2].lstrip("(\"'[").lower()
    if before in _BEFORE_NUMBERS:
        return not following.isdigit()
    return before == "i" or not (before in _ABBREVIATIONS or _ACRONYM.fullmatch(before))


def _bounded(sentence: str) -> Iterator[str]:
    start = 0
    while len(sentence) - start > LONGEST_SENTENCE:
        cut = sentence.rfind(" ", start + 1, start + LONGEST_SENTENCE + 1)
        end = cut if cut > 0 else start + LONGEST_SENTENCE
        yield sentence[start:end]
        start = end + 1 if cut > 0 else end
    yield sentence[start:]
