"""Sleeping until a 32-bit word of shared memory changes, and waking who does: Linux's futex.

Elsewhere, and where the call is refused, a sleep is a short pause: correct, and slower. Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time
from collections.abc import Callable

from umbel._transport import reactor

_CALL_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}  # of the system call
_WAIT, _WAKE = 0, 1
_EVERYBODY = 2**31 - 1
PAUSE_S = 0.0002  # between two looks without a futex

_number = _CALL_NUMBERS.get(platform.machine(), -1) if sys.platform == "linux" and sys.maxsize > 2**32 else -1


class Timespec(ctypes.Structure):
    """How long to sleep."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    def __init__(self, duration_s: float) -> None:
        whole = int(duration_s)
        super().__init__(whole, int((duration_s - whole) * 1e9))


def _prototype(library: ctypes.CDLL) -> Callable[..., int]:
    call = library.syscall
    call.restype = ctypes.c_long
    call.argtypes = (
        ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32,
    )  # fmt: skip
    return call


_sleep = _prototype(ctypes.CDLL(None, use_errno=True))  # gives the interpreter's lock away meanwhile
_wake = _prototype(ctypes.PyDLL(None))  # takes less time than giving it away and getting it back


def wait(address: int, expected: int, timespec: Timespec) -> None:
    """Sleep until somebody wakes this address, for as long as the time says, or a signal; not at all if the word there
    is not `expected`. May return early."""
    if _number < 0 or (
        reactor.sleep_in(_sleep, _number, address, _WAIT, expected, ctypes.addressof(timespec), None, 0) == -1
        and ctypes.get_errno() == errno.ENOSYS
    ):
        reactor.sleep_in(time.sleep, PAUSE_S)


def wake(address: int) -> None:
    """Wake all who sleep on this address."""
    if _number >= 0:
        _wake(_number, address, _WAKE, _EVERYBODY, None, None, 0)
