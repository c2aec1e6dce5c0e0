"""Files of tools that a mesh of this machine serves, each by a host of its own."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.core.errors import SetupError
from meshwright.registry.module import DECLARATIONS, tools

ENDINGS = (".py", *DECLARATIONS)


def check(files: Sequence[str]) -> None:
    """Finds out whether files can be served, before anything starts.

    Raises:
        SetupError: One holds no tools, or what is no tool, or a tool of another file; says where and why.
    """
    served: dict[str, str] = {}
    for file in files:
        if not file.endswith(ENDINGS):
            raise SetupError(f"--tools {file} is no file of tools: name a .py file with @tool, or a .yaml declaration")
        for tool in tools(file):
            tool.contract()
            pin = f"{tool.name}@{tool.version}"
            if pin in served:
                raise SetupError(f"{pin} is in {served[pin]} and in {file}: two hosts cannot serve one tool")
            served[pin] = file


def named(files: Sequence[str]) -> list[tuple[str, str]]:
    """Names the process of each file by the file; of two that are called alike, the second has a number."""
    names: dict[str, str] = {}
    for index, file in enumerate(files):
        name = Path(file).name
        names[f"{name}-{index}" if name in names else name] = file
    return list(names.items())
