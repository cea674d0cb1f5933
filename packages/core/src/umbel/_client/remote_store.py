"""The store of a program without a node: its values lie in the shared memory of the node that it is connected to.

What is written goes there in pieces, what is read comes from there, and is a copy in this process. Names, owners and the
bytes that are granted are as of a process on that node (`umbel._objects.store`); a segment is never used twice, since pages
that are warm there save nothing here.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import spill_thread
from umbel._objects import quota, segments, store
from umbel._transport import connection, reactor
from umbel._wire import frames

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

PIECE_BYTES = 256 << 10
PIECES_MAX = 8  # under way at once, in either direction: twice what the window of a stream takes

Message = dict[str, Any]


class Files:
    """What the relay has of the node's files. Any thread may ask."""

    def __init__(self, sock: connection.Stream, driver: reactor.Reactor, died: Callable[[], BaseException]) -> None:
        """died: what is raised when the relay is gone."""
        self._reactor = driver
        self._died = died
        self._answers: dict[int, Asked] = {}
        self._numbers = itertools.count(1)
        self._connection = connection.Connection(sock, driver.poller, self._on_frame, self._on_close)

    def tell(self, message: Message) -> None:
        """Without an answer."""
        self._connection.send(frames.encode_control(message))

    def begin(self, message: Message, body: bytes = b"", then: Callable[[Message], None] | None = None) -> Asked:
        """Ask, and go on; then `Asked.answer`, or `drop`. then: called instead, on the thread that reads, unless the relay goes
        before."""
        number = next(self._numbers)
        asked = self._answers[number] = Asked(self, number, then)
        self._connection.send(frames.encode_control({**message, "rq": number}, body))
        if self._connection.is_closed:
            asked.waiter.finish()
        return asked

    def ask(self, message: Message, body: bytes = b"") -> tuple[Message, bytes]:
        return self.begin(message, body).answer()

    def wait(self, waiter: reactor.Waiter) -> None:
        self._reactor.wait(waiter, None)

    def died(self) -> BaseException:
        return self._died()

    def forget(self, number: int) -> None:
        self._answers.pop(number, None)

    def _on_frame(self, _connection: connection.Connection, payload: bytes) -> None:
        message, body = frames.decode_control(payload)
        asked = self._answers.get(message.get("rq", -1))
        if asked is not None:
            asked.found = (message, body)
            asked.waiter.finish()
            if asked.then is not None:
                asked.drop()
                asked.then(message)

    def _on_close(self, _connection: connection.Connection) -> None:
        for asked in list(self._answers.values()):
            asked.waiter.finish()

    def close(self) -> None:
        self._connection.close()


class Asked:
    """A question under way."""

    __slots__ = ("_files", "_number", "found", "then", "waiter")

    def __init__(self, files: Files, number: int, then: Callable[[Message], None] | None) -> None:
        self._files = files
        self._number = number
        self.then = then
        self.waiter = reactor.Waiter()
        self.found: tuple[Message, bytes] | None = None

    def answer(self) -> tuple[Message, bytes]:
        """Waits. The answer may be an error. Raises what says that the relay is gone."""
        try:
            self._files.wait(self.waiter)
        finally:
            self.drop()
        if self.found is None:
            raise self._files.died()
        return self.found

    def drop(self) -> None:
        """Nobody wants to know any more."""
        self._files.forget(self._number)


class Pipeline:
    """Questions of which several are under way; `on_answer` gets the answers in their order."""

    def __init__(self, files: Files, on_answer: Callable[[Message, bytes], None]) -> None:
        self._files = files
        self._on_answer = on_answer
        self._asked: deque[Asked] = deque()

    def add(self, message: Message, body: bytes = b"") -> None:
        while len(self._asked) >= PIECES_MAX:
            self._on_answer(*self._asked.popleft().answer())
        self._asked.append(self._files.begin(message, body))

    def finish(self) -> None:
        while self._asked:
            self._on_answer(*self._asked.popleft().answer())

    def drop(self) -> None:
        while self._asked:
            self._asked.popleft().drop()


def copy(
    files: Files,
    question: Message,
    offset: int,
    size_bytes: int,
    descriptor: int,
    check: Callable[[Message, bytes], None],
) -> None:
    """So much of what `question` is about, into a file here. check: raises for an answer that is an error."""
    position = 0

    def on_answer(message: Message, body: bytes) -> None:
        nonlocal position
        check(message, body)
        wanted = min(PIECE_BYTES, size_bytes - position)
        if len(body) != wanted:
            error = {"kind": "gone", "text": f"the piece at {position} has {len(body)} bytes instead of {wanted}"}
            check({"error": error}, b"")
        segments.write(descriptor, position, memoryview(body))
        position += wanted

    pipeline = Pipeline(files, on_answer)
    try:
        for start in range(0, max(1, size_bytes), PIECE_BYTES):  # of no bytes too, since it may be gone
            piece = min(PIECE_BYTES, size_bytes - start)
            pipeline.add({**question, "offset": offset + start, "bytes": piece})
        pipeline.finish()
    finally:
        pipeline.drop()


class Segment:
    """A new segment, until it is sealed."""

    __slots__ = ("_store", "name", "pipeline", "size_bytes")

    def __init__(self, made_by: RemoteStore, name: str, size_bytes: int, pipeline: Pipeline) -> None:
        self._store = made_by
        self.name = name
        self.size_bytes = size_bytes
        self.pipeline = pipeline

    @property
    def buffer(self) -> memoryview:
        raise exceptions.InternalError("a segment on another machine has no buffer here", segment=self.name)


class RemoteStore:
    """See `spi.ObjectStore`."""

    def __init__(self, files: Files, process_id: str, *, reserve: quota.Reserve, release: quota.Release) -> None:
        self._files = files
        self.process_id = process_id
        self._quota = quota.Quota(reserve, release)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._live: dict[str, int] = {}  # own segments, and their bytes of pages
        # While a value is viewed it is kept where it lies, and nothing else comes to lie there: it need not come twice.
        self._viewed: weakref.WeakValueDictionary[str, _Copy] = weakref.WeakValueDictionary()
        self._is_closed = False
        self.on_orphans: Callable[[list[str]], None] = lambda _names: None

    # Writing

    def create(self, size_bytes: int, owner: str | None = None) -> Segment:
        self._check_open()
        pages = segments.page_bytes(size_bytes)
        name = segments.name_of(self.process_id, owner or self.process_id, next(self._numbers))
        self._quota.claim(pages, shrink=lambda _bytes: None)
        with self._lock:
            self._live[name] = pages
        try:
            self._check(*self._files.ask({"t": "create", "name": name, "bytes": size_bytes}), name=name)
        except BaseException:
            self.free(name)
            raise
        return Segment(self, name, size_bytes, Pipeline(self._files, lambda *answer: self._check(*answer, name=name)))

    def write(self, segment: Segment, offset: int, data: Any) -> None:
        source = store.as_bytes(data)
        try:
            for start in range(0, source.nbytes, PIECE_BYTES):
                piece = bytes(source[start : start + PIECE_BYTES])
                segment.pipeline.add({"t": "write", "name": segment.name, "offset": offset + start}, piece)
        except BaseException:
            segment.pipeline.drop()
            raise

    def seal(self, segment: Segment) -> None:
        try:
            segment.pipeline.add({"t": "seal", "name": segment.name})
            segment.pipeline.finish()
        finally:
            segment.pipeline.drop()

    # Reading

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> store.View:
        self._check_open()
        copy = self._viewed.get(name)
        if copy is None:
            copy = self._viewed[name] = self._fetched(name, size_bytes, {"t": "read", "name": name}, 0)
        return store.View(name, _view(copy, size_bytes, on_release))

    def read_file(
        self, name: str, path: str, offset: int, size_bytes: int, on_release: Callable[[], None]
    ) -> store.View:
        """A view of a value that has left shared memory. Raises ObjectLostError."""
        copy = self._fetched(name, size_bytes, {"t": "read_file", "path": path}, offset)
        return store.View(name, _view(copy, size_bytes, on_release))

    def _fetched(self, name: str, size_bytes: int, question: Message, offset: int) -> _Copy:
        descriptor = _anonymous_file(name)
        try:
            os.ftruncate(descriptor, segments.page_bytes(size_bytes))
            copy(self._files, question, offset, size_bytes, descriptor, lambda *answer: self._check(*answer, name=name))
            return _Copy(segments.Mapping(descriptor, is_writable=False))
        finally:
            os.close(descriptor)

    # Giving back

    def free(self, name: str) -> None:
        with self._lock:
            pages = self._live.pop(name, None)
        if pages is not None:
            self._files.tell({"t": "free", "name": name})
            self._quota.unclaim(pages)
            self._quota.give_back()

    def unlink(self, name: str) -> int:
        """Not known how many bytes that gives back: nobody waits for it."""
        if name in self._live:
            self.free(name)
        else:
            self._files.tell({"t": "free", "name": name})
        return 0

    def trim(self, now_s: float | None = None) -> int:
        return 0

    def trim_due_s(self, now_s: float) -> float | None:
        return None

    def trim_all(self) -> int:
        self._quota.give_back(spare_bytes_max=0)
        return 0

    def orphans_of(self, process_id: str) -> list[str]:
        """Those that it had made for this process are told to `on_orphans`, later: whoever calls must not wait."""
        for name in [name for name in list(self._live) if segments.parts_of(name)[1] == process_id]:
            self.free(name)
        question = {"t": "orphans", "creator": process_id, "owner": self.process_id}
        self._files.begin(question, then=lambda answer: self.on_orphans(answer.get("names", [])))
        return []

    def usage(self) -> store.StoreUsage:
        live_bytes = sum(list(self._live.values()))
        return store.StoreUsage(len(self._live), live_bytes, 0, 0, self._quota.reserved_bytes, 0, 0)

    def close(self, *, unlink_all: bool = False) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for name in list(self._live):
            if unlink_all or segments.parts_of(name)[1] == self.process_id:
                self.free(name)
        self._files.close()

    # ----

    def _check_open(self) -> None:
        if self._is_closed:
            raise exceptions.UmbelSystemError(
                "the connection to the node's object store is closed: umbel.shutdown() was called, or the process is exiting; "
                "call umbel.init() before using objects again"
            )

    @staticmethod
    def _check(message: Message, _body: bytes, *, name: str) -> None:
        error = message.get("error")
        if error is None:
            return
        if error["kind"] == "gone":
            raise _lost(name, error["text"])
        if error["kind"] == "full":
            raise exceptions.ObjectStoreFullError(
                f"the node's object store has no room for a value of this program: {error['text']}; drop references to large "
                "values, or give its file system more room"
            )
        raise exceptions.UmbelSystemError(f"the node's object store refused segment {name}: {error['text']}")


class RemoteSpilling(spill_thread.Spilling):
    """Reads from the node's disk; this program's own values stay in the node's memory."""

    def restore(self, segment: str, size_bytes: int, on_release: Callable[[], None]) -> Any:
        location, _ = self._engine.agent.request({"t": "locate", "segment": segment})
        if "error" in location:
            return None
        if "://" in location["file"]:
            raise exceptions.UnsupportedFeature(
                f"a value was moved to {location['file']}, which a program that is connected by umbel:// cannot read yet; read "
                "it in a task, or have the node spill to a directory"
            )
        made: RemoteStore = self._store
        return made.read_file(segment, location["file"], location["offset"], size_bytes, on_release)


class _Copy:
    """A value's bytes in this process."""

    __slots__ = ("__weakref__", "mapping")

    def __init__(self, mapping: segments.Mapping) -> None:
        self.mapping = mapping


class _Lease:
    """Dies with the last of what shares a view's memory, and says so. No lock is taken."""

    __slots__ = ("_call", "_copy", "_process")

    def __init__(self, copy: _Copy, call: Callable[[], None] | None) -> None:
        self._copy = copy
        self._call = call
        self._process = os.getpid()

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        if self._call is not None and _getpid() == self._process:  # a forked child's copy is no view of ours
            self._call()


def _view(copy: _Copy, size_bytes: int, on_release: Callable[[], None] | None) -> memoryview:
    return copy.mapping.view(size_bytes, keep=_Lease(copy, on_release)).toreadonly()


def _anonymous_file(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name[:200], os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _lost(name: str, how: str) -> exceptions.ObjectLostError:
    return exceptions.ObjectLostError(
        f"the shared memory of this object is gone on its node (segment {name}: {how}): the process that wrote it died, or the "
        "object was freed; make the object again",
        owner=name.split(".")[1],
    )


def open_files(engine: NativeEngine, sock: connection.Stream) -> Files:
    return Files(sock, engine.reactor, engine.daemon_died)
