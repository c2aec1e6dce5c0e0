"""URLs with places for arguments: a value fills its place and changes nothing around it. Pure."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.registry.egress import MAX_URL, Url, parsed

TEMPLATE = re.compile(r"(?P<base>https?://[^/?{}]+)(?P<path>/[^?]*)?(\?(?P<query>.*))?")
PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
BRACE = re.compile(r"[{}]")
MAX_REPEATED = 100
"""Values of one query parameter."""


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """A URL whose path and query hold `{argument}`.

    Attributes:
        base: Scheme, host and port, fixed.
        segments: Of the path.
        pairs: Of the query, name and value.
    """

    base: str
    segments: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    @property
    def in_path(self) -> set[str]:
        """Arguments that the path needs."""
        return {name for segment in self.segments for name in PLACE.findall(segment)}

    @property
    def in_query(self) -> set[str]:
        """Arguments that the query takes."""
        return {name for _, value in self.pairs for name in PLACE.findall(value)}

    @property
    def origin(self) -> Url:
        """Where it leads, whatever the arguments."""
        return parsed(self.base)

    def filled(self, arguments: dict[str, Any]) -> str:
        """Returns the URL of a call; a query parameter whose argument is absent or null is left out.

        Raises:
            InvalidRequestError: A value would change the path's structure, is no plain one, or is too long.
        """
        path = "/".join(self._segment(segment, arguments) for segment in self.segments)
        query = "&".join(one for name, value in self.pairs for one in parameters(name, value, arguments))
        url = f"{self.base}/{path}" + (f"?{query}" if query else "")
        if len(url) > MAX_URL:
            limits = {"arguments": f"at most {MAX_URL} characters in the URL that they make"}
            raise InvalidRequestError("the arguments are too long for a URL", fields=limits)
        return url

    def _segment(self, segment: str, arguments: dict[str, Any]) -> str:
        names = PLACE.findall(segment)
        values = {name: plain(name, arguments.get(name)) for name in names}
        whole = PLACE.sub(lambda match: values[match[1]], segment)
        # many servers decode %2F and %5C before they look for dots
        is_step = any(part.strip() in (".", "..") for part in re.split(r"[/\\]", whole))
        if names and (not whole or is_step or any(ord(char) < 32 for char in whole)):  # noqa: PLR2004 - a space
            problem = {f"arguments/{names[0]}": "must be a name: not empty, no dots alone, no control characters"}
            raise InvalidRequestError(f"{names[0]} does not fit into a path", fields=problem)
        return PLACE.sub(lambda match: quote(values[match[1]], safe=""), segment)


def parameters(name: str, value: str, arguments: dict[str, Any]) -> list[str]:
    """Returns what a query parameter becomes: nothing, one pair, or one for each item of an argument's list."""
    names = PLACE.findall(value)
    if any(arguments.get(one) is None for one in names):
        return []
    whole = PLACE.fullmatch(value)
    given = arguments[whole[1]] if whole else None
    items = given if isinstance(given, list) else None
    if whole and items is not None:
        if len(items) > MAX_REPEATED:
            problem = {f"arguments/{whole[1]}": f"at most {MAX_REPEATED} items"}
            raise InvalidRequestError(f"{whole[1]} has too many items for a query", fields=problem)
        return [f"{name}={quote(plain(whole[1], item), safe='')}" for item in items]
    return [f"{name}={PLACE.sub(lambda match: quote(plain(match[1], arguments[match[1]]), safe=''), value)}"]


def plain(name: str, value: Any) -> str:
    """Writes an argument as text.

    Raises:
        InvalidRequestError: It is neither text, number nor truth value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        text = str(value)
        if not any("\ud800" <= char <= "\udfff" for char in text):
            return text
    problem = {f"arguments/{name}": "must be text, a number or a truth value"}
    raise InvalidRequestError(f"{name} does not fit into a URL", fields=problem)


def parsed_template(text: str) -> UrlTemplate:
    """Reads a URL template.

    Raises:
        SetupError: It is none; says why.
        EgressRefusedError: Its fixed part is no URL that is called.
    """
    match = TEMPLATE.fullmatch(text)
    if not match:
        raise SetupError("must be http(s)://host[:port]/path?query, with {argument} in path and query only")
    segments = tuple((match["path"] or "/")[1:].split("/"))
    pairs = tuple(pair(one) for one in (match["query"] or "").split("&") if one)
    template = UrlTemplate(match["base"], segments, pairs)
    parsed(match["base"])
    fixed = [*segments, *(value for _, value in pairs)]
    if any(BRACE.search(PLACE.sub("", part)) for part in fixed) or any(BRACE.search(name) for name, _ in pairs):
        raise SetupError("has a brace that names no argument: write {name}")
    parsed(match["base"] + "/" + "/".join(PLACE.sub("x", segment) for segment in segments))
    parsed(match["base"] + "/?" + "&".join(f"{name}={PLACE.sub('x', value)}" for name, value in pairs))
    return template


def pair(text: str) -> tuple[str, str]:
    """Splits `name=value`."""
    name, _, value = text.partition("=")
    return name, value
