"""The walls around a decoder: bounds on what it may use, and `seal`, after which it can reach nothing but the
descriptors it holds. Linux only. What the kernel does not grant here is left out and told.

Standard library only; imports nothing of ours but the filter of system calls.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from enum import StrEnum

from worker.engine.decoder import system_calls

OPEN_FILES = 32
WRITABLE_BYTES = 64 * 1024
"""What the child may write to a file: room for the traceback on its standard error."""

NOBODY = 65_534

_NEW_USER = 0x1000_0000
_NEW_PLACES = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000
"""Namespaces of mounts, control groups, names, IPC, processes and networks. The one of processes is for
children: with no fork it holds none, and the kernel starts no thread beside us either."""

_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_CAPABILITIES_VERSION = 0x2008_0522


class Guard(StrEnum):
    """What can be had or not, depending on the kernel and on who we are."""

    NAMESPACES = "namespaces"
    """A network with no interface, and a user without rights anywhere else."""

    EMPTY_ROOT = "empty_root"
    """No file can be named: the root folder is an empty one that has been deleted."""

    NO_PRIVILEGES = "no_privileges"
    """No capabilities, none to be gained, and never the superuser of this machine."""

    SYSTEM_CALLS = "system_calls"
    """Read, write and memory; nothing that opens, connects, starts, signals or traces."""


def die_with(parent_pid: int) -> None:
    """Linux kills this process when the thread that started it ends, however it ends."""
    if sys.platform == "linux":
        _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the parent died before the child was ready")


def set_bounds(memory_bytes: int, cpu_s: int) -> None:
    bounds = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: WRITABLE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for bound, value in bounds.items():
        _, hard = resource.getrlimit(bound)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(bound, (allowed, allowed))
    # The soft bound's signal tells the parent why; with both bounds equal it would be a plain SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def seal(parent_pid: int) -> list[Guard]:
    """To be called once, in a folder that has been deleted, with everything imported. Returns what holds."""
    walls = {
        Guard.NAMESPACES: leave_namespaces,
        Guard.EMPTY_ROOT: leave_files,
        Guard.NO_PRIVILEGES: drop_privileges,
        Guard.SYSTEM_CALLS: system_calls.allow_few,
    }
    held = []
    for guard, raise_wall in walls.items():
        with suppress(OSError):
            raise_wall()
            held.append(guard)
        if guard is Guard.NO_PRIVILEGES:
            # Another user's process, which we may have become, does not die with its parent any more.
            die_with(parent_pid)
    return held


def leave_namespaces() -> None:
    """As root by right, else by way of an own user namespace. Raises OSError where neither is granted."""
    if os.geteuid() == 0:
        with suppress(OSError):
            _call("unshare", _NEW_PLACES)
            return
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _NEW_PLACES | _NEW_USER)
    # Without these lines we would be nobody, and the owner of no file: not even of the folder we stand in.
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def leave_files() -> None:
    """Root of a user namespace may do so, and root; others may not."""
    os.chroot(".")


def drop_privileges() -> None:
    if os.geteuid() == 0:
        # Where root is not the machine's, but of a namespace with no other user in it, it has to stay.
        with suppress(OSError):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0))
    _call("capset", header, ctypes.create_string_buffer(24))


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    if getattr(libc, name)(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
