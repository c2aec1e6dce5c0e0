"""Authors' modules: imported by name or by file, their mistakes told in one line."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from meshwright.core.errors import SetupError

if TYPE_CHECKING:
    from meshwright.registry.tool.hosted import HostedTool

T = TypeVar("T")
DECLARATIONS = (".yaml", ".yml")
"""Endings of files that declare tools."""


def members(place: str, kind: type[T]) -> dict[str, T]:
    """Imports a module (by name, or by a path ending in .py) and returns what it holds of a kind, by name.

    Raises:
        SetupError: There is no such module, or it fails to import; says where.
    """
    try:
        module = from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except SetupError:
        raise
    except SyntaxError as error:
        raise SetupError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's module may raise anything
        raise SetupError(f"{place} cannot be imported: {type(error).__name__}: {error}") from None
    return {name: value for name, value in vars(module).items() if isinstance(value, kind)}


def tools(place: str) -> "list[HostedTool]":
    """Returns the tools of a module (by name, or by a path ending in .py) or of a file of declarations.

    Raises:
        SetupError: There are none, or something is wrong with them; says where.
    """
    if place.endswith(DECLARATIONS):
        from meshwright.registry import toolfile

        return toolfile.load(Path(place))
    from meshwright.registry.tool import LocalTool

    found: list[HostedTool] = list(members(place, LocalTool).values())
    if not found:
        raise SetupError(f"{place} holds no tools: decorate functions with @tool")
    return found


def from_file(path: Path) -> ModuleType:
    """Imports a file under its own name, with its folder importable, as when Python runs it."""
    if not path.is_file():
        raise SetupError(f"{path} is not a file")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SetupError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
