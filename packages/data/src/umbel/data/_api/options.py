"""What users say about how a function is to run, as the engine takes it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final

import umbel
from umbel import exceptions
from umbel.data import context as contexts
from umbel.data._api import checks
from umbel.data._engine import stages
from umbel.data._plan import calls, logical


class TaskPoolStrategy:
    """Tasks on any workers. size: how many at once at most; None for as many as there is room for."""

    def __init__(self, size: int | None = None) -> None:
        self.size = _positive("size", size)

    def _compute(self) -> stages.Compute:
        """As the engine takes it."""
        return stages.TaskPool(self.size)


class ActorPoolStrategy:
    """Actors of the operator's own, each with the class made once.

    size: so many from beginning to end; or min_size to max_size, as there is work, from none at all on. initial_size: with
    how many it begins. max_tasks_in_flight_per_actor: how many blocks are sent to an actor at once.
    max_concurrent_calls_per_actor: how many of these it works on at once, in threads: making batches of blocks and blocks of
    batches goes on meanwhile, and the class is called by one thread at a time. enable_true_multi_threading: by several at once.
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
        enable_true_multi_threading: bool | None = False,
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
            tasks_per_actor=max_tasks_in_flight_per_actor
            or contexts.DataContext.get_current().max_tasks_in_flight_per_actor
            or 2 * concurrency,
            concurrency=concurrency,
            are_calls_concurrent=bool(enable_true_multi_threading),
        )

    def _compute(self) -> stages.Compute:
        """As the engine takes it."""
        return self._pool


ComputeStrategy = TaskPoolStrategy | ActorPoolStrategy


def means(
    function: calls.Function,
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
    if compute is None and function.is_class and contexts.DataContext.get_current().max_tasks_in_flight_per_actor:
        compute = ActorPoolStrategy()
    if isinstance(compute, ActorPoolStrategy) and not function.is_class:
        raise ValueError(
            f"an ActorPoolStrategy is for a class, which is made once in each actor; {function.name} is a "
            "function: leave compute "
            "out or use TaskPoolStrategy"
        )
    if num_cpus is None and num_gpus:
        num_cpus = 0.0
    found = resources(options, num_cpus=num_cpus, num_gpus=num_gpus, memory=memory, are_actors=function.is_class)
    return logical.Means(compute._compute() if compute is not None else None, found)


def plain_means(given: Mapping[str, Any]) -> logical.Means:
    """With what a built-in operator runs: those of `compute`, `concurrency`, resources and other options of tasks that are given.
    Raises TypeError for an actor pool."""
    rest = {**given}
    compute, concurrency = rest.pop("compute", None), rest.pop("concurrency", None)
    if isinstance(compute, ActorPoolStrategy) or compute == "actors":
        raise TypeError("a built-in operator runs in tasks; use compute=TaskPoolStrategy(size), or leave it out")
    if concurrency is None and isinstance(compute, TaskPoolStrategy):
        concurrency = compute.size
    size = _positive("concurrency", concurrency)
    return logical.Means(stages.TaskPool(size) if size is not None else None, resources(rest))


def of_read(given: Mapping[str, Any]) -> tuple[logical.Means, int | None]:
    """With what a read runs, and how many tasks it is divided into, if that is said."""
    rest = {**given}
    block_count, parallelism = rest.pop("override_num_blocks", None), rest.pop("parallelism", -1)
    if parallelism not in (-1, None):
        if block_count is not None:
            raise ValueError("parallelism is the old name of override_num_blocks; leave it out")
        warnings.warn("parallelism is deprecated; use override_num_blocks", DeprecationWarning, 4)
        block_count = parallelism
    return plain_means(rest), check_block_count(block_count)


def check_block_count(count: Any) -> int | None:
    return None if count is None else checks.positive("override_num_blocks", count)


def resources(
    options: Mapping[str, Any],
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: float | None = None,
    are_actors: bool = False,
) -> stages.Resources:
    """What each task or actor takes. options: of core's for them, `ray_remote_args` among them; None is as good as not given.
    Raises TypeError for one that is not there, and what core raises for a wrong value."""
    rest = {
        **(options.get("ray_remote_args") or {}),
        **{one: value for one, value in options.items() if value is not None},
    }
    rest.pop("ray_remote_args", None)
    for one, advice in _REFUSED.items():
        if rest.pop(one, None) is not None:
            raise TypeError(f"there is no option {one}: {advice}")
    given = {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory}
    wanted = {one: rest.pop(one, None) if value is None else value for one, value in given.items()}
    checked = {one: value for one, value in {**rest, **wanted}.items() if value is not None}
    if checked:
        try:
            umbel.remote(**checked)(_Actor if are_actors else _task)
        except exceptions.InvalidOption as error:
            if "have no option" in str(error):
                raise TypeError(str(error) if "did you mean" in str(error) else f"{error}{_meant(rest)}") from None
            raise
    return stages.Resources(
        _or(wanted["num_cpus"], 1.0), _or(wanted["num_gpus"], 0.0), int(wanted["memory"] or 0), rest
    )


def _meant(given: Iterable[str]) -> str:
    """Which parameter of a method one of these is perhaps, misspelt."""
    dataset = importlib.import_module("umbel.data.dataset").Dataset
    methods = [method for _, method in inspect.getmembers(dataset, inspect.isfunction)]
    known = {one for method in methods for one in inspect.signature(method).parameters}
    near = [f"{one} is perhaps {found}" for one in given for found in difflib.get_close_matches(one, known - {one}, 1)]
    return f"; {', '.join(near)}" if near else ""


_REFUSED: Final = {
    "ray_remote_args_fn": "all tasks of an operator have the same options; give them by name, such as label_selector={...}",
    "num_returns": "how many blocks a task gives is decided while it runs",
    "concurrency": "use compute=TaskPoolStrategy(size)",
}


def _task() -> None: ...


class _Actor: ...


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _of_concurrency(concurrency: Any, function: calls.Function) -> ComputeStrategy:
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
    return None if value is None else checks.positive(name, value, advice="; omit it for no limit")


def seed(given: Any) -> int | contexts.RandomSeedConfig | None:
    """None also of a config without one; a number where each run has the same."""
    if isinstance(given, contexts.RandomSeedConfig):
        number = seed(given.seed)
        return given if number is not None and given.reseed_after_execution else number
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise TypeError(f"seed must be an integer, a RandomSeedConfig or None, got {given!r}")
    return given
