"""Reading the arguments of coroutines off their event loop, where one has to be restored or computed again.

Imported by the first call of an asynchronous actor that needs it; what is in memory is read on the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from typing import Any

from umbel._worker import execute


class ArgumentReaders:
    """Threads that wait for arguments, one for each call at most."""

    def __init__(self, executor: execute.Executor, calls_max: int) -> None:
        """calls_max: how many coroutines may run at once. With fewer threads a call could wait for another's reading,
        and that for a value which the first computes."""
        self._executor = executor
        self._threads = concurrent.futures.ThreadPoolExecutor(calls_max, thread_name_prefix="umbel-arguments")

    async def read(self, job: execute.Execution) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The values to call with. Raises what `Executor.arguments` does; CancelledError once nothing is read any more,
        for the arguments are kept for us only until the call is answered."""
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._threads, contextvars.copy_context().run, self._read, job)
        cancellation: asyncio.CancelledError | None = None
        while not reading.done():
            try:
                await asyncio.wait([reading])
            except asyncio.CancelledError as error:
                cancellation = error
        outcome = reading.result()
        if cancellation is not None:
            raise cancellation
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _read(self, job: execute.Execution) -> tuple[tuple[Any, ...], dict[str, Any]] | BaseException:
        """The arguments, or what was raised instead: not everything that is raised can travel in a future."""
        job.thread = threading.get_ident()
        try:
            return self._executor.arguments(job)
        except BaseException as error:
            return error
        finally:
            job.thread = 0
