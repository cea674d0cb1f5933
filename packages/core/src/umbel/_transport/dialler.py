"""Connects to nodes over TCP and proves to them, as they do to us, that both have a token.

`connect` blocks, for programs. A `Dialler` does the same on a poller, for a process of one thread: whoever runs the poller
calls `tick` when `next_tick_s` has come. The streams that come out are non-blocking, as `connection.Connection` wants them.
"""

from __future__ import annotations

import collections
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from umbel import exceptions
from umbel._base import tokens, tracebacks
from umbel._transport import addresses, negotiation
from umbel._transport.connection import IN, Stream, Watches
from umbel._wire import handshake

if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT_S = 10.0  # twice what the other side allows for a handshake
LOOKUP_COUNT_MAX = 8  # threads that wait for answers about names; a node knows few others by name
DIAL_COUNT_MAX = 4096  # at once: twice the nodes of the largest cluster that is aimed at


def connect(
    address: addresses.Address,
    token: tokens.Token,
    target: handshake.Target,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
) -> Stream:
    """A connection to `target` behind `address`, of two sides that have proved themselves. It does not block.

    server_name: which the server's certificate has to have; "" for the address's host. Raises AuthenticationError when the
    other side was heard and one of the two does not accept the other; TimeoutError, ConnectionError or another OSError when it
    could not be heard. Looking up a name is not covered by the time-out.
    """
    dial = negotiation.Connecting(
        address,
        token,
        target,
        deadline_s=time.monotonic() + timeout_s,
        now_s=time.monotonic,
        tls=tls,
        server_name=server_name,
    )
    found = _looked_up(address)
    if isinstance(found, OSError):
        raise found
    steps = dial.through(found)
    try:
        events = next(steps)
        while True:
            if _wait(dial, events):
                events = next(steps)
            else:
                events = steps.throw(_too_late())
    except StopIteration as end:
        stream: Stream = end.value
        return stream
    except BaseException:
        dial.close()
        raise


def _wait(dial: negotiation.Connecting, events: int) -> bool:
    if dial.stream is None:
        return True
    poll = select.poll()
    poll.register(dial.stream.fileno(), select.POLLIN if events == IN else select.POLLOUT)
    from umbel._transport import reactor  # what a daemon has no use for

    left_s = dial.until_s - time.monotonic()
    return left_s > 0 and bool(reactor.sleep_in(poll.poll, left_s * 1000))


def _too_late() -> TimeoutError:
    return TimeoutError("no answer in time")


class Dialler:
    """Connections that are being made."""

    def __init__(
        self,
        poller: Watches,
        token: tokens.Token,
        *,
        now_s: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._poller = poller
        self._token = token
        self._now_s = now_s
        self._tls = tls
        self._timeout_s = timeout_s
        self._dials: dict[Dial, None] = {}
        self._waiting: collections.deque[Dial] = collections.deque()  # for their names to be looked up
        self._lookup_count = 0
        self._answers: collections.deque[tuple[Dial, list[addresses.Endpoint] | OSError]] = collections.deque()

    def dial(
        self,
        address: addresses.Address,
        target: handshake.Target,
        on_connected: Callable[[Stream], None],
        on_failed: Callable[[Exception], None],
        *,
        server_name: str = "",
        only_knocks: bool = False,
        through: socket.socket | None = None,
    ) -> Dial | None:
        """Connect; one of the two is called, once, perhaps before this returns, unless the dialler is closed or the dial
        cancelled before.

        on_failed gets what `connect` raises. A host that is a name is looked up in a thread: the system's look-up blocks.
        only_knocks: say what is wanted, and prove nothing. through: a connection that leads there already.
        """
        if len(self._dials) >= DIAL_COUNT_MAX:
            if through is not None:
                through.close()
            on_failed(ConnectionError(f"{DIAL_COUNT_MAX} connections are being made already; try again later"))
            return None
        connecting = negotiation.Connecting(
            address,
            self._token,
            target,
            deadline_s=self._now_s() + self._timeout_s,
            now_s=self._now_s,
            tls=self._tls,
            server_name=server_name,
        )
        dial = Dial(address, connecting, on_connected, on_failed, only_knocks=only_knocks)
        self._dials[dial] = None
        if through is not None:
            dial.steps = connecting.proved(through)
            self._advance(dial, None)
        elif address.is_numeric:
            self._begin(dial, _looked_up(address))
        else:
            self._waiting.append(dial)
            self._look_up()
        return dial

    def cancel(self, dial: Dial) -> None:
        """Nothing is called any more."""
        if dial in self._dials:
            self._end(dial)

    @property
    def dial_count(self) -> int:
        return len(self._dials)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        if self._answers:
            return self._now_s()  # the thread has woken the poller for it
        return min((dial.connecting.until_s for dial in self._dials), default=None)

    def tick(self) -> None:
        while self._answers:
            dial, found = self._answers.popleft()
            self._lookup_count -= 1
            if dial in self._dials:
                self._begin(dial, found)
        self._look_up()
        now_s = self._now_s()
        for dial in [dial for dial in self._dials if dial.connecting.until_s <= now_s]:
            if dial.steps is None:
                self._fail(dial, TimeoutError(f"the name in {dial.address} was not found within {self._timeout_s:g} s"))
            else:
                self._advance(dial, _too_late())

    # ---- names ----

    def _look_up(self) -> None:
        while self._waiting and self._lookup_count < LOOKUP_COUNT_MAX:
            dial = self._waiting.popleft()
            if dial in self._dials:
                self._lookup_count += 1
                threading.Thread(target=self._run_look_up, args=(dial,), name="umbel-look-up", daemon=True).start()

    def _run_look_up(self, dial: Dial) -> None:
        self._answers.append((dial, _looked_up(dial.address)))
        self._poller.wake()

    # ---- steps ----

    def _begin(self, dial: Dial, found: list[addresses.Endpoint] | OSError) -> None:
        if isinstance(found, OSError):
            self._fail(dial, found)
            return
        connecting = dial.connecting
        dial.steps = connecting.knock(found) if dial.only_knocks else connecting.through(found)
        self._advance(dial, None)

    def _advance(self, dial: Dial, late: TimeoutError | None) -> None:
        steps = dial.steps
        if steps is None:
            raise exceptions.InternalError("a dial went on that had not begun")
        self._unwatch(dial)  # each step may close a socket and open another of the same number
        try:
            events = next(steps) if late is None else steps.throw(late)
        except StopIteration as end:
            del self._dials[dial]
            dial.on_connected(end.value)
        except (exceptions.AuthenticationError, OSError) as error:
            tracebacks.drop(
                error
            )  # a thread that waits for a result reads the sockets: the program's frames are among them
            self._fail(dial, error)
        else:
            stream = dial.connecting.stream
            if stream is not None:
                dial.descriptor = stream.fileno()
                self._poller.register(dial.descriptor, events, lambda _events: self._advance(dial, None))

    def _unwatch(self, dial: Dial) -> None:
        if dial.descriptor >= 0:
            self._poller.unregister(dial.descriptor)
            dial.descriptor = -1

    def _fail(self, dial: Dial, error: Exception) -> None:
        self._end(dial)
        dial.on_failed(error)

    def _end(self, dial: Dial) -> None:
        del self._dials[dial]
        self._unwatch(dial)
        if dial.steps is not None:
            dial.steps.close()
        dial.connecting.close()

    def close(self) -> None:
        """Give up all that are being made, without a word. Whoever waits for a name goes on in its thread, for nothing."""
        for dial in list(self._dials):
            self._end(dial)
        self._waiting.clear()


class Dial:
    """One connection that is being made. steps: none until its name was looked up."""

    __slots__ = ("address", "connecting", "descriptor", "on_connected", "on_failed", "only_knocks", "steps")

    def __init__(
        self,
        address: addresses.Address,
        connecting: negotiation.Connecting,
        on_connected: Callable[[Stream], None],
        on_failed: Callable[[Exception], None],
        *,
        only_knocks: bool,
    ) -> None:
        self.address = address
        self.only_knocks = only_knocks
        self.connecting = connecting
        self.on_connected = on_connected
        self.on_failed = on_failed
        self.steps: negotiation.Steps[Stream] | None = None
        self.descriptor = -1

    @property
    def is_reached(self) -> bool:
        """Whether the other machine has answered."""
        return self.connecting.is_reached


def _looked_up(address: addresses.Address) -> list[addresses.Endpoint] | OSError:
    try:
        return addresses.resolve(address)
    except socket.gaierror as error:
        return ConnectionError(f"the host of {address} cannot be found: {error.strerror}")
    except OSError as error:
        return error
