"""Processes as an ordinary user, whoever runs the tests: uid 1000 of a user namespace, without capabilities.
In one where `max_user_namespaces` is 0 it can make none of its own, as where the kernel forbids them."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

USER = 1000

_NEW_USER = 0x1000_0000


def ordinary_user(*, may_make_namespaces: bool = True) -> Callable[[], None]:
    """For Popen's `preexec_fn`. The process still owns this user's files."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)

    def become() -> None:
        if libc.unshare(_NEW_USER) != 0:
            raise OSError(ctypes.get_errno(), "no user namespaces here")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{USER} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{USER} {gid} 1")
        if not may_make_namespaces:
            Path("/proc/sys/user/max_user_namespaces").write_text("0")

    return become


def can_be_had() -> bool:
    """Whether this machine lets us test as another user."""
    pid = os.fork()
    if pid == 0:
        try:
            ordinary_user()()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
