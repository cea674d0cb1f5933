"""Leases, workers and resources: the agent's machine between clients and processes that behave as they like.

Clients are abstract here: they want leases, use them, give them back, ask for the death of a worker, and die. Workers
grow too old or too large while they are used.
Environments are built or cannot be, and their fork servers are lost with their workers. Packages that they need are on other
nodes, which have them or not, give them late, in part or not at all, and die. Workers start or fail to, block,
become clients themselves, refuse to exit, and die. In some runs they are of several jobs, of which some want others' tasks
stopped (`agent_jobs`). What each says reaches the agent in order, but how late is chance.
Everything the agent orders is entered in books of the simulation's own, and compared.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from umbel._agent import environments, packages
from umbel._agent import events as ev
from umbel._agent.demand_table import INFEASIBLE_WARNING_S
from umbel._agent.ledger import CPU, UNIT, Ledger
from umbel._agent.records import Lease, Pending, Place, WorkerState
from umbel._agent.state import AgentState
from umbel._model import package_names, reasons
from umbel.testing.simulation.agent_jobs import AgentJobs, Task
from umbel.testing.simulation.world import World

Resources = Mapping[str, int]

KINDS: Final[tuple[tuple[str, Resources, str], ...]] = (  # scheduling key, resources, environment
    ("plain", {CPU: UNIT}, ""),
    ("half", {CPU: UNIT // 2}, ""),
    ("none", {}, ""),
    ("env", {CPU: UNIT}, "E"),
    ("device", {CPU: UNIT, "GPU": UNIT}, ""),
    ("share", {"GPU": UNIT // 2}, ""),
    ("broken", {CPU: UNIT}, "B"),  # no worker of this environment ever starts
    ("huge", {CPU: 100 * UNIT}, ""),
    ("built", {CPU: UNIT}, "V"),
    ("unbuildable", {CPU: UNIT}, "U"),
    ("refused", {CPU: UNIT}, ""),
    ("carried", {CPU: UNIT}, "C"),
    ("laden", {CPU: UNIT}, "D"),
)
REFUSALS: Final = {"refused": "this node is not the one that it asks for"}
INFEASIBLE: Final = ("huge", *REFUSALS)
BROKEN = "B"
ACTOR_KINDS: Final = (*KINDS[:6], KINDS[7], KINDS[8], *KINDS[10:])
PACKAGES: Final = ("1" * 32, "2" * 32)
URIS: Final = tuple(package_names.SCHEME + name for name in PACKAGES)
BUILD_OF: Final = {"V": "v", "U": "u", "C": URIS[0], "D": " ".join(URIS)}  # environment -> what has to be built for it
NODES: Final = ("n1", "n2", "n3")  # others, that may have packages
UNBUILDABLE = "u"
SETUP_TIMEOUT_S = 20.0
RESOURCES_OF: Final = {key: resources for key, resources, _ in KINDS}
ENV_OF: Final = {key: env for key, _, env in KINDS}
LEASES_WANTED_MAX = 3
QUIET_ROUNDS_MAX = 3_000
REASONS_EVERY = 4  # steps; to put them all into words takes longer than a step
CLOCK_STEP_S = 1e-6  # no clock stands still
TICKS_MAX = 4
LONG_S = 1_000.0  # after which whatever waits for time has happened


class Client:
    """A driver or worker as its agent knows it: a connection, wishes and leases."""

    def __init__(self, world: AgentWorld, name: str) -> None:
        self.name = name
        self.job = world.jobs.choose()
        self.is_gone = False
        self.wanted: dict[str, int] = {}  # key -> leases that it waits for, by its own count
        self.leases: dict[str, str] = {}  # worker -> key
        self.asked_back: set[str] = set()
        self.stream, self.agent_end = world.connect(f"{name}<agent", f"agent<{name}")
        self.stream.on_frame = lambda _stream, command: world.on_command(self, command)
        self.agent_end.on_frame = lambda _stream, event: world.apply(event())
        self.agent_end.on_close = lambda _stream: world.on_connection_lost(self)


class Worker(Client):
    """A worker process that has connected."""

    def __init__(self, world: AgentWorld, name: str) -> None:
        super().__init__(world, name)
        self.is_blocked = False
        self.exits_asked = 0  # requests to exit that it has not answered
        self.must_exit = False


class Book:
    """What the simulation noted of one use of a worker."""

    def __init__(
        self,
        holder: str,
        key: str,
        resources: Resources,
        accelerators: Mapping[str, tuple[str, ...]],
        job: ev.Job,
        task: Task | None,
    ) -> None:
        self.job = job
        self.task = task  # None for an actor
        self.asked_back_s: float | None = None
        self.holder = holder
        self.key = key
        self.resources = resources
        self.accelerators = accelerators
        self.is_asked_back = False


class AgentWorld(World):
    """See the module."""

    steps_min, steps_max = 60, 200

    def set_up(self) -> None:
        chance = self.chance
        self.total = {CPU: UNIT * (1 + chance.below(3)), "GPU": 2 * UNIT}
        self.idle_max = 1 + chance.below(2)
        self.recycle_s: float | None = chance.choose((None, 1.0, 30.0))
        self.made_s: dict[str, float] = {}  # worker -> when it was forked
        self.here = {name for name in PACKAGES if chance.happens(20)}
        self.others = {node: {name for name in PACKAGES if chance.happens(50)} for node in NODES}
        self.coming: dict[int, packages.Fetch] = {}  # by attempt
        self._todo: collections.deque[ev.AgentCommand | environments.Step] = collections.deque()
        self.infeasible_timeout_s = chance.choose((None, 5.0, 100.0))
        self.state = AgentState(
            ledger=Ledger(self.total, {"GPU": ("0", "1")}),
            worker_ids=_ids(),
            starts_max=1 + chance.below(3),
            idle_max=self.idle_max,
            recycle_s=self.recycle_s,
            infeasible_timeout_s=self.infeasible_timeout_s,
            packages=lambda: packages.Packages(self.here.__contains__, lambda: [*self.others], lambda: 1 << 30),
        )
        self.servers: dict[str, str] = {}  # of environments, building or ready -> what is built
        self.ready: set[str] = set()  # those of them that are
        self.server_of: dict[str, str] = {}  # worker -> the server that has forked it
        self.starting: dict[str, str] = {}  # forked, not yet connected -> environment
        self.dying: dict[str, int] = {}  # processes that are gone without the agent's knowing -> signal
        self.workers: dict[str, Worker] = {}
        self.clients: dict[str, Client] = {}
        self.books: dict[str, Book] = {}  # worker -> its use
        self.jobs = AgentJobs(self)
        self.job_of_actor: dict[str, ev.Job] = {}
        self.task_count = 0
        self.actors: dict[str, bool] = {}  # actor -> whether somebody still wants it
        self.hopeless: dict[Place, float] = {}  # demands that can never be served, and since when they wait
        self.unwarned: set[Place] = set()  # those of them of which nobody was warned
        self.failed_starts = 0
        self.has_changed = True  # since it was checked
        self.is_explained = False  # why who waits, since it has changed
        self.kinds = [kind for kind in KINDS if chance.happens(60)] or [KINDS[0]]
        self.weights = [10, *(chance.choose((1, 1, 2, 4, 8)) for _ in range(7)), chance.choose((0, 1, 2))]
        for number in range(max(1 + chance.below(2), len(self.jobs.jobs))):
            self._join(Client(self, f"d{number}"))

    def _join(self, client: Client) -> None:
        self.clients[client.name] = client
        self.apply(ev.ClientJoined(client.name, self.now_s))

    # The agent

    def apply(self, event: ev.AgentEvent | environments.Event) -> None:
        self.note("agent: %s", event)
        self.has_changed = True
        self.is_explained = False
        before = dict(self.books)
        self._note_end(event)
        self._note_hopeless(event)
        commands = self.state.apply(event)
        if isinstance(event, (ev.MemoryShort, ev.WorkerDismissed)):
            is_killed = ev.KillWorker(event.worker) in commands
            may_be = isinstance(event, ev.MemoryShort) and event.worker in before
            self.must(may_be or not is_killed, "A14", "%s is killed, and nobody uses it", event.worker)
        if isinstance(event, ev.WorkerExited):
            self._check_told(event, before.get(event.worker), commands)
        is_outermost = not self._todo
        self._todo.extend(commands)
        while is_outermost and self._todo:  # as `Service.decide` does: what follows from one comes after the rest
            self.note("    -> %s", self._todo[0])
            self._carry_out(self._todo[0])
            self._todo.popleft()
        if isinstance(event, ev.Ticked):
            self._check_hopeless(commands)

    def _note_end(self, event: ev.AgentEvent | environments.Event) -> None:
        """Uses of workers end by giving back, by the worker's end, or for orphans by its word that it runs nothing."""
        if isinstance(event, ev.LeaseReturned):
            book = self.books.get(event.worker)
            if book is not None and book.holder == event.client:
                del self.books[event.worker]
        elif isinstance(event, ev.WorkerExited):
            self.books.pop(event.worker, None)
        elif isinstance(event, ev.WorkerStayed):
            book = self.books.get(event.worker)
            is_used = self.state.workers[event.worker].state is WorkerState.LEASED if book is not None else False
            if book is not None and is_used and not book.holder and not event.is_running:
                del self.books[event.worker]
        elif isinstance(event, ev.ClientLeft):
            for book in self.books.values():
                if book.holder == event.client:
                    book.holder = ""

    def _note_hopeless(self, event: ev.AgentEvent | environments.Event) -> None:
        """Demands that can never be served come and go."""
        if isinstance(event, ev.DemandChanged) and event.key in INFEASIBLE:
            place = (event.client, "", event.key)
            if event.lease_count and event.client in self.state.clients:
                self._add_hopeless(place)
            else:
                self._forget_hopeless(place)
        elif isinstance(event, (ev.ActorUnwanted, ev.ActorReleased)):
            self._forget_hopeless(("", event.actor, ""))
        elif isinstance(event, (ev.ClientLeft, ev.WorkerExited)):
            name = event.client if isinstance(event, ev.ClientLeft) else event.worker
            for place in [place for place in self.hopeless if place[0] == name]:
                self._forget_hopeless(place)

    def _add_hopeless(self, place: Place) -> None:
        if place not in self.hopeless:
            self.hopeless[place] = self.now_s
            self.unwarned.add(place)

    def _forget_hopeless(self, place: Place) -> None:
        self.hopeless.pop(place, None)
        self.unwarned.discard(place)

    def _check_failed(self, place: Place, command: ev.DemandFailed | ev.ActorUnplaceable) -> None:
        """A10: nobody is told that it can never be served but who cannot, and not before the time is up."""
        since_s = self.hopeless.get(place)
        if command.is_unschedulable:
            limit_s = self.infeasible_timeout_s
            is_due = since_s is not None and limit_s is not None and since_s + limit_s <= self.now_s
            self.must(is_due, "A10", "%s is given up: %s", place, command.reason)
        self._forget_hopeless(place)
        if "is not there" in command.reason:
            lost = [name for name in package_names.names_in(command.reason) if self._holders(name)]
            self.must(not lost, "A18", "%s cannot be had, and others have it: %s", lost, self.others)

    def _holders(self, package: str) -> list[str]:
        return [node for node, has in self.others.items() if package in has]

    def _check_hopeless(self, commands: list[Any]) -> None:
        """A10: at a tick, who is due is warned of, and given up when the time is up."""
        limit_s = self.infeasible_timeout_s
        late = [place for place, at_s in self.hopeless.items() if limit_s is not None and at_s + limit_s <= self.now_s]
        self.must(not late, "A10", "%s still wait after %s s", late, limit_s)
        due = {place for place in self.unwarned if self.hopeless[place] + INFEASIBLE_WARNING_S <= self.now_s}
        warnings = [c.text for c in commands if isinstance(c, ev.Warn) and "cannot be scheduled" in c.text]
        self.must(len(warnings) == len(due), "A10", "%s are to be warned of, got %s", due, warnings)
        self.unwarned -= due

    def _check_told(self, event: ev.WorkerExited, book: Book | None, commands: list[Any]) -> None:
        """A9: whoever used the worker is told of its end, and nobody else."""
        told = [c.client for c in commands if isinstance(c, ev.LeaseBroken)]
        told += [c.actor for c in commands if isinstance(c, ev.ActorWorkerDied)]
        expected = [book.holder] if book is not None and book.holder else []
        self.must(told == expected, "A9", "the end of %s was told to %s, its user was %s", event.worker, told, expected)

    def _carry_out(self, command: ev.AgentCommand | environments.Step) -> None:
        if isinstance(command, ev.StartWorker):
            self._check_server(command)
            self.starting[command.worker] = command.env
            self.made_s[command.worker] = self.now_s
        elif isinstance(command, environments.Begin):
            self.must(command.key not in self.servers.values(), "A15", "%s is built a second time", command.key)
            lacking = {*package_names.names_in(command.key)} - self.here
            self.must(not lacking, "A18", "%s is built without %s", command.key, lacking)
            self.servers[command.server] = command.key
        elif isinstance(command, packages.Fetch):
            twice = command.package in self.here or any(command.package == one.package for one in self.coming.values())
            self.must(not twice, "A18", "%s is fetched a second time", command.package)
            self.must(command.node in self.others, "A18", "%s is asked of %s, which is dead", *command[:2])
            self.coming[command.attempt] = command
        elif isinstance(command, packages.Abandon):
            self.coming.pop(command.attempt, None)
        elif isinstance(command, environments.End):
            self.servers.pop(command.server, None)
            self.ready.discard(command.server)
            used = [worker for worker in self.books if self.server_of.get(worker) == command.server]
            self.must(not used, "A15", "the server of %s was ended", used)
        elif isinstance(command, ev.KillWorker):
            self._die(command.worker, 9)
        elif isinstance(command, (ev.Grant, ev.HostActor)):
            holder = command.client if isinstance(command, ev.Grant) else command.actor
            key = command.key if isinstance(command, ev.Grant) else ""
            self._check_grant(command, holder)
            self.books[command.worker] = self._entered(holder, key, command)
            if isinstance(command, ev.Grant):
                self._tell(command.client, command)
        elif isinstance(command, ev.LookAtTask):
            self._tell(command.worker, command)
        elif isinstance(command, ev.Preempt):
            self.jobs.preempt(command)
        elif isinstance(command, ev.AskExit):
            book = self.books.get(command.worker)
            is_unasked = command.is_idle and book is not None and book.holder in self.actors
            self.must(not is_unasked, "A16", "the actor's worker %s is asked to leave", command.worker)
            self._tell(command.worker, command)
        elif isinstance(command, ev.Reclaim):
            book = self.books.get(command.worker)
            if book is None or book.holder != command.client:
                self.must(
                    False, "A16", "%s is asked back from %s, who does not have it", command.worker, command.client
                )
            else:
                book.is_asked_back = True
                book.asked_back_s = self.now_s if book.asked_back_s is None else book.asked_back_s
            self._tell(command.client, command)
        elif isinstance(command, ev.LeaseBroken):
            self.jobs.check_broken(command)
            self._tell(command.client, command)
        elif isinstance(command, ev.DemandFailed):
            self._check_failed((command.client, "", command.key), command)
            self._tell(command.client, command)
        elif isinstance(command, ev.ActorWorkerDied):
            leases = [worker.lease for worker in self.state.workers.values() if worker.lease is not None]
            if ("", command.actor, "") in self.state.demands or any(one.actor == command.actor for one in leases):
                pass  # it was to have another worker before this one had ended
            elif self.actors.get(command.actor) and self.chance.happens(50):  # it restarts
                self._want_actor(command.actor)
            else:
                self.actors.pop(command.actor, None)
        elif isinstance(command, ev.ActorUnplaceable):
            self._check_failed(("", command.actor, ""), command)
            self.actors.pop(command.actor, None)

    def _entered(self, holder: str, key: str, command: ev.Grant | ev.HostActor) -> Book:
        if isinstance(command, ev.HostActor):
            return Book(holder, key, command.resources, command.accelerators, self.job_of_actor[holder], None)
        self.task_count += 1
        keeps = self.chance.choose(("", "", "it is not tried again")) if self.jobs.jobs else ""
        task = Task(self.task_count, self.now_s, keeps)
        return Book(holder, key, command.resources, command.accelerators, self.clients[holder].job, task)

    def _tell(self, name: str, command: ev.AgentCommand) -> None:
        client = self.clients.get(name)
        if client is not None:
            client.agent_end.send(command)

    def _check_server(self, command: ev.StartWorker) -> None:
        """A15, and which server it is."""
        key = BUILD_OF.get(command.env)
        if key is None:
            self.must(not command.server, "A15", "%s is started by a server of an environment", command.worker)
            return
        is_ready = command.server in self.ready and self.servers.get(command.server) == key
        self.must(is_ready, "A15", "%s is started by %s before that is ready", command.worker, command.server)
        self.server_of[command.worker] = command.server

    def _check_grant(self, command: ev.Grant | ev.HostActor, holder: str) -> None:
        """A1 to A4, from the simulation's own books."""
        worker = command.worker
        self.must(worker in self.workers or worker in self.dying, "A1", "%s is used before it has connected", worker)
        self.must(worker not in self.books, "A2", "%s is given to %s while in use", worker, holder)
        known = self.state.workers[worker]
        self.must(not known.is_lost and not known.is_retired, "A1", "%s was given away though it is leaving", worker)
        if isinstance(command, ev.Grant):
            self.must(holder in self.clients, "A2", "%s is given to %s, who is gone", worker, holder)
        for name, total in self.total.items():
            used = self.used(name)
            wanted = command.resources.get(name, 0)
            self.must(
                not wanted or used + wanted <= total, "A3", "%s: %d in use, %d of %d given", name, used, wanted, total
            )
        for name, devices in command.accelerators.items():
            amount = min(UNIT, command.resources[name])
            for device in devices:
                held = sum(
                    min(UNIT, b.resources[name]) for b in self.books.values() if device in b.accelerators.get(name, ())
                )
                self.must(held + amount <= UNIT, "A4", "device %s is given twice", device)

    def lends(self, worker: str, resource: str) -> bool:
        lease = self.state.workers[worker].lease
        return resource == CPU and lease is not None and lease.is_blocked

    def on_connection_lost(self, client: Client) -> None:
        self.clients.pop(client.name, None)
        self.apply(ev.ClientLeft(client.name, self.now_s))

    # Clients and processes

    def on_command(self, client: Client, command: Any) -> None:
        """What a client does with what it is told."""
        if isinstance(command, ev.Grant):
            client.leases[command.worker] = command.key
            client.wanted[command.key] = max(0, client.wanted.get(command.key, 0) - 1)
        elif isinstance(command, ev.Reclaim):
            client.asked_back.add(command.worker)
        elif isinstance(command, ev.LeaseBroken):
            client.leases.pop(command.worker, None)
        elif isinstance(command, ev.DemandFailed):
            client.wanted[command.key] = 0
        elif isinstance(command, ev.LookAtTask):
            seen = self.jobs.look_at(client.name)
            self._say(client, lambda: seen._replace(at_s=self.now_s))
        elif isinstance(command, ev.AskExit) and isinstance(client, Worker):
            if command.is_idle:
                client.exits_asked += 1
            else:
                client.must_exit = True

    def act(self) -> None:
        action = self.chance.weighted(self.weights)
        if action == 0 and self.deliver_one():
            return
        actions = (
            self._start_one, self._want, self._give_back, self._block, self._use_actors, self._answer_exit,
            self._pass_time, self._lose,
        )  # fmt: skip
        actions[max(0, action - 1)]()

    def _any_client(self) -> Client | None:
        clients = [*self.clients.values()]
        return self.chance.choose(clients) if clients else None

    def _start_one(self) -> None:
        """A forked process connects or fails; one that is gone is noticed; a build goes on."""
        if self.coming and self.chance.happens(50):
            self._move_one(self.chance.choose([*self.coming]), is_lucky=not self.chance.happens(25))
        elif self.servers and self.chance.happens(30):
            self._build_one(self.chance.choose([*self.servers]), is_lucky=not self.chance.happens(15))
        elif self.dying and (not self.starting or self.chance.happens(50)):
            self._report(self.chance.choose([*self.dying]))
        elif self.starting:
            worker = self.chance.choose([*self.starting])
            if self.starting[worker] == BROKEN or self.chance.happens(10):
                self._die(worker, 0)
            else:
                self._connect(worker)

    def _build_one(self, server: str, *, is_lucky: bool) -> None:
        """A build goes well, fails or is killed, or a server that was ready is lost, and its workers with it."""
        key = self.servers[server]
        if is_lucky and server in self.ready:
            return
        if is_lucky and key != UNBUILDABLE:
            self.ready.add(server)
            self.apply(environments.Ready(server, self.now_s))
            return
        is_lost = server in self.ready
        was_killed = self.chance.happens(30)
        del self.servers[server]
        self.ready.discard(server)
        self.apply(environments.Gone(server, "it failed", self.now_s, was_killed))
        for worker in [*self.starting, *self.workers]:
            if self.server_of.get(worker) == server:
                self._die(worker, 9)
                self._report(worker)
        waiting = [demand.key for demand in self.state.demands.values() if demand.build_key == key]
        self.must(
            is_lost or was_killed or not waiting, "A15", "%s still wait for %s, whose build has failed", waiting, key
        )

    def _move_one(self, attempt: int, *, is_lucky: bool) -> None:
        """A package comes, in part or whole, or what asked for it breaks."""
        package, node, _ = self.coming[attempt]
        if self.chance.happens(30) and not is_lucky:
            self.apply(packages.Coming(attempt, 1 << 20, self.now_s))
            return
        del self.coming[attempt]
        if is_lucky and package in self.others.get(node, ()):
            self.here.add(package)
            self.apply(packages.Fetched(attempt, self.now_s))
            return
        trouble = packages.Trouble.REFUSED
        if not is_lucky:
            is_busy = package in self.others.get(node, ()) and self.chance.happens(50)
            trouble = packages.Trouble.BUSY if is_busy else packages.Trouble.BROKEN
        self.apply(packages.NotFetched(attempt, trouble, "it does not come", self.now_s))

    def _lose_node(self) -> None:
        """Another node dies, and what was asked of it ends when that is heard."""
        node = self.chance.choose([*self.others])
        del self.others[node]
        self.apply(packages.NodeDied(node, self.now_s))

    def _connect(self, name: str) -> None:
        del self.starting[name]
        worker = self.workers[name] = Worker(self, name)
        self._join(worker)
        self.apply(ev.WorkerReady(name, self.now_s))

    def _die(self, name: str, signal: int) -> None:
        """The process is gone; the agent hears of its connection and of its exit in whichever order."""
        if self.starting.pop(name, None) is not None:
            self.dying[name] = signal
            return
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.is_gone = True
            waiting = len(worker.agent_end.inbox)
            worker.stream.cut(kept=waiting - self.chance.below(waiting + 1))
            self.dying[name] = signal

    def _report(self, name: str) -> None:
        """Its parent has reaped it. What it had said before counts first."""
        client = self.clients.get(name)
        if client is not None:
            client.agent_end.drain()  # which may still give it away: the agent does not know yet
        signal = self.dying.pop(name)
        self.apply(ev.WorkerExited(name, 0 if signal else 1, signal, self.now_s))

    def _want(self) -> None:
        client = self._any_client()
        if client is None or client.is_gone:
            return
        key, _, _ = self.chance.choose(self.kinds)
        self.want_of(client, key, self.chance.below(LEASES_WANTED_MAX + 1))

    def want_of(self, client: Client, key: str, count: int) -> None:
        resources, env = RESOURCES_OF[key], ENV_OF[key]
        client.wanted[key] = count
        depth = 1 if isinstance(client, Worker) else 0
        self._say(
            client,
            lambda: ev.DemandChanged(
                client.name,
                key,
                resources,
                count,
                depth,
                env,
                REFUSALS.get(key, ""),
                self.now_s,
                None,
                *self._build_of(env),
                self._source(),
                client.job,
            ),
        )

    def _source(self) -> str:
        """Of whoever wants something: a node that has what it needs, or should have it, or none."""
        return self.chance.choose(("", *self.others))

    def _build_of(self, env: str) -> tuple[str, float | None]:
        return BUILD_OF.get(env, ""), SETUP_TIMEOUT_S

    def _say(self, client: Client, event: Any) -> None:
        """The client tells the agent something; the event is made when it arrives."""
        if not client.is_gone:
            client.stream.send(event)

    def _give_back(self) -> None:
        client = self._any_client()
        if client is None or client.is_gone or not client.leases:
            return
        worker = self.chance.choose([*client.leases])
        if self.chance.happens(10):
            self._say(client, lambda: ev.KillRequested(client.name, worker, "cancelled", self.now_s))
            return
        self._return(client, worker, is_retired=self.chance.happens(15))

    def _return(self, client: Client, worker: str, *, is_retired: bool) -> None:
        del client.leases[worker]
        client.asked_back.discard(worker)
        self._say(client, lambda: ev.LeaseReturned(client.name, worker, is_retired, self.now_s))

    def _block(self) -> None:
        if self.workers:
            worker = self.chance.choose([*self.workers.values()])
            self._toggle(worker)

    def _toggle(self, worker: Worker) -> None:
        worker.is_blocked = not worker.is_blocked
        kind = ev.WorkerBlocked if worker.is_blocked else ev.WorkerUnblocked
        self._say(worker, lambda: kind(worker.name, self.now_s))

    def _use_actors(self) -> None:
        wanted = [actor for actor, is_wanted in self.actors.items() if is_wanted]
        what = self.chance.below(4)
        if what == 3 and wanted:
            actor = self.chance.choose(wanted)
            self.apply(ev.ActorUnwanted(actor, "it is to be elsewhere", self.now_s))
            self._want_actor(actor)  # which may be here again
        elif what == 0 or not wanted:
            actor = f"a{len(self.actors)}x{self.main_step_count}"
            self.actors[actor] = True
            self._want_actor(actor)
        else:
            actor = self.chance.choose(wanted)
            self.actors[actor] = False
            if what == 1:
                self.apply(ev.ActorUnwanted(actor, "killed", self.now_s))
            else:
                self.apply(ev.ActorReleased(actor, 5.0 if self.chance.happens(50) else None, self.now_s))

    def _want_actor(self, actor: str) -> None:
        key, resources, env = self.chance.choose(ACTOR_KINDS)
        if key in INFEASIBLE:
            self._add_hopeless(("", actor, ""))
        told = actor, resources, resources, 0, env, REFUSALS.get(key, ""), self.now_s, None
        job = self.job_of_actor.setdefault(actor, self.jobs.choose())
        self.apply(ev.ActorWanted(*told, *self._build_of(env), self._source(), job))

    def _answer_exit(self) -> None:
        asked = [worker for worker in self.workers.values() if worker.exits_asked or worker.must_exit]
        if asked:
            self._answer(
                self.chance.choose(asked), is_running=self.chance.happens(20), is_owner=self.chance.happens(40)
            )

    def _answer(self, worker: Worker, *, is_running: bool, is_owner: bool) -> None:
        if worker.must_exit:
            self._die(worker.name, 0)
            return
        worker.exits_asked -= 1
        if is_running or is_owner:
            self._say(worker, lambda: ev.WorkerStayed(worker.name, self.now_s, is_running))
        else:
            self._die(worker.name, 0)

    def _pass_time(self) -> None:
        due = self.state.next_tick_s()
        self.now_s += self.chance.choose((0.01, 0.3, 2.0, 40.0))
        if due is not None and due <= self.now_s:
            self._tick()

    def _tick(self) -> None:
        for _ in range(TICKS_MAX):  # sums of floats: what is due may come out a trifle early
            self.now_s += CLOCK_STEP_S
            self.apply(ev.Ticked(self.now_s))
            due = self.state.next_tick_s()
            if due is None or due > self.now_s:
                break
        self.must(due is None or due > self.now_s, "A12", "a tick at %s leaves one due at %s", self.now_s, due)
        if self.recycle_s is not None and self._staying_count() < self.idle_max:
            for worker, made_s in self.made_s.items():
                if made_s + self.recycle_s <= self.now_s:
                    self._check_asked_back(worker)

    def _staying_count(self) -> int:
        return sum(w.is_retired and w.state is WorkerState.LEAVING for w in self.state.workers.values())

    def _check_asked_back(self, worker: str) -> None:
        """A16, of one that is too old or too large."""
        book = self.books.get(worker)
        if book is not None and book.holder in self.clients and self.state.workers[worker].state is WorkerState.LEASED:
            self.must(book.is_asked_back, "A16", "%s is worn out, and %s is not asked for it", worker, book.holder)

    def _lose(self) -> None:
        """A process or another node dies, has grown, memory is short, or a driver leaves."""
        if self.others and self.chance.happens(5):
            self._lose_node()
            return
        if self.workers and self.chance.happens(30):
            worker = self.chance.choose([*self.workers])
            if self.chance.happens(40):
                self.apply(ev.WorkerOvergrown(worker, self.now_s))
                self._check_asked_back(worker)
                return
            self._shorten(worker)
            return
        if self.workers and self.chance.happens(80):
            self._die(self.chance.choose([*self.workers]), 9)
            return
        drivers = [client for client in self.clients.values() if not isinstance(client, Worker) and not client.is_gone]
        if len(drivers) > 1:
            driver = self.chance.choose(drivers)
            driver.is_gone = True
            driver.stream.cut(kept=len(driver.agent_end.inbox))

    def _shorten(self, worker: str) -> None:
        """Memory is short, and this worker is to go for it."""
        kind = ev.MemoryShort(worker, "memory ran short", self.now_s)
        self.apply(kind if self.chance.happens(60) else ev.WorkerDismissed(worker, self.now_s))

    # What must hold

    def check(self) -> None:
        if self.has_changed:
            self.has_changed = False
            self.state.check()
            self._check_books()
            self._check_excess()
        if not self.main_step_count % REASONS_EVERY and not self.is_explained:
            self.is_explained = True
            for pending in self.state.pending(self.now_s):
                self._check_reason(pending)

    def _check_books(self) -> None:
        for worker in self.state.workers.values():
            book = self.books.get(worker.id)
            self.must(
                (worker.lease is None) == (book is None),
                "A2", "the books say %s of %s, the agent %s", book and book.holder, worker.id, _holder(worker.lease),
            )  # fmt: skip

    def _check_excess(self) -> None:
        """A25, by the simulation's own books of who was asked for what."""
        in_use, kept = 0, []
        for worker, book in self.books.items():
            holder = self.state.workers.get(book.holder)  # None for an actor, and for who is no worker
            is_idle = holder is not None and (holder.lease is None or not holder.lease.is_blocked)
            is_going = book.is_asked_back or self.state.workers[worker].state is WorkerState.DYING
            is_orphan = book.holder not in self.clients and book.holder not in self.actors
            if not self.lends(worker, CPU) and not is_idle and not is_going and not is_orphan:
                in_use += book.resources.get(CPU, 0)
                if book.holder in self.clients and book.resources.get(CPU):
                    kept.append(worker)
        self.must(
            not kept or in_use <= self.total[CPU], "A25", "%d CPUs are in use, and nobody is asked for %s", in_use, kept
        )

    def _check_reason(self, pending: Pending) -> None:
        """A17: what is said of a demand that waits is so, by the simulation's own books."""
        code = pending.why.code
        place = (pending.client, pending.actor, pending.key)
        is_hopeless = place in self.hopeless
        self.must((code == reasons.INFEASIBLE) == is_hopeless, "A17", "%s waits because it %s", place, pending.why)
        if code == reasons.RESOURCES:
            is_short = "GPU" in pending.resources  # of which what is free may be in pieces
            for name, wanted in pending.resources.items():
                is_short |= self.used(name) + wanted > self.total[name]
            self.must(is_short, "A17", "%s waits for what is free: %s", place, pending.why)
        elif code == reasons.ENVIRONMENT:
            ready = {self.servers[server] for server in self.ready}
            self.must(BUILD_OF[pending.env] not in ready, "A17", "%s waits for %s, which is ready", place, pending.env)
        elif code == reasons.STARTING:
            is_under_way = self.starting or self.dying or self.state.worker_table.starts_at_s
            self.must(is_under_way, "A17", "%s waits for a process, and none is started", place)

    def used(self, resource: str) -> int:
        return sum(book.resources.get(resource, 0) for w, book in self.books.items() if not self.lends(w, resource))

    # Coming to rest

    def settle(self) -> None:
        self.jobs.shares_rest()
        self._end_actors()
        for _ in range(QUIET_ROUNDS_MAX):
            if not self._settle_one():
                return
            self.check()
        self.must(False, "R2", "the agent never comes to rest: %s", self.state.pending())

    def _end_actors(self) -> None:
        for actor, is_wanted in list(self.actors.items()):
            if is_wanted:
                self.actors[actor] = False
                self.apply(ev.ActorUnwanted(actor, "over", self.now_s))

    def end_all(self) -> None:
        """Nobody wants or has anything any more."""
        self._end_actors()
        for client in [*self.clients.values()]:
            for key in [key for key, count in client.wanted.items() if count]:
                self.want_of(client, key, 0)
            for worker in [*client.leases]:
                self._return(client, worker, is_retired=False)

    def pass_round(self) -> bool:
        """All that is under way arrives, who is asked for a lease gives it back and wants another, and time passes. Whether
        anything has happened."""
        has_happened = False
        for client in [*self.clients.values()]:
            for worker in [worker for worker in client.leases if worker in client.asked_back and not client.is_gone]:
                key = client.leases[worker]
                self._return(client, worker, is_retired=False)
                self.want_of(client, key, client.wanted.get(key, 0) + 1)
                has_happened = True
        for _ in range(QUIET_ROUNDS_MAX):
            if not (self.deliver_one() or self._end_one()):
                break
        self.check()
        due = self.state.next_tick_s()
        if due is not None and due < self.now_s + LONG_S:
            self.now_s = max(due, self.now_s)
            self._tick()
            has_happened = True
        return has_happened

    def _end_one(self) -> bool:
        """Something that is under way in processes; whether there was anything."""
        if self.dying:
            self._report(next(iter(self.dying)))
            return True
        for attempt in self.coming:
            self._move_one(attempt, is_lucky=True)
            return True
        for server in self.servers:
            if server not in self.ready:
                self._build_one(server, is_lucky=True)
                return True
        for name, env in self.starting.items():
            if env == BROKEN:
                self._die(name, 0)
            else:
                self._connect(name)
            return True
        return False

    def _settle_one(self) -> bool:
        """One thing that would happen in time; whether there was one."""
        if self.deliver_one() or self._end_one():
            return True
        for worker in self.workers.values():
            if worker.is_blocked:
                self._toggle(worker)
                return True
            if worker.exits_asked or worker.must_exit:
                self._answer(worker, is_running=False, is_owner=False)
                return True
        for client in self.clients.values():
            if client.leases and not client.is_gone:
                self._return(client, next(iter(client.leases)), is_retired=False)
                return True
        due = self.state.next_tick_s()
        if due is not None:
            self.must(due < self.now_s + LONG_S, "A12", "a tick is due at %s, it is %s", due, self.now_s)
            self.now_s = max(due, self.now_s)
            self._tick()
            return True
        return False

    def check_rest(self) -> None:
        """A7: every wish that can be met was met. A13: nothing is held, few processes are kept."""
        for client in self.clients.values():
            left = {key: count for key, count in client.wanted.items() if count and key not in INFEASIBLE}
            self.must(not left, "A7", "%s still waits for %s: %s", client.name, left, self.state.pending())
        for demand in self.state.demands.values():
            self.must(demand.key in INFEASIBLE, "A7", "a demand was not served: %s", self.state.pending())
        self.must(self.state.ledger.free == self.total, "A13", "not everything is free: %s", self.state.ledger.free)
        idle = [worker for worker in self.state.workers.values() if worker.state is WorkerState.IDLE]
        self.must(len(idle) <= self.idle_max, "A13", "%d idle workers are kept", len(idle))
        busy = {worker.id: worker.state.value for worker in self.state.workers.values() if worker not in idle}
        self.must(not busy, "A13", "workers neither idle nor gone: %s", busy)
        self.must(not self.books, "A13", "somebody holds workers: %s", [*self.books])
        self.must(not self.coming, "A18", "packages come that nobody needs: %s", self.coming)
        needed = {self.server_of.get(worker.id) for worker in idle}
        self.must(set(self.servers) <= needed, "A13", "servers without workers are kept: %s", self.servers)


def _holder(lease: Lease | None) -> str | None:
    return (lease.client or lease.actor) if lease is not None else None


def _ids() -> Iterator[str]:
    return (f"w{number}" for number in itertools.count(1))
