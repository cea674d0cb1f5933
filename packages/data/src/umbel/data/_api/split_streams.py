"""One run of a dataset for several consumers, wherever they are: an actor drives it, and hands out references to blocks.

An epoch begins with the first consumer that asks for it, once the one before has ended for all: a consumer has ended it when it
has seen its end, has left, or has begun anew. No call waits for long: it comes back to say who is waited for, and asks again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

import umbel
from umbel import exceptions
from umbel.data._engine import blocks_out, executor, held, stages
from umbel.data._plan import logical

if TYPE_CHECKING:
    from umbel.data import context as contexts
    from umbel.data._engine import reports
    from umbel.data.dataset import Dataset, Schema
    from umbel.data.iterator import DataIterator

logger = logging.getLogger("umbel.data")

TOLD_EVERY_S: Final = 10.0  # who waits says for whom: as often as a run says what it waits for
BLOCKS_AT_ONCE_MAX: Final = 64  # small ones: so many in one call, and what a call costs is little beside them
_WAITS, _HAS = "waits", "has"


def iterators(dataset: Dataset, context: contexts.DataContext) -> list[DataIterator]:
    """dataset: of a plan that ends with a split."""
    from umbel.data import iterator

    if not umbel.is_initialized():
        umbel.init()
    assert isinstance(dataset._node, logical.Split)
    count = dataset._node.count
    threads = 2 * count + 2  # each consumer waits in a call, and says in another that it leaves
    coordinator = umbel.remote(Coordinator).options(num_cpus=0, max_concurrency=threads).remote(dataset)
    plain = dataset._with(dataset._node.input)
    return [
        iterator.DataIterator(SplitSource(coordinator, number, plain, context.split_wait_s)) for number in range(count)
    ]


class Coordinator:
    """Runs the dataset. Its calls come on threads of their own."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        node: Any = dataset._node
        self._count: int = node.count
        self._is_equal: bool = node.is_equal
        self._changed = threading.Condition()
        self._epoch = -1
        self._streams: list[executor.Stream] = []
        self._begun: set[int] = set()  # consumers of this epoch
        self._ended: set[int] = set(range(self._count))
        self._asking: set[int] = set()
        self._asked_s = [0.0] * self._count

    def begin(self, consumer: int, wanted: int | None) -> tuple[str, Any]:
        """Which epoch it is in from now on, or for whom it waits. wanted: the epoch that it waits for already."""
        with self._changed:
            if wanted is None:
                has_it = consumer in self._begun
                if has_it:
                    self._end(consumer)
                wanted = max(0, self._epoch + 1 if has_it else self._epoch)
            if self._epoch < wanted and len(self._ended) < self._count:
                self._changed.wait(TOLD_EVERY_S)
            if self._epoch < wanted:
                if len(self._ended) < self._count:
                    return _WAITS, (wanted, [one for one in range(self._count) if one not in self._ended])
                self._start()
            self._begun.add(consumer)
            self._asked_s[consumer] = time.monotonic()
            return _HAS, self._epoch

    def _start(self) -> None:
        self._streams = self._dataset._run(self._epoch + 1).stream()
        self._epoch += 1
        self._begun, self._ended = set(), set()
        self._asked_s = [time.monotonic()] * self._count

    def _end(self, consumer: int) -> None:
        if consumer not in self._ended:
            self._ended.add(consumer)
            self._streams[consumer].close()
            self._changed.notify_all()

    def next(self, consumer: int, epoch: int) -> tuple[str, Any]:
        """The next blocks: one, or several small ones that are there; None behind the last one."""
        with self._changed:
            if epoch != self._epoch or consumer in self._ended:
                return _HAS, None
            stream = self._streams[consumer]
            self._asking.add(consumer)
        try:
            view = stream.next_view(TOLD_EVERY_S)
        except TimeoutError as error:
            if isinstance(error, exceptions.UmbelError):  # of a user's function
                raise
            return _WAITS, (None, self._missing())
        finally:
            with self._changed:
                self._asking.discard(consumer)
                self._asked_s[consumer] = time.monotonic()
        if view is None:
            with self._changed:
                if epoch == self._epoch:
                    self._end(consumer)
            return _HAS, None
        return _HAS, [_sent(one) for one in itertools.islice(_with_more(view, stream), BLOCKS_AT_ONCE_MAX)]

    def _missing(self) -> list[int]:
        """Consumers who take nothing, so that those who are to get as much as they have to wait."""
        with self._changed:
            now_s = time.monotonic()
            idle = [one for one in range(self._count) if one not in self._asking and one not in self._ended]
            return [one for one in idle if self._is_equal and now_s - self._asked_s[one] > TOLD_EVERY_S]

    def leave(self, consumer: int, epoch: int) -> None:
        with self._changed:
            if epoch == self._epoch:
                self._end(consumer)

    def stats(self) -> reports.Stats:
        return self._dataset.stats()


def _with_more(view: held.View, stream: executor.Stream) -> Iterator[held.View]:
    """With what has come behind it, as long as all of it is small: a call for each block would cost more than they do."""
    size_bytes = 0
    more: held.View | None = view
    while more is not None:
        yield more
        size_bytes += more.size_bytes
        if size_bytes > blocks_out.INLINE_BYTES:
            return
        try:
            more = stream.next_view(0.0)
        except Exception:  # nothing is there; or the run has failed, which the next call is told again
            return


def _sent(view: held.View) -> Any:
    if view.size_bytes <= blocks_out.INLINE_BYTES:
        return blocks_out.pack(view.table())
    block: stages.Block = view.block()
    return umbel.put(block.value) if isinstance(block.value, pa.Table) else block.value


class SplitSource:
    """What one consumer iterates over. Travels."""

    def __init__(self, coordinator: Any, consumer: int, plain: Dataset, wait_s: float | None) -> None:
        self._coordinator = coordinator
        self._consumer = consumer
        self._plain = plain
        self._wait_s = wait_s

    def __repr__(self) -> str:
        return f"split {self._consumer} of {self._plain!r}"

    def tables(self, epoch: int, skipped_rows: int) -> Iterator[pa.Table]:
        """epoch: is not asked; it is the coordinator that counts them, for all."""
        del epoch, skipped_rows
        mine = self._asked("begin", None)
        is_over = False
        try:
            while (values := self._asked("next", mine)) is not None:
                for value in values:
                    yield blocks_out.unpack(umbel.get(value) if isinstance(value, umbel.ObjectRef) else value)
            is_over = True
        finally:
            if not is_over and umbel.is_initialized():
                self._coordinator.leave.remote(self._consumer, mine)

    def _asked(self, method: str, argument: Any) -> Any:
        began_s = time.monotonic()
        while True:
            call = getattr(self._coordinator, method)
            kind, value = umbel.get(call.remote(self._consumer, argument))
            if kind == _HAS:
                return value
            wanted, missing = value
            argument = argument if wanted is None else wanted
            waited_s = time.monotonic() - began_s
            if not missing:
                began_s = time.monotonic()
                continue
            named = ", ".join(map(str, missing))
            what = f"consumer {self._consumer} of a streaming_split has waited {waited_s:.0f} s for consumers {named}"
            if self._wait_s is not None and waited_s >= self._wait_s:
                raise TimeoutError(
                    f"{what}, who take no blocks: let all consumers iterate at once, each to the end or close its iterator; "
                    "DataContext.split_wait_s says how long is waited"
                )
            logger.warning("%s, who take no blocks", what)

    def resumes(self) -> None:
        raise ValueError(
            "which rows a consumer of a streaming_split gets depends on how quick all of them are, so that it "
            "has no place to go on "
            "from; iterate over the dataset itself, or over parts of split() with a state each"
        )

    def context(self) -> contexts.DataContext:
        return self._plain.context

    def schema(self) -> Schema | None:
        return self._plain.schema()

    def stats(self) -> reports.Stats:
        found: reports.Stats = umbel.get(self._coordinator.stats.remote())
        return found

    def materialize(self) -> Dataset:
        from umbel.data.dataset import MaterializedDataset

        return MaterializedDataset._of_tables([*self.tables(0, 0)], "Split")
