"""The values of other nodes that this process reads: wanted of the own node's daemon, which copies them into this node's store.

A value is wanted as long as somebody here waits for it or looks at its copy. Then the daemon is told, which may keep the copy
for whoever wants it next. What is wanted, and by how many, is guarded by the engine's lock.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import nodes
from umbel._model import reasons
from umbel._objects import segments, serialization
from umbel._transport import reactor
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel import spi
    from umbel._client.native import NativeEngine
    from umbel._objects import ownership

GET, ARGUMENT, PREFETCH = range(3)  # as the daemon orders them, the most urgent first
AHEAD_S = 10.0  # what is only waited for is wanted for so long after that, so that whoever polls gets it in the end
TIMEOUT_ANSWER_S = 0.1  # whoever has run out of time is not held up for long


class _Wanted:
    """One value. holds: of those who wait for it, and views. segment: of the copy, "" until it is there."""

    __slots__ = ("failure", "holds", "key", "number", "object_id", "priority", "segment", "size_bytes", "waiters")

    def __init__(self, key: str, number: int, object_id: bytes, size_bytes: int) -> None:
        self.key = key
        self.number = number  # of the wish: what comes of an earlier one is not what is wanted now
        self.object_id = object_id
        self.size_bytes = size_bytes
        self.priority = PREFETCH + 1
        self.segment = ""
        self.failure: tuple[Callable[[str], BaseException], str] | None = None
        self.holds = 0
        self.waiters: list[Callable[[], None]] = []  # called once it is there, or is not to be had

    @property
    def is_settled(self) -> bool:
        return bool(self.segment) or self.failure is not None


class Fetching:
    """One process's part. Made when the first such value is read."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._store = engine.values.store
        self._wanted: dict[str, _Wanted] = {}
        self._numbers = itertools.count(1)
        self._ahead: dict[str, tuple[_Wanted, float]] = {}  # wanted before it is read, until it is there or then
        self._released: deque[_Wanted] = deque()  # views that are gone: noted where no lock may be taken

    def open(
        self,
        object_id: bytes,
        name: str,
        size_bytes: int,
        on_release: Callable[[], None],
        *,
        is_argument: bool,
        until_s: float | None,
    ) -> spi.View:
        """A view of a value of another node, once it is here. No lock.

        until_s: time.monotonic() when to give up. Raises GetTimeoutError, ObjectLostError when it is nowhere any more, and
        ObjectStoreFullError when there is no room for it here.
        """
        engine = self._engine
        with engine.lock:
            wanted = self._want(object_id, name, size_bytes, ARGUMENT if is_argument else GET)
        try:
            self._wait(wanted, until_s)
            if wanted.failure is not None:
                make, text = wanted.failure
                raise make(text)
            view: spi.View = self._open_copy(wanted, functools.partial(self._view_gone, wanted, on_release))
        except BaseException:
            with engine.lock:
                self._let_go(wanted)
            raise
        return view  # which holds it now

    def _open_copy(self, wanted: _Wanted, on_release: Callable[[], None]) -> spi.View:
        try:
            view: spi.View = self._store.open(wanted.segment, wanted.size_bytes, on_release)
        except exceptions.ObjectLostError as error:  # the value is not
            self._engine.check_running()
            text = f"the copy of object {wanted.object_id.hex()} was removed from this node's store by something else: {error}"
            raise exceptions.UmbelSystemError(text) from None
        return view

    def _want(self, object_id: bytes, name: str, size_bytes: int, priority: int) -> _Wanted:
        """One more wants it. Lock held."""
        key = key_of(object_id, name)
        wanted = self._wanted.get(key)
        if wanted is None:
            wanted = self._wanted[key] = _Wanted(key, next(self._numbers), object_id, size_bytes)
        wanted.holds += 1
        self._ask(wanted, name, priority)
        return wanted

    def _ask(self, wanted: _Wanted, name: str, priority: int) -> None:
        """Have the daemon fetch it, at least as urgently as this."""
        if not wanted.is_settled and priority < wanted.priority:
            wanted.priority = priority
            self._engine.agent.notify({
                "t": "want_value", "key": wanted.key, "n": wanted.number, "segment": name, "bytes": wanted.size_bytes,
                "priority": priority,
            })  # fmt: skip

    def is_here(self, record: ownership.Record, *, is_urgent: bool = False) -> bool:
        """Whether reading a stored value would not have to wait for its copy, as far as is known; begins to have it copied.
        Lock held."""
        name, size_bytes = record.payload
        if not self._engine.values.is_elsewhere(name):
            return True
        key = key_of(record.object_id, name)
        held = self._ahead.get(key)
        if held is None:
            self._engine.reactor.poke()  # somebody has to let go of it
            wanted = self._want(record.object_id, name, size_bytes, GET if is_urgent else PREFETCH)
            if wanted.is_settled:
                self._let_go(wanted)  # somebody reads it
        else:
            wanted = held[0]
            if is_urgent:
                self._ask(wanted, name, GET)
        self._ahead[key] = wanted, time.monotonic() + AHEAD_S
        return wanted.is_settled

    def _wait(self, wanted: _Wanted, until_s: float | None) -> None:
        engine = self._engine
        waiter = reactor.Waiter()
        with engine.lock:
            if wanted.is_settled:
                return
            wanted.waiters.append(waiter.finish)
            record = engine.values.table.records.get(wanted.object_id)
            engine.prepare_to_wait()
        why = reasons.Reason(
            reasons.TRANSFER, f"object {wanted.object_id.hex()}", f"of {wanted.size_bytes} bytes is copied to this node",
            facts={"transfer": wanted.key},
        )  # fmt: skip
        timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
        with engine.answers.telling(why):
            is_there = engine.waits.wait_for(waiter, timeout_s, () if record is None else (record,))
        if not is_there and not wanted.is_settled:
            with engine.lock, contextlib.suppress(ValueError):
                wanted.waiters.remove(waiter.finish)
            raise exceptions.GetTimeoutError(
                f"object {wanted.object_id.hex()} of {wanted.size_bytes} bytes, which lies on another node, was not copied to "
                f"this one in time: {self._reason(wanted.key)}"
            )

    def _reason(self, key: str) -> str:
        try:
            told = self._engine.query("transfer", about=key, timeout_s=TIMEOUT_ANSWER_S)
        except exceptions.UmbelError as error:
            return f"this node's daemon does not say why ({error})"
        return "it has just come" if told is None else str(reasons.Reason.from_json(told))

    def is_under_way(self, record: ownership.Record) -> bool:
        """Whether a value is there and waited for all the same. Lock held or not."""
        payload = record.payload
        wanted = self._wanted.get(key_of(record.object_id, payload[0])) if record.kind == serialization.STORED else None
        return wanted is not None and not wanted.is_settled

    def reason_of(self, object_id: bytes, name: str) -> reasons.Reason | None:
        """Of a value that is waited for. Lock held."""
        wanted = self._wanted.get(key_of(object_id, name))
        if wanted is None or wanted.is_settled:
            return None
        facts = {"object": object_id.hex(), "bytes": wanted.size_bytes, "transfer": wanted.key}
        text = f"is ready on another node, and its {wanted.size_bytes} bytes are to be copied to this one"
        return reasons.Reason(reasons.TRANSFER, f"object {object_id.hex()}", text, facts=facts)

    # The end of wishes

    def _view_gone(self, wanted: _Wanted, on_release: Callable[[], None]) -> None:
        """Possibly in a garbage collection: takes no lock."""
        self._released.append(wanted)
        on_release()

    def housekeep(self, now_s: float) -> float | None:
        """Count the views that are gone, and let go of what nobody has read. Returns when to come again. No lock."""
        if not self._released and not self._ahead:
            return None
        with self._engine.lock:
            while self._released:
                self._let_go(self._released.popleft())
            for key in [key for key, (_, until_s) in self._ahead.items() if until_s <= now_s]:
                wanted, _ = self._ahead.pop(key)
                if not wanted.is_settled:
                    self._let_go(wanted)
            due_s = min((until_s for _, until_s in self._ahead.values()), default=None)
            return None if due_s is None else max(0.0, due_s - now_s)

    def _let_go(self, wanted: _Wanted) -> None:
        """Lock held."""
        wanted.holds -= 1
        if not wanted.holds and self._wanted.get(wanted.key) is wanted:
            del self._wanted[wanted.key]
            if not self._engine.agent_is_gone:
                self._engine.agent.notify({"t": "unwant_value", "key": wanted.key})

    # What happens; lock held

    def on_notice(self, message: dict[str, Any]) -> None:
        """From the daemon."""
        wanted = self._wanted.get(message["key"])
        if wanted is None or wanted.is_settled or message["n"] != wanted.number:
            return  # nobody wants it any more
        if message["t"] == "value_here":
            wanted.segment = message["segment"]
            self._tell_owner(wanted)
            self._settle(wanted)
        else:
            self._fail(wanted, *_error_of(wanted, message["code"], message["text"]))

    def _tell_owner(self, wanted: _Wanted) -> None:
        """That this node has a copy: it has to go when the value does."""
        engine, values = self._engine, self._engine.values
        owner = values.table.owner_of(wanted.object_id)
        if owner == engine.process_id:
            values.copy_made(wanted.object_id, wanted.key, nodes.tag_of_process(owner))
            return
        link = engine.links.to(owner)
        if link is not None:
            link.post((messages.COPIED, wanted.object_id, wanted.key))
            engine.mark_dirty(link)

    def end(self, error: BaseException) -> None:
        """Nothing more will come."""
        for wanted in [*self._wanted.values()]:
            if not wanted.is_settled:
                self._fail(wanted, type(error), str(error))

    def _fail(self, wanted: _Wanted, make: Callable[[str], BaseException], text: str) -> None:
        wanted.failure = make, text
        del self._wanted[wanted.key]  # whoever wants it after this begins anew
        self._settle(wanted)

    def _settle(self, wanted: _Wanted) -> None:
        waiters, wanted.waiters = wanted.waiters, []
        for finish in waiters:
            finish()
        self._engine.has_settled = True  # for who waits for anything
        ahead = self._ahead.get(wanted.key)
        if ahead is not None and ahead[0] is wanted:
            self._let_go(wanted)  # the daemon keeps the copy for a while, unless somebody needs the room


def key_of(object_id: bytes, name: str) -> str:
    """Of a value among all that there ever are: an object that was lost and made again has another one, and memory that is
    used again too."""
    creator, _, number = segments.parts_of(name)
    return f"{object_id.hex()}.{creator}.{number}"


def _error_of(wanted: _Wanted, code: str, text: str) -> tuple[Callable[[str], BaseException], str]:
    what = f"object {wanted.object_id.hex()} of {wanted.size_bytes} bytes lies on another node"
    if code in ("full", "too-large"):
        return exceptions.ObjectStoreFullError, (
            f"{what}, and this node's object store has no room for a copy: {text}; drop references to large values here, or "
            "start this node with a larger object_store_memory"
        )
    if code == "elsewhere":
        return exceptions.UnsupportedFeature, f"{what}: {text}; have a task of that node read it"
    return exceptions.ObjectLostError, f"it could not be copied from another node: {text}"
