"""Tie a process to its parent's life, then become the program: run as a script, before exec.

    python -I -S tether.py PARENT_PID PROGRAM ARGUMENT...

The kernel sends SIGTERM when the parent dies, however it dies (Linux; elsewhere the next
`ragmesh up` ends what was left). The wish survives exec, so the program need not know. Setting it
between fork and exec inside the supervisor instead would run Python in a forked copy of a process
with gRPC's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the wish was heard
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
