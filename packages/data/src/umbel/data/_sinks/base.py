"""What a sink of rows is, and how a write goes.

On the driver: `on_write_start` once, then `write` in each task, wherever that is, then `on_write_complete` with what all of them
returned; `on_write_failed` if any of it fails, `on_write_complete` too. A task may run more than once, at the
same time too: of one that was tried again only one result comes to `on_write_complete`. What `write` did must not be seen
before, or be the same if it is done again.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from umbel.data._blocks import sizes

WriteReturn = TypeVar("WriteReturn")


class SaveMode(str, enum.Enum):
    """What becomes of what is there already.

    CREATE, ERROR: it is an error. APPEND: it stays, the new is added. OVERWRITE: it is replaced, once all of the new is written.
    IGNORE: it stays, and nothing is written. UPSERT: rows with the same key are replaced, where a sink can do that.
    """

    CREATE = "create"
    APPEND = "append"
    OVERWRITE = "overwrite"
    IGNORE = "ignore"
    ERROR = "error"
    UPSERT = "upsert"


@dataclass(frozen=True)
class WriteContext:
    """task_index: of the task among those of one write, the same when it is tried again."""

    task_index: int

    @property
    def task_idx(self) -> int:
        """Ray's name of task_index."""
        return self.task_index


@dataclass(frozen=True)
class WriteResult(Generic[WriteReturn]):
    """What was written. write_returns: what `Datasink.write` returned, of each task, in the order of the tasks."""

    num_rows: int
    size_bytes: int
    write_returns: list[WriteReturn]

    @classmethod
    def combine(cls, *results: WriteResult[WriteReturn]) -> WriteResult[WriteReturn]:
        """The sums of several, and what all of their tasks returned."""
        return cls(
            sum(result.num_rows for result in results),
            sum(result.size_bytes for result in results),
            list(itertools.chain.from_iterable(result.write_returns for result in results)),
        )


class Datasink(Generic[WriteReturn]):
    """A sink of rows. One of your own has `write` at least; see `umbel.data.Dataset.write_datasink`.

    should_write: false once `on_write_start` has found that there is nothing to do: then no task is started.
    """

    should_write: bool = True

    def get_name(self) -> str:
        """For people, in plans and statistics."""
        name = type(self).__name__
        return name[: -len("Datasink")] if name.endswith("Datasink") and name != "Datasink" else name

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """On the driver, before any task. The sink travels to the tasks as it is afterwards. schema: where it is known."""

    def write(self, blocks: Iterable[pa.Table], ctx: WriteContext) -> WriteReturn:
        """In a task: the blocks of the task, in order. What it returns comes to `on_write_complete`; it travels."""
        raise NotImplementedError(f"{type(self).__name__} must define write(blocks, ctx)")

    def on_write_complete(self, write_result: WriteResult[WriteReturn]) -> None:
        """On the driver, after all tasks."""

    def on_write_failed(self, error: Exception) -> None:
        """On the driver, once the write is given up and no task runs any more; and after `on_write_complete` has raised, when
        some of what it does may be done."""

    # ---- to go on with a write in another process (`umbel.data.checkpoint`) ----

    @property
    def supports_checkpoints(self) -> bool:
        """Whether the four methods below are defined. What `write` did must not be seen before `on_write_complete`, or be the
        same if it is done again, and `on_write_complete` must do no harm if it was called before, in whole or in part."""
        return False

    def checkpoint_identity(self) -> Mapping[str, Any]:
        """What it is: one that would write elsewhere or otherwise differs in it. JSON."""
        raise NotImplementedError(f"{type(self).__name__} has no checkpoint_identity()")

    def checkpoint_state(self) -> Mapping[str, Any]:
        """After `on_write_start`: what another process has to know to go on. JSON."""
        raise NotImplementedError(f"{type(self).__name__} has no checkpoint_state()")

    def resume_write(self, state: Mapping[str, Any], schema: pa.Schema | None = None) -> None:
        """Instead of `on_write_start`, in another process."""
        raise NotImplementedError(f"{type(self).__name__} has no resume_write(state, schema)")

    def pack_returned(self, returned: WriteReturn) -> Any:
        """What `write` returned, as JSON."""
        raise NotImplementedError(f"{type(self).__name__} has no pack_returned(returned)")

    def unpack_returned(self, packed: Any) -> WriteReturn | None:
        """The same again; None if what was written is not there any more."""
        raise NotImplementedError(f"{type(self).__name__} has no unpack_returned(packed)")

    @property
    def supports_distributed_writes(self) -> bool:
        """False where the tasks must run on the machine of the driver."""
        return True

    @property
    def min_rows_per_write(self) -> int | None:
        """How many rows each task should get at least."""
        return None

    @property
    def min_bytes_per_write(self) -> int | None:
        """About how many bytes each task should get at least, if it is not said in rows."""
        return None


def write_task(sink: Datasink[WriteReturn], blocks: Iterable[pa.Table], ctx: WriteContext) -> WriteResult[WriteReturn]:
    """What a task does: the sink's `write`, with what passes through it counted."""
    counted = _Counted(blocks)
    returned = sink.write(counted, ctx)
    return WriteResult(counted.num_rows, counted.size_bytes, [returned])


class _Counted:
    def __init__(self, blocks: Iterable[pa.Table]) -> None:
        self._blocks = blocks
        self.num_rows = self.size_bytes = 0

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self._blocks:
            self.num_rows += table.num_rows
            self.size_bytes += sizes.size_bytes(table)
            yield table


class DummyOutputDatasink(Datasink[None]):
    """Draws all rows and keeps none. num_ok, num_failed: how many writes went well or not; rows_written: of the last."""

    def __init__(self) -> None:
        self.num_ok = self.num_failed = self.rows_written = 0

    def get_name(self) -> str:
        return "Dummy"

    def write(self, blocks: Iterable[pa.Table], ctx: WriteContext) -> None:
        for _ in blocks:
            pass

    def on_write_complete(self, write_result: WriteResult[None]) -> None:
        self.num_ok += 1
        self.rows_written = write_result.num_rows

    def on_write_failed(self, error: Exception) -> None:
        self.num_failed += 1


def unsupported_mode(sink: Datasink[Any], mode: SaveMode) -> str:
    return f"{sink.get_name()} cannot write with mode {mode.value!r}; use append, overwrite, ignore or error"
