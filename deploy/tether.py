"""`python tether.py SIGNAL PARENT_PID COMMAND...` becomes COMMAND, which gets SIGNAL when the parent dies.

Run by path, before COMMAND, so that no Python code has to run between fork and exec. Linux only: elsewhere a
supervisor that is killed with -9 leaves its children behind.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    death_signal, parent_pid, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent_pid:
        sys.exit("the supervisor died before its child was ready")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
