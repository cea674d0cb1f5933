"""A compiled graph, from the side of the process that executes it."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import current, refs
from umbel._client.graphs import backends, executions, nodes, plan, settings, waiting
from umbel._client.graphs.results import Results
from umbel._model.reasons import Reason

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("umbel")


class CompiledDAG:
    """A graph whose actors wait for its input. Made by `experimental_compile`; `teardown` sets the actors free.

    Any thread may call anything. Executions overlap: results come in the order of the calls of `execute`.
    """

    def __init__(
        self,
        engine: Any,
        graph: plan.GraphPlan,
        backend: backends.Backend,
        book: executions.Executions,
        *,
        submit_timeout_s: float | None,
        is_async: bool,
    ) -> None:
        self._graph = graph
        self._backend = backend
        self._submit_timeout_s = submit_timeout_s
        self._submitting = threading.Lock()
        self._results = Results(engine, book, backend.outlets, check=backend.check, late=backend.late)
        self._is_async = is_async
        self._awaited: queue.SimpleQueue[_Awaited | None] = queue.SimpleQueue()
        if is_async:
            args = (self._results, self._awaited)
            threading.Thread(target=_serve, args=args, name="umbel-graph-results", daemon=True).start()

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Begin one execution. Returns a CompiledDAGRef for `umbel.get`; a list of them for a MultiOutputNode.

        Raises UmbelCgraphCapacityExceeded when too many executions are in flight, ValueError when the arguments are not
        those of the graph, ActorDiedError when an actor of the graph has died, UmbelChannelError after `teardown`.
        """
        if self._is_async:
            raise ValueError("the graph was compiled with enable_asyncio=True; use 'await graph.execute_async(...)'")
        number = self._submit(args, kwargs)
        if not self._graph.is_list:
            return CompiledDAGRef(self, number, 0)
        return [CompiledDAGRef(self, number, output) for output in range(len(self._graph.outputs))]

    async def execute_async(self, *args: Any, **kwargs: Any) -> Any:
        """As `execute`; returns CompiledDAGFutures, to be awaited in the loop that runs now."""
        import asyncio

        if not self._is_async:
            raise ValueError("the graph was compiled without enable_asyncio=True; use 'graph.execute(...)'")
        loop = asyncio.get_running_loop()
        number = self._submit(args, kwargs)
        futures = [loop.create_future() for _ in self._graph.outputs]
        self._awaited.put(_Awaited(number, loop, futures))
        made = [CompiledDAGFuture(future) for future in futures]
        return made if self._graph.is_list else made[0]

    def _submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        self._graph.check_input(args, kwargs)
        for value in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(value, refs.ObjectRef):  # it stands for its value, as in a call
                args = tuple(_value_of(value) for value in args)
                kwargs = {name: _value_of(value) for name, value in kwargs.items()}
                break
        backend = self._backend
        with self._submitting:
            backend.check_open()
            given = backend.prepare(args, kwargs)  # what cannot be sent is refused before there is an execution
            try:
                number = self._results.open(self._submit_timeout_s)
            except BaseException:
                backend.discard(given)
                raise
            backend.send(given)
            return number

    def teardown(self, kill_actors: bool = False) -> None:
        """End the graph: its actors go on as if it had never been, unless they are to be killed. Idempotent.

        Waits until their methods have returned, `DAGContext.teardown_timeout` seconds at most. References that were not
        read raise UmbelChannelError.
        """
        left = self._backend.close(_timeout(settings.DAGContext.get_current().teardown_timeout))
        self._awaited.put(None)
        if left:
            logger.warning(
                "the compiled graph was torn down, but methods still run in %s; they end by themselves", ", ".join(left)
            )
        if kill_actors:
            for handle in self._graph.handles:
                current.engine().kill(handle, no_restart=True)

    def visualize(self, *_args: Any, **_kwargs: Any) -> Any:
        raise exceptions.UnsupportedFeature("CompiledDAG.visualize is not in this version of Umbel")

    def __del__(self) -> None:
        backend = self.__dict__.get("_backend")
        if backend is not None:
            backend.abandon()
            self._awaited.put(None)

    def __repr__(self) -> str:
        return f"CompiledDAG({len(self._graph.handles)} actors, {len(self._graph.edges)} channels)"

    def _why(self, execution: int, output: int) -> Reason:
        if self._results.has_come(execution, output):
            return waiting.has_come(waiting.Result("", output, execution))
        self._backend.check_open()
        return self._backend.why(execution, output)

    def __reduce__(self) -> Any:
        raise TypeError(
            "a CompiledDAG cannot be pickled: it belongs to the process that compiled it; compile one there"
        )


class CompiledDAGRef(refs.GraphRef):
    """The result of one execution. It can be read once, by `umbel.get`; it cannot be copied, pickled or passed on."""

    __slots__ = ("_execution", "_graph", "_is_read", "_output")

    def __init__(self, graph: CompiledDAG, execution: int, output: int) -> None:
        self._graph = graph
        self._execution = execution
        self._output = output
        self._is_read = False

    def get(self, timeout: float | None = None) -> Any:
        """What `umbel.get` does. timeout: in seconds; -1 for ever, None for `DAGContext.get_timeout`.

        Raises the error of a method that failed; UmbelChannelTimeoutError, after which it may be read again;
        ActorDiedError; UmbelChannelError after `teardown`; ValueError the second time.
        """
        if self._is_read:
            raise ValueError(
                f"{self!r} was read already, and a result of a compiled graph is read once; keep the value"
            )
        limit = settings.DAGContext.get_current().get_timeout if timeout is None else timeout
        try:
            value = self._graph._results.fetch(self._execution, self._output, _timeout(limit))
        except (exceptions.UmbelChannelTimeoutError, exceptions.UmbelCgraphCapacityExceeded, KeyboardInterrupt):
            raise  # the result is still to come
        except BaseException:
            self._is_read = True
            raise
        self._is_read = True
        return value

    def explain(self) -> Reason:
        """Why the result has not come, as `umbel.explain` tells it."""
        return self._graph._why(self._execution, self._output)

    def __del__(self) -> None:
        if not self._is_read:
            self._graph._results.dropped.append((self._execution, self._output))

    def __repr__(self) -> str:
        return f"CompiledDAGRef(execution={self._execution}, output={self._output})"

    def __copy__(self) -> Any:
        raise ValueError("a CompiledDAGRef cannot be copied: its result is read once; copy the value")

    def __deepcopy__(self, _memo: object) -> Any:
        raise ValueError("a CompiledDAGRef cannot be copied: its result is read once; copy the value")

    def __reduce__(self) -> Any:
        raise ValueError("a CompiledDAGRef cannot be pickled or passed on: get its value, and pass that on")


class CompiledDAGFuture:
    """The result of one execution of a graph that was compiled with enable_asyncio=True. It can be awaited once."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future: asyncio.Future[Any] | None = future

    def __await__(self) -> Generator[Any, None, Any]:
        if self._future is None:
            raise ValueError("a CompiledDAGFuture can be awaited once, and was; keep the value")
        future, self._future = self._future, None
        return future.__await__()

    def __copy__(self) -> Any:
        raise ValueError("a CompiledDAGFuture cannot be copied: its result is read once; copy the value")

    def __deepcopy__(self, _memo: object) -> Any:
        raise ValueError("a CompiledDAGFuture cannot be copied: its result is read once; copy the value")

    def __reduce__(self) -> Any:
        raise ValueError("a CompiledDAGFuture cannot be pickled or passed on: await it, and pass the value on")


class _Awaited(NamedTuple):
    """An execution and who awaits it."""

    execution: int
    loop: asyncio.AbstractEventLoop
    futures: list[asyncio.Future[Any]]


def _serve(results: Results, awaited: queue.SimpleQueue[_Awaited | None]) -> None:
    """Bring results to futures, until told to stop. The thread of a graph with asyncio."""
    while True:
        item = awaited.get()
        if item is None:
            return
        for output, future in enumerate(item.futures):
            settle: Callable[..., None]
            try:
                settle, outcome = _succeed, results.fetch(item.execution, output, None)
            except BaseException as error:
                settle, outcome = _fail, error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                item.loop.call_soon_threadsafe(settle, future, outcome)
            del outcome, future


def _value_of(value: Any) -> Any:
    return current.engine().get([value], None)[0] if isinstance(value, refs.ObjectRef) else value


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def compile_graph(
    root: nodes.DAGNode,
    *,
    submit_timeout_s: Any,
    buffer_bytes: Any,
    is_async: Any,
    in_flight_max: Any,
    buffered_max: Any,
    overlap: Any,
    communicator: Any,
) -> CompiledDAG:
    """What `DAGNode.experimental_compile` returns. Raises TypeError or ValueError for options that make no sense."""
    if overlap:
        raise exceptions.UnsupportedFeature(
            "_overlap_gpu_communication=True is not in this version of Umbel, whose graphs move all values through shared "
            "memory; leave it out"
        )
    if communicator not in ("create", None):
        raise exceptions.UnsupportedFeature(
            f"_default_communicator={communicator!r} is not in this version of Umbel, whose graphs move all values "
            "through shared memory; leave it out"
        )
    if not isinstance(is_async, bool):
        raise TypeError(f"enable_asyncio must be True or False, got {is_async!r}; omit it for False")
    defaults = settings.DAGContext.get_current()
    submit_timeout = _timeout(defaults.submit_timeout if submit_timeout_s is None else submit_timeout_s)
    in_flight = _count("_max_inflight_executions", in_flight_max, defaults.max_inflight_executions)
    buffered = _count("_max_buffered_results", buffered_max, defaults.max_buffered_results)
    size = _count("_buffer_size_bytes", buffer_bytes, defaults.buffer_size_bytes)
    graph = plan.plan_of(root)
    engine = current.engine()
    backend = _backend_of(engine, graph, root, slots=in_flight, buffer_bytes=size)
    book = executions.Executions(len(graph.outputs), in_flight_max=in_flight, buffered_max=buffered)
    return CompiledDAG(engine, graph, backend, book, submit_timeout_s=submit_timeout, is_async=is_async)


def _backend_of(
    engine: Any, graph: plan.GraphPlan, root: nodes.DAGNode, *, slots: int, buffer_bytes: int
) -> backends.Backend:
    if engine.name != "inline" and not getattr(engine, "is_remote", False):
        try:
            return backends.Channels(engine, graph, root, slots=slots, buffer_bytes=buffer_bytes)
        except backends.Elsewhere as elsewhere:
            logger.warning(
                "the compiled graph is run by ordinary calls, which take longer than its channels of shared memory would: %s; "
                "place its actors on the program's node to have channels", elsewhere,
            )  # fmt: skip
    return backends.Calls(engine, graph, root, slots=slots, buffer_bytes=buffer_bytes)


def _count(name: str, value: Any, default: int) -> int:
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}; omit it for {default}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}; omit it for {default}")
    return int(value)


def _timeout(value: Any) -> float | None:
    """Seconds; None for ever."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise TypeError(f"a time-out must be a number of seconds, got {value!r}; -1 is for ever")
    return None if value < 0 else float(value)
