"""Which task a transform runs in, and which block it has drawn.

What is random derives from the number of the block (docs/design/0046), which is the same in every run however blocks were
put together into tasks.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class TaskContext:
    """`block_number` is that of the block drawn last among the blocks that the stage gets (of a read: of its parts). `failed`:
    rows on which a user's function failed, as tables, and `failed_counts` how many by operator; they go with the task's end.
    `divided`: of the table that is divided among partitions, the numbers of its blocks and how many rows each has, in order."""

    stage: str
    block_number: int = -1
    input_files: tuple[str, ...] = ()
    failed: list[pa.Table] = field(default_factory=list)
    failed_counts: dict[str, int] = field(default_factory=dict)
    divided: list[tuple[int, int]] = field(default_factory=list)

    def draws(self, block_number: int) -> None:
        self.block_number = block_number


_current: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("umbel_data_task", default=None)


def current() -> TaskContext:
    """Of the transform that runs. Raises RuntimeError outside of one."""
    found = _current.get()
    if found is None:
        raise RuntimeError("there is no task of a dataset here; call this from within a transform, on its own thread")
    return found


def enter(context: TaskContext) -> contextvars.Token[TaskContext | None]:
    return _current.set(context)


def leave(token: contextvars.Token[TaskContext | None]) -> None:
    _current.reset(token)
