"""A tool that a host of its own serves."""

from meshwright.registry import tool


@tool(name="letters.count", effect="pure")
def count(text: str) -> int:
    """Counts letters."""
    return len(text)
