"""`concurrent.futures` futures of objects, in which a thread waits as in `get`: its engine knows for what."""

from __future__ import annotations

import concurrent.futures
from typing import Any, TypeVar

from umbel._client import refs

T = TypeVar("T")


class ResultFuture(concurrent.futures.Future[T]):
    """What `ObjectRef.future` returns."""

    def __init__(self, ref: refs.ObjectRef[T]) -> None:
        super().__init__()
        self._ref: refs.ObjectRef[T] | None = ref  # until it is done

    def result(self, timeout: float | None = None) -> T:
        try:
            return super().result(self._left_after_waiting(timeout))
        finally:
            del self  # or an error keeps, by its traceback, all that its frames hold until there is a collection

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._left_after_waiting(timeout))

    def settle(self, settle: Any) -> None:
        """Have `settle(ref, succeed, fail)` do it, unless it was cancelled."""
        ref, self._ref = self._ref, None
        if self.set_running_or_notify_cancel():
            settle(ref, self.set_result, self.set_exception)

    def _left_after_waiting(self, timeout_s: float | None) -> float | None:
        ref = self._ref
        if ref is None or ref._engine is None or self.done():
            return timeout_s
        ref._engine.wait_beside(ref, self._is_done_within, timeout_s)
        return 0

    def _is_done_within(self, timeout_s: float | None) -> bool:
        try:
            super().exception(timeout_s)
        except concurrent.futures.CancelledError:
            return True
        except concurrent.futures.TimeoutError:
            return False
        return True
