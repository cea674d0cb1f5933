"""A cluster's head and its nodes: the production table of nodes, and the production membership of each node.

Clocks run apart; connections break with what is under way, or go silent; messages are late, and some of a node's come again; the
head and nodes stand still, die, leave and come again. The head's successor has forgotten everything, or in some runs
begins with what was kept. By books of its own the
world knows who was heard when, counting only the time at which whoever listened did not stand still.
"""

from __future__ import annotations

import json
from typing import Any

from umbel._agent import membership
from umbel._base import nodes as node_ids
from umbel._control import node_news, nodes
from umbel.testing.simulation.world import Stream, World

HEALTH = nodes.Health()
RETURN_S = HEALTH.return_s
PUBLISH_S = node_news.PUBLISH_S
UNNOTICED_S = nodes.TICK_S + nodes.LATE_S  # of each time at which the head stands still
LOOK_S = 1.0
DIAL_S = 3.0
NODES = 3
RATES = (1.0, 0.99, 1.01)
PAUSES_S = (0.02, 0.1, 0.3, 1.0, 1.0, 3.0, 6.0, 20.0)
ROUNDING_S = 1e-6
TAG_DIGITS = 2 * node_ids.TAG_BYTES
REST_S = 150.0  # a node that has lost its head gives up after 60 of them
CALM_S = 12.0  # for which all must be well before; a node that is silent is dead by then


class Head:
    """The one there is. awake_s: for how long it has not stood still, by its own clock."""

    def __init__(self, world: NodesWorld, node_id: str) -> None:
        self.id = node_id
        self.rate = world.chance.choose(RATES)
        self.is_stopped = False
        self.awake_s = 0.0
        self.stop_count = 0
        self.waiting = 0
        self.links: dict[int, Stream] = {}
        self.listening: list[int] = []  # links of those that have been welcomed by them
        self.link_count = 0
        self.books: dict[str, Book] = {}
        self.admitted: set[str] = set()
        self.dead: set[str] = set()
        self.seen: dict[str, int] = {}  # what each node counts
        self.published_s: dict[str, float] = {}  # when a node's state was told last
        now_s = world.now_s * self.rate
        self.table = nodes.NodeTable(facts(node_id), state(0), health=HEALTH, now_s=now_s, time_s=0.0)
        self.told: node_news.Told[tuple[str, Any]] = node_news.Told(_frame, lambda frame: len(frame[1]))
        self.awaited: list[str] = []
        self.stored: dict[str, Any] = {}  # the records of nodes, the latest last

    def keep(self) -> None:
        """What has changed of the table."""
        for node_id in list(self.table.changed or ()):
            self.stored.pop(node_id, None)
            record = self.table.record(node_id)
            if record is not None:
                self.stored[node_id] = record
        if self.table.changed is not None:
            self.table.changed.clear()

    def follow(self, old: Head) -> None:
        """With what that has kept."""
        self.stored = dict(old.stored)
        self.awaited = self.table.restore(old.table.cluster, list(old.stored.values()))
        self.keep()
        self.dead = {*old.dead, old.id}
        for node_id in self.awaited:
            self.books[node_id] = Book()
            self.books[node_id].lost_s, self.books[node_id].limit_s = 0.0, RETURN_S


class Book:
    """What has reached the head of one node: by which connection it joined last, and when it was heard by that. stops: of the
    head until then; so short ones as it cannot notice count as time."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.sequence = 0
        self.heard_s = 0.0
        self.lost_s: float | None = None
        self.limit_s = HEALTH.reconnect_s  # without a connection
        self.stops = 0


class Daemon:
    """A node's."""

    def __init__(self, world: NodesWorld, node_id: str) -> None:
        self.id = node_id
        self.rate = world.chance.choose(RATES)
        self.machine = membership.Membership(now_s=world.now_s * self.rate)
        self.is_stopped = False
        self.is_cut_off = False
        self.waiting = 0
        self.dialled_s: float | None = None
        self.link_count = 0
        self.head = ""  # that has welcomed it last
        self.links: dict[int, Stream] = {}
        self.has_told_why = False  # a head has said to it why it is to end
        self.away_s = 0.0  # for how long it has had no connection, not counting when it stood still
        self.stop_count = 0
        self.is_drained = False
        self.said: list[tuple[int, Any]] = []  # its last heartbeats, with their links
        self.living: set[str] = set()  # as it was told
        self.seen: dict[str, tuple[bool, int]] = {}  # of each node, whether it lives, and what it counts


def facts(node_id: str) -> dict[str, Any]:
    return {"node_id": node_id, "version": "1", "address": "a:1"}


def state(waiting: int, *, is_drained: bool = False) -> dict[str, Any]:
    told = {"draining": {"reason": "preemption"}} if is_drained else {}
    return {"available": {}, "waiting": waiting, **told}


class NodesWorld(World):
    """See the module."""

    steps_min, steps_max = 60, 200

    def set_up(self) -> None:
        self.now_s = 1.0
        self.id_count = 0
        self.drain_count = 0
        self.drains: dict[
            int, tuple[str, float]
        ] = {}  # requests without an answer: the node, and since when, as `awake_s`
        self.daemons: list[Daemon] = []
        self.keeps = self.chance.happens(50)
        self.head = Head(self, self._new_id())
        if self.keeps:
            self.head.table.restore("", ())
            self.head.keep()
        for _ in range(NODES):
            self._start()

    def _new_id(self) -> str:
        """Its first twelve digits are its tag."""
        self.id_count += 1
        return f"{self.id_count:012x}{'0' * 40}{self.id_count:04x}"

    def _start(self) -> None:
        node_id = self._new_id()
        if self.daemons and self.chance.happens(10):
            node_id = self.chance.choose(self.daemons).id[:TAG_DIGITS] + node_id[TAG_DIGITS:]
        self.daemons.append(Daemon(self, node_id))
        self.note("%s starts", _short(node_id))

    # What happens

    def act(self) -> None:
        chance = self.chance
        daemon = chance.choose(self.daemons) if self.daemons else None
        what = chance.weighted((40, 24, 10, 4, 4, 4, 2, 2, 2, 4, 8, 1, 5, 3, 3))
        if what == 0:
            self._deliver_some()
        elif what == 1:
            self._pass(chance.choose(PAUSES_S))
        elif what == 6:
            self._stop_or_go_on(self.head)
        elif what == 9:
            if len(self.daemons) < 2 * NODES:
                self._start()
        elif what == 11:
            self._replace_head()
        elif what == 13:
            self._stand_still_for(self.head)
        elif what == 14:
            self._request_drain(daemon.id if daemon is not None else self.head.id)
        elif daemon is not None:
            if what == 2:
                self._answer_dial(daemon)
            elif what == 3:
                self._break(daemon)
            elif what == 4:
                daemon.is_cut_off = not daemon.is_cut_off
                self.note("%s is %s", _short(daemon.id), "cut off" if daemon.is_cut_off else "reached again")
            elif what == 5:
                self._stop_or_go_on(daemon)
            elif what == 7:
                self._die(daemon)
            elif what == 8:
                self._leave(daemon)
            elif what == 10:
                daemon.waiting += 1
            elif what == 12:
                self._repeat(daemon)

    def _stop_or_go_on(self, one: Head | Daemon) -> None:
        one.is_stopped = not one.is_stopped
        one.stop_count += one.is_stopped
        self.note("%s %s", _short(one.id), "stands still" if one.is_stopped else "goes on")

    def _stand_still_for(self, one: Head | Daemon) -> None:
        if not one.is_stopped:
            self._stop_or_go_on(one)
            self._pass(self.chance.choose(PAUSES_S))
            self._stop_or_go_on(one)

    def _deliver_some(self) -> None:
        """One message of those that can arrive, or several in a row."""
        for _ in range(1 + self.chance.below(4)):
            waiting = [stream for stream in self.streams if stream.inbox and not self._is_held(stream)]
            if not waiting:
                return
            self.chance.choose(waiting).deliver()
        self.forget_closed()

    def _is_held(self, stream: Stream) -> bool:
        daemon = stream.owner if isinstance(stream.owner, Daemon) else stream.other.owner
        return stream.owner.is_stopped or (daemon.is_cut_off and daemon in self.daemons)

    def _pass(self, duration_s: float) -> None:
        """Whoever does not stand still looks when that is due."""
        until_s = self.now_s + duration_s
        while True:
            everybody: list[Head | Daemon] = [self.head, *self.daemons]
            who, due_s = None, until_s
            for one in everybody:
                if not one.is_stopped and (its_s := self._due_s(one)) <= due_s and (who is None or its_s < due_s):
                    who, due_s = one, its_s
            if who is None:
                break
            self._advance(max(self.now_s, due_s))
            if isinstance(who, Head):
                self._tick_head()
            else:
                self._tick(who)
        self._advance(until_s)

    def _due_s(self, one: Head | Daemon) -> float:
        if isinstance(one, Head):
            return one.table.next_tick_s / one.rate
        due_s = one.machine.next_tick_s(LOOK_S)
        found = self.now_s + 1e9 if due_s is None else due_s / one.rate
        return found if one.dialled_s is None else min(found, one.dialled_s + DIAL_S)

    def _advance(self, to_s: float) -> None:
        passed_s = to_s - self.now_s
        self.now_s = to_s
        if not self.head.is_stopped:
            self.head.awake_s += passed_s * self.head.rate
        for daemon in self.daemons:
            if not daemon.is_stopped and not daemon.machine.is_welcome:
                daemon.away_s += passed_s * daemon.rate

    # The head

    def _decide(self, head: Head, event: nodes.NodeEvent) -> None:
        for command in head.table.apply(event):
            self.note("head: %s", command)
            if isinstance(command, nodes.Publish):
                self._publish(head, command)
            elif isinstance(command, nodes.Admit):
                self.must(command.node_id not in head.admitted, "Y1", "%s is admitted twice", command.node_id)
                head.admitted.add(command.node_id)
            elif isinstance(command, nodes.DeclareDead):
                was_there = command.node_id in head.admitted or command.node_id in head.awaited
                self.must(was_there, "Y1", "%s dies who was not there", command.node_id)
                self._check_death(head, command)
                head.dead.add(command.node_id)
            elif isinstance(command, nodes.Welcome):
                self._check_welcome(head, command.node_id)
                for kind, listed in head.told.all(head.table.relisted):
                    self._say(head, command.link, kind, listed)
                own = head.table.alive[command.node_id].listed()
                self._say(head, command.link, "welcome", (head.table.cluster, (own,), head.id))
                head.listening.append(command.link)
            elif isinstance(command, nodes.Acknowledge):
                self._say(head, command.link, "heard", None)
            elif isinstance(command, nodes.AskToDrain):
                self._say(head, command.link, "drain", command.request)
            elif isinstance(command, nodes.AnswerDrain):
                self._drain_answered(head, command)
            else:
                if isinstance(command, nodes.Refuse):
                    self._say(head, command.link, "refused", (command.kind, command.reason))
                if command.link in head.links:
                    head.links[command.link].close()
        head.table.check()
        head.keep()

    def _request_drain(self, node_id: str) -> None:
        if self.head.is_stopped:
            return
        self.drain_count += 1
        self.drains[self.drain_count] = node_id, self.head.awake_s
        asked = nodes.DrainRequested(
            self.drain_count, node_id, "preemption", "", None, self.now_s * self.head.rate + ROUNDING_S
        )
        self._decide(self.head, asked)

    def _drain_answered(self, head: Head, command: nodes.AnswerDrain) -> None:
        node_id, _ = self.drains.pop(command.request, ("", 0.0))
        self.must(bool(node_id), "Y8", "request %s is answered twice", command.request)
        known = head.table.alive.get(node_id)
        is_drained = known is not None and "draining" in known.state
        self.must(is_drained or not command.is_accepted, "Y8", "%s has not agreed to be drained", node_id)
        self.must(
            bool(command.text) != command.is_accepted, "Y8", "request %s is refused without a word", command.request
        )

    def _tick_head(self) -> None:
        head = self.head
        local_s = self.now_s * head.rate + ROUNDING_S
        if self.chance.happens(20):
            head.waiting += 1
            self._decide(head, nodes.HeadChanged(state(head.waiting), local_s))
        self._decide(head, nodes.Ticked(local_s))

    def _say(self, head: Head, link: int, kind: str, what: Any) -> None:
        if link in head.links:
            head.links[link].send((kind, what))

    def _publish(self, head: Head, command: nodes.Publish) -> None:
        local_s = self.now_s * head.rate
        for change in command.changes:
            if "alive" in change:
                continue
            node_id = change["node_id"]
            since_s = local_s - head.published_s.get(node_id, local_s - PUBLISH_S)
            self.must(since_s >= PUBLISH_S - 10 * ROUNDING_S, "Y5", "%s is told of again after %s s", node_id, since_s)
            head.published_s[node_id] = local_s
        ids = [change["node_id"] for change in command.changes]
        self.must(len(ids) == len(set(ids)), "Y5", "a node is told of twice at once: %s", ids)
        kind, told = head.told.tell(command.changes)
        for link in head.listening:
            self._say(head, link, kind, told)

    def _check_death(self, head: Head, command: nodes.DeclareDead) -> None:
        self.must(command.node_id not in head.dead, "Y1", "%s dies twice", command.node_id)
        book = head.books[command.node_id]
        if command.is_expected:
            return
        tolerance_s = (head.stop_count - book.stops + 1) * UNNOTICED_S + 10 * ROUNDING_S
        silent_s = head.awake_s - book.heard_s + tolerance_s
        lost_s = head.awake_s - book.lost_s + tolerance_s if book.lost_s is not None else 0.0
        self.must(
            silent_s >= HEALTH.silence_s or lost_s >= book.limit_s,
            "Y2", "%s is declared dead after %s s of silence and %s s without a connection", command.node_id, silent_s, lost_s,
        )  # fmt: skip

    def _check_welcome(self, head: Head, node_id: str) -> None:
        self.must(node_id not in head.dead, "Y1", "%s is welcome after its death", node_id)
        known = [*head.table.alive, *head.table.dead]
        twins = [other for other in known if other != node_id and other[:TAG_DIGITS] == node_id[:TAG_DIGITS]]
        self.must(not twins, "Y4", "%s is welcome, whose tag is that of %s", node_id, twins)

    def _head_hears(self, stream: Stream, frame: tuple[str, Any, bool]) -> None:
        head, daemon = self.head, stream.other.owner
        kind, what, is_again = frame
        link, local_s = stream.peer, self.now_s * head.rate
        book = head.books.setdefault(daemon.id, Book())
        if kind == "join":
            sequence, cluster, told = what
            if not is_again and sequence > book.sequence:
                book.stream, book.sequence, book.lost_s, book.limit_s = stream, sequence, None, HEALTH.reconnect_s
                book.heard_s, book.stops = head.awake_s, head.stop_count
            self._decide(head, nodes.NodeJoined(daemon.id, link, sequence, facts(daemon.id), told, cluster, local_s))
        elif kind == "beat":
            if not is_again and stream is book.stream:
                book.heard_s, book.stops, book.sequence = head.awake_s, head.stop_count, what[0]
            self._decide(head, nodes.Heartbeat(daemon.id, link, what[0], what[1], local_s))
        elif kind == "drain_answer":
            request, is_accepted, told = what
            text = "" if is_accepted else "it is busy"
            self._decide(head, nodes.DrainAnswered(daemon.id, link, request, is_accepted, text, told, local_s))
        else:
            self._decide(head, nodes.NodeLeft(daemon.id, link, "goodbye", local_s))

    def _head_loses(self, stream: Stream) -> None:
        head, daemon = self.head, stream.other.owner
        if stream.owner is not head:
            return  # of one that has died
        head.links.pop(stream.peer, None)
        book = head.books.get(daemon.id)
        if book is not None and book.stream is stream and book.lost_s is None:
            book.lost_s = head.awake_s
        self._decide(head, nodes.LinkLost(daemon.id, stream.peer, self.now_s * head.rate))

    def _replace_head(self) -> None:
        old = self.head
        self.drains.clear()  # whoever asked has seen it end
        self.head = Head(self, self._new_id())
        self.note("the head dies; %s is another", _short(self.head.id))
        if self.keeps:
            self.head.follow(old)
            self._check_drains(old)
        for stream in old.links.values():
            stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))
        self.forget_closed()

    def _check_drains(self, old: Head) -> None:
        """The next head knows which nodes are being drained, or were until they died."""
        were, are = (
            {one["node_id"] for one in table.listed() if "draining" in one} for table in (old.table, self.head.table)
        )
        self.must(were == are, "Y9", "%s were being drained, the next head knows it of %s", sorted(were), sorted(are))

    # Nodes

    def _apply(self, daemon: Daemon, event: membership.Event) -> None:
        for command in daemon.machine.apply(event):
            self.note("%s: %s", _short(daemon.id), command)
            if isinstance(command, membership.Dial):
                daemon.dialled_s = self.now_s
            elif isinstance(command, membership.Join):
                told = state(daemon.waiting, is_drained=daemon.is_drained)
                joining = (command.sequence, command.cluster, told)
                daemon.links[command.link].send(("join", joining, False))
            elif isinstance(command, membership.Beat):
                what = (command.sequence, command.state)
                daemon.said = [*daemon.said[-2:], (command.link, what)]
                daemon.links[command.link].send(("beat", what, False))
            elif isinstance(command, membership.HangUp):
                daemon.links[command.link].close()
            elif isinstance(command, membership.Appeared):
                self.must(
                    command.node_id not in daemon.living, "Y6", "%s is told twice of %s", daemon.id, command.node_id
                )
                daemon.living.add(command.node_id)
            elif isinstance(command, membership.Died):
                self.must(command.node_id in daemon.living, "Y6", "%s hears of no life before %s", daemon.id, command)
                daemon.living.remove(command.node_id)
            elif isinstance(command, membership.End):
                patience_s = membership.HEAD_LOST_S if daemon.machine.cluster else membership.JOIN_S
                tolerance_s = (daemon.stop_count + 1) * HEALTH.timeout_s
                self.must(
                    daemon.has_told_why or daemon.away_s + tolerance_s >= patience_s,
                    "Y3", "%s ends for no reason: %s", daemon.id, command.reason,
                )  # fmt: skip
                self._die(daemon)
        if daemon.machine.is_welcome:
            daemon.away_s = 0.0

    def _tick(self, daemon: Daemon) -> None:
        local_s = self.now_s * daemon.rate + ROUNDING_S
        if daemon.dialled_s is not None and self.now_s >= daemon.dialled_s + DIAL_S:
            daemon.dialled_s = None
            self._apply(daemon, membership.DialFailed("no answer in time", False, local_s))
        elif not daemon.machine.is_over:
            told = state(daemon.waiting, is_drained=daemon.is_drained)
            self._apply(daemon, membership.Looked(told, local_s))

    def _answer_dial(self, daemon: Daemon) -> None:
        if daemon.dialled_s is None or daemon.is_stopped or daemon.is_cut_off or self.head.is_stopped:
            return
        daemon.dialled_s = None
        near, far = self.connect(f"{_short(daemon.id)} to the head", f"the head to {_short(daemon.id)}")
        near.owner, far.owner = daemon, self.head
        daemon.link_count += 1
        self.head.link_count += 1
        near.peer, far.peer = daemon.link_count, self.head.link_count
        daemon.links[near.peer], self.head.links[far.peer] = near, far
        near.on_frame, near.on_close = self._node_hears, self._node_loses
        far.on_frame, far.on_close = self._head_hears, self._head_loses
        self._apply(daemon, membership.Connected(near.peer, self.now_s * daemon.rate))

    def _node_hears(self, stream: Stream, frame: tuple[str, Any]) -> None:
        daemon: Daemon = stream.owner
        kind, what = frame
        link, local_s = stream.peer, self.now_s * daemon.rate
        if kind == "drain":
            if daemon in self.daemons and daemon.machine.link == link:
                daemon.is_drained |= self.chance.happens(50)
                told = state(daemon.waiting, is_drained=daemon.is_drained)
                stream.send(("drain_answer", (what, daemon.is_drained, told), False))
            return
        event: membership.Event
        if kind == "welcome":
            if daemon.head != what[2]:  # what nodes have free it knows when they are back
                daemon.head, daemon.seen = what[2], {one: (was_alive, 0) for one, (was_alive, _) in daemon.seen.items()}
            event = membership.Welcomed(link, what[0], HEALTH.period_s, HEALTH.timeout_s, what[1], local_s)
        elif kind == "listing":
            event = membership.Listed(link, tuple(what), local_s)
        elif kind == "nodes":
            event = membership.Told(link, tuple(what), local_s)
        elif kind == "heard":
            event = membership.Acknowledged(link, local_s)
        else:
            daemon.has_told_why = daemon.machine.link == link
            event = membership.Refused(link, what[0], what[1], local_s)
        self._apply(daemon, event)
        if kind == "refused" and daemon.has_told_why:
            self.must(daemon not in self.daemons, "Y3", "%s goes on though it was told to end", daemon.id)
        self._check_view(daemon)

    def _check_view(self, daemon: Daemon) -> None:
        """The dead stay dead, and nobody goes back to what he was."""
        seen = {}
        for node_id, known in daemon.machine.nodes.items():
            was_alive, count = daemon.seen.get(node_id, (True, 0))
            self.must(was_alive or not known["alive"], "Y1", "%s sees %s live again", daemon.id, node_id)
            self.must(known["waiting"] >= count, "Y6", "%s sees %s go back", daemon.id, node_id)
            seen[node_id] = known["alive"], known["waiting"]
        daemon.seen = seen

    def _node_loses(self, stream: Stream) -> None:
        daemon: Daemon = stream.owner
        daemon.links.pop(stream.peer, None)
        if daemon in self.daemons:
            self._apply(daemon, membership.Closed(stream.peer, self.now_s * daemon.rate))

    def _break(self, daemon: Daemon) -> None:
        """Both ends still get some of what is under way, then the end."""
        for stream in list(daemon.links.values()):
            self.note("%s breaks", stream.name)
            for one in (stream, stream.other):
                kept = self.chance.below(len(one.inbox) + 1)
                while len(one.inbox) > kept:
                    one.inbox.pop()
                one.inbox.append(None)

    def _repeat(self, daemon: Daemon) -> None:
        """A heartbeat arrives a second time, later."""
        if daemon.said:
            link, what = self.chance.choose(daemon.said)
            if link in daemon.links:
                daemon.links[link].send(("beat", what, True))

    def _die(self, daemon: Daemon) -> None:
        self.note("%s dies", _short(daemon.id))
        self.daemons.remove(daemon)
        for stream in list(daemon.links.values()):
            stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))

    def _leave(self, daemon: Daemon) -> None:
        if daemon.is_stopped:
            return
        link = daemon.machine.leave()
        if link:
            daemon.links[link].send(("goodbye", None, False))
        self._die(daemon)

    # What must hold

    def check(self) -> None:
        head = self.head
        for request, (_, since_s) in self.drains.items():
            open_s = head.awake_s - since_s
            is_in_time = open_s <= nodes.DRAIN_ANSWER_S + UNNOTICED_S
            self.must(is_in_time, "Y8", "request %s has no answer after %s s", request, open_s)
        for one in head.table.listed():
            node_id = one["node_id"]
            self.must(one["alive"] == (node_id not in head.dead), "Y1", "%s lives again", node_id)
            self.must(one["waiting"] >= head.seen.get(node_id, 0), "Y6", "the head sees %s go back", node_id)
            head.seen[node_id] = one["waiting"]

    def settle(self) -> None:
        """Everybody goes on and is reached: soon the head knows who lives, and all know what it knows."""
        self.head.is_stopped = False
        for daemon in self.daemons:
            daemon.is_stopped = daemon.is_cut_off = False
        until_s = self.now_s + REST_S
        calm_s = self.now_s + CALM_S
        while self.now_s < min(until_s, calm_s):
            for daemon in list(self.daemons):
                self._answer_dial(daemon)
            while any(stream.inbox for stream in self.streams):
                for stream in self.streams:
                    if stream.inbox:
                        stream.deliver()
                self.forget_closed()
            self._pass(0.5)
            if self._unrest():
                calm_s = self.now_s + CALM_S
        while any(stream.inbox for stream in self.streams):
            for stream in self.streams:
                if stream.inbox:
                    stream.deliver()

    def check_rest(self) -> None:
        unrest = self._unrest()
        if unrest:
            self.must(False, *unrest)

    def _unrest(self) -> tuple[Any, ...]:
        """What is not yet as it must be once nothing happens any more: the rule, a text and its values. Empty: all is."""
        head = self.head
        alive = {node_id for node_id in head.table.alive if node_id != head.id}
        running = {daemon.id for daemon in self.daemons}
        if alive != running:
            return "Y3", "the head sees %s alive, there are %s", sorted(alive), sorted(running)
        if self.drains:
            return "Y8", "nobody answers the requests %s", sorted(self.drains)
        listed = head.table.listed()
        for daemon in self.daemons:
            machine = daemon.machine
            if not machine.is_welcome or machine.cluster != head.table.cluster:
                return "R2", "%s is no member", daemon.id
            living = {node_id for node_id, known in machine.nodes.items() if known["alive"]}
            if daemon.living != living:
                return "Y6", "%s was told of %s, and sees %s", daemon.id, daemon.living, living
            for one in listed:
                node_id = one["node_id"]
                known = machine.nodes.get(node_id)
                if known is None:
                    return "Y6", "%s does not know %s", daemon.id, node_id
                if known["alive"] != one["alive"]:
                    return "Y6", "%s is wrong about the life of %s", daemon.id, node_id
                if one["alive"] and known["waiting"] != one["waiting"] and node_id != head.id:
                    return "Y6", "%s has not heard the last of %s", daemon.id, node_id
                if one["alive"] and known.get("draining") != one.get("draining"):
                    return "Y6", "%s does not know whether %s is drained", daemon.id, node_id
        return ()


def _frame(kind: str, listed: str) -> tuple[str, Any]:
    return kind, json.loads(listed)


def _short(node_id: str) -> str:
    return node_id[8:12] + node_id[-4:]
