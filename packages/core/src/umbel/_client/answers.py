"""What this process tells others that ask: why an object is not there, what runs here and where it stands.

Questions come through the agent (`umbel._agent.asks`) and are answered at once, on the thread that reads the sockets,
while the program goes on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from umbel._base import frames as thread_frames
from umbel._client import reasons
from umbel._model.reasons import ROOM, RUNNING, Reason

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine
    from umbel._objects import ownership

FRAMES_MAX = 200  # of one thread, innermost first; a deeper recursion repeats itself
WAITS_TOLD_MAX = 10  # of the objects that a thread waits for
_STANDARD = os.path.dirname(os.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Running(NamedTuple):
    """A task or call that runs in this process. thread: its ident, 0 for a coroutine, which has an asyncio task instead."""

    task: str
    name: str
    since_s: float  # time.time()
    thread: int
    coroutine: Any = None
    why: Reason | None = None  # what it waits for that is neither an object nor told of its thread


class Queue(NamedTuple):
    """Behind what a task or call waits here. length: how many wait. ahead: the ids of those that run of which one has to
    end first; None for whatever runs."""

    length: int
    ahead: Collection[str] | None


class Wait(NamedTuple):
    """What a thread does or waits for that is neither a task or call nor `get` or `wait`. RUNNING says that it waits for
    nothing."""

    thread: int
    reason: Reason


class Waiter(Protocol):
    """What such a thread waits in. It keeps what a wait needs to be told anyway, and puts it into words when asked."""

    def wait_now(self) -> Wait | None:
        """None if no thread is in it. Called by any thread, with the engine's lock held."""


class _Told:
    """A wait that is put into words from the start."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def wait_now(self) -> Wait:
        return self._wait


class Answers:
    """running: what runs here now; queue: where a task waits that does not, by its id. Both are called with the engine's
    lock held."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self.running: Callable[[], Iterable[Running]] = lambda: ()
        self.queue: Callable[[str], Queue] = lambda _task: Queue(0, None)
        self._waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()
        self._on: dict[str, Callable[[str], dict[str, Any]]] = {
            "explain": self.explain,
            "task": self.doing,
            "stack": lambda _about: self.stack(),
            "objects": lambda _about: self._holdings().objects(self._engine),
            "keeps": lambda about: self._holdings().keeps(self._engine, about),
            "running": lambda _about: self._own_state().running_here(self._engine),
            "task_states": lambda about: self._own_state().tasks_of(self._engine, about),
            "object_states": lambda about: self._own_state().objects_of(self._engine, about),
            "runtime_env": lambda _about: self.runtime_env(),
        }

    def add_waiter(self, waiter: Waiter) -> None:
        """Have it asked as long as it lives."""
        with self._engine.lock:
            self._waiters.add(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        with self._engine.lock:
            self._waiters.discard(waiter)

    @contextlib.contextmanager
    def telling(self, reason: Reason) -> Iterator[None]:
        """Have this thread's wait told while it lasts."""
        waiter = _Told(Wait(threading.get_ident(), reason))
        self.add_waiter(waiter)
        try:
            yield
        finally:
            self.remove_waiter(waiter)

    def answer(self, message: dict[str, Any]) -> None:
        """Answer the agent's `asked`."""
        self._engine.agent.notify({"t": "answer", "ask": message["ask"], "answer": self.to(message)})

    def to(self, message: dict[str, Any]) -> dict[str, Any]:
        """Raises nothing that a question could cause: what makes no sense is answered with an error."""
        handler = self._on.get(message["what"])
        if handler is None:
            return {"error": f"a process cannot be asked for {message['what']!r}; it knows {', '.join(self._on)}"}
        try:
            return handler(message["about"])
        except ValueError as error:
            return {"error": f"{message['about']!r:.100} makes no sense: {error}"}

    @staticmethod
    def _holdings() -> Any:
        from umbel._client import holdings  # rarely asked for

        return holdings

    @staticmethod
    def _own_state() -> Any:
        from umbel._client import own_state  # nobody lists anything in most sessions

        return own_state

    def explain(self, about: str) -> dict[str, Any]:
        object_id = bytes.fromhex(about)
        with self._engine.lock:
            return {"reason": reasons.of_object(self._engine, object_id).as_json()}

    def runtime_env(self) -> dict[str, Any]:
        session = self._engine.session_context
        return {"runtime_env": session.runtime_env(session.env_vars)}

    def doing(self, about: str = "") -> dict[str, Any]:
        """What runs here, since when, where in the user's code, and what it waits for: objects (`waits`; needs_all: for each
        of them) or something else (`why`). is_ahead: whether the task asked about, if it is queued here, waits for its end.
        beside: what other threads do or wait for; waiting: where other threads and coroutines wait for objects, and which."""
        frames = thread_frames.of_threads()
        now_s = time.time()
        with self._engine.lock:
            running = list(self.running())
            queue = self.queue(about)
            whys = self._whys(frames)
            found = [
                {
                    "task": one.task,
                    "name": one.name,
                    "for_s": now_s - one.since_s,
                    "at": _line_of(one, frames),
                    "waits": [record.object_id.hex() for record in self.waits_of(one)[:WAITS_TOLD_MAX]],
                    "needs_all": self._engine.waits.needs_all(_thread_of(one)),
                    "why": why.as_json() if (why := one.why or whys.get(_thread_of(one))) is not None else None,
                    "is_ahead": queue.ahead is None or one.task in queue.ahead,
                }
                for one in running
            ]
            told = {_thread_of(one) for one in running}
            return {
                "pid": os.getpid(),
                "queued": queue.length,
                "running": found,
                "beside": [
                    (_at(frames.get(thread), why) if why.code == ROOM else why).as_json()
                    for thread, why in whys.items()
                    if thread not in told
                ],
                "waiting": [
                    {"at": at, "waits": [record.object_id.hex() for record in waits[:WAITS_TOLD_MAX]]}
                    for at, waits in self._waiting_beside(running, frames)
                    if waits
                ],
            }

    def _waiting_beside(
        self, running: list[Running], frames: dict[int, FrameType]
    ) -> Iterator[tuple[str, list[ownership.Record]]]:
        """(line, objects) of the threads and coroutines that wait here, but for those of what runs. Lock held."""
        engine = self._engine
        told = {_thread_of(one) for one in running}
        for thread in engine.waits.threads():
            if thread not in told:
                yield users_line(frames.get(thread)), engine.waits.of(thread)
        if engine.awaits.of:
            from umbel._client import coroutines

            besides = [one.coroutine for one in running if one.coroutine is not None]
            for task in coroutines.waiting(engine.awaits.of, besides):
                yield _line_of_coroutine(task), self._awaited(task)

    def _awaited(self, coroutine: Any) -> list[ownership.Record]:
        from umbel._client import coroutines

        return [record for record, _ in coroutines.awaited(coroutine, self._engine.awaits.of)]

    def waits_of(self, one: Running) -> list[ownership.Record]:
        """The objects that it waits for. A coroutine waits for those of the event loop's thread as well, if that is in
        `get` or `wait`. Lock held."""
        of_thread = self._engine.waits.of(_thread_of(one))
        return of_thread if one.coroutine is None else self._awaited(one.coroutine) + of_thread

    def _whys(self, frames: dict[int, FrameType]) -> dict[int, Reason]:
        """What threads wait for in what was added, by thread. Lock held."""
        found: dict[int, Reason] = {}
        for wait in sorted(filter(None, (one.wait_now() for one in self._waiters)), key=_is_waiting):
            reason, before = wait.reason, found.get(wait.thread)
            if reason.code == RUNNING:
                reason = _at(frames.get(wait.thread), reason)
            found[wait.thread] = reason if before is None else before.followed_by(reason)
        return found

    def stack(self) -> dict[str, Any]:
        """`doing`, and the stack of every thread, and of every coroutine that none of them is in, outermost frame first:
        [file, line, function, text, is ours]."""
        from umbel._client import coroutines  # here and below: none are told of when a session starts

        names = {thread.ident: thread.name for thread in threading.enumerate()}
        threads = [
            {"ident": ident, "name": names.get(ident, "umbel"), "frames": _described(_walk(frame))}
            for ident, frame in thread_frames.of_threads().items()
            if ident != threading.get_ident() or ident == threading.main_thread().ident
        ]
        with self._engine.lock:
            found = [
                (one, task)
                for one in self.running()
                if one.coroutine is not None
                for task in coroutines.tasks(one.coroutine)
            ]
        suspended = [
            {"name": one.name, "task": one.task, "frames": _described(reversed(list(coroutines.frames(task))))}
            for one, task in found
            if not coroutines.is_running(task)
        ]
        return {**self.doing(), "threads": threads, "coroutines": suspended}


def _thread_of(one: Running) -> int:
    """Coroutines have the event loop's, which is the main thread."""
    return one.thread or threading.main_thread().ident or 0


def _line_of(one: Running, frames: dict[int, FrameType]) -> str:
    if one.coroutine is not None:
        from umbel._client import coroutines

        if not coroutines.is_running(one.coroutine):
            return _line_of_coroutine(one.coroutine)
    return users_line(frames.get(_thread_of(one)))


def _line_of_coroutine(task: Any) -> str:
    from umbel._client import coroutines

    return _users_line(reversed(list(coroutines.frames(task))))


def _at(frame: FrameType | None, reason: Reason) -> Reason:
    line = users_line(frame)
    return reason._replace(text=f"{reason.text}, at {line}") if line else reason


def _is_waiting(wait: Wait) -> bool:
    return wait.reason.code != RUNNING


def _walk(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(FRAMES_MAX):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def tell_of(engine: Any, waiter: Waiter) -> None:
    """Have it asked as long as it lives, if this engine is one that is asked: the inline engine is not."""
    if hasattr(engine, "answers"):
        engine.answers.add_waiter(waiter)


def tell_no_more_of(engine: Any, waiter: Waiter) -> None:
    if hasattr(engine, "answers"):
        engine.answers.remove_waiter(waiter)


def users_line(frame: FrameType | None) -> str:
    """The innermost line of the program's own, or else of a library; empty when there is neither."""
    return _users_line(_walk(frame))


def _users_line(stack: Iterable[FrameType]) -> str:
    """stack: innermost first."""
    of_library = ""
    for frame in stack:
        file = frame.f_code.co_filename
        if _is_ours(frame):
            continue
        told = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        if not file.startswith((_STANDARD, "<frozen ")) and "site-packages" not in file:
            return told
        of_library = of_library or told
    return of_library


def _is_ours(frame: FrameType) -> bool:
    code = frame.f_code
    # Below all that a worker does is the line that its daemon was started with (`umbel._client.launch`).
    return code.co_filename.startswith(_OURS) or (code.co_filename == "<string>" and "umbel._agent" in code.co_names)


def _described(stack: Iterable[FrameType]) -> list[list[Any]]:
    """stack: innermost first."""
    import linecache

    described = []
    for frame in reversed(list(stack)):
        file, line = frame.f_code.co_filename, frame.f_lineno
        described.append([file, line, frame.f_code.co_name, linecache.getline(file, line).strip(), _is_ours(frame)])
    return described
