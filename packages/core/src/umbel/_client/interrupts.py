"""SIGINT without harm: a KeyboardInterrupt must not tear the runtime's bookkeeping in two.

Python raises it between any two instructions of the main thread, which may just be entering a reply into the books. So
a handler of ours looks at what it would interrupt. User code and waits are interrupted at once. When our own code runs,
two things are prepared: the signal is repeated every `RETRY_S` until it finds something that may be interrupted, and
the next call of the runtime raises instead of beginning, for programs that do little else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from umbel._client import current, links, waits
from umbel._objects import serialization
from umbel._transport import connection, reactor

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

RETRY_S = 0.01  # a person does not notice, and our own code is rarely that long at work
_PRIVATE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_")  # umbel._client and its like
_WAITS = (
    reactor.poll_ready.__code__, reactor.poll_briskly.__code__, connection.Poller.poll.__code__,
    connection.wait_readable.__code__,
    reactor.sleep_on.__code__, reactor.sleep_in.__code__,
)  # fmt: skip
_UNINTERRUPTED = (links.AgentLink.request.__code__,)  # an answer that nobody takes may be a grant of memory
_USERS_CODE = (
    serialization.serialize.__code__, serialization.decode_inline.__code__, serialization.load.__code__,
    waits.callers.__code__,
)  # fmt: skip


def is_harmless(frame: FrameType | None, lock: Any, *, otherwise: bool, users_code: tuple[CodeType, ...] = ()) -> bool:
    """Whether raising at `frame` of the calling thread hits user code, or our wait on its behalf.

    lock: the engine's. users_code: functions whose callees are the user's, beside pickling. otherwise: the answer when
    no frame decides.
    """
    if lock._is_owned():
        return False
    is_wait = frame is not None and frame.f_code in _WAITS
    while frame is not None:
        code = frame.f_code
        if code in users_code or code in _USERS_CODE:
            return True
        if code in _UNINTERRUPTED or (not is_wait and code.co_filename.startswith(_PRIVATE)):
            return False
        frame = frame.f_back
    return otherwise or is_wait


class Trap:
    """Stands in for the engine until the main thread calls it, and raises there if `is_due()` still holds."""

    __slots__ = ("_engine", "_is_due", "_thread")

    def __init__(self, engine: Any, is_due: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_due = is_due
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if threading.get_ident() == self._thread:
            current.stand_in(self._engine)
            if self._is_due():
                raise KeyboardInterrupt
        return getattr(self._engine, name)


def lay_trap(engine: Any, is_due: Callable[[], bool]) -> None:
    """Have the calling thread's next call of the engine raise KeyboardInterrupt.

    For a signal handler, which cannot wait for a lock: while another thread starts or ends a session, nothing is done.
    """
    lock = current.lock()
    if lock.acquire(blocking=False):
        try:
            if current.running_engine() is engine:
                current.stand_in(Trap(engine, is_due))
        finally:
            lock.release()


class DriverInterrupts:
    """Ctrl-C in a driver whose handler of SIGINT is Python's own; anybody else's is left alone."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._process = os.getpid()
        self._main_thread = threading.main_thread().ident or 0
        self._is_pending = False
        self._retry_at_s = 0.0
        self._is_installed = False
        self._handler = self._interrupted  # one object, to be known again

    def install(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
            self._is_installed = True

    def uninstall(self) -> None:
        self._is_pending = False
        is_main = threading.current_thread() is threading.main_thread()
        if self._is_installed and is_main and signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_installed = False

    def _interrupted(self, _number: int, frame: FrameType | None) -> None:
        engine: Any = self._engine
        is_ours = not engine.is_closed and os.getpid() == self._process
        if is_ours and not is_harmless(frame, engine.lock, otherwise=True):
            if not self._is_pending:
                self._is_pending = True
                lay_trap(engine, self._take)
                engine.reactor.poke()
            return
        self._is_pending = False
        raise KeyboardInterrupt

    def _take(self) -> bool:
        is_pending, self._is_pending = self._is_pending, False
        return is_pending

    def housekeep(self, now_s: float) -> float | None:
        """Repeat what found our own code running. Returns when to look again."""
        if not self._is_pending:
            return None
        if now_s >= self._retry_at_s:
            self._retry_at_s = now_s + RETRY_S
            signal.pthread_kill(self._main_thread, signal.SIGINT)
        return RETRY_S
