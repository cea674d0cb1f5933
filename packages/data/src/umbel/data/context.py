"""How datasets run in this process: sizes, order, and what is shown meanwhile."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from umbel.data import checkpoint

MIB = 1 << 20


@dataclass
class ExecutionResources:
    """How much a run may take at once; None for as much as there is. object_store_memory, memory: bytes."""

    cpu: float | None = None
    gpu: float | None = None
    object_store_memory: float | None = None
    memory: float | None = None


@dataclass
class ExecutionOptions:
    """preserve_order: rows come in the order of what was read; False lets a block overtake slower ones."""

    resource_limits: ExecutionResources = field(default_factory=ExecutionResources)
    preserve_order: bool = True
    verbose_progress: bool = False


@dataclass
class DataContext:
    """The settings of datasets that are made while it is the current one.

    target_max_block_size: bytes at which a block ends. target_shuffle_block_size: of what one task of a shuffle puts together.
    read_op_min_num_blocks: tasks that a read is divided into, where that leaves them target_min_block_size each; None for two for
    each CPU. enable_progress_bars: a line for each stage while a run goes on, on a terminal or in a notebook. local_bytes_max: up
    to so many bytes, plans of built-in operators run in the calling process. split_wait_s: so long consumers of `streaming_split`
    wait for one that does not come, before they fail; None for ever. checkpoint_config: where writes note what is done, so that
    they can go on after their driver was killed; `checkpoint=` of a write takes its place.
    """

    target_max_block_size: int = 128 * MIB
    target_min_block_size: int = 1 * MIB
    target_shuffle_block_size: int = 128 * MIB
    read_op_min_num_blocks: int | None = None
    local_bytes_max: int = 64 * MIB
    execution_options: ExecutionOptions = field(default_factory=ExecutionOptions)
    enable_progress_bars: bool = True
    split_wait_s: float | None = 600.0
    checkpoint_config: checkpoint.CheckpointConfig | None = None

    _default: ClassVar[DataContext | None] = None

    @staticmethod
    def get_current() -> DataContext:
        """The one that new datasets take: that of the innermost `with DataContext.current(...)` of this thread, or else the
        one of the process. Changes to it are seen by all datasets made later."""
        here = _here.get()
        if here is not None:
            return here
        if DataContext._default is None:
            DataContext._default = DataContext()
        return DataContext._default

    @staticmethod
    @contextlib.contextmanager
    def current(context: DataContext) -> Iterator[DataContext]:
        """Make it the current one within a `with` block, in this thread; others do not see it."""
        token = _here.set(context)
        try:
            yield context
        finally:
            _here.reset(token)

    def copy(self) -> DataContext:
        return dataclasses.replace(self, execution_options=dataclasses.replace(self.execution_options))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            known = ", ".join(one for one in self.__dataclass_fields__ if not one.startswith("_"))
            raise AttributeError(f"DataContext has no setting {name!r}; there are {known}")
        object.__setattr__(self, name, value)


_here: contextvars.ContextVar[DataContext | None] = contextvars.ContextVar("umbel_data_context", default=None)
