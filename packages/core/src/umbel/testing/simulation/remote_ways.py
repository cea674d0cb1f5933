"""What a simulated program and processes of the cluster say to each other through a tunnel, and what each may expect of it.

A *way* is one stream. Either end makes the calls and the other answers them with as many bytes. The world's books have what
was written at each end, and compare what is read at the other.
"""

from __future__ import annotations

from typing import Any, Final

from umbel.testing.simulation.remote_system import Process, Socket

MESSAGE_BYTES: Final = (3, 20, 60, 120, 200)
PATTERN: Final = bytes(range(256)) * 3


class Endpoint:
    """A process's end of a way. `calls` are answered by the other end, in their order."""

    __slots__ = ("answered", "calls", "is_over", "out", "process", "read", "sock", "unparsed", "way", "written")

    def __init__(self, way: Way, process: Process, sock: Socket) -> None:
        self.way = way
        self.process = process
        self.sock = sock
        self.out = b""  # what the socket has not taken
        self.written = b""
        self.read = b""
        self.unparsed = b""
        self.calls = 0  # that this end has made
        self.answered = 0
        self.is_over = False  # it has closed its socket, or read the end


class Way:
    """caller, callee: its ends; there is no callee before somebody took it. kind: "process" or "elsewhere", from the program to a
    process, or "from" one to the program. answers: to whether it is taken."""

    __slots__ = ("answers", "callee", "caller", "is_refused", "kind", "number", "server")

    def __init__(self, number: int, kind: str, server: int) -> None:
        self.number = number
        self.kind = kind
        self.server = server
        self.caller: Endpoint
        self.callee: Endpoint | None = None
        self.is_refused = False
        self.answers = 0

    @property
    def ends(self) -> tuple[Endpoint, ...]:
        return (self.caller,) if self.callee is None else (self.caller, self.callee)


class Ways:
    """Those of one run. world: a `remote_drivers.RemoteDriversWorld`."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._executed: set[tuple[int, int]] = set()
        self.by_number: dict[int, Way] = {}

    def new(self, kind: str, server: int) -> Way:
        number = len(self.by_number) + 1
        way = self.by_number[number] = Way(number, kind, server)
        return way

    def of(self, process: Process) -> list[Endpoint]:
        """Its ends that are open."""
        ways = self.by_number.values()
        return [end for way in ways for end in way.ends if end.process is process and not end.is_over]

    def call(self, end: Endpoint) -> None:
        if end.is_over or (end.way.kind == "elsewhere" and not end.way.answers):
            return
        end.calls += 1
        self._world.note("%s makes call %d of way %d", end.process.name, end.calls, end.way.number)
        self._say(end, end.calls, self._world.chance.choose(MESSAGE_BYTES))

    def _say(self, end: Endpoint, number: int, size: int) -> None:
        end.out += bytes((size, number & 255, end.way.number & 255)) + PATTERN[number : number + size - 3]
        self.flush(end)

    def flush(self, end: Endpoint) -> bool:
        """Whether something was written."""
        if not end.out or end.is_over:
            return False
        try:
            size = end.sock.send(end.out)
        except BlockingIOError:
            return False
        except OSError:
            end.out = b""  # its reader will see the end
            return True
        end.written += end.out[:size]
        end.out = end.out[size:]
        return True

    def read(self, end: Endpoint) -> bool:
        """Whether there was something, or the end."""
        if end.is_over:
            return False
        try:
            data = end.sock.recv(4096)
        except BlockingIOError:
            return False
        way = end.way
        other = way.callee if end is way.caller else way.caller
        if not data:
            self._ended(end, other)
            return True
        before = len(end.read)
        end.read += data
        self._world.must(
            other is not None and other.written[before : before + len(data)] == data,
            "Z1", "%s reads %r by way %d after %d bytes", end.process.name, data, way.number, before,
        )  # fmt: skip
        end.unparsed += data
        while end.unparsed and len(end.unparsed) >= end.unparsed[0]:
            size, number = end.unparsed[0], end.unparsed[1]
            end.unparsed = end.unparsed[size:]
            if end is way.caller:
                end.answered += 1
            else:
                self._run(end, number, size)
        return True

    def _run(self, end: Endpoint, number: int, size: int) -> None:
        key = end.way.number, number
        self._world.must(key not in self._executed, "Z4", "call %d of way %d runs again", number, end.way.number)
        self._executed.add(key)
        self._say(end, number, size)

    def _ended(self, end: Endpoint, other: Endpoint | None) -> None:
        """It has read the end: is there a reason for it, and was that all?"""
        self.close(end)
        way, name = end.way, end.process.name
        self._world.note("%s reads the end of way %d", name, way.number)
        if self._world.is_any_gone or way.is_refused:
            return
        if other is None or not (other.is_over or other.process.is_dead):
            self._world.must(False, "Z4", "way %d ends for %s, and nobody has ended it", way.number, name)
            return
        read, written = len(end.read), len(other.written)
        self._world.must(read == written, "Z1", "%s has read %d of %d bytes of way %d", name, read, written, way.number)

    def close(self, end: Endpoint) -> None:
        end.is_over = True
        if not end.process.is_dead:
            end.sock.close()

    def has_died(self, process: Process) -> None:
        for end in self.of(process):
            end.is_over = True

    def go_on(self) -> bool:
        """All ends write what they have to, and read what there is. Whether anything happened."""
        is_any = False
        for way in self.by_number.values():
            for end in way.ends:
                if not end.is_over and not end.process.is_dead:
                    is_any |= self.flush(end)
                    is_any |= self.read(end)
        return is_any

    def check_all_done(self) -> None:
        """Both sides live, and everything has come."""
        for way in self.by_number.values():
            for end in way.ends:
                if end.is_over:
                    continue
                name, calls = end.process.name, end.calls if end is way.caller else 0
                self._world.must(not end.out, "Z2", "%s cannot write to way %d", name, way.number)
                self._world.must(
                    end.answered == calls,
                    "Z4", "%s has %d answers to %d calls of way %d", name, end.answered, calls, way.number,
                )  # fmt: skip
