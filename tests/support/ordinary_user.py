"""Programs as an ordinary user, whoever runs the tests: uid 1000 of a user namespace, without capabilities.
In one where `max_user_namespaces` is 0 it can make none of its own, as where the kernel forbids them."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

USER = 1000

_NEW_USER = 0x1000_0000
_NO_NAMESPACES = "no-namespaces"


def ordinary_user(*, may_make_namespaces: bool = True) -> list[str]:
    """What to put before a command. The program still owns the files of who runs the tests."""
    words = [] if may_make_namespaces else [_NO_NAMESPACES]
    return [sys.executable, "-I", "-B", __file__, *words, "--"]


def can_be_had() -> bool:
    """Whether this machine lets us test as another user."""
    return subprocess.run([*ordinary_user(), "true"], check=False, capture_output=True).returncode == 0


def main() -> None:
    words, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    uid, gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER) != 0:
        sys.exit("no user namespaces here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{USER} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{USER} {gid} 1")
    if _NO_NAMESPACES in words:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
