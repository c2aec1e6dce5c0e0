"""Becomes another program that ends with its parent: `python -I -S tether.py PARENT COMMAND...`.

The kernel (Linux) sends SIGTERM when the parent ends, however it ends. It is asked in the child itself, so that the
parent can start programs without running code between fork and exec. A parent that has ended by then sends nothing: the
child has another one by now.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
TETHER = (sys.executable, "-I", "-S", __file__)


def tethered(*command: str) -> tuple[str, ...]:
    """Spells a command so that it ends with this process."""
    return (*TETHER, str(os.getpid()), *command)


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("its parent has ended")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the parent names the program
