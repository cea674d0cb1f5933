"""What became of every call of a load whose processes are disturbed meanwhile: right, wrong, or lost."""

from __future__ import annotations

import collections
import sys
import threading
import time
import traceback
from typing import Any

import umbel
from benchmarks import processes, soak_load
from umbel import exceptions

REPORTED_MAX = 20  # failures of each kind shown
EXCERPT = 400  # characters of either end of an error's message
TRACED_MAX = 40  # frames shown of an error that is none of the runtime's


class Ledger:
    """Books of all calls, and which processes answered. Shared by the threads.

    name: before each line that is printed. lost_after_s: within which each call must end. excuse_s: for how long after a
    disturbance a call may begin and still end in a crash. crashes: errors that are right besides where crashes are. ends: errors
    that end all books, and are raised.
    """

    def __init__(
        self,
        name: str,
        *,
        lost_after_s: float,
        excuse_s: float = 5.0,
        crashes: tuple[type[Exception], ...] = (),
        ends: tuple[type[Exception], ...] = (),
    ) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.submitted = 0
        self.right_results = 0
        self.right_errors: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.beside_calls = 0  # of what is wrong
        self.disturbances: collections.Counter[str] = collections.Counter()
        self.seen: dict[int, int] = {}  # pid that answered a call -> its start tick
        self.doing: dict[int, tuple[float, str]] = {}  # thread -> since when it waits for which kind of call
        self._lost_after_s = lost_after_s
        self._excuse_s = excuse_s
        self._crashes = crashes
        self._ends = ends
        self._disturbed_s = float("-inf")

    def add(self, calls: int) -> None:
        with self.lock:
            self.submitted += calls

    def note_disturbance(self, kind: str, lasts_s: float = 0.0) -> None:
        """Something is about to be killed, or held up for a while."""
        with self.lock:
            self.disturbances[kind] += 1
            self._disturbed_s = max(self._disturbed_s, time.monotonic() + lasts_s)

    def settle(self, call: soak_load.Call) -> None:
        """Waits for the call and books it under exactly one heading."""
        thread = threading.get_ident()
        self.doing[thread] = (time.monotonic(), call.kind)
        try:
            got = call.result(max(1.0, call.submitted_s + self._lost_after_s - time.monotonic()))
        except exceptions.GetTimeoutError:
            self.book_lost(f"{call.kind}: nothing within {self._lost_after_s:g} s: {explained(call.ref)}")
        except Exception as error:
            if isinstance(error, self._ends):
                raise
            if self._is_right_error(call, error):
                with self.lock:
                    self.right_errors[type(error).__name__.partition("(")[0]] += 1
            else:
                told = (
                    "" if isinstance(error, exceptions.UmbelError) else f"\n{traceback.format_exc(limit=-TRACED_MAX)}"
                )
                self.book_wrong(f"{call.kind}: {type(error).__name__}: {shortened(str(error))}{told}")
        else:
            self._note_process(got)
            if call.is_right is not None and call.is_right(got):
                with self.lock:
                    self.right_results += 1
            else:
                self.book_wrong(f"{call.kind}: the result {shortened(str(got))}")
        finally:
            del self.doing[thread]

    def book_wrong(self, what: str) -> None:
        self._book(self.wrong, what)

    def book_beside(self, what: str) -> None:
        """Something is wrong that is no call's end."""
        self.beside_calls += 1
        self.book_wrong(what)

    def book_lost(self, what: str) -> None:
        self._book(self.lost, what)

    def summary(self) -> str:
        disturbances = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.disturbances.items())) or "no kills"
        return (
            f"{self.submitted:,} calls, {self.right_results:,} right results, "
            f"{self.right_errors.total():,} right errors, {disturbances}; "
            f"{len(self.wrong)} wrong, {len(self.lost)} lost"
        )

    def is_clean(self) -> bool:
        return not self.wrong and not self.lost and not self.unaccounted()

    def unaccounted(self) -> int:
        """Calls that were submitted and have not ended in any way."""
        booked = self.right_results + self.right_errors.total() + len(self.wrong) + len(self.lost)
        return self.submitted - (booked - self.beside_calls)

    def _is_right_error(self, call: soak_load.Call, error: Exception) -> bool:
        if isinstance(error, call.errors):
            return call.message in str(error)
        # A crash is no excuse unless something was disturbed since the call, or so shortly before that the news was late.
        was_disturbed = self._disturbed_s > call.submitted_s - self._excuse_s
        return was_disturbed and bool(call.crashes) and isinstance(error, (*call.crashes, *self._crashes))

    def _note_process(self, got: Any) -> None:
        if isinstance(got, tuple) and isinstance(got[0], int) and got[0] not in self.seen:
            tick = processes.start_tick(got[0])
            if tick is not None:
                with self.lock:
                    self.seen[got[0]] = tick

    def _book(self, heading: list[str], what: str) -> None:
        with self.lock:
            heading.append(what)
            if len(heading) <= REPORTED_MAX:
                print(f"{self.name}: {time.strftime('%H:%M:%S')} {heading[-1]}", file=sys.stderr, flush=True)


def explained(ref: Any) -> str:
    """Why a call has not ended, as the runtime says."""
    if ref is None:
        return "(several references)"
    try:
        return str(umbel.explain(ref))
    except Exception as error:
        return f"(explain: {type(error).__name__}: {shortened(str(error))})"


def shortened(text: str) -> str:
    """The ends of a long message: what, and the last lines of the remote traceback."""
    return text if len(text) <= 2 * EXCERPT else f"{text[:EXCERPT]} [...] {text[-EXCERPT:]}"
