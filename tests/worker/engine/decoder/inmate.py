"""A decoder that has been taken over: seals itself, or raises single walls, then tries every way out and
writes down which ones were open. `python -I inmate.py REQUEST`."""

import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path[0:0] = [str(Path(__file__).parents[4])]

from worker.engine.decoder import sandbox, system_calls  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
WALLS = {
    "namespaces": sandbox.leave_namespaces,
    "empty_root": sandbox.leave_files,
    "no_privileges": sandbox.drop_privileges,
    "system_calls": system_calls.allow_few,
}
NO_SUCH_SIGNAL = 0
PTRACE_SEIZE = 0x4206
MNT_DETACH = 2


def main() -> None:
    asked = json.loads(sys.argv[1])
    parent = os.getppid()
    os.chdir(asked["folder"])
    os.rmdir(asked["folder"])
    held = []
    if asked["walls"] is None:
        held = [str(guard) for guard in sandbox.seal(parent)]
    else:
        for wall in asked["walls"]:
            WALLS[wall]()
    ways: dict[str, Callable[[], object]] = {
        # First: whoever makes a namespace has all of them in it.
        "use capabilities": use_capabilities,
        "read a file": lambda: os.open(asked["file"], os.O_RDONLY),
        "list a folder": lambda: os.listdir("/etc"),
        "write a file": lambda: os.open(asked["file"] + ".new", os.O_WRONLY | os.O_CREAT),
        "write here": lambda: os.open("here", os.O_WRONLY | os.O_CREAT),
        "remove a file": lambda: os.unlink(asked["file"] + ".spare"),
        "connect": lambda: connect(asked["address"]),
        "start a program": start_a_program,
        "fork": fork,
        "signal the worker": lambda: os.kill(parent, NO_SUCH_SIGNAL),
        "trace the worker": lambda: call("ptrace", PTRACE_SEIZE, parent, 0, 0),
        "new namespaces": lambda: call("unshare", 0x1000_0000),
        "run code it wrote": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "become root": lambda: os.setuid(0),
        "mount": mount,
    }
    opened = [name for name, way in ways.items() if is_open(way)]
    sys.stdout.write(json.dumps({"held": held, "open": opened}))


def is_open(way: Callable[[], object]) -> bool:
    with suppress(OSError):
        way()
        return True
    return False


def connect(address: list[object]) -> None:
    with socket.socket() as there:
        there.connect(tuple(address))


def start_a_program() -> None:
    """In a child where there may be one, so that we live to tell."""
    pid = os.fork()
    if pid == 0:
        with suppress(OSError):
            os.execv("/bin/true", ["true"])
        os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise OSError


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def mount() -> None:
    """And off again: without a namespace this is the machine's own root."""
    call("mount", b"none", b"/", b"tmpfs", 0, None)
    call("umount2", b"/", MNT_DETACH)


def use_capabilities() -> None:
    """Whether there are any, of whatever namespace."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x2008_0522, 0))
    data = ctypes.create_string_buffer(24)
    call("capget", header, data)
    if not any(data.raw):
        raise OSError


def call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


signal.alarm(30)
main()
