"""Processes of a simulated node: the production engine on simulated connections, memory and time.

What runs is `umbel._client`'s own code with all its bookkeeping; only what touches the system is replaced: sockets by
`Stream`, shared memory by `SimulatedStore`, the connection to the agent by two queues, threads by nothing at all.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import (
    arrivals,
    current,
    leases,
    links,
    memory_kills,
    native,
    reports,
    takeover,
    tasks,
    troubles,
    values,
    waits,
)
from umbel._objects import ownership, serialization, store
from umbel._transport import reactor
from umbel._wire import data_frames, frames, messages
from umbel._worker import actor, execute, main
from umbel.testing.simulation import memory
from umbel.testing.simulation.world import Stream, World

# Small values shall exercise the store, and few kills the limit of retries; what is only told of tasks that have ended would
# double the messages.
CONFIG = configuration.Config(inline_bytes_max=256, watchdog_s=0.0, task_events=False, task_oom_retries=1)
_TIMED = (
    arrivals,
    leases,
    tasks,
    native,
    reports,
    waits,
    execute,
    main,
    actor,
    memory_kills,
)  # modules that ask for the time themselves


class OrderedSet(dict[Any, None]):
    """A set that is iterated in the order of insertion, so that a run with the same seed does the same again."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _Clock:
    """Stands in for the module `time` in modules that use it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now_s

    time = monotonic


class _Alarm(logging.Handler):
    """What the engine would log as a defect of its own ends the run."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            raise record.exc_info[1]
        if record.getMessage().startswith("internal error"):
            raise exceptions.InternalError(record.getMessage())


@contextlib.contextmanager
def surroundings(world: World) -> Iterator[None]:
    """Within, the engine's modules see the world's time, and errors that it would only log are raised."""
    clock = _Clock(world)
    before = [vars(module)["time"] for module in _TIMED]
    engine = current.running_engine()
    alarm = _Alarm()
    was_collecting = gc.isenabled()
    gc.disable()  # references die when the run says so, not when a collection comes by
    arrivals.logger.addHandler(alarm)
    try:
        for module in _TIMED:
            vars(module)["time"] = clock
        yield
    finally:
        for module, original in zip(_TIMED, before, strict=True):
            vars(module)["time"] = original
        arrivals.logger.removeHandler(alarm)
        current.set_engine(engine)
        if was_collecting:
            gc.enable()


def collect_cycles() -> None:
    """An exception that is raised again forms a cycle with its frames, and these hold references."""
    gc.collect()


class attributes:
    """Within, each `owner` has another `name`: (owner, name, replacement)."""

    def __init__(self, *replacements: tuple[Any, str, Any]) -> None:
        self._replacements = replacements

    def __enter__(self) -> None:
        self._originals = [(owner, name, getattr(owner, name)) for owner, name, _ in self._replacements]
        for owner, name, replacement in self._replacements:
            setattr(owner, name, replacement)

    def __exit__(self, *_error: object) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)


def attribute(owner: Any, name: str, replacement: Any) -> attributes:
    """Within, `owner` has another `name`."""
    return attributes((owner, name, replacement))


class _Reactor:
    """No thread reads sockets here; a wait is the process's affair, and housekeeping comes by chance."""

    poller = None
    _is_background_leading = False
    _is_parked = False

    def __init__(self, process: Process) -> None:
        self._process = process

    def wait(self, waiter: reactor.Waiter, deadline_s: float | None, _began_s: float | None = None) -> bool:
        return waiter.done or self._process.wait(waiter, deadline_s)

    def on_thread(self) -> bool:
        return False

    def _nothing(self) -> None:
        """Whatever makes threads look sooner."""

    poke = nudge = poll_now = _nothing


class AgentLink(links.AgentLink):
    """The production connection to the agent, on a stream."""

    def __init__(
        self, process: Process, on_notice: Callable[[dict[str, Any], bytes], None], on_gone: Callable[[], None]
    ) -> None:
        stream: Any = process.agent_stream
        self._reactor: Any = _Reactor(process)
        self._on_notice = on_notice
        self._on_gone = on_gone
        self._answers = {}
        self._numbers = itertools.count(1)
        self.is_closed = False
        self._stream = stream
        stream.on_frame = self._received

    def _received(self, stream: Any, frame: bytes) -> None:
        if stream.world.trace is not None:
            message, _ = frames.decode_control(frame[4:])
            stream.world.note("%s: the agent says %s", stream.name, in_words_of_notice(message))
        self._on_frame(stream, frame[4:])

    def notify(self, message: dict[str, Any], body: bytes = b"") -> None:
        if self._stream.world.trace is not None:  # type: ignore[attr-defined]  # it is a stream of the simulation
            self._stream.world.note("%s: says %s", self._stream.name, in_words_of_notice(message))  # type: ignore[attr-defined]
        super().notify(message, body)
        if message["t"] == "hello":  # nobody goes on before he is welcome
            self._stream.other.deliver()  # type: ignore[attr-defined]
            self._stream.deliver()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Nothing to do: its process has died."""


class Links(links.Links):
    """The production bookkeeping of connections, on streams."""

    def __init__(self, process: Process, engine: Engine) -> None:
        self._process = process
        process.engine = engine
        self._process_id = process.id
        self._on_messages = engine.arrivals.on_messages
        self.on_gone = engine.arrivals.on_link_gone
        self.by_peer: dict[bytes, links.Link] = {}
        self.twins: dict[bytes, list[links.Link]] = {}
        self._unnamed: Any = set()

    def to(self, peer: bytes) -> links.Link | None:
        link = self.by_peer.get(peer)
        if link is not None:
            return link
        there = self._process.node.processes.get(peer)
        if there is None or there.is_dead or self._process.is_dead:
            return None
        here = self._process
        near, far = here.world.connect(f"{here.name}<{there.name}", f"{there.name}<{here.name}")
        link = links.Link(peer)
        self._join(link, near)
        there.links._join(links.Link(b""), far)
        here.streams.append(near)
        there.streams.append(far)
        self.by_peer[peer] = link
        link.post((messages.HELLO, self._process_id))
        return link

    def _join(self, link: links.Link, stream: Any) -> None:
        stream.peer = link
        stream.owner = self._process
        link.stream = stream
        stream.on_frame = self._received
        stream.on_close = self._on_close

    def close(self) -> None:
        """Nothing to do: its process has died."""

    def _received(self, stream: Any, frame: bytes) -> None:
        if stream.world.trace is not None:
            stream.world.note("%s: %s", stream.name, _in_words(frame))
        self._on_frame(stream, frame[4:])


class Engine(native.NativeEngine):
    """The production engine of one process, without its threads and sockets."""

    def __init__(self, process: Process, **options: Any) -> None:
        self.process = process
        with attributes(
            (reactor, "Reactor", lambda _housekeeping, name: _Reactor(process)),
            (links, "Links", lambda *_: Links(process, self)),
            (
                links,
                "AgentLink",
                lambda _path, _reactor, on_notice, on_gone: AgentLink(process, on_notice, on_gone),
            ),
            (
                store,
                "SharedMemoryStore",
                lambda *_, **__: memory.SimulatedStore(process.node.memory, process.id.hex()),
            ),
            (values, "Values", Values),
            (leases, "Leases", Leases),
        ):
            given = {
                "kind": "worker",
                "process_id": process.id,
                "session_dir": "",
                "namespace": "",
                **options,
                "config": CONFIG,
            }
            super().__init__(**given)
        self.troubles = troubles.TroubleLog(run=lambda _write: None)  # which a thread would log

    @property
    def dirty_links(self) -> Any:
        return self._dirty_links_in_order

    @dirty_links.setter
    def dirty_links(self, links_: Any) -> None:
        self._dirty_links_in_order = OrderedSet(links_)


class Values(values.Values):
    """The production bookkeeping of values; whose memory is looked at is noted for the simulation."""

    def read(
        self,
        kind: int,
        payload: Any,
        object_id: bytes,
        outer: ownership.Record | None,
        arguments: list[bytes] | None = None,
        *,
        waits: bool = True,
        until_s: float | None = None,
        beside: list[list[ownership.Record]] | None = None,
    ) -> Any:
        if kind == serialization.STORED:
            segments: Any = self.store
            segments.memory.object_of[payload[0]] = object_id
        return super().read(kind, payload, object_id, outer, arguments, waits=waits, until_s=until_s, beside=beside)

    def _open(self, name: str, size_bytes: int, on_release: Callable[[], None], *, waits: bool) -> Any:
        """Nothing is moved to disk here: `spilling` has a world for that."""
        return self.store.open(name, size_bytes, on_release)

    def make_takeover(self) -> takeover.Takeover:
        if self.takeover is None:
            self.takeover = Takeover(self._engine)
        return self.takeover


class Takeover(takeover.Takeover):
    """Without its thread, which would outlive the simulated process. Values that are too large for messages are not moved between
    nodes here, so none is to be taken over."""

    def begin(self, node: bytes) -> None:
        self._nodes.add(node)
        if self._look():
            raise AssertionError(f"values of node {node.hex()} would have to be taken over, which is not simulated")


class Leases(leases.Leases):
    """The production bookkeeping of leases, with its only set in order."""

    @property
    def dirty(self) -> Any:
        return self._dirty_in_order

    @dirty.setter
    def dirty(self, classes: Any) -> None:
        self._dirty_in_order = OrderedSet(classes)


class Node:
    """The processes of one simulated node and their memory. Here nobody plays the agent but for its welcome."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = memory.Memory()
        self.processes: dict[bytes, Process] = {}
        self.living: list[Process] = []  # another list after each death

    def connected(self, process: Process) -> None:
        """A process has opened its connection to the agent."""
        process.agent_end.on_frame = self._on_frame

    def _on_frame(self, stream: Stream, frame: bytes) -> None:
        message, _ = frames.decode_control(frame[4:])
        if message["t"] == "hello":
            stream.send(frames.encode_control({"t": "welcome", "store_dir": ""}))


class Process:
    """One process. `agent_stream` is its end of the connection to the agent.

    loses_sent: when it dies, chance decides how much of what it had sent still arrives.
    """

    loses_sent = True
    engine: Engine

    def __init__(self, node: Node, name: str, process_id: bytes) -> None:
        self.node = node
        self.world = node.world
        self.name = name
        self.id = process_id
        self.is_dead = False
        self.streams: list[Stream] = []
        self.agent_stream, self.agent_end = node.world.connect(f"{name}<agent", f"agent<{name}")
        self.agent_stream.owner = self
        self.streams.append(self.agent_stream)
        node.processes[process_id] = self
        node.living.append(self)
        node.connected(self)
        self.engine = self.make_engine()

    @property
    def links(self) -> Any:
        return self.engine.links

    def make_engine(self) -> Engine:
        engine = Engine(self)
        engine.start()
        return engine

    def wait(self, waiter: reactor.Waiter, deadline_s: float | None) -> bool:
        """A thread of this process waits. Here nobody can: what has to be waited for is looked at later."""
        return False

    def die(self) -> None:
        """At once."""
        self.is_dead = True
        self.node.living = [process for process in self.node.living if process is not self]
        for stream in self.streams:
            if not stream.is_closed:
                waiting = len(stream.other.inbox)
                stream.cut(kept=waiting - self.world.chance.below(waiting + 1) if self.loses_sent else waiting)
        self.engine.is_closed = True
        segments: Any = self.engine.values.store
        segments.memory = memory.Memory()  # what its threads still do while they are unwound changes nothing
        self.world.forget_closed()


_NAMES = {
    number: name
    for name, number in vars(messages).items()
    if name.isupper() and isinstance(number, int) and number >= 0
}


def _in_words(frame: bytes) -> str:
    """A data frame for the trace: kinds of messages, sequence numbers and short ids."""
    return ", ".join(
        " ".join([_NAMES[m[0]].lower(), *map(in_words_of_id, m[1:])]) for m in data_frames.decode(frame[4:])
    )


def in_words_of_notice(message: dict[str, Any]) -> str:
    """A message to or from the agent for the trace, without the number of the process that simulates."""
    parts = [
        f"{name}={in_words_of_id(value)}"
        for name, value in message.items()
        if name not in ("t", "pid") and value not in ("", None)
    ]
    return " ".join([str(message["t"]), *parts])


def in_words_of_id(value: Any) -> str:
    """A part of a message, with ids as `owner/counter` in small numbers."""
    if isinstance(value, bytes):
        if len(value) in (24, 28):
            index = f".{int.from_bytes(value[24:], 'big')}" if len(value) == 28 else ""
            return f"{in_words_of_id(value[:16])}/{int.from_bytes(value[16:24], 'big')}{index}"
        if len(value) == 16:
            return str(int.from_bytes(value[10:], "big"))  # no two processes differ in their node alone
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) >= 32 and not value.strip("0123456789abcdef."):
        return ".".join(in_words_of_id(bytes.fromhex(part)) if len(part) >= 32 else part for part in value.split("."))
    if isinstance(value, (list, tuple)):
        return "(" + " ".join(map(in_words_of_id, value)) + ")"
    if isinstance(value, dict):
        return "{..}"
    return str(value)
