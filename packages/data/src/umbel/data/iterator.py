"""Iterating over a dataset again and again, in batches."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from umbel.data._blocks import batches, rows, shuffling

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.data.dataset import Dataset, Schema


class DataIterator:
    """Each iteration is a run of the dataset; what is random in it is drawn anew from its seed each time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return f"DataIterator({self._dataset!r})"

    def iter_rows(self) -> Iterable[dict[str, Any]]:
        """Rows as dictionaries."""
        return _Again(lambda: (row for table in self._dataset._tables() for row in rows.iter_rows(table)))

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
        one with fewer rows. local_shuffle_buffer_size: rows that are mixed with one another, at least.
        """
        if batch_size is not None and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            raise ValueError(f"batch_size must be 1 or more rows, or None for whole blocks, got {batch_size!r}")
        if not isinstance(prefetch_batches, int) or prefetch_batches < 0:
            raise ValueError(f"prefetch_batches must be 0 or more, got {prefetch_batches!r}")
        if local_shuffle_buffer_size is None and local_shuffle_seed is not None:
            raise ValueError("local_shuffle_seed goes with local_shuffle_buffer_size=, the number of rows to mix")
        batches.check_format(batch_format)

        def begin() -> Iterator[Any]:
            tables: Iterator[pa.Table] = self._dataset._tables()
            if local_shuffle_buffer_size is not None:
                tables = shuffling.LocalShuffle(local_shuffle_buffer_size, local_shuffle_seed)(tables)
            made = batches.iter_batches(tables, batch_size, batch_format, drop_last=drop_last)
            if _finalize_fn is not None:
                made = map(_finalize_fn, made)
            return _ahead(made, prefetch_batches) if prefetch_batches else made

        return _Again(begin)

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
        CPU. collate_fn: makes of a batch of arrays what is given out, instead. pin_memory: copies to memory that a GPU reads from.
        """
        from umbel.data._api import torch_batches

        finish = torch_batches.finisher(dtypes=dtypes, device=device, collate=collate_fn, pins=pin_memory)
        return self.iter_batches(
            prefetch_batches=prefetch_batches,
            batch_size=batch_size,
            batch_format="numpy" if collate_fn is not None else "torch",
            drop_last=drop_last,
            local_shuffle_buffer_size=local_shuffle_buffer_size,
            local_shuffle_seed=local_shuffle_seed,
            _finalize_fn=finish,
        )

    def schema(self) -> Schema | None:
        return self._dataset.schema()

    def stats(self) -> str:
        """Of the latest iteration, as a table."""
        return self._dataset.stats()

    def materialize(self) -> Dataset:
        return self._dataset.materialize()


class _Again:
    """Begins anew each time it is iterated over."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()


# ---------------------------------------------------------------------------------------------------------------------
# Made ahead.

_END: Final = object()


def _ahead(made: Iterator[Any], count: int) -> Iterator[Any]:
    """The same, of which a thread makes so many before they are asked for. Ends the thread when it is closed or dropped."""
    ready: queue.Queue[Any] = queue.Queue(count)
    is_over = threading.Event()

    def make() -> None:
        last: Any = _END
        try:
            for one in made:
                if not _put(ready, (one, None), is_over):
                    return
        except BaseException as error:  # the one who iterates gets it
            last = error
        finally:
            close = getattr(made, "close", None)
            if close is not None:
                close()
            _put(ready, (_END, last), is_over)

    thread = threading.Thread(target=make, name="umbel-data-batches", daemon=True)
    thread.start()
    try:
        while True:
            one, error = ready.get()
            if one is not _END:
                yield one
            elif error is _END:
                return
            else:
                raise error
    finally:
        is_over.set()
        while not ready.empty():  # whoever waits for room goes on, and sees that it is over
            ready.get_nowait()
        thread.join()


def _put(ready: queue.Queue[Any], one: Any, is_over: threading.Event) -> bool:
    """Whether anybody still wants it. Waits for room."""
    if is_over.is_set():
        return False
    ready.put(one)
    return not is_over.is_set()
