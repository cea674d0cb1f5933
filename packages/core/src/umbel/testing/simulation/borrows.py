"""Objects that processes of different nodes make, pass on, read and drop, while connections between them break.

As the world `ownership`, but each process is alone on its node and reaches the others by the production `RemoteLinks`. Chance
breaks a connection at any point: each side gets a part of what is under way, and sees the end later, one of them perhaps after
the other has connected anew. It also lets dials fail, and time pass.
"""

from __future__ import annotations

from typing import Any

from umbel import exceptions
from umbel._base import nodes
from umbel._client import actor as actor_api
from umbel._client import links, remote_links, remote_peers
from umbel._transport import addresses, connection, negotiation
from umbel._wire import frames, messages
from umbel.testing.simulation import cluster_nodes, daemon, processes
from umbel.testing.simulation.ownership import DESCRIPTION, OwnershipWorld, Peer
from umbel.testing.simulation.world import Stream

ADDRESS = "10.0.0.1:1"  # of every node: who is dialled is known by its id
BROKEN_OFF_PERCENT = 15  # of dials
DIAL_PERCENT = 30  # of steps in which something could be delivered or a dial end
AGES_MAX = 500  # of which each lets what waits for time go on: dials, above all


class _Node(processes.Node):
    """The daemons of all nodes."""

    world: BorrowsWorld

    def _on_frame(self, stream: Stream, frame: bytes) -> None:
        super()._on_frame(stream, frame)
        message, _ = frames.decode_control(frame[4:])
        if message["t"] == "find_node":
            answer = {"t": "node_at", "node": message["node"], "address": ADDRESS, "is_dialled": True}
            stream.send(frames.encode_control(answer))
        elif message["t"] == "actor_watch":
            self.world.tell_state(stream, message["actor"])


class _Links(processes.Links):
    """The production links, all of them to other nodes."""

    _poller: Any = None
    remote: remote_links.RemoteLinks

    def to(self, peer: bytes) -> links.Link | None:
        return self.by_peer.get(peer) or self.remote.to(peer)

    def attach(self, link: links.Link, sock: Any) -> Any:
        self._join(link, sock)
        self._process.streams.append(sock)
        return sock

    def _on_close(self, stream: Any) -> None:
        here: Any = self._process
        here.world.note_cut_off(here, stream.peer.peer)
        super()._on_close(stream)


class _RemoteLinks(remote_links.RemoteLinks):
    """A dial ends when chance says so."""

    process: Apart

    def _dial(self, wanted: remote_peers.Dial) -> None:
        self.process.world.dials.append((self.process, wanted))

    def end_dial(self, wanted: remote_peers.Dial) -> None:
        here = self.process
        world = here.world
        there: Any = here.node.processes[wanted.peer]
        if there.is_dead:
            self._failed(wanted, negotiation.RefusedError("there is no such process"))
        elif world.chance.happens(BROKEN_OFF_PERCENT):
            self._failed(wanted, ConnectionError("it was broken off"))
        else:
            near, far = world.connect(f"{here.name}<{there.name}", f"{there.name}<{here.name}")
            there.links.remote.accept(far)
            self._connected(wanted, near)


class _Engine(processes.Engine):
    def _make_links(self) -> Any:
        return _Links(self.process, self)

    def _make_door(self) -> Any:
        return self  # which is passed on

    def _open_door(self, _door: Any, _token: str) -> None:
        driver: Any = self.reactor
        driver.poller = daemon._Nothing()
        made = _RemoteLinks(self.links, self.process_id, "", None, driver, self.lock, self.agent.notify)
        made.process = self.process  # type: ignore[assignment]  # they are of this world
        self.links.remote = made


class Apart(Peer):
    """A process on a node of its own. Its values are in messages: how large ones travel is no matter of who keeps them."""

    world: BorrowsWorld

    def make_engine(self) -> _Engine:
        self.answered: set[int] = set()  # of its calls
        engine = _Engine(self, has_door=True)
        engine.values._inline_bytes_max = 1 << 30
        engine.arrivals.add({messages.REPLY: self._on_reply})
        engine.start()
        return engine

    def _on_reply(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self.answered.add(message[1])
        self.engine.tasks.on_reply(link, message)


class BorrowsWorld(OwnershipWorld):
    """See the module."""

    large_percent = 0
    steps_min, steps_max = 40, 100

    def set_up(self) -> None:
        self.dials: list[tuple[Apart, remote_peers.Dial]] = []
        self.is_broken = False
        self.is_breaking = False  # whenever anything is delivered
        self.lent: Any = None  # what results hold
        self.preferred: set[Peer] = set()  # two between whom connections break sooner than others
        self.breaks_left = self.chance.choose((0, 2, 4, 8))
        self.break_percent = self.chance.choose((5, 15, 30))
        super().set_up()

    def make_node(self) -> None:
        self.node = _Node(self)

    def make_peer(self, number: int) -> Peer:
        tag = number.to_bytes(nodes.TAG_BYTES, "big")
        return Apart(self.node, f"p{number}", bytes(4) + tag + number.to_bytes(6, "big"))

    def run(self) -> None:
        with processes.attributes(
            (remote_links, "time", processes._Clock(self)),
            (connection, "Connection", cluster_nodes.Wire),
            (addresses, "let_read_late", lambda _wire: None),
            (addresses, "unacknowledged_bytes", cluster_nodes.unacknowledged_bytes),
            (addresses, "unanswered_s", lambda _wire: 0.0),
        ):
            super().run()

    def connect(self, name: str, other_name: str) -> tuple[Any, Any]:
        near, far = cluster_nodes.Wire(self, name), cluster_nodes.Wire(self, other_name)
        near.other, far.other = far, near
        near.is_slow, far.is_slow = self.chance.happens(self.slow_percent), self.chance.happens(self.slow_percent)
        self.streams += (near, far)
        return near, far

    def tell_state(self, stream: Stream, actor: str) -> None:
        """Somebody has asked the daemon for it."""
        other = self._peer(bytes.fromhex(actor)[:16])
        state = "DEAD" if other.is_dead else "ALIVE"
        message = {"t": "actor_state", "actor": actor, "state": state, "worker": other.id.hex()}
        stream.send(frames.encode_control(message))

    # Steps

    def act(self) -> None:
        if self.breaks_left and self.chance.happens(self.break_percent):
            self._break_any()
        elif self.chance.happens(10):
            self.now_s += self.chance.choose((0.1, 2.0, 5.0))  # in all, less than what is under way may take
        else:
            super().act()

    def _break_any(self) -> None:
        wires = self._wires()
        busy = [wire for wire in wires if wire.inbox or wire.other.inbox]
        if busy and self.chance.happens(80):
            wires = busy
        apart = [wire for wire in wires if {wire.owner, wire.other.owner} == self.preferred]
        if apart and self.chance.happens(60):
            wires = apart
        if wires:
            self.breaks_left -= 1
            self._break(self.chance.choose(wires))

    def _wires(self) -> list[Any]:
        """An end of each connection between two processes that live."""
        ends = [one for one in self.streams[::2] if isinstance(one.owner, Peer) and isinstance(one.other.owner, Peer)]
        return [
            one
            for one in ends
            if not (one.is_closed or one.other.is_closed or one.owner.is_dead or one.other.owner.is_dead)
        ]

    def _break(self, wire: Any) -> None:
        self.note("the connection %s BREAKS", wire.name)
        self.is_broken = True
        wire.break_off()

    def note_cut_off(self, caller: Peer, callee_id: bytes) -> None:
        """Its calls there may be over for the caller, and run: what only their arguments keep may be gone."""
        for task in caller.engine.tasks.unfinished.values():
            if task.actor is not None and task.actor.actor_id[:16] == callee_id:
                self.note_risky(pin.object_id for pin in task.argument_pins or ())

    def is_allowed(self, error: BaseException) -> bool:
        return isinstance(error, exceptions.ActorUnavailableError) and self.is_broken

    def deliver_one(self) -> bool:
        if self.is_breaking and self.breaks_left and self.chance.happens(self.break_percent):
            self._break_any()
        if self.dials and (self.chance.happens(DIAL_PERCENT) or not any(stream.inbox for stream in self.streams)):
            process, wanted = self.dials.pop(self.chance.below(len(self.dials)))
            if not process.is_dead:
                remote: Any = process.links.remote
                remote.end_dial(wanted)
            return True
        return super().deliver_one()

    # Coming to rest

    def check_rest(self) -> None:
        """Connections break even then."""
        self.breaks_left = self.chance.choose((0, 2, 4))
        self.is_breaking = True
        self._lend_chain()
        super().check_rest()

    def _lend_chain(self) -> None:
        """What one owns is kept by a second, which lends it to a third by a result."""
        living = [peer for peer in self.peers if not peer.is_dead]
        if len(living) >= 3:
            start = self.chance.below(len(living))
            first, second, third = (living[start:] + living[:start])[:3]
            self.note("---- %s lends %s what %s owns", second.name, third.name, first.name)
            self.lent = self._pass_on(first, second, first.engine.put([]))
            self.preferred = {first, self.chance.choose((second, third))}
            handle = actor_api.ActorHandle(second.actor_id, DESCRIPTION, None)
            third.held.append(third.engine.submit_actor_task(handle, third.template, ([],), {}))
            third.engine._housekeeping()
        self.settle()
        self.lent = None
        self.preferred = set()

    def _new_value(self, peer: Peer, sources: list[Any]) -> list[Any]:
        if self.lent is None:
            return super()._new_value(peer, sources)
        lent, self.lent = self.lent, None
        self._let_go(peer, lent)
        return [lent]

    def _check_rest_of_counts(self) -> None:
        """What was lent by a result that was lost on its way stays entered, unless its owner has lent it itself."""
        self.unconfirmed = [
            (object_id, borrower.id)
            for peer in self.peers
            for ids, borrower, seq in peer.lent
            if isinstance(borrower, Apart) and seq not in borrower.answered
            for object_id in ids
            if object_id[:16] != peer.id
        ]
        super()._check_rest_of_counts()

    def settle(self) -> None:
        """What waits for time has it."""
        for _ in range(AGES_MAX):
            super().settle()
            due = [at_s for peer in self.peers if not peer.is_dead for at_s in _due(peer)]
            if self.dials:
                continue
            if not due:
                return
            self.now_s = max(self.now_s, min(due))
        self.must(False, "R2", "connections are made again and again")


def _due(peer: Peer) -> list[float]:
    """When its links have something to do, but for looking at them."""
    remote: Any = peer.links.remote
    retry_s = remote._peers.next_tick_s()
    return [at_s for at_s, _ in remote._later] + ([] if retry_s is None else [retry_s])
