"""Which objects the coroutines of this process await.

Nothing waits in a thread of ours for them, so what `get` notes for itself is noted here: for those who ask, and for the
watchdog. One whose value is there when it is awaited does not come here. No clock is read for an await: it is stamped with
the number of looks that the watchdog has taken before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

LOOKS = 2  # within the watchdog's time: it speaks after one and a half times that, at the latest
STORIES_MAX = 10  # followed at one look


class Awaits:
    """The engine's lock is held in all methods but `housekeep`."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        # By the asyncio future that will get the value: what is awaited, and the number of looks before.
        self.of: dict[Any, tuple[ownership.Record, int]] = {}
        self._look = 0
        self._look_s = 0.0  # time.monotonic() of the next one
        self._is_telling = False

    def add(self, record: ownership.Record, future: Any, callback: Callable[[], None]) -> Callable[..., None]:
        """The callback that ends the await and calls `callback`."""
        of = self.of
        of[future] = record, self._look

        def end(_record: Any = None) -> None:
            of.pop(future, None)
            callback()

        return end

    # The watchdog

    def housekeep(self, now_s: float) -> float | None:
        """Look for those that have lasted long, if it is time. Returns when to come again. No lock."""
        watch_s = self._engine.config.watchdog_s
        if not watch_s or not self.of:
            return None
        if now_s < self._look_s:
            return self._look_s - now_s
        self._look_s = now_s + watch_s / LOOKS
        with self._engine.lock:
            overdue = self.look()
        if overdue and not self._is_telling:
            self._is_telling = True
            threading.Thread(target=self._tell, args=(overdue,), name="umbel-watchdog", daemon=True).start()
        return watch_s / LOOKS

    def look(self) -> list[tuple[int, ownership.Record]]:
        """(how many times the watchdog's time it has lasted, what is awaited): those that are to be told of now, which is
        after once, twice, four times, ... the time."""
        self._look += 1
        overdue = []
        for future, (record, look) in list(self.of.items()):
            if future.done() or future.get_loop().is_closed():
                del self.of[future]  # nobody awaits it any more
                continue
            times, rest = divmod(self._look - look - 1, LOOKS)
            if times and not rest and not times & (times - 1):
                overdue.append((times, record))
        return overdue

    def _tell(self, overdue: list[tuple[int, ownership.Record]]) -> None:
        from umbel._client import inquiry

        engine, waits = self._engine, self._engine.waits
        try:
            for index, (times, _) in enumerate(overdue[:STORIES_MAX]):
                told = waits.causes_told
                records = [record for _, record in overdue[index:]]
                waits.causes_told = inquiry.watch(engine, records, times * engine.config.watchdog_s, told)
                if waits.causes_told is not told:
                    return
        finally:
            self._is_telling = False
