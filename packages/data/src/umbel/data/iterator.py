"""Iterating over a dataset again and again, in batches."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from umbel.data._blocks import batches, rows, shuffling
from umbel.data._plan import calls, repeating

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.data import context as contexts
    from umbel.data._engine import reports
    from umbel.data.dataset import Dataset, Schema

STATE_VERSION: Final = 1


class Source(Protocol):
    """What is iterated over, time after time."""

    def tables(self, epoch: int, skipped_rows: int) -> Iterator[pa.Table]:
        """Blocks in order, without the first rows. Closing it ends what makes them."""

    def resumes(self) -> None:
        """Raises ValueError, saying why, where another process would not see the same rows in the same order."""

    def context(self) -> contexts.DataContext: ...

    def schema(self) -> Schema | None: ...

    def stats(self) -> reports.Stats: ...

    def materialize(self) -> Dataset: ...


class DataIterator:
    """Iterated over again and again, each time (an epoch) a run of the dataset; what is random in it is drawn anew from its seed.

    `state_dict()` says how far an iteration has come, in rows that were given out; `load_state_dict()` has the next iteration
    go on from there, in another process too.
    """

    def __init__(self, source: Source, epoch: int = 0) -> None:
        self._source = source
        self._next = (epoch, 0)  # of the next iteration: epoch, and rows of it that were given out before
        self._at = self._next  # where the latest one is
        self._turn = 0  # which one is the latest

    def __repr__(self) -> str:
        return f"DataIterator({self._source!r})"

    def state_dict(self) -> dict[str, int]:
        """Where the latest iteration is: how many epochs have ended, and how many rows of this one were given out. It does not
        depend on how the rows are cut into blocks or batches."""
        self._source.resumes()
        epoch, row_count = self._at
        return {"version": STATE_VERSION, "epoch": epoch, "rows": row_count}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next iteration goes on where the one was that the state is of. The dataset must be the same one.

        Raises ValueError where the dataset would not give the same rows again in the same order.
        """
        self._source.resumes()
        found = {name: state.get(name) for name in ("version", "epoch", "rows")}
        if found["version"] != STATE_VERSION or not all(isinstance(one, int) and one >= 0 for one in found.values()):
            raise ValueError(
                f"a state is what state_dict() gave, {{'version': {STATE_VERSION}, 'epoch': ..., 'rows': ...}}, got {state!r}"
            )
        self._next = self._at = int(state["epoch"]), int(state["rows"])
        self._turn += 1

    def iter_rows(self) -> Iterable[dict[str, Any]]:
        """Rows as dictionaries."""

        def begin(epoch: int, skipped: int) -> Iterator[tuple[dict[str, Any], int]]:
            return ((row, 1) for table in self._source.tables(epoch, skipped) for row in rows.iter_rows(table))

        return _Again(lambda: self._counted(begin, prefetch=0))

    def iter_batches(
        self,
        *,
        prefetch_batches: int = 1,
        batch_size: int | None = 256,
        batch_format: str | None = "default",
        drop_last: bool = False,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
        _finalize_fn: Callable[[Any], Any] | None = None,
    ) -> Iterable[Any]:
        """Batches of so many rows; None for whole blocks.

        prefetch_batches: how many are made ahead, on a thread; 0 to make each when it is asked for. drop_last: leaves out a last
        one with fewer rows. local_shuffle_buffer_size: rows that are mixed with one another, at least; in each epoch another way.
        """
        if batch_size is not None and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            raise ValueError(f"batch_size must be 1 or more rows, or None for whole blocks, got {batch_size!r}")
        if not isinstance(prefetch_batches, int) or isinstance(prefetch_batches, bool) or prefetch_batches < 0:
            raise ValueError(f"prefetch_batches must be 0 or more, got {prefetch_batches!r}")
        if local_shuffle_buffer_size is None and local_shuffle_seed is not None:
            raise ValueError("local_shuffle_seed goes with local_shuffle_buffer_size=, the number of rows to mix")
        batches.check_format(batch_format)
        form: Any = batch_format

        def begin(epoch: int, skipped: int) -> Iterator[tuple[Any, int]]:
            if local_shuffle_buffer_size is None:
                tables = self._source.tables(epoch, skipped)
            else:  # which rows were given out is known only by mixing them as before
                if skipped and local_shuffle_seed is None:
                    raise ValueError(
                        "an iteration with a local shuffle goes on only with a seed: set local_shuffle_seed="
                    )
                seed = None if local_shuffle_seed is None else (local_shuffle_seed, epoch)
                shuffled = shuffling.LocalShuffle(local_shuffle_buffer_size, seed)(self._source.tables(epoch, 0))
                tables = _without(shuffled, skipped)
            for batch in batches.iter_batches(tables, batch_size, form, drop_last=drop_last):
                row_count = calls.row_count(batch)
                yield batch if _finalize_fn is None else _finalize_fn(batch), row_count

        return _Again(lambda: self._counted(begin, prefetch=prefetch_batches))

    def _counted(self, begin: Callable[[int, int], Iterator[tuple[Any, int]]], *, prefetch: int) -> Iterator[Any]:
        """One iteration: what is given out, and the state kept."""
        self._turn += 1
        turn, (epoch, given) = self._turn, self._next
        self._at, self._next = self._next, (epoch + 1, 0)
        made = begin(epoch, given)
        source: Any = _ahead(made, prefetch) if prefetch else made
        try:
            for one, row_count in source:
                given += row_count
                if turn == self._turn:
                    self._at = epoch, given
                yield one
            if turn == self._turn:
                self._at = epoch + 1, 0
        finally:
            source.close()  # a generator

    def iter_torch_batches(
        self,
        *,
        prefetch_batches: int = 1,
        batch_size: int | None = 256,
        dtypes: Any = None,
        device: str | Any = "auto",
        collate_fn: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
        pin_memory: bool = False,
    ) -> Iterable[Any]:
        """Batches of torch tensors by column, without a copy where Arrow and torch keep values alike.

        dtypes: a torch dtype for all columns, or one for each by name. device: "auto" for the one of this process's GPU, or the
        CPU. collate_fn: makes what is given out, of a batch of arrays, or of the form that a `CollateFn` says. pin_memory: copies
        to memory that a GPU reads from."""
        from umbel.data._api import torch_batches

        finish = torch_batches.finisher(dtypes=dtypes, device=device, collate=collate_fn, pins=pin_memory)
        return self.iter_batches(
            prefetch_batches=prefetch_batches,
            batch_size=batch_size,
            batch_format="torch" if collate_fn is None else getattr(collate_fn, "batch_format", "numpy"),
            drop_last=drop_last,
            local_shuffle_buffer_size=local_shuffle_buffer_size,
            local_shuffle_seed=local_shuffle_seed,
            _finalize_fn=finish,
        )

    def to_tf(self, *_args: Any, **_options: Any) -> Any:
        """Not there: raises NotImplementedError. Use `iter_batches`."""
        raise NotImplementedError(_NO_TF)

    def iter_tf_batches(self, **_options: Any) -> Any:
        """Not there: raises NotImplementedError. Use `iter_batches`."""
        raise NotImplementedError(_NO_TF)

    def to_torch(self, **_options: Any) -> Any:
        """Not there: raises NotImplementedError. Use `iter_torch_batches`."""
        raise NotImplementedError("there is no to_torch; use iter_torch_batches(), which takes dtypes and collate_fn")

    def get_context(self) -> contexts.DataContext:
        """The settings of the dataset that is iterated over."""
        return self._source.context()

    def schema(self) -> Schema | None:
        """See `Dataset.schema`."""
        return self._source.schema()

    def stats(self) -> reports.Stats:
        """Of the latest iteration, as `Dataset.stats`."""
        return self._source.stats()

    def materialize(self) -> Dataset:
        """The rows as a dataset whose blocks are there; of one part of a `streaming_split`, those of one epoch of it."""
        return self._source.materialize()


_NO_TF: Final = (
    "there are no TensorFlow batches; use iter_batches(batch_format='numpy'), whose arrays tf.data.Dataset.from_generator "
    "takes"
)


class DatasetSource:
    """A dataset, of which each iteration is a run."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return repr(self._dataset)

    def tables(self, epoch: int, skipped_rows: int) -> Iterator[pa.Table]:
        return self._dataset._run(epoch).tables(skipped_rows)

    def resumes(self) -> None:
        why = repeating.obstacle(self._dataset._node)
        if why is None and not self._dataset.context.execution_options.preserve_order:
            why = "the context has preserve_order=False"
        if why is not None:
            raise ValueError(f"another run would not give the same rows in the same order: {why}")

    def context(self) -> contexts.DataContext:
        return self._dataset.context

    def schema(self) -> Schema | None:
        return self._dataset.schema()

    def stats(self) -> reports.Stats:
        return self._dataset.stats()

    def materialize(self) -> Dataset:
        return self._dataset.materialize()


def _without(tables: Iterator[pa.Table], row_count: int) -> Iterator[pa.Table]:
    for table in tables:
        kept = table.slice(min(row_count, table.num_rows))
        row_count -= table.num_rows - kept.num_rows
        yield kept


class _Again:
    """Begins anew each time it is iterated over."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()


# ---------------------------------------------------------------------------------------------------------------------
# Made ahead.

_END: Final = object()
BURST_S: Final = 0.001  # of making at a time: a switch of threads takes as long as making several small batches does


def _ahead(made: Iterator[Any], count: int) -> Iterator[Any]:
    """The same, of which a thread makes so many before they are asked for, and as many as it can in a millisecond where that is
    more. Ends the thread when it is closed or dropped."""
    ahead = _Ahead(made, count)
    try:
        while (found := ahead.next()) is not _END:
            yield found
    finally:
        ahead.end()


class _Ahead:
    """Each side raises its flag before it looks whether it must wait, and looks at the other's flag after it has changed what
    is ready: so one of them sees the other, and what is ready passes without a lock."""

    def __init__(self, made: Iterator[Any], count: int) -> None:
        self._made = made
        self._count = count
        self._ready: collections.deque[Any] = collections.deque()
        self._changed = threading.Condition()
        self._is_hungry = False  # the one who iterates waits
        self._is_resting = False  # the thread does
        self._is_over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, name="umbel-data-batches", daemon=True)
        self._thread.start()

    def next(self) -> Any:
        """What was made; at the end, `_END`, or the error that it ended by."""
        if not self._ready:
            with self._changed:
                self._is_hungry = True
                while not self._ready:
                    self._changed.wait()
                self._is_hungry = False
        found = self._ready.popleft()
        if self._is_resting and len(self._ready) < self._count:
            self._tell()
        if found is _END and self._error is not None:
            raise self._error
        return found

    def end(self) -> None:
        self._is_over = True
        self._tell()
        self._thread.join()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify()

    def _make(self) -> None:
        try:
            began_s = time.monotonic()
            for one in self._made:
                self._give(one)
                if len(self._ready) >= self._count and time.monotonic() - began_s >= BURST_S:
                    self._rest()
                    began_s = time.monotonic()
                if self._is_over:
                    return
        except BaseException as error:  # the one who iterates gets it
            self._error = error
        finally:
            try:
                close = getattr(self._made, "close", None)
                if close is not None:
                    close()
            except BaseException as error:
                self._error = self._error or error
            self._give(_END)

    def _give(self, one: Any) -> None:
        self._ready.append(one)
        if self._is_hungry:
            self._tell()

    def _rest(self) -> None:
        with self._changed:
            self._is_resting = True
            while len(self._ready) >= self._count and not self._is_over:
                self._changed.wait()
            self._is_resting = False
