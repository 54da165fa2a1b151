"""The system calls that are left to a decoder, as a seccomp filter: a program that the kernel runs at every
call of this process. All others fail with EPERM.

The list is short because it is needed from the moment on at which everything is loaded and open. Written by
hand: a library for this would have to be on every machine in its C half too.
"""

import ctypes
import errno
import os

MACHINES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
"""Processors, and the kernel's names of them. The numbers below stand in this order."""

ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}

MMAP, MPROTECT, FCNTL, NEWFSTATAT = (9, 222), (10, 226), (72, 25), (262, 79)
"""Allowed with some arguments only."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _DENY = 0x7FFF_0000, 0x0005_0000 | errno.EPERM
_NUMBER, _AUDIT, _ARGUMENTS = 0, 4, 16
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000
_F_SETFL = 4
"""The first of the commands of fcntl that do more than copy a descriptor or look at it."""

_SET_SECCOMP, _FILTER = 22, 2

Step = tuple[int, int, int, int]
"""Operation, steps to skip if it holds, steps to skip if not, operand."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def allow_few() -> None:
    """For good, and for all that this process may become. Raises OSError where it cannot be done."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, "no list of system calls for this processor")
    code = b"".join(_packed(step) for step in program(machine))
    steps = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    set_, kind = ctypes.c_ulong(_SET_SECCOMP), ctypes.c_ulong(_FILTER)
    if libc.prctl(set_, kind, ctypes.byref(filter_), None, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def program(machine: str) -> list[Step]:
    column = list(MACHINES).index(machine)
    steps: list[Step] = [
        (_LOAD, 0, 0, _AUDIT),
        (_EQUAL, 1, 0, MACHINES[machine]),
        (_RETURN, 0, 0, _DENY),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in ALLOWED.values():
        steps += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    # No memory with new code in it, and no signals by way of a descriptor's owner. The standard library's
    # fstat is a stat of the empty path.
    steps += _unless(MMAP[column], 2, (_ANY_BIT, 0, 1, _PROT_EXEC))
    steps += _unless(MPROTECT[column], 2, (_ANY_BIT, 0, 1, _PROT_EXEC))
    steps += _unless(FCNTL[column], 1, (_AT_LEAST, 0, 1, _F_SETFL))
    steps += _unless(NEWFSTATAT[column], 3, (_ANY_BIT, 1, 0, _AT_EMPTY_PATH))
    return [*steps, (_RETURN, 0, 0, _DENY)]


def _unless(call: int, argument: int, denied: Step) -> list[Step]:
    """Allows `call`, unless `denied` holds of one of its arguments: it goes on to the next step then."""
    return [
        (_EQUAL, 0, 4, call),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        denied,
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _packed(step: Step) -> bytes:
    code, if_true, if_false, operand = step
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + operand.to_bytes(4, "little")
