"""What users say about how a function is to run, as the engine takes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from umbel.data._engine import stages
from umbel.data._plan import logical


class TaskPoolStrategy:
    """Tasks on any workers. size: how many at once at most; None for as many as there is room for."""

    def __init__(self, size: int | None = None) -> None:
        self.size = _positive("size", size)

    def compute(self) -> stages.Compute:
        """As the engine takes it."""
        return stages.TaskPool(self.size)


class ActorPoolStrategy:
    """Actors of the operator's own, each with the class made once.

    size: so many from beginning to end; or min_size to max_size, as there is work, from none at all on. initial_size: with
    how many it begins. max_tasks_in_flight_per_actor: how many blocks are sent to an actor at once.
    max_concurrent_calls_per_actor: how many of these it works on at once. enable_true_multi_threading: has no effect.
    """

    def __init__(
        self,
        *,
        size: int | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        initial_size: int | None = None,
        max_tasks_in_flight_per_actor: int | None = None,
        max_concurrent_calls_per_actor: int | None = None,
        enable_true_multi_threading: bool = False,
    ) -> None:
        if size is not None:
            if (min_size, max_size, initial_size) != (None, None, None):
                raise ValueError(
                    f"size={size} says how many actors there are from beginning to end; leave out min_size, max_size and "
                    "initial_size, or size"
                )
            min_size = max_size = initial_size = _positive("size", size)
        if min_size is not None and (not isinstance(min_size, int) or min_size < 0):
            raise ValueError(f"min_size must be 0 or more, got {min_size!r}")
        _positive("max_size", max_size)
        if min_size is not None and max_size is not None and min_size > max_size:
            raise ValueError(f"min_size must not be above max_size, got {min_size} and {max_size}")
        if initial_size is not None and not (min_size or 0) <= initial_size <= (max_size or initial_size):
            raise ValueError(f"initial_size must be from min_size to max_size, got {initial_size}")
        _positive("max_tasks_in_flight_per_actor", max_tasks_in_flight_per_actor)
        _positive("max_concurrent_calls_per_actor", max_concurrent_calls_per_actor)
        concurrency = max_concurrent_calls_per_actor or 1
        self._pool = stages.ActorPool(
            min_size=min_size or 0,
            max_size=max_size,
            initial_size=initial_size,
            tasks_per_actor=max_tasks_in_flight_per_actor or 2 * concurrency,
            concurrency=concurrency,
        )

    def compute(self) -> stages.Compute:
        """As the engine takes it."""
        return self._pool


ComputeStrategy = TaskPoolStrategy | ActorPoolStrategy


def means(
    function: logical.Function,
    *,
    compute: ComputeStrategy | str | None,
    concurrency: int | tuple[int, int] | tuple[int, int, int] | None,
    num_cpus: float | None,
    num_gpus: float | None,
    memory: float | None,
    options: Mapping[str, Any],
) -> logical.Means:
    """With what a function runs. `concurrency` is Ray's older way to say `compute`."""
    if concurrency is not None:
        if compute is not None:
            raise ValueError(f"compute and concurrency say the same; leave out concurrency={concurrency!r}")
        compute = _of_concurrency(concurrency, function)
    if isinstance(compute, str):
        named: dict[str, ComputeStrategy] = {"tasks": TaskPoolStrategy(), "actors": ActorPoolStrategy(min_size=1)}
        compute = named.get(compute, compute)
    if compute is not None and not isinstance(compute, TaskPoolStrategy | ActorPoolStrategy):
        raise TypeError(f"compute must be a TaskPoolStrategy or an ActorPoolStrategy, got {compute!r}")
    if function.is_class and isinstance(compute, TaskPoolStrategy):
        raise ValueError(
            f"{function.name} is a class, which is made once in each actor; use compute=ActorPoolStrategy(...), or leave it out"
        )
    if isinstance(compute, ActorPoolStrategy) and not function.is_class:
        raise ValueError(
            f"an ActorPoolStrategy is for a class, which is made once in each actor; {function.name} is a "
            "function: leave compute "
            "out or use TaskPoolStrategy"
        )
    cpus = num_cpus if num_cpus is not None else (0.0 if num_gpus else 1.0)
    resources = stages.Resources(cpus, num_gpus or 0.0, int(memory or 0), dict(options))
    return logical.Means(compute.compute() if compute is not None else None, resources)


def _of_concurrency(concurrency: Any, function: logical.Function) -> ComputeStrategy:
    warnings.warn(
        "concurrency is deprecated; use compute=TaskPoolStrategy(...) or ActorPoolStrategy(...)", DeprecationWarning, 4
    )
    if isinstance(concurrency, int):
        return ActorPoolStrategy(size=concurrency) if function.is_class else TaskPoolStrategy(concurrency)
    if isinstance(concurrency, tuple) and len(concurrency) in (2, 3) and function.is_class:
        low, high, *initial = concurrency
        return ActorPoolStrategy(min_size=low, max_size=high, initial_size=initial[0] if initial else None)
    raise ValueError(
        "concurrency must be a number, or for a class also (smallest, largest) or (smallest, largest, "
        f"first), got {concurrency!r}"
    )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be 1 or more, got {value!r}; omit it for no limit")
    return value


def keys(name: str, given: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of columns, of which one may stand alone."""
    if given is None:
        return ()
    several = (given,) if isinstance(given, str) else tuple(given)
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f"{name} must be the name of a column or a list of names, got {given!r}")
    if len(set(several)) < len(several):
        raise ValueError(f"{name} must name each column once, got {list(several)}")
    return several
