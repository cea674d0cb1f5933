"""How datasets run in this process: sizes, order, and what is shown meanwhile."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import difflib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from umbel.data import checkpoint

MIB = 1 << 20


@dataclass
class ExecutionResources:
    """How much a run may take at once; None for as much as there is.

    object_store_memory: bytes of blocks and of what tasks were seen to take; half of the object store by default. cpu, gpu,
    memory (bytes) are not heeded yet: give operators `compute=`, `num_cpus=` and `memory=`.
    """

    cpu: float | None = None
    gpu: float | None = None
    object_store_memory: float | None = None
    memory: float | None = None

    @classmethod
    def for_limits(
        cls,
        cpu: float | None = None,
        gpu: float | None = None,
        object_store_memory: float | None = None,
        memory: float | None = None,
    ) -> ExecutionResources:
        """Bounds: numbers of CPUs and GPUs, and bytes; None for no bound."""
        return cls(cpu, gpu, object_store_memory, memory)

    def by_name(self) -> dict[str, float]:
        """By the names of the cluster's resources, those that are said and finite."""
        named = {
            "CPU": self.cpu,
            "GPU": self.gpu,
            "object_store_memory": self.object_store_memory,
            "memory": self.memory,
        }
        return {name: count for name, count in named.items() if count is not None and math.isfinite(count)}


@dataclass
class RandomSeedConfig:
    """seed: None for another order each time. reseed_after_execution: each run of the dataset has another one, drawn from the
    seed, the same as often as it is run from the beginning."""

    seed: int | None = None
    reseed_after_execution: bool = True
    use_timestamp_as_default: bool = False


@dataclass
class ExecutionOptions:
    """resource_limits: of each run. exclude_resources: what is left to others. preserve_order: rows come in the order of what was
    read; False lets a block overtake slower ones. verbose_progress: has no effect yet. actor_locality_enabled,
    locality_with_output: of Ray; blocks are read where they are."""

    resource_limits: ExecutionResources = field(default_factory=ExecutionResources)
    exclude_resources: ExecutionResources = field(default_factory=ExecutionResources)
    preserve_order: bool = True
    actor_locality_enabled: bool = True
    verbose_progress: bool = False
    locality_with_output: bool = False

    def __post_init__(self) -> None:
        self.resource_limits = self.resource_limits or ExecutionResources()  # Ray's is None by default
        self.exclude_resources = self.exclude_resources or ExecutionResources()


@dataclass
class DataContext:
    """The settings of datasets that are made while it is the current one.

    target_max_block_size: bytes at which a block ends. target_shuffle_block_size: of what one task of a shuffle puts together.
    read_op_min_num_blocks: tasks that a read is divided into, where that leaves them target_min_block_size each; None for two for
    each CPU. broadcast_bytes_max: a side of a join that has no more bytes than that goes whole to every task, where the kind of
    join allows it, and the other side is not divided; 0 to divide both always. local_bytes_max: up to so many bytes, plans of
    built-in operators run in the calling process. split_wait_s: so long consumers of `streaming_split` wait for one that does not
    come, before they fail; None for ever. enable_progress_bars: a line for each stage while a run goes on, on a terminal or in a
    notebook. checkpoint_config: where writes note what is done, so that they can go on after their driver was killed;
    `checkpoint=` of a write takes its place.
    """

    target_max_block_size: int = 128 * MIB
    target_min_block_size: int = 1 * MIB
    target_shuffle_block_size: int = 128 * MIB
    read_op_min_num_blocks: int | None = None
    broadcast_bytes_max: int = 64 * MIB
    local_bytes_max: int = 64 * MIB
    execution_options: ExecutionOptions = field(default_factory=ExecutionOptions)
    enable_progress_bars: bool = True
    split_wait_s: float | None = 600.0
    checkpoint_config: checkpoint.CheckpointConfig | None = None
    _own: dict[str, Any] = field(default_factory=dict, repr=False)  # of `set_config`

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
        """Another one with the same settings."""
        return dataclasses.replace(
            self, execution_options=dataclasses.replace(self.execution_options), _own=dict(self._own)
        )

    def set_config(self, key: str, value: Any) -> None:
        """Keep something of one's own with the settings."""
        self._own[key] = value

    def get_config(self, key: str, default: Any = None) -> Any:
        """What was kept by `set_config`."""
        return self._own.get(key, default)

    def remove_config(self, key: str) -> None:
        """Forget what was kept by `set_config`, if there is any."""
        self._own.pop(key, None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _REFUSED:
            if value not in (None, False, 0):
                raise AttributeError(f"DataContext has no setting {name}: {_REFUSED[name]}")
        elif name in _WITHOUT_EFFECT:
            warnings.warn(f"DataContext.{name} has no effect: {_WITHOUT_EFFECT[name]}", stacklevel=2)
        elif name not in self.__dataclass_fields__:
            known = [one for one in self.__dataclass_fields__ if not one.startswith("_")]
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise AttributeError(f"DataContext has no setting {name!r}; {meant} {', '.join(known)}")
        object.__setattr__(self, name, value)


_PROGRESS: Final = "enable_progress_bars is the one switch"
_MEASURED: Final = "partitions are as large as the data says, see target_shuffle_block_size"
_ONE_WAY: Final = "there is one way, which needs no choice"
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "actor_locality_enabled": "blocks are read where they are",
    "default_hash_shuffle_parallelism": _MEASURED,
    "enable_auto_log_stats": "print stats() after a run",
    "enable_operator_progress_bars": _PROGRESS,
    "enable_pandas_block": "blocks are Arrow's",
    "enable_progress_bar_name_truncation": _PROGRESS,
    "enable_rich_progress_bars": _PROGRESS,
    "enable_tensor_extension_casting": "arrays make tensors",
    "hash_shuffle_reduce_batch_size": _MEASURED,
    "large_args_threshold": _ONE_WAY,
    "log_internal_stack_trace": "errors have the frames of the user's functions, and the rest as their cause",
    "max_hash_shuffle_aggregators": _MEASURED,
    "min_parallelism": "use read_op_min_num_blocks",
    "op_resource_reservation_enabled": _ONE_WAY,
    "op_resource_reservation_ratio": _ONE_WAY,
    "print_on_execution_start": "nothing is printed",
    "scheduling_strategy": "give it to an operator, as scheduling_strategy=",
    "scheduling_strategy_large_args": "give it to an operator, as scheduling_strategy=",
    "shuffle_compression": _ONE_WAY,
    "shuffle_input_batch_bytes": _MEASURED,
    "shuffle_strategy": _ONE_WAY,
    "streaming_read_buffer_size": _ONE_WAY,
    "trace_allocations": "stats() has the memory of each stage",
    "use_arrow_tensor_v2": "offsets are as wide as they need be",
    "use_legacy_iter_batches": _ONE_WAY,
    "use_polars": "it is used where it is installed and quicker",
    "use_polars_sort": "it is used where it is installed and quicker",
    "use_push_based_shuffle": _ONE_WAY,
    "use_ray_tqdm": _PROGRESS,
    "use_streaming_executor": _ONE_WAY,
    "verbose_stats_logs": "stats() has all figures",
    "warn_on_driver_memory_usage_bytes": _ONE_WAY,
}
_NOT_AGAIN: Final = (
    "what the system did is tried again; an error of a function is not: catch it there, or give on_error="
)
_REFUSED: Final[Mapping[str, str]] = {
    "max_errored_blocks": "give the operator on_error='skip' or 'collect', which is for rows that fail",
    "retried_map_errors": _NOT_AGAIN,
    "max_map_retries": _NOT_AGAIN,
    "actor_task_retry_on_errors": _NOT_AGAIN,
}


_here: contextvars.ContextVar[DataContext | None] = contextvars.ContextVar("umbel_data_context", default=None)
