"""References to objects and streams of references.

A reference counts: while one `ObjectRef` to an object exists anywhere, its owner keeps the value. Counting itself is
the engine's; this module only tells it when an instance appears and goes.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from umbel import exceptions
from umbel._client import absent, current
from umbel._model import ids

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from umbel._model.reasons import Reason

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T_co = TypeVarWithDefault(
        "T_co", covariant=True, default=Any
    )  # a reference may be annotated without saying to what
else:
    T_co = TypeVar("T_co", covariant=True)


class RefEngine(Protocol):
    """What a reference needs of the engine that made it."""

    def drop_ref(self, object_id: bytes) -> None:
        """One instance is gone. Called from `__del__`: any thread, any moment; must neither block nor raise."""

    def add_done_callback(self, ref: ObjectRef[Any], callback: Callable[[], None], future: Any = None) -> None:
        """Call `callback` once, from any thread, when the value or its error is there. future: of asyncio, which it
        settles; who asks what a coroutine waits for is told by it."""

    def get(self, refs: list[ObjectRef[Any]], timeout_s: float | None) -> list[Any]: ...

    def wait_beside(
        self, ref: ObjectRef[Any] | None, wait: Callable[[float | None], bool], timeout_s: float | None
    ) -> None:
        """Call `wait` with a number of seconds until it says that what this thread waits for has come, or the time is up:
        something that comes by way of the value of `ref`, which others who ask are told, or of several, which they are not."""

    def get_ready(self, ref: ObjectRef[Any], *, waits: bool) -> tuple[Any] | None:
        """What `get` returns of one that is there; None if it is lost, so that its callback is to be added again. waits:
        for one that is on disk; else that counts as lost."""

    def adopt_ref(self, object_id: bytes) -> None:
        """An instance was made outside the engine, by unpickling or by hand; count it."""

    def ref_pickled(self, object_id: bytes) -> None:
        """The reference is being written into some bytes; keep the object for whoever reads them."""

    def call_site(self, object_id: bytes) -> str:
        """Where this process made the object; "" if that is not recorded."""


class ObjectRef(Generic[T_co]):
    """The promise of one value of type T; resolve it with `umbel.get`, or `await` it.

    `binary` is the 28-byte object id. References compare and hash by id. Pickling one inside a task argument, a return
    value or `umbel.put` shares the object with the receiver (it *borrows* it); pickled by any other means, the object
    is kept until its owner ends, because nobody can tell when the bytes are gone.
    """

    __slots__ = ("__weakref__", "_engine", "_id")

    def __init__(self, binary: bytes, _engine: RefEngine | None = None) -> None:
        self._id = binary
        if _engine is None:  # unpickled, or made by hand
            self._engine: RefEngine | None = None
            if len(binary) != ids.ObjectID.size():
                raise ValueError(f"an object id has {ids.ObjectID.size()} bytes, got {len(binary)}")
            current.engine().adopt_ref(binary)
            self._engine = current.session()
        else:
            self._engine = _engine

    def __del__(self) -> None:
        try:
            self._engine.drop_ref(self._id)  # type: ignore[union-attr]  # None only when __init__ failed
        except AttributeError:
            pass

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._engine is not None:
            self._engine.ref_pickled(self._id)
        return _read_ref, (self._id,)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, _memo: object) -> ObjectRef[T_co]:
        return self

    def binary(self) -> bytes:
        return self._id

    def hex(self) -> str:
        return self._id.hex()

    def is_nil(self) -> bool:
        return self._id == b"\xff" * len(self._id)

    def task_id(self) -> ids.TaskID:
        """The task whose result this is; for `put`, an id of its own."""
        return ids.TaskID(self._id[:24])

    def job_id(self) -> ids.JobID:
        """The job of the session, which has one."""
        engine: Any = self._engine
        return ids.JobID.from_hex(engine.session_context.job_id)

    def call_site(self) -> str:
        """Where the program made it, as `file:line in function`; recorded with UMBEL_RECORD_CALL_SITES=1, and known to
        the process that made it only. Else empty."""
        return "" if self._engine is None else self._engine.call_site(self._id)

    def owner_address(self) -> str:
        """The id, in hex, of the process that owns the object."""
        return self._id[:16].hex()

    if not TYPE_CHECKING:
        tensor_transport = absent.Absent(
            "a reference does not tell how the tensors of its value travel; the method or the put() that makes it does"
        )

    @classmethod
    def size(cls) -> int:
        """The number of bytes of an object id."""
        return ids.ObjectID.size()

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """A reference to nothing, unlike any other; waiting for it raises ObjectLostError."""
        return cls(ids.ObjectID.from_random().binary())

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        return cls(b"\xff" * ids.ObjectID.size())

    @classmethod
    def from_binary(cls, binary: bytes) -> ObjectRef[Any]:
        return cls(binary)

    @classmethod
    def from_hex(cls, text: str) -> ObjectRef[Any]:
        return cls(bytes.fromhex(text))

    def future(self) -> concurrent.futures.Future[T_co]:
        """A `concurrent.futures.Future` of the value; cancelling it does not cancel the task. Its callbacks run on a
        thread of their own, one after another, and may wait for other results."""
        from umbel._client import futures  # which few programs want

        result = futures.ResultFuture(self)
        self._on_done(lambda: _callbacks.run(lambda: result.settle(_settle)))
        return result

    def as_future(self) -> asyncio.Future[T_co]:
        """An asyncio future of the value, bound to the running loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        result: asyncio.Future[T_co] = loop.create_future()

        self._on_done(lambda: _soon(loop, lambda: _settle_awaited(self, loop, result)), result)
        return result

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.as_future().__await__()

    def _on_done(self, callback: Callable[[], None], future: Any = None) -> None:
        if self._engine is None:
            raise ValueError(f"{self!r} belongs to no running session; it cannot be awaited")
        self._engine.add_done_callback(self, callback, future)


# An actor lives as long as references to this object of it do, so handles are counted by the protocol for objects.
LIFETIME_SUFFIX = b"\xff\xff\xff\xff"


def check_out_of_band(*object_ids: bytes, is_allowed: bool, by: str = "a pickle of the program's own") -> None:
    """Raises OufOfBandObjectRefSerializationException where references must not go into bytes that are kept. Handles
    of actors may."""
    found = () if is_allowed else [one for one in object_ids if not one.endswith(LIFETIME_SUFFIX)]
    if found:
        raise exceptions.OufOfBandObjectRefSerializationException(
            f"ObjectRef({found[0].hex()}) was captured by {by}, which would keep its object for good; pass it as an "
            "argument, return it or put it in a list with umbel.put, or unset "
            "UMBEL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION"
        )


class GraphRef:
    """What a compiled graph returns for an execution (`umbel.dag.CompiledDAGRef`). No reference to an object. Here `get`
    and `explain` must know the class, not load it; the graphs' module has the only subclass."""

    __slots__ = ()

    def get(self, timeout: float | None = None) -> Any:
        """What `umbel.get` returns for it."""
        raise NotImplementedError

    def explain(self) -> Reason:
        """What `umbel.explain` tells of it, as far as this process knows."""
        raise NotImplementedError


class Reading(threading.local):
    """References that an engine is unpickling in this thread: noted here and counted together afterwards."""

    ids: list[bytes] | None = None
    engine: RefEngine | None = None


reading = Reading()
_new_ref = object.__new__


def _read_ref(binary: bytes) -> ObjectRef[Any]:
    """What a pickled reference calls."""
    found = reading.ids
    if found is None:
        return ObjectRef(binary)
    ref: ObjectRef[Any] = _new_ref(ObjectRef)
    ref._id = binary
    ref._engine = reading.engine
    found.append(binary)
    return ref


def _settle(ref: ObjectRef[T], succeed: Callable[[T], None], fail: Callable[[BaseException], None]) -> None:
    try:
        value = ref._engine.get([ref], None)[0]  # type: ignore[union-attr]  # _on_done has checked
    except BaseException as error:
        fail(error.with_traceback(None))  # whose frames hold the future
    else:
        succeed(value)


def _settle_ready(
    ref: ObjectRef[T], succeed: Callable[[T], None], fail: Callable[[BaseException], None], *, waits: bool
) -> bool:
    """As `RefEngine.get_ready`; whether it was there."""
    try:
        found = ref._engine.get_ready(ref, waits=waits)  # type: ignore[union-attr]  # _on_done has checked
    except BaseException as error:
        fail(error.with_traceback(None))  # whose frames hold the future
        return True
    if found is None:
        return False
    succeed(found[0])
    return True


def _settle_awaited(ref: ObjectRef[T], loop: asyncio.AbstractEventLoop, result: asyncio.Future[T]) -> None:
    """Of an object that has come, on the loop."""
    if not result.done() and not _settle_ready(ref, result.set_result, result.set_exception, waits=False):
        _readings.run(lambda: _read_for(ref, loop, result))


def _read_for(ref: ObjectRef[T], loop: asyncio.AbstractEventLoop, result: asyncio.Future[T]) -> None:
    """Settle a future of the loop with a value that is on disk or lost, while the loop goes on. On another thread."""

    def hand_over(settle_with: Callable[[Any], None], found: Any) -> None:
        _soon(loop, lambda: None if result.done() else settle_with(found))

    def fail(error: BaseException) -> None:
        hand_over(result.set_exception, error)

    if not _settle_ready(ref, lambda value: hand_over(result.set_result, value), fail, waits=True):
        try:  # once a lost value has been computed again
            ref._on_done(lambda: _soon(loop, lambda: _settle_awaited(ref, loop, result)), result)
        except exceptions.UmbelError as error:  # the session has ended
            fail(error)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop was closed: nobody waits any more
        pass


class _Callbacks:
    """Runs users' callbacks, and readings from disk, apart from the threads that bring results or run an event loop, which
    must not wait for one.

    One after another, on a thread that ends when there are none left, so that an idle program has no thread of ours.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._is_running = False

    def run(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(callback)
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._drain, name="umbel-callbacks", daemon=True).start()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                callback = self._waiting.popleft()
            callback()


_callbacks = _Callbacks()
_readings = _Callbacks()  # of values that are awaited
if hasattr(os, "register_at_fork"):
    for _kind in (_callbacks, _readings):
        os.register_at_fork(after_in_child=_kind.__init__)  # type: ignore[misc]  # its thread stays with the parent


class Stream(Protocol):
    """The engine's side of one generator's results."""

    completed: ObjectRef[Any]

    def next_ref(self, timeout_s: float | None) -> ObjectRef[Any] | None:
        """The next item's reference, waiting for it; None when the stream is over."""

    def is_ready(self) -> bool:
        """Whether `next_ref` would return at once."""

    def is_finished(self) -> bool:
        """Whether everything was consumed and nothing more will come."""

    def on_ready(self, callback: Callable[[], None], future: Any = None) -> None:
        """Call `callback` once, from any thread, when `is_ready`. future: as for `RefEngine.add_done_callback`."""

    def wake(self) -> None:
        """What was submitted is sent now, and answers are heard although no thread waits for them."""

    def close(self) -> None:
        """Nobody will read on: free what was not consumed."""


_ELSEWHERE = "what runs the generator is another process; iterate, or drop the generator to read no further"


class ObjectRefGenerator(Generic[T_co]):
    """Iterates over the references a generator task yields, as it yields them.

    Use it from one thread. The task runs ahead of the reader unless `_generator_backpressure_num_objects` bounds it. An
    error raised after n items is the (n+1)th reference, which raises when got; then the iteration ends. It can
    neither be pickled nor passed to a task: pass its items.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[ObjectRef[T_co]]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        ref = self._stream.next_ref(None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        import asyncio

        if not self._stream.is_ready():
            loop = asyncio.get_running_loop()
            ready = loop.create_future()

            def settle() -> None:
                if not ready.done():
                    ready.set_result(None)

            def notify() -> None:
                loop.call_soon_threadsafe(settle)

            self._stream.on_ready(notify, ready)
            await ready
        ref = self._stream.next_ref(None)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def add_ready_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when `next` would not wait: the next item is there, or there are no more.

        At once if that is so already; else from any thread, one of the runtime's, whose work stands still meanwhile: it
        must neither wait nor raise. So one thread can follow many generators, and other things besides.
        """
        self._stream.on_ready(callback)
        self._stream.wake()

    if not TYPE_CHECKING:  # were they there, `yield from` would pass on to them what it should handle itself
        send, throw, close = absent.Absent(_ELSEWHERE), absent.Absent(_ELSEWHERE), absent.Absent(_ELSEWHERE)
        asend, athrow, aclose = absent.Absent(_ELSEWHERE), absent.Absent(_ELSEWHERE), absent.Absent(_ELSEWHERE)

    def completed(self) -> ObjectRef[Any]:
        """A reference to None that is ready when the generator has ended; what that raised, the last item says.
        Getting it raises where the task did not come to its end: cancelled, or its process dead."""
        return self._stream.completed

    def next_ready(self) -> bool:
        """Whether `next` would return an item without waiting; False when the items are over."""
        return self._stream.is_ready() and not self._stream.is_finished()

    def is_finished(self) -> bool:
        return self._stream.is_finished()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "an ObjectRefGenerator cannot be pickled or passed on: only its reader knows what was consumed; "
            "pass the references it yields, or umbel.get(list(generator))"
        )


class DynamicObjectRefGenerator:
    """The references of a task with num_returns="dynamic": picklable, iterable more than once, with a length."""

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)
