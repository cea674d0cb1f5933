"""What it takes to compute lost values again: the finished tasks whose stored results may still be needed.

A task is kept while one of its stored results lives, or another kept task needs one of them as an argument, so that a
chain of results can be computed again from its beginning though all but the last are gone. What is kept is the task
with its small arguments, not the values; of those no more than `bytes_max`, else the oldest are forgotten until half is
left (as Ray does). Decides only; the caller holds one lock around every call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

OWNER_ID_BYTES = 16
_SEQ_END = 24


class Refusal(NamedTuple):
    """Why an object is not computed again: one of ObjectReconstructionFailedError.REASONS, and the object at fault."""

    reason: str
    object_id: bytes


class Kept(NamedTuple):
    """A task that is kept, and what for. task: None for a put value, which no task makes. needed_by: how many kept tasks have
    one of its results as an argument."""

    task: Any
    size_bytes: int
    needed_by: int


class _Entry:
    __slots__ = ("dependents", "is_running", "needs", "reason", "results", "seq", "size_bytes", "task")

    def __init__(self, seq: int, task: Any, reason: str, size_bytes: int, needs: tuple[bytes, ...]) -> None:
        self.seq = seq
        self.task = task  # the caller's; None when `reason` says why it cannot run again
        self.reason = reason
        self.size_bytes = size_bytes
        self.needs = needs
        self.results: set[int] = set()  # indices of stored results that live
        self.dependents: set[int] = set()  # kept tasks that need one of the results
        self.is_running = False  # again


class Lineage:
    """The lineage of one owner's objects. A task is known by its sequence number, which its results' ids hold."""

    def __init__(self, process_id: bytes, bytes_max: int) -> None:
        self._process_id = process_id
        self._bytes_max = bytes_max
        self._entries: dict[int, _Entry] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def finished(self, seq: int, results: Iterable[int]) -> bool:
        """A task that was run again has ended; `results` are now stored. False for one that is not kept."""
        entry = self._entries.get(seq)
        if entry is None:
            return False
        entry.is_running = False
        entry.results.update(results)
        self._drop_unneeded([entry])
        return True

    def keep(
        self,
        seq: int,
        task: Any,
        results: Iterable[int],
        needs: tuple[bytes, ...],
        size_bytes: int,
        *,
        awaited: Collection[bytes] = (),
    ) -> None:
        """A task has ended with stored results for the first time. needs: the objects it has read or refers to, without
        small ones of ours. awaited: those of them that are not there yet. size_bytes: what keeping it costs."""
        entry = self._entries[seq] = _Entry(seq, task, "", size_bytes, needs)
        entry.results.update(results)
        for need in needs:
            producer = self._producer(need)
            if producer is None and self._is_ours(need) and not index_of(need) and need not in awaited:
                producer = self._entries[seq_of(need)] = _Entry(seq_of(need), None, "put", 0, ())
            if producer is not None:
                producer.dependents.add(seq)
        self.size_bytes += size_bytes
        if self.size_bytes > self._bytes_max:
            self._evict()

    def refuse(self, seq: int, results: Iterable[int], reason: str, needs: tuple[bytes, ...] = ()) -> None:
        """As `keep`, of a task that cannot run again. needs: the object that is the reason, if it is not the result."""
        entry = self._entries[seq] = _Entry(seq, None, reason, 0, needs)
        entry.results.update(results)

    def freed(self, object_id: bytes) -> None:
        """The value of an object of ours is gone because nobody needs it."""
        entry = self._producer(object_id)
        if entry is not None:
            entry.results.discard(index_of(object_id))
            self._drop_unneeded([entry])

    def plan(
        self, object_id: bytes, is_known: Callable[[bytes], bool], may_run: Callable[[Any, bytes], str]
    ) -> list[int] | Refusal:
        """The tasks to run again for a lost object, each after those whose results it needs; or why that cannot be.

        is_known: whether the process still has the object, or will have it. may_run: the reason why a task may not run
        again for an object, empty if it may.
        """
        order: list[int] = []
        seen: set[int] = set()
        path = [(object_id, False)]
        while path:
            needed, is_explored = path.pop()
            seq = seq_of(needed)
            if is_explored:
                order.append(seq)
                continue
            if seq in seen:
                continue
            seen.add(seq)
            if not self._is_ours(needed):
                return Refusal("borrowed", needed)
            entry = self._entries.get(seq)
            if entry is None:
                if index_of(needed):
                    return Refusal("lineage_disabled", needed)
                return Refusal("put" if needed == object_id else "ref_not_found", needed)
            if entry.is_running:
                continue
            if entry.reason:
                return Refusal(entry.reason, *(entry.needs or (needed,)))
            reason = may_run(entry.task, needed)
            if reason:
                return Refusal(reason, needed)
            path.append((needed, True))
            path += [(need, False) for need in entry.needs if not is_known(need)]
        return order

    def begin(self, seq: int) -> tuple[Any, tuple[bytes, ...]]:
        """The task is run again. Returns it and what it needs."""
        entry = self._entries[seq]
        entry.is_running = True
        return entry.task, entry.needs

    def task_of(self, object_id: bytes) -> Any:
        """The kept task that makes an object; None for one that is not kept."""
        entry = self._producer(object_id)
        return None if entry is None else entry.task

    def told(self, object_id: bytes) -> Kept | None:
        """Of what makes this object; None where nothing is kept for it, nor needs it."""
        entry = self._producer(object_id)
        if entry is None or (entry.task is None and not entry.dependents):
            return None
        return Kept(entry.task, entry.size_bytes, len(entry.dependents))

    def kept_count(self) -> int:
        """How many tasks could run again; it looks at each."""
        return sum(entry.task is not None for entry in self._entries.values())

    def _producer(self, object_id: bytes) -> _Entry | None:
        return self._entries.get(seq_of(object_id)) if self._is_ours(object_id) else None

    def _is_ours(self, object_id: bytes) -> bool:
        return object_id[:OWNER_ID_BYTES] == self._process_id

    def _evict(self) -> None:
        for entry in list(self._entries.values()):
            if self.size_bytes <= self._bytes_max // 2:
                return
            if entry.task is not None and not entry.is_running:
                entry.reason = "lineage_evicted"
                self._drop_unneeded(self._strip(entry))

    def _strip(self, entry: _Entry) -> list[_Entry]:
        """Keep no more of a task than that its results are there. Returns the tasks that it needed."""
        self.size_bytes -= entry.size_bytes
        entry.task, entry.size_bytes = None, 0
        needs, entry.needs = entry.needs, ()
        producers = [producer for need in needs if (producer := self._producer(need)) is not None]
        for producer in producers:
            producer.dependents.discard(entry.seq)
        return producers

    def _drop_unneeded(self, entries: list[_Entry]) -> None:
        """Forget those of which nothing is needed, and then those that only they needed."""
        while entries:
            entry = entries.pop()
            if entry.results or entry.dependents or entry.is_running or entry.seq not in self._entries:
                continue
            del self._entries[entry.seq]
            entries += self._strip(entry)


def seq_of(object_id: bytes) -> int:
    """The sequence number, at its owner, of the task that made an object."""
    return int.from_bytes(object_id[OWNER_ID_BYTES:_SEQ_END], "big")


def index_of(object_id: bytes) -> int:
    """Which of its task's results an object is."""
    return int.from_bytes(object_id[_SEQ_END:], "big")
