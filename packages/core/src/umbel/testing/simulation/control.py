"""The control store's records: heads that come and go, a storage that is late, fails or does not say, and what was acknowledged.

Each head is the production leadership, and while it leads the production service with its tables, journal and records,
upon one production storage in SQLite. Nodes and clients are abstract: workers host actors and construct them, clients
create and kill actors, placement groups and keys. In some runs they live on while there is no head, and report to the next
one; in others they go with it. A head dies between any two steps, or stands still; a commit is made late, twice, after its
head has died, or not at all, and its answer may be lost. The world keeps its own record of what was acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from umbel import exceptions, spi
from umbel._agent.ledger import CPU, UNIT
from umbel._control import events as ev
from umbel._control import journal, keeping, kept, leadership, service
from umbel._control.storage import in_sqlite
from umbel._model.placement import NodeView
from umbel._model.resources import ResourceSet
from umbel.testing.simulation.processes import attribute
from umbel.testing.simulation.world import World

TTL_S = 10.0
RECOVERY_S = 4.0
PAUSES_S = (0.01, 0.01, 0.1, 0.1, 0.5, 1.0, 1.0, 2.5)
HEADS = 2
NAMES = ("", "n", "m")
KEYS = (b"a", b"ab", b"b")
GROUP_ROOM = 100  # groups are never short of it: that is another world's affair
CALM_STEPS = 25  # of half a second, with one that leads: more than a lease or the recovery of a head lasts
REST_STEPS = 200  # of half a second
MEMORY = {"workers": ["like the driver"], "entrypoint": "program.py"}
Message = dict[str, Any]
T = TypeVar("T", "Client", "Worker")


class Client:
    """A driver."""

    def __init__(self, name: str, head: Head) -> None:
        self.name = name
        self.head = head  # with which it ends, unless it lives on
        self.job = ""  # once it was told


class Worker:
    """A process that hosts an actor."""

    def __init__(self, name: str, actor: str, head: Head) -> None:
        self.name = name
        self.actor = actor
        self.head = head  # likewise
        self.stage = ev.Stage.UNCALLED


class Asked:
    """A request that a head has got and not answered."""

    def __init__(self, head: Head, client: Client, what: str, on_answer: Callable[[Message, bytes], None]) -> None:
        self.head = head
        self.client = client
        self.what = what
        self.on_answer = on_answer


class Key:
    """What the world knows of a key: all that was ever asked for, in order, and what of this must count."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = [None]
        self.settled = 0  # this one or a later one is there: it was acknowledged, or somebody has seen it

    def ask(self, value: bytes | None) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def see(self, value: bytes | None) -> bool:
        """Whether this can be there. It counts from now on, and what was asked for before it never will."""
        for number in range(self.settled, len(self.values)):
            if self.values[number] == value:
                self.settled = number
                return True
        return False


class Order:
    """To the storage. A copy of it may be on its way though nobody waits for an answer any more."""

    def __init__(self, head: Head, what: Any) -> None:
        self.head = head
        self.what = what
        self.asked_at_s = head.world.now_s


class Storing:
    """A `keeping.Storing`: what it is told to do lies in the world until chance has it done."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.heard: list[Any] = []

    def commit(self, command: journal.Commit) -> None:
        self.head.world.under_way.append(Order(self.head, command))

    def ask(self, command: leadership.Acquire | leadership.Renew) -> None:
        self.head.world.under_way.append(Order(self.head, command))

    @property
    def has_heard(self) -> bool:
        return bool(self.heard)

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard

    def close(self, fencing: int) -> None:
        """Heads die, they do not end."""


class Head:
    """One process that wants to lead, or does."""

    def __init__(self, world: ControlWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.leader = leadership.Leadership(ttl_s=TTL_S, now_s=world.now_s)
        self.storing = Storing(self)
        self.service: service.ActorService | None = None  # while it leads
        self.keeping: keeping.Keeping | None = None
        self.is_stopped = False
        self.is_over = False  # it has stepped down, and its process ends
        self.has_reports = False
        self.placements: list[str] = []  # actors that it has workers looked for
        self.reservations: list[tuple[str, int]] = []

    def tick(self) -> None:
        """Its loop goes round."""
        if self.is_stopped or self.is_over:
            return
        if self.service is not None:
            if not self.has_reports:
                self.world.report_to(self)
            due_s = self.service.next_tick_s()
            if due_s is not None and due_s <= self.world.now_s:
                self.service.tick()
            return
        for event in [*self.storing.take(), leadership.Tick(self.world.now_s)]:
            for command in self.leader.apply(event._replace(now_s=self.world.now_s)):
                if isinstance(command, leadership.Lead):
                    self.world.begin(self)
                    return  # the service takes the rest
                if not isinstance(command, leadership.StepDown):
                    self.storing.ask(command)


class Node:
    """What the service sees of the node that it runs in."""

    infeasible_timeout_s = None

    def __init__(self, head: Head) -> None:
        self._head = head
        self._world = head.world

    def now_s(self) -> float:
        return self._world.now_s

    time_s = now_s

    def job_of(self, client: str) -> tuple[str, Any]:
        job = self._world.job_of(self._head, client)
        return (job.id, job.environment) if job is not None else ("", None)

    def late_s(self, _actor: str) -> float:
        return 0.0

    def launches_for(self, _lacks: Any) -> str:
        return ""

    def ends_of(self, _workers: Any) -> dict[str, Any]:
        return {}

    def driver_of(self, client: str) -> str:
        return client

    def as_seen(self) -> Message:
        room = {CPU: GROUP_ROOM * UNIT}
        return {"node_id": self._head.name, "total": room, "available": room, "labels": {}}

    def is_here(self, _client: str) -> bool:
        return True

    def nodes_seen(self) -> list[NodeView]:
        return [self.node_seen("")]

    def node_seen(self, _node: str) -> NodeView:
        room = ResourceSet({CPU: GROUP_ROOM * UNIT})
        return NodeView(self._head.name, room, room, is_local=True)

    def tell_places(self, node: str, message: Message) -> None:
        """Nobody follows a group."""

    def actor_dead(self, actor: str, facts: Message) -> None:
        """The history is its own affair."""

    def warn(self, text: str) -> None:
        self._world.acts(self._head, text)

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        self._world.acts(self._head, "tells %s %s", client, message)
        self._world.on_told(self._head, client, message, body)

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        self._world.acts(self._head, "answers %s %s", client, message)
        self._world.on_answer(client, request, message, body)

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        self.reply(client, request, {"error": kind, "text": text})

    def place_actor(self, spec: ev.ActorSpec) -> None:
        self._world.acts(self._head, "looks for a worker for %s", spec.actor)
        self._head.placements.append(spec.actor)

    def kill_actor(self, actor: str, reason: str) -> None:
        self._world.acts(self._head, "has %s killed: %s", actor, reason)
        if actor in self._head.placements:
            self._head.placements.remove(actor)
        self._world.kill(self._head, actor)

    def release_actor(self, actor: str, grace_s: float | None) -> None:
        self.kill_actor(actor, "asked to go")

    def reserve_bundles(self, _node: str, group: str, attempt: int, wanted: Any, depth: int, job: list[Any]) -> None:
        self._world.acts(self._head, "has the bundles of %s reserved, attempt %d", group, attempt)
        self._head.reservations.append((group, attempt))

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        self._world.acts(self._head, "has the bundles of %s committed, attempt %d", group, attempt)

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        self._world.acts(self._head, "has the bundles of %s given back, attempt %d", group, attempt)

    def drop_group(self, _node: str, group: str, reason: str) -> None:
        self._world.acts(self._head, "has the group %s dropped", group)


class ControlWorld(World):
    """See the module."""

    steps_min, steps_max = 80, 260

    def run_guarded(self) -> None:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # the storage syncs each commit
        with contextlib.ExitStack() as stack:
            self.folder = folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="umbel-simulation-", dir=memory)
            )
            stack.enter_context(attribute(in_sqlite, "_now_s", lambda: self.now_s))
            storage: Any = in_sqlite.SqliteStorage(f"sqlite://{folder}/control.db")
            self.storage: spi.ControlStorage = stack.enter_context(contextlib.closing(storage))
            self.run()

    def set_up(self) -> None:
        self.now_s = 1.0
        self.lives_on = self.chance.happens(50)  # clients and workers, when a head dies
        self.is_resting = False
        self.count = 0
        self.under_way: list[Order] = []  # to the storage
        self.granted = 0  # the largest fencing number so far
        self.granted_to = ""
        self.past: list[dict[str, bytes]] = [
            {}
        ]  # what the records have been, since the last that are known to be stored
        self.clients: dict[str, Client] = {}
        self.workers: dict[str, Worker] = {}
        self.requests: dict[int, Asked] = {}
        # What was acknowledged: that an actor was made, or is dead; how often it had restarted; groups and jobs.
        self.made: dict[str, int] = {}  # actor -> max_restarts
        self.dead: set[str] = set()
        self.restarts: dict[str, int] = {}
        self.groups: dict[str, bool] = {}  # whether it was removed
        self.jobs: set[str] = set()
        self.keys = {key: Key() for key in KEYS}
        self.limits: dict[str, int] = {}  # of all actors that were ever asked for
        self.constructions: dict[str, int] = {}
        self.failure_percent = self.chance.choose((0, 10, 40))
        self.heads = [self._new_head() for _ in range(HEADS)]

    def _new_head(self) -> Head:
        self.count += 1
        head = Head(self, f"head {self.count}")
        self.note("%s starts", head.name)
        return head

    def _new(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    # What happens

    def act(self) -> None:
        chance = self.chance
        what = chance.weighted((16, 22, 24, 8, 14, 3, 2, 2, 1))
        if what == 0:
            self._tick(chance.choose(self.heads))
        elif what == 1:
            self._storage_does(chance.below(len(self.under_way)) if self.under_way else None)
        elif what == 2:
            self._client_acts()
        elif what == 3:
            self._pass_time(chance.choose(PAUSES_S))
        elif what == 4:
            self._node_acts()
        elif what == 5:
            self._lose_worker()
        elif what == 6:
            head = chance.choose(self.heads)
            head.is_stopped = not head.is_stopped
            self.note("%s %s", head.name, "stands still" if head.is_stopped else "goes on")
        elif what == 7:
            self._die(chance.choose(self.heads))
        else:
            self._sleep_through()

    def _sleep_through(self) -> None:
        """A head that leads stands still while another one leads and dies."""
        head = self._leading()
        if head is None:
            return
        self.note("%s stands still for long", head.name)
        head.is_stopped = True
        for _ in range(8):
            self._pass_time(TTL_S / 4)
            for order in [one for one in self.under_way if not isinstance(one.what, journal.Commit)]:
                self.under_way.remove(order)
                self._heard(order, self._done(order))
        for _ in range(4):
            self._client_acts()
            for _ in range(len(self.under_way)):
                self._storage_does(0)
        other = self._leading()
        if other is not None and other is not head:
            self._die(other)
        self.now_s += TTL_S + 1.0
        head.is_stopped = False
        self._tick(head)

    def _pass_time(self, duration_s: float) -> None:
        """Mostly leases are renewed in time: that they are not is what the world of leadership is about."""
        self.now_s += duration_s
        for head in list(self.heads):
            self._tick(head)
        for order in [one for one in self.under_way if not isinstance(one.what, journal.Commit)]:
            if self.chance.happens(80):
                self.under_way.remove(order)
                self._heard(order, self._done(order))

    def _tick(self, head: Head) -> None:
        head.tick()
        self._replace_over()

    def _replace_over(self) -> None:
        for head in list(self.heads):
            if head.is_over:
                self._die(head)

    def _die(self, head: Head) -> None:
        """What it has ordered of the storage may be on its way."""
        self.note("%s dies", head.name)
        head.is_over = True
        self.heads[self.heads.index(head)] = self._new_head()
        self.requests = {number: one for number, one in self.requests.items() if one.head is not head}
        self.clients = {name: one for name, one in self.clients.items() if one.job}  # who has no answer does not go on
        if head.service is not None and not self.lives_on:
            self.workers = {name: one for name, one in self.workers.items() if one.head is not head}
            self.clients = {name: one for name, one in self.clients.items() if one.head is not head}

    # The storage

    def _storage_does(self, index: int | None) -> None:
        """Late, never, twice; and then it is heard of, or not."""
        if index is None:
            return
        order = self.under_way[index]
        chance = self.chance
        is_lost = chance.happens(self.failure_percent) and chance.happens(50)
        if is_lost and not self.is_resting:
            self.under_way.pop(index)
            self._heard(order, exceptions.StorageUnavailable("it is away"))
            return
        if not (chance.happens(self.failure_percent) and chance.happens(20)):
            self.under_way.pop(index)  # else once more, later
        answer = self._done(order)
        if chance.happens(self.failure_percent) and not self.is_resting:
            answer = exceptions.StorageUncertain("the answer was lost")
        self._heard(order, answer)

    def _done(self, order: Order) -> Any:
        what = order.what
        try:
            if isinstance(what, journal.Commit):
                self.storage.commit(list(what.writes.items()), fencing=what.fencing, number=what.number)
                return None
            if isinstance(what, leadership.Renew):
                return self.storage.renew(what.fencing)
            lease = self.storage.acquire(order.head.name, TTL_S)
            if lease.fencing > self.granted:
                self.granted, self.granted_to = lease.fencing, lease.holder
            return lease
        except (exceptions.ControlStorageError, exceptions.InvalidOption) as error:
            return error

    def _heard(self, order: Order, answer: Any) -> None:
        """As `storing.Threads` tells it."""
        head, what, now_s = order.head, order.what, self.now_s
        if head.is_over:
            return
        self.note("%s hears %s of %s", head.name, type(answer).__name__, type(what).__name__)
        event: Any
        if isinstance(what, journal.Commit):
            if isinstance(answer, (exceptions.StorageFenced, exceptions.InvalidOption)):
                event = journal.Fenced(what.fencing, str(answer))
            elif isinstance(answer, Exception):
                event = journal.Failed(what.fencing, what.number, str(answer), now_s)
            else:
                event = journal.Committed(what.fencing, what.number, now_s)
            if isinstance(answer, exceptions.InvalidOption) and (
                what.fencing,
                what.number,
            ) != (head.keeping.journal.fencing, head.keeping.journal._number):  # type: ignore[union-attr]
                return  # what nobody waits for, and comes after a later one
        elif isinstance(answer, exceptions.StorageFenced):
            event = leadership.Fenced(answer.fencing, now_s)
        elif isinstance(answer, Exception):
            event = leadership.Failed(str(answer), now_s)
        elif isinstance(what, leadership.Renew):
            event = leadership.Renewed(answer.fencing, order.asked_at_s, now_s)
        elif answer.holder == head.name:
            event = leadership.Granted(answer.fencing, order.asked_at_s, now_s)
        else:
            event = leadership.Held(answer.holder, answer.remaining_s, now_s)
        head.storing.heard.append(event)

    def begin(self, head: Head) -> None:
        """It leads: it loads what there is. J1, J2: that is what a head had at some moment, with all that was acknowledged."""
        stored = dict(self.storage.load())
        self.note("%s leads, and finds %d records", head.name, len(stored))
        self.must(stored in self.past, "J2", "the records are what no head has had: %s", sorted(stored))
        self.past = self.past[self.past.index(stored) :]
        tables = kept.Kept(stored.items(), self.now_s)

        def on_step_down(reason: str) -> None:
            self.note(
                "%s steps down: %s", head.name, reason.replace(self.folder, "")
            )  # a seed's trace is always the same
            head.is_over = True

        head.keeping = keeping.Keeping(
            tables, head.leader, head.storing, now_s=lambda: self.now_s, lease_now_s=lambda: self.now_s,
            on_step_down=on_step_down, recovery_s=RECOVERY_S if self.lives_on else 0.0,
        )  # fmt: skip
        self._watch(head)
        head.service = service.ActorService(Node(head), head.keeping)
        self._check_acknowledged(head.service)

    def _watch(self, head: Head) -> None:
        """What the records are to be, by what it has recorded, as long as it may change them."""
        assert head.keeping is not None
        machine = head.keeping.journal
        apply = machine.apply
        have = dict(self.past[0])
        self.past = [dict(have)]

        def watched(event: journal.Event) -> list[journal.Command]:
            if isinstance(event, journal.Recorded) and not machine.ended and self.granted_to == head.name:
                for key, value in event.writes.items():
                    if value is None:
                        have.pop(key, None)
                    else:
                        have[key] = value
                self.past.append(dict(have))
            return apply(event)

        machine.apply = watched  # type: ignore[method-assign]  # to see what passes

    def _check_acknowledged(self, found: service.ActorService) -> None:
        """J1: a head has it, in its memory: by what it was told since, more may have happened."""
        table = found.table
        for actor in self.made:
            self.must(table.record(actor) is not None, "J1", "%s was acknowledged and is missing", actor)
        for actor in self.dead:
            self.must(actor not in table.actors, "J1", "%s was acknowledged as dead, and lives", actor)
        for actor, restarts in self.restarts.items():
            record = table.record(actor)
            self.must(
                record is not None and record.restarts >= restarts and (record.worker or record.restarts > restarts
                or record.state in (ev.ActorState.DEAD, ev.ActorState.RESTARTING)),
                "J1", "%s was told to live with %d restarts, and has had less", actor, restarts,
            )  # fmt: skip
        for name, key in self.keys.items():
            value = found.kv.get(b"ns", name)
            self.must(key.see(value), "J1", "%s is %s, which is older than what was acknowledged", name, value)
        known = {one.id for one in found.jobs.listed()}
        self.must(self.jobs <= known, "J1", "jobs are missing: %s", sorted(self.jobs - known))
        groups = {one["group"]: one["state"] for one in found.listed_groups("")}
        for group, is_removed in self.groups.items():
            state = groups.get(group)
            self.must(state is not None, "J1", "the group %s is missing", group)
            self.must(not is_removed or state == "REMOVED", "J1", "the group %s is %s after its end", group, state)

    # Heads act

    def acts(self, head: Head, what: str, *values: object) -> None:
        """J3: nobody acts after another one got the lease, nor when it has died."""
        self.note(f"{head.name} {what}", *values)
        self.must(
            not head.is_over and head.leader.fencing == self.granted,
            "J3", "%s acts by number %d, the last one is %d", head.name, head.leader.fencing, self.granted,
        )  # fmt: skip

    def on_answer(self, client: str, request: int | None, message: Message, body: bytes) -> None:
        """J5: once."""
        if request is None or client not in self.clients:
            return
        asked = self.requests.pop(request, None)
        self.must(asked is not None, "J5", "%s was answered twice: %s", client, message)
        if asked is not None:
            asked.on_answer(message, body)

    def on_told(self, head: Head, client: str, message: Message, _body: bytes) -> None:
        kind = message["t"]
        if kind == "create":
            self._construct(client, message["actor"])
        elif kind == "actor_state":
            actor, state = message["actor"], message["state"]
            self.must(state == "DEAD" or actor not in self.dead, "J1", "%s is %s after its death", actor, state)
            if state == "DEAD" and actor in self.made:
                self.dead.add(actor)
            elif state == "ALIVE":
                self.restarts[actor] = max(message["restarts"], self.restarts.get(actor, 0))
        elif kind == "welcome" and client in self.clients:
            self.must(message["job_id"] not in self.jobs, "J1", "a job has the number %s again", message["job_id"])
            self.jobs.add(message["job_id"])
            self.clients[client].job = message["job_id"]

    def _construct(self, name: str, actor: str) -> None:
        """J4: no more often than the restarts allow, over all heads."""
        worker = self.workers.get(name)
        if worker is None:
            return
        worker.stage = ev.Stage.CONSTRUCTING
        self.constructions[actor] = self.constructions.get(actor, 0) + 1
        limit = self.limits[actor]
        self.must(
            limit < 0 or self.constructions[actor] <= 1 + limit,
            "J4", "%s is constructed for the %d. time", actor, self.constructions[actor],
        )  # fmt: skip
        others = [one.name for one in self._with(worker.head, self.workers.values()) if one.actor == actor]
        others.remove(name)
        self.must(not others, "J4", "%s is constructed in %s beside %s", actor, name, others)

    def kill(self, head: Head, actor: str) -> None:
        for worker in [one for one in self._with(head, self.workers.values()) if one.actor == actor]:
            self._end(worker)

    # Nodes and clients

    def report_to(self, head: Head) -> None:
        """Nodes that live on do so before anything else."""
        head.has_reports = True
        if self.lives_on and head.service is not None:
            hosts = {name: ev.Hosting(worker.actor, worker.stage) for name, worker in self.workers.items()}
            self.note("the nodes report %s to %s", {name: one.actor for name, one in self.workers.items()}, head.name)
            head.service.hosts_reported("node", hosts, [*self.workers, *self.clients])

    def _leading(self) -> Head | None:
        """A head that may be talked to: it believes to lead."""
        leading = [head for head in self.heads if head.service is not None and not (head.is_stopped or head.is_over)]
        leading = [head for head in leading if head.name == self.granted_to]  # others' connections are cut
        if not leading or not leading[0].has_reports:
            return None
        return leading[0]

    def _node_acts(self) -> None:
        """A worker is found, a constructor returns or raises, bundles are reserved."""
        head = self._leading()
        if head is None or head.service is None:
            return
        choices: list[Callable[[], None]] = [
            lambda: self._host(head), lambda: self._host(head), lambda: self._end_construction(head),
            lambda: self._end_construction(head), lambda: self._reserved(head),
        ]  # fmt: skip
        self.chance.choose(choices)()
        self._replace_over()

    def _with(self, head: Head, processes: Iterable[T]) -> list[T]:
        """Those that have to do with this head."""
        return [one for one in processes if self.lives_on or one.head is head]

    def _host(self, head: Head) -> None:
        if head.placements and head.service is not None:
            actor = head.placements.pop(self.chance.below(len(head.placements)))
            worker = Worker(self._new("w"), actor, head)
            self.workers[worker.name] = worker
            self.note("%s gets %s", actor, worker.name)
            head.service.hosted(actor, worker.name, f"/{worker.name}", {})

    def _end_construction(self, head: Head) -> None:
        busy = [one for one in self._with(head, self.workers.values()) if one.stage is ev.Stage.CONSTRUCTING]
        if not busy or head.service is None:
            return
        worker = self.chance.choose(busy)
        if self.chance.happens(15):
            self.note("the constructor of %s raises", worker.actor)
            head.service.on["actor_failed"](worker.name, "ns", {"actor": worker.actor}, b"why")
        else:
            worker.stage = ev.Stage.READY
            self.note("%s is constructed", worker.actor)
            head.service.on["actor_ready"](worker.name, "ns", {"actor": worker.actor, "repr_name": ""}, b"")

    def _reserved(self, head: Head) -> None:
        if head.reservations and head.service is not None:
            head.service.bundles_reserved(*head.reservations.pop(0))

    def _lose_worker(self) -> None:
        if self.workers:
            self._end(self.chance.choose(list(self.workers.values())))

    def _end(self, worker: Worker) -> None:
        """Who leads hears of it, or will miss it in the nodes' report."""
        self.note("%s, which hosts %s, dies", worker.name, worker.actor)
        del self.workers[worker.name]
        for head in self.heads:
            if head.service is None or head.is_over or not head.has_reports:
                continue
            if head.name == self.granted_to and self._with(head, [worker]):
                head.service.host_died(worker.actor, worker.name, "it was killed")

    def job_of(self, head: Head, client: str) -> Any:
        if head.service is None or client not in self.clients:
            return None
        return head.service.jobs.record(self.clients[client].job)

    def _client_acts(self) -> None:
        head = self._leading()
        if head is None or head.service is None:
            return
        ready = [client for client in self._with(head, self.clients.values()) if client.job]
        what = self.chance.weighted((2 if ready else 20, 6, 3, 6, 3, 3, 2, 2, 1))
        if not ready or not what:
            if len(self._with(head, self.clients.values())) < 3:
                self._join(head)
            return
        client = self.chance.choose(ready)
        (
            self._create, self._kill, self._put, self._read, self._delete, self._make_group, self._remove_group, self._leave,
        )[what - 1](head, client)  # fmt: skip
        self._replace_over()

    def _join(self, head: Head) -> None:
        assert head.service is not None
        client = Client(self._new("d"), head)
        self.clients[client.name] = client
        job_id, _ = head.service.job_begins(client.name, 1, MEMORY)
        head.service.send(client.name, {"t": "welcome", "job_id": job_id})

    def _ask(
        self, head: Head, client: Client, message: Message, body: bytes, on_answer: Callable[[Message, bytes], None]
    ) -> None:
        assert head.service is not None
        self.count += 1
        self.note("%s asks %s: %s", client.name, head.name, message)
        self.requests[self.count] = Asked(head, client, message["t"], on_answer)
        head.service.on[message["t"]](client.name, "ns", {**message, "rq": self.count}, body)

    def _create(self, head: Head, client: Client) -> None:
        assert head.service is not None
        actor, name = self._new("a"), self.chance.choose(NAMES)
        limit = self.chance.choose((0, 0, 1, -1))
        self.limits[actor] = limit
        message: Message = {
            "t": "create_actor", "actor": actor, "name": name, "namespace": "ns", "get_if_exists": self.chance.happens(50),
            "detached": self.chance.happens(70), "max_restarts": limit, "placement": {CPU: UNIT}, "running": {},
            "class_name": "C", "meta_size": 5, "lacks_arguments": False, "env": None, "strategy": None,
            "label_selectors": None, "depth": 0, "call_site": "",
        }  # fmt: skip

        def on_answer(answer: Message, body: bytes) -> None:
            if "error" not in answer:
                self.must(body == b"class", "J1", "%s has another class: %s", answer["actor"], body)
                self.made[answer["actor"]] = self.limits[answer["actor"]]

        if name:
            self._ask(head, client, message, b"classcall", on_answer)
        else:
            head.service.on["create_actor"](client.name, "ns", {**message, "rq": None}, b"classcall")
        head.service.on["actor_watch"](client.name, "ns", {"actor": actor}, b"")

    def _kill(self, head: Head, client: Client) -> None:
        if not self.limits:
            return
        actor = self.chance.choose(list(self.limits)[-5:])
        is_final = self.chance.happens(60)

        def on_answer(_answer: Message, _body: bytes) -> None:
            if is_final and actor in self.made:
                self.dead.add(actor)

        self._ask(head, client, {"t": "kill_actor", "actor": actor, "no_restart": is_final}, b"", on_answer)

    def _put(self, head: Head, client: Client) -> None:
        name = self.chance.choose(KEYS)
        key, value = self.keys[name], self._new("v").encode()
        number = key.ask(value)

        def on_answer(_answer: Message, _body: bytes) -> None:
            key.settled = max(key.settled, number)

        message = {"t": "kv_put", "space_size": 2, "key_size": len(name), "overwrite": True}
        self._ask(head, client, message, b"ns" + name + value, on_answer)

    def _delete(self, head: Head, client: Client) -> None:
        name = self.chance.choose(KEYS)
        key = self.keys[name]
        number = key.ask(None)

        def on_answer(_answer: Message, _body: bytes) -> None:
            key.settled = max(key.settled, number)

        self._ask(head, client, {"t": "kv_del", "space_size": 2, "prefix": False}, b"ns" + name, on_answer)

    def _read(self, head: Head, client: Client) -> None:
        """Who has seen a value never sees an older one."""
        name = self.chance.choose(KEYS)
        key = self.keys[name]
        oldest = key.settled  # a value that was acknowledged after this was asked may be newer than the answer

        def on_answer(answer: Message, body: bytes) -> None:
            value = body if answer["found"] else None
            newer, key.settled = key.settled, oldest
            self.must(key.see(value), "J1", "%s is read as %s, which is older than what was acknowledged", name, value)
            key.settled = max(key.settled, newer)

        self._ask(head, client, {"t": "kv_get", "space_size": 2}, b"ns" + name, on_answer)

    def _make_group(self, head: Head, client: Client) -> None:
        group, name = self._new("g"), self.chance.choose(NAMES)
        message = {
            "t": "create_group", "group": group, "name": name, "namespace": "ns", "bundles": [{CPU: UNIT}], "strategy":
            "PACK", "detached": self.chance.happens(70), "label_selectors": [], "soft_target": "", "actor": "", "depth": 0,
            "job": "",
        }  # fmt: skip

        def on_answer(answer: Message, _body: bytes) -> None:
            if "error" not in answer:
                self.groups[group] = False

        self._ask(head, client, message, b"", on_answer)

    def _remove_group(self, head: Head, client: Client) -> None:
        if not self.groups:
            return
        group = self.chance.choose(list(self.groups)[-4:])

        def on_answer(_answer: Message, _body: bytes) -> None:
            self.groups[group] = True

        self._ask(head, client, {"t": "remove_group", "group": group}, b"", on_answer)

    def _leave(self, head: Head, client: Client) -> None:
        """Its program ends, in order or not."""
        assert head.service is not None
        self.note("%s goes", client.name)
        if self.chance.happens(50):
            head.service.job_leaves(client.name)
        del self.clients[client.name]
        self.requests = {number: one for number, one in self.requests.items() if one.client is not client}
        head.service.client_gone(client.name)

    # What must hold

    def check(self) -> None:
        for head in self.heads:
            if head.service is None or head.keeping is None or head.is_over:
                continue
            head.keeping.journal.check()
            head.service.table.check()
            reason = head.keeping.journal.reason(self.now_s)
            is_clear = head.keeping.journal.is_clear and not head.keeping.journal.paused
            self.must(bool(reason) is not is_clear, "J6", "%s waits, and says %r", head.name, reason)

    # Coming to rest

    def settle(self) -> None:
        """The storage works, and somebody leads."""
        self.is_resting = True
        for head in self.heads:
            head.is_stopped = False
        calm = 0
        for _ in range(REST_STEPS):
            calm = 0 if self._leading() is None else calm + 1
            if calm > CALM_STEPS:
                break
            for _ in range(20):
                while self.under_way:
                    self._storage_does(0)
                for head in list(self.heads):
                    self._tick(head)
                head_now = self._leading()
                if head_now is not None:
                    while head_now.placements and not head_now.is_over:
                        self._host(head_now)
                    self._end_constructions(head_now)
                    while head_now.reservations and not head_now.is_over:
                        self._reserved(head_now)
                if not self.under_way:
                    break
            self.now_s += 0.5

    def _end_constructions(self, head: Head) -> None:
        for worker in self._with(head, self.workers.values()):
            if worker.stage is ev.Stage.CONSTRUCTING and head.service is not None:
                worker.stage = ev.Stage.READY
                head.service.on["actor_ready"](worker.name, "ns", {"actor": worker.actor, "repr_name": ""}, b"")

    def check_rest(self) -> None:
        head = self._leading()
        self.must(head is not None and head.service is not None, "R2", "nobody leads in the end")
        if head is None or head.service is None or head.keeping is None:
            return
        self.must(head.keeping.journal.is_clear, "R2", "something is withheld in the end")
        self._check_acknowledged(head.service)
        self.must(dict(self.storage.load()) == self.past[-1], "J2", "the storage has something else than the head")
        waiting = [one.what for one in self.requests.values() if one.head is head]
        self.must(not waiting, "J5", "%s are not answered", waiting)
        for actor, record in head.service.table.actors.items():
            workers = self._with(head, self.workers.values())
            hosts = [one.name for one in workers if one.actor == actor and one.stage is ev.Stage.READY]
            self.must(
                record.state is ev.ActorState.ALIVE and hosts == [record.worker],
                "R2", "%s is %s in the end, in %s", actor, record.state.value, hosts,
            )  # fmt: skip
        live = set(head.service.table.actors)
        strays = [one.name for one in self._with(head, self.workers.values()) if one.actor not in live]
        self.must(not strays, "R2", "workers of nobody are left: %s", strays)
        states = [one["state"] for one in head.service.listed_groups("") if one["state"] not in ("CREATED", "REMOVED")]
        self.must(not states, "R2", "groups are %s in the end", states)
