"""`multiprocessing.Pool` on the cluster: `from umbel.util.multiprocessing import Pool`."""

from multiprocessing import JoinableQueue as JoinableQueue  # between processes of one machine, as in Ray
from multiprocessing import TimeoutError as TimeoutError

from umbel.util.multiprocessing.pool import Pool as Pool
from umbel.util.multiprocessing.pool import cpu_count as cpu_count
from umbel.util.multiprocessing.results import AsyncResult as AsyncResult

__all__ = ["AsyncResult", "JoinableQueue", "Pool", "TimeoutError", "cpu_count"]
