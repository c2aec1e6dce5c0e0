"""The tool that is called across processes."""

from meshwright.registry import tool


@tool(effect="pure", name="bench.far")
async def far() -> bool:
    """Does nothing, far away."""
    return True
