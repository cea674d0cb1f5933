"""How datasets run in this process: sizes, order, and what is shown meanwhile."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dataclasses
import difflib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from umbel.data import _settings as settings
from umbel.data import checkpoint

if TYPE_CHECKING:
    from umbel.data._engine import reports

MIB = 1 << 20


@dataclass
class ExecutionResources:
    """How much a run may take at once; None for as much as there is.

    cpu, gpu: of all tasks and actors that run at once. object_store_memory: bytes of blocks; half of the object store by
    default. memory: bytes of heap, as tasks and actors were seen to take it, or as `memory=` says of them. Where it is given, the
    first task and the first actor of each operator run before the others, to show what they take.
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
        """Bounds: numbers of CPUs and GPUs, and bytes; None for no bound, which is infinite here."""
        given = (cpu, gpu, object_store_memory, memory)
        return cls(*(math.inf if one is None else one for one in given))

    @classmethod
    def zero(cls) -> ExecutionResources:
        """None of each."""
        return cls(0.0, 0.0, 0.0, 0.0)

    @classmethod
    def inf(cls) -> ExecutionResources:
        """No bound."""
        return cls.for_limits()

    def copy(
        self,
        *,
        cpu: float | None = None,
        gpu: float | None = None,
        object_store_memory: float | None = None,
        memory: float | None = None,
    ) -> ExecutionResources:
        """The same, but for those that are given."""
        given = {"cpu": cpu, "gpu": gpu, "object_store_memory": object_store_memory, "memory": memory}
        return dataclasses.replace(self, **{name: one for name, one in given.items() if one is not None})

    def add(self, other: ExecutionResources) -> ExecutionResources:
        """The sum of each, of which None is 0."""
        return self._with(other, 1)

    def subtract(self, other: ExecutionResources) -> ExecutionResources:
        """The difference of each, of which None is 0."""
        return self._with(other, -1)

    def _with(self, other: ExecutionResources, sign: int) -> ExecutionResources:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return ExecutionResources(*((mine or 0.0) + sign * (theirs or 0.0) for mine, theirs in pairs))

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
    seed, the same as often as it is run from the beginning. use_timestamp_as_default has no effect: without a seed each run
    differs in any case."""

    seed: int | None = None
    reseed_after_execution: bool = True
    use_timestamp_as_default: bool = False


@dataclass
class ExecutionOptions:
    """resource_limits: of each run. exclude_resources: what is left to others. preserve_order: rows come in the order of what was
    read; False lets a block overtake slower ones. verbose_progress: a line for each stage, and not only one for the whole.
    label_selector: all tasks and actors are on nodes with these labels, as `label_selector` of `umbel.remote` says; that of an
    operator goes before it. actor_locality_enabled, locality_with_output: have no effect, as blocks are read where they are."""

    resource_limits: ExecutionResources = field(default_factory=ExecutionResources.for_limits)
    exclude_resources: ExecutionResources = field(default_factory=ExecutionResources.zero)
    preserve_order: bool = True
    actor_locality_enabled: bool = True
    verbose_progress: bool = True
    label_selector: Mapping[str, str] | None = None
    locality_with_output: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        if value is None:  # as Ray's constructor takes it
            usual: dict[str, Any] = {
                "resource_limits": ExecutionResources.for_limits,
                "exclude_resources": ExecutionResources.zero,
                "verbose_progress": lambda: True,
            }
            value = usual[name]() if name in usual else None
        if (name, bool(value)) in (("actor_locality_enabled", False), ("locality_with_output", True)):
            warnings.warn(f"ExecutionOptions.{name} has no effect: blocks are read where they are", stacklevel=2)
        object.__setattr__(self, name, value)

    def copy(self) -> ExecutionOptions:
        """Another one with the same settings."""
        found = copy.copy(self)
        found.resource_limits, found.exclude_resources = self.resource_limits.copy(), self.exclude_resources.copy()
        return found


class ExecutionCallback:
    """What is called as runs go on, in the process and on the thread that drives them: subclass it, and append the class to
    `DataContext.custom_execution_callback_classes`. One is made for each run. What it raises ends the run.

    executor: the run, of which `name` is the dataset's and `stats()` what `Dataset.stats` gives, so far.
    """

    def before_execution_starts(self, executor: reports.Execution) -> None:
        """Before the first task."""

    def on_execution_step(self, executor: reports.Execution) -> None:
        """Whenever something has happened. In a run in the calling process, never."""

    def after_execution_succeeds(self, executor: reports.Execution) -> None:
        """At the end, also where whoever reads wants no more."""

    def after_execution_fails(self, executor: reports.Execution, error: BaseException) -> None:
        """At the end, by this error."""


RETRIED_IO_ERRORS: Final = (
    "AWS Error INTERNAL_FAILURE",
    "AWS Error NETWORK_CONNECTION",
    "AWS Error SLOW_DOWN",
    "AWS Error UNKNOWN (HTTP status 503)",
    "AWS Error SERVICE_UNAVAILABLE",
)


@dataclass
class DataContext:
    """The settings of datasets that are made while it is the current one. A dataset keeps a copy of them, `Dataset.context`;
    functions find it by `DataContext.get_current()` wherever they run.

    target_max_block_size: bytes at which a block ends, None for never. target_shuffle_block_size: of what one task of a shuffle
    puts together.
    read_op_min_num_blocks: tasks that a read is divided into, where that leaves them target_min_block_size each; None for two for
    each CPU. broadcast_bytes_max: a side of a join that has no more bytes than that goes whole to every task, where the kind of
    join allows it, and the other side is not divided; 0 to divide both always. local_bytes_max: up to so many bytes, plans of
    built-in operators run in the calling process. split_wait_s: so long consumers of `streaming_split` wait for one that does not
    come, before they fail; None for ever. enable_progress_bars: a line for each stage while a run goes on, on a terminal or in a
    notebook; enable_operator_progress_bars: False for one of the whole only. checkpoint_config: where writes note what is done,
    so that they can go on after their driver was killed; `checkpoint=` of a write takes its place.
    max_tasks_in_flight_per_actor: where an ActorPoolStrategy does not say it. retried_io_errors: texts or regular expressions; a
    read whose error has one of them is tried again, from where it was. custom_execution_callback_classes: see
    ExecutionCallback.
    """

    target_max_block_size: int | None = 128 * MIB
    target_min_block_size: int = 1 * MIB
    target_shuffle_block_size: int = 128 * MIB
    read_op_min_num_blocks: int | None = None
    broadcast_bytes_max: int = 64 * MIB
    local_bytes_max: int = 64 * MIB
    execution_options: ExecutionOptions = field(default_factory=ExecutionOptions)
    enable_progress_bars: bool = True
    enable_operator_progress_bars: bool = True
    split_wait_s: float | None = 600.0
    checkpoint_config: checkpoint.CheckpointConfig | None = None
    max_tasks_in_flight_per_actor: int | None = None
    retried_io_errors: list[str] = field(default_factory=lambda: [*RETRIED_IO_ERRORS])
    custom_execution_callback_classes: list[type[ExecutionCallback]] = field(default_factory=list)
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
        found = copy.copy(self)
        found.execution_options = self.execution_options.copy()
        found.retried_io_errors = [*self.retried_io_errors]
        found.custom_execution_callback_classes = [*self.custom_execution_callback_classes]
        found._own = dict(self._own)
        return found

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
        if name in _OLD_NAMES:
            name = _OLD_NAMES[name]
        if name in settings.REFUSED:
            if value not in (None, False, 0, []):
                raise AttributeError(f"DataContext has no setting {name}: {settings.REFUSED[name]}")
        elif name in settings.WITHOUT_EFFECT:
            warnings.warn(f"DataContext.{name} has no effect: {settings.WITHOUT_EFFECT[name]}", stacklevel=2)
        elif name not in self.__dataclass_fields__:
            known = [one for one in self.__dataclass_fields__ if not one.startswith("_")]
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise AttributeError(f"DataContext has no setting {name!r}; {meant} {', '.join(known)}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Of a setting that is not there and was not set: None, for a program that would set it back."""
        if name in _OLD_NAMES:
            return getattr(self, _OLD_NAMES[name])
        if name in settings.WITHOUT_EFFECT or (name in settings.REFUSED and not name.endswith("_config")):
            return None
        advice = f": {settings.REFUSED[name]}" if name in settings.REFUSED else ""
        raise AttributeError(f"DataContext has no setting {name}{advice}")


_OLD_NAMES: Final = {
    "target_shuffle_max_block_size": "target_max_block_size",
    "write_file_retry_on_errors": "retried_io_errors",
}


def __getattr__(name: str) -> Any:
    if name == "DatasetContext":
        warnings.warn("DatasetContext is an old name; use DataContext", DeprecationWarning, stacklevel=2)
        return DataContext
    advice = f": {settings.CLASSES[name]}" if name in settings.CLASSES else ""
    raise AttributeError(f"umbel.data.context has no {name!r}{advice}")


_here: contextvars.ContextVar[DataContext | None] = contextvars.ContextVar("umbel_data_context", default=None)
