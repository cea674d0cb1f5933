"""joblib on the cluster: `register_umbel()`, then `joblib.parallel_config(backend="umbel")`.

joblib is not a dependency of Umbel, and importing this module needs it. Batches run in an
`umbel.util.multiprocessing.Pool`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import umbel
from umbel.util.multiprocessing import pool as pools

try:
    from joblib import parallel as _joblib
except ModuleNotFoundError as error:
    if error.name != "joblib":
        raise
    raise ModuleNotFoundError("umbel.util.joblib needs joblib: pip install joblib", name="joblib") from error

SHARED_BYTES_MIN = 1_000_000  # joblib's own threshold for sharing an array between processes


@dataclass(frozen=True)
class _Shared:
    """Stands for a large argument that many calls have in common."""

    ref: umbel.ObjectRef[Any]


@dataclass(frozen=True)
class _Batch:
    """joblib's batch, with `_Shared` in the place of large arguments."""

    calls: Any

    def __call__(self) -> Any:
        self.calls.items = [
            (func, [_fetched(arg) for arg in args], {name: _fetched(arg) for name, arg in kwargs.items()})
            for func, args, kwargs in self.calls.items
        ]
        return self.calls()


def _fetched(argument: Any) -> Any:
    return umbel.get(argument.ref) if isinstance(argument, _Shared) else argument


class UmbelBackend(_joblib.AutoBatchingMixin, _joblib.ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """joblib's parallel backend on Umbel.

    `n_jobs` counts processes, at most the cluster's CPUs; -1 means all of them. `umbel_remote_args` are options of
    the pool's actors. An array (or anything with `nbytes`) of a megabyte or more, or of joblib's `max_nbytes`, is
    stored once per `Parallel` call however many calls get it; like joblib's own processes, they see it as it was when
    it was first passed.
    """

    uses_threads = False
    supports_sharedmem = False
    supports_retrieve_callback = True
    supports_inner_max_num_threads = False

    def __init__(self, *args: Any, umbel_remote_args: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._remote_args = umbel_remote_args
        self._pool: pools.Pool | None = None
        self._shared_bytes_min: int | None = SHARED_BYTES_MIN
        self._shared: dict[int, tuple[Any, _Shared]] = {}  # by id; holds the argument, so that its id stays its own

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0; use -1 for all CPUs of the cluster")
        if n_jobs is None:
            return 1
        available = max(1, pools.cpu_count())
        return min(n_jobs, available) if n_jobs > 0 else max(1, available + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        umbel_remote_args: Mapping[str, Any] | None = None,
        max_nbytes: int | None = SHARED_BYTES_MIN,
        **_other: Any,
    ) -> int:
        """Start the processes; called by joblib before a `Parallel` call."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise _joblib.FallbackToBackend(_joblib.SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._shared_bytes_min = max_nbytes
        self._pool = pools.Pool(count, umbel_remote_args=umbel_remote_args or self._remote_args)
        return count

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Any:
        if self._pool is None:
            raise ValueError("the backend was terminated; joblib must configure it first")
        return self._pool.apply_async(self._with_shared(func), callback=callback, error_callback=callback)

    def apply_async(self, func: Any, callback: Callable[[Any], object] | None = None) -> Any:
        """`submit`, as joblib called it before 1.5."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Any) -> Any:
        """The batch's results; `out` is what the callback got: them, or the error."""
        if isinstance(out, BaseException):
            raise out
        return out

    def terminate(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None
        self._shared.clear()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)

    def _with_shared(self, batch: Any) -> Any:
        if self._shared_bytes_min is None or not hasattr(batch, "items"):
            return batch
        items = [
            (func, [self._stored(arg) for arg in args], {name: self._stored(arg) for name, arg in kwargs.items()})
            for func, args, kwargs in batch.items
        ]
        if not any(isinstance(arg, _Shared) for _, args, kwargs in items for arg in (*args, *kwargs.values())):
            return batch
        shared = copy.copy(batch)
        shared.items = items
        return _Batch(shared)

    def _stored(self, argument: Any) -> Any:
        size = getattr(argument, "nbytes", 0)
        if not isinstance(size, int) or self._shared_bytes_min is None or size < self._shared_bytes_min:
            return argument
        if id(argument) not in self._shared:
            self._shared[id(argument)] = (argument, _Shared(umbel.put(argument)))
        return self._shared[id(argument)][1]


def register_umbel() -> None:
    """Make `backend="umbel"` known to joblib."""
    _joblib.register_parallel_backend("umbel", UmbelBackend)
