"""A cluster's control store and its nodes: the production service and members at the head, the production proxy at each node.

Connections break at any moment with what is under way; nodes die and new ones come; drivers on any node, and on the head,
create, watch, kill and let go of actors, some of them in placement groups, make and remove those, and write keys; bundles are
reserved, workers are found, construct, and crash. In some runs the head keeps records, so that what it says and orders is
withheld until chance has them written; there it is also killed between any two steps, with what runs on its node, and another
one begins with what was written, to which the nodes come back in any order. Daemons are abstract: one finds a worker, or room for
bundles, by chance. The world has books of its own of what was asked and answered, and of which workers construct what.
"""

from __future__ import annotations

from typing import Any

from umbel._agent import control_proxy
from umbel._agent.ledger import CPU, UNIT
from umbel._base import nodes as node_ids
from umbel._control import journal, keeping, kept, leadership, members, service
from umbel._scheduling import bundles, policies
from umbel.testing.simulation.world import Stream, World

NODES = 2
NODES_MAX = 4  # in all, in one run
DRIVERS_MAX = 6
GROUPS_MAX = 5
ACTORS_MAX = 12
SPECIAL = "special"  # what only some nodes have
FACTS = {"entrypoint": "program.py"}
REST_STEPS = 5_000
LEASE_S = 1e9
KILLED = "it was killed by umbel.kill()"
UNKNOWN_S = 100.0  # enough for whoever watches what nobody has created
Message = dict[str, Any]


class Daemon:
    """What a service needs of its daemon: notes what it is told to do."""

    def __init__(self, world: MembersWorld, node_id: str, *, is_special: bool) -> None:
        self.world = world
        self.node_id = node_id
        self.control: Any = None
        self.has = {CPU: 4 * UNIT, **({SPECIAL: UNIT} if is_special else {})}
        self.sought: dict[str, None] = {}  # actors that need a worker
        self.jobs: dict[str, Any] = {}
        self.jobs_of: dict[str, str] = {}
        self.asked: dict[tuple[str, int], set[int]] = {}  # bundles to be reserved, by group and attempt
        self.held: dict[tuple[str, int], set[int]] = {}
        self.committed: set[tuple[str, int]] = set()
        self.follows: dict[str, Message | None] = {}  # groups, with what was told last of each
        self.is_dead = False

    @property
    def infeasible_timeout_s(self) -> None:
        return None

    def now_s(self) -> float:
        return self.world.now_s

    time_s = now_s

    def as_seen(self) -> Message:
        return {"node_id": self.node_id, "total": self.has, "available": self.has, "labels": {}}

    def other_nodes(self) -> list[Message]:
        return [
            {"node_id": one.node_id, "alive": not one.is_dead, "reason": "it was killed"}
            for one in self.world.daemons
            if one is not self
        ]

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        self.world.on_told(self, client, message, body)

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        if request is not None:
            self.send(client, {"t": "reply", "rq": request, **message}, body)

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        self.reply(client, request, {"error": kind, "text": text})

    def late_s(self, _actor: str) -> float:
        return 0.0

    def launches_for(self, _lacks: Any) -> str:
        return ""

    def job_of(self, client: str) -> tuple[str, Any]:
        job_id = self.jobs_of.get(client, "")
        return job_id, self.jobs.get(job_id)

    def job_environment(self, job_id: str) -> Any:
        return self.jobs.get(job_id)

    def knows_job(self, environment: Any) -> None:
        self.jobs[environment.id] = environment

    def pid_of(self, _worker: str) -> int:
        return 1

    def placement_policy(self) -> policies.HybridPolicy:
        return policies.HYBRID

    def place_actor(self, spec: Any, _source: str = "") -> None:
        self.sought[spec.actor] = None

    def release_actor(self, actor: str, _grace_s: float | None) -> None:
        self.kill_actor(actor, "asked to go")

    def kill_actor(self, actor: str, reason: str, name: str = "") -> None:
        if not name:
            self.sought.pop(actor, None)
        for worker in self.world.workers:
            is_meant = worker.actor == actor and worker.daemon is self and name in ("", worker.name)
            if is_meant and not worker.is_ending:
                worker.is_ending = True
                if reason == KILLED:
                    self.world.killed(actor)

    def actor_dead(self, actor: str, facts: Message) -> None:
        """The history is its own affair."""

    def jobs_of_processes(self) -> dict[str, str]:
        drivers = {one.name: self.jobs_of[one.name] for one in self.world.drivers if one.daemon is self}
        return {**drivers, **{one.name: "" for one in self.world.workers if one.daemon is self}}

    def warn(self, _text: str) -> None:
        """Nobody is."""

    def driver_of(self, _client: str) -> str:
        return ""

    def reserve_bundles(self, _node: str, group: str, attempt: int, wanted: Any, _depth: int, _job: list[Any]) -> None:
        place = (group, attempt)
        self.world.must(place not in self.asked and place not in self.held, "Q1", "%s is asked for twice", place)
        self.asked[place] = set(wanted)

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.world.must((group, attempt) in self.held, "Q5", "%s is committed, and not held", (group, attempt))
        self.committed.add((group, attempt))

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        for book in (self.asked, self.held):
            book.pop((group, attempt), None)
        self.committed.discard((group, attempt))

    def drop_group(self, node: str, group: str, _reason: str) -> None:
        for place in [one for one in (*self.asked, *self.held) if one[0] == group]:
            self.cancel_bundles(node, *place)

    def held_bundles(self) -> list[tuple[str, int, list[int], bool]]:
        return [(*place, sorted(held), place in self.committed) for place, held in self.held.items()]

    def tell_places(self, _node: str, message: Message) -> None:
        if message["group"] in self.follows:
            self.follows[message["group"]] = message

    def bundles_of(self, group: str) -> set[int]:
        """Those in which something may run."""
        return {one for place in self.committed if place[0] == group for one in self.held[place]}


class Storing:
    """A `keeping.Storing` whose commits are done when chance says so, and whose lease never ends."""

    def __init__(self) -> None:
        self.under_way: list[journal.Commit] = []
        self.heard: list[keeping.Heard] = []

    def commit(self, command: journal.Commit) -> None:
        self.under_way.append(command)

    def ask(self, _command: Any) -> None:
        """It has a lease."""

    @property
    def has_heard(self) -> bool:
        return bool(self.heard)

    def take(self) -> list[keeping.Heard]:
        heard, self.heard = self.heard, []
        return heard

    def close(self, fencing: int) -> None:
        """The head does not end."""


class Worker:
    """A process that hosts an actor. stage: what it has been told, and has said."""

    def __init__(self, name: str, actor: str, daemon: Daemon) -> None:
        self.name = name
        self.actor = actor
        self.daemon = daemon
        self.is_called = False
        self.is_ready = False
        self.is_ending = False


class Driver:
    """asked: requests that were not answered. put: the number that it has written last; has_put: at its key. claims: keys that
    it has written once each. unnamed: actors that it has created without waiting for an answer."""

    def __init__(self, name: str, daemon: Daemon) -> None:
        self.name = name
        self.daemon = daemon
        self.requests = 0
        self.asked: dict[int, str] = {}
        self.put = 0
        self.has_put = 0
        self.claims: list[bytes] = []
        self.unnamed: list[str] = []
        self.seen: dict[str, str] = {}  # the last state of each actor that it watches


class MembersWorld(World):
    """See the module."""

    steps_min, steps_max = 60, 200

    def set_up(self) -> None:
        self.now_s = 1.0
        self.id_count = 0
        self.workers: list[Worker] = []
        self.drivers: list[Driver] = []
        self.actors: dict[str, Driver] = {}  # with their creators
        self.droppable: dict[str, None] = {}  # of those, who end with their last handle, which is there
        self.dropped: set[str] = set()
        self.making: dict[str, int] = {}  # groups, with the number of their bundles, until their creation is answered
        self.groups: dict[str, int] = {}  # and after that, when others may know of them
        self.calls: dict[str, int] = {}  # constructors, by actor
        self.links: dict[str, tuple[Stream, Stream]] = {}  # by node, the head's end first
        self.keeps = self.chance.happens(70)
        self.stored: dict[str, bytes] = {}  # the records
        self.heads = 0  # so many there have been
        self.kills: dict[str, int] = {}  # by actor: asked for, and not carried out yet
        self.made: set[str] = set()  # named actors whose creation was answered
        self.dead: set[str] = set()  # actors whose final kill was answered
        self.job_ids: set[str] = set()  # that were given
        self.daemons: list[Daemon] = []
        self._begin_head([])
        for _ in range(NODES):
            self._join()

    def _begin_head(self, awaited: list[str]) -> None:
        self.heads += 1
        self.head = Daemon(self, self._node_id(), is_special=False)
        self.daemons[:1] = [self.head]
        self.members = members.Members(self.head, node_ids.tag_of_node(self.head.node_id))
        self.storing = Storing()
        keeper = self._keeper() if self.keeps else None
        self.service = self.head.control = service.ActorService(self.members, keeper)
        self.members.serve(self.service)
        for environment in self.service.job_environments():
            self.head.knows_job(environment)
        self.members.await_nodes(awaited)
        self.service.tick()

    def _keeper(self) -> keeping.Keeping:
        leader = leadership.Leadership(ttl_s=LEASE_S, now_s=self.now_s)
        leader.apply(leadership.Tick(self.now_s))
        leader.apply(leadership.Granted(self.heads, self.now_s, self.now_s))
        return keeping.Keeping(
            kept.Kept(self.stored.items(), self.now_s), leader, self.storing, now_s=self.head.now_s,
            lease_now_s=self.head.now_s,
            on_step_down=lambda reason: self.must(condition=False, rule="R1", text=reason), recovery_s=0.0,
        )  # fmt: skip

    def _kill_head(self) -> None:
        """With all that runs on its node. What it was writing is written, or not; another one begins with that."""
        if self.storing.under_way and self.chance.happens(50):
            self._write(self.storing.under_way[0])
        awaited = [one for one in self.daemons[1:] if not one.is_dead and one.control.heard_of()[0]]
        self.note("the head is killed; the next one awaits %s", [_short(one) for one in awaited])
        for daemon in self.daemons[1:]:
            self._break(daemon)
        self.workers = [one for one in self.workers if one.daemon is not self.head]
        for driver in [one for one in self.drivers if one.daemon is self.head]:
            self._forget(driver)
        self.head.is_dead = True
        self._begin_head([one.node_id for one in awaited])
        self._check_answered()

    def _check_answered(self) -> None:
        for actor in self.made:
            self.must(self.service.table.record(actor) is not None, "Q2", "%s was made, and is missing", actor)
        for actor in self.dead:
            self.must(actor not in self.service.table.actors, "Q2", "%s was killed, and lives", actor)
        for group in self.groups:
            self.must(bool(self.service.listed_groups(group)), "Q2", "%s was made, and is missing", group)

    def _write(self, commit: journal.Commit) -> None:
        for key, value in commit.writes.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value

    def _commit(self) -> bool:
        """What was to be written is; whether anything was."""
        if not self.storing.under_way:
            return False
        done = self.storing.under_way.pop(0)
        self._write(done)
        self.note("commit %d is done", done.number)
        self.storing.heard.append(journal.Committed(done.fencing, done.number, self.now_s))
        self.service.tick()
        return True

    def _node_id(self) -> str:
        self.id_count += 1
        return f"{self.id_count:012x}{'0' * 44}"

    def _process(self, daemon: Daemon) -> str:
        self.id_count += 1
        return f"{self.id_count:08x}{daemon.node_id[:12]}{self.id_count:012x}"

    def _join(self) -> None:
        daemon = Daemon(self, self._node_id(), is_special=self.chance.happens(50))
        daemon.control = control_proxy.ControlProxy(daemon)
        self.daemons.append(daemon)
        self.note("node %s comes, %s", _short(daemon), sorted(daemon.has))
        self._link(daemon)

    # Connections

    def _link(self, daemon: Daemon) -> None:
        """A new connection: both sides hear first what the other has heard."""
        self._break(daemon)
        near, far = self.connect(f"head to {_short(daemon)}", f"{_short(daemon)} to head")
        near.on_frame = lambda _stream, frame: self.members.on_frame(daemon.node_id, *frame)
        far.on_frame = lambda _stream, frame: daemon.control.on_frame(*frame)
        near.owner, far.owner = self.head, daemon
        self.links[daemon.node_id] = near, far
        member = self.members.entered(daemon.node_id)
        self.members.node_said(daemon.node_id, {"resources": daemon.has, "labels": {}}, {"available": daemon.has})
        self.service.when_kept(lambda: self._welcome(daemon, member, near, far))

    def _welcome(self, daemon: Daemon, member: members.Member, near: Stream, far: Stream) -> None:
        """When its numbers for jobs are kept."""
        if near.is_closed:
            return
        head, heard_there = daemon.control.heard_of()
        self.note("node %s is connected, which has heard %d of %s", _short(daemon), heard_there, head[8:12])
        heard, job_ids = member.channel.counts, list(member.job_ids)
        heard_there = heard_there if head == self.head.node_id else 0
        self.members.linked(daemon.node_id, heard_there, lambda *said: near.send(said))
        daemon.control.linked(heard, job_ids, lambda *said: far.send(said), head=self.head.node_id)

    def _break(self, daemon: Daemon) -> None:
        """What is under way is lost, in both directions."""
        for stream in self.links.pop(daemon.node_id, ()):
            stream.is_closed = True
            stream.inbox.clear()
        self.forget_closed()
        self.members.unlinked(daemon.node_id)
        daemon.control.unlinked()

    def _die(self, daemon: Daemon) -> None:
        """Killed, and declared dead: the head has heard the first part of what it has said."""
        self.note("node %s dies", _short(daemon))
        self._break(daemon)
        daemon.is_dead = True
        self.workers = [one for one in self.workers if one.daemon is not daemon]
        for driver in [one for one in self.drivers if one.daemon is daemon]:
            self._forget(driver)
        self.members.node_gone(daemon.node_id, "it was killed")
        tag = daemon.node_id[:12]
        if self.service.table.is_recovering():
            return
        for one in self.service.listed():
            is_owned = one["owner"][8:20] == tag and not one["is_detached"]
            is_left = one["state"] != "DEAD" and (is_owned or one["worker"][8:20] == tag)
            self.must(not is_left, "Q4", "%s is %s, of %s", one["actor"], one["state"], _short(daemon))

    def _forget(self, driver: Driver) -> None:
        self.drivers.remove(driver)

    # What happens

    def act(self) -> None:
        what = self.chance.weighted((40, 12, 5, 12, 10, 5, 4, 6, 1, 2, 4, 12, 4, 6, 2, 2, 6))
        driver = self.chance.choose(self.drivers) if self.drivers else None
        living = [one for one in self.daemons[1:] if not one.is_dead]
        daemon = self.chance.choose(living) if living else None
        worker = self.chance.choose(self.workers) if self.workers else None
        if what == 0:
            self.deliver_one()
        elif what == 1 and driver is not None:
            self._create(driver)
        elif what == 2:
            self._begin()
        elif what == 3:
            self._find()
        elif what == 4 and worker is not None:
            self._work(worker)
        elif what == 5 and driver is not None:
            self._ask(driver)
        elif what == 6 and daemon is not None:
            self._break(daemon)
        elif what == 7 and daemon is not None:
            away = [one for one in living if one.node_id not in self.links]
            self._link(self.chance.choose(away) if away else daemon)
        elif what == 8 and daemon is not None:
            self._die(daemon)
        elif what == 9:
            if len(self.daemons) < NODES_MAX + 1:
                self._join()
            elif driver is not None:
                self._leave(driver)
        elif what == 11:
            self._commit()
        elif what == 12 and driver is not None:
            self._group(driver)
        elif what == 13:
            self._reserve()
        elif what == 14 and self.groups:
            self._follow(self.chance.choose([one for one in self.daemons if not one.is_dead]))
        elif what == 15 and self.keeps:
            self._kill_head()
        elif what == 10 and worker is not None:
            self._crash(worker, "it crashed")
        elif what == 16:
            self._drop()

    def _begin(self) -> None:
        """A driver comes to any node."""
        daemon = self.chance.choose([one for one in self.daemons if not one.is_dead])
        if len(self.drivers) >= DRIVERS_MAX or daemon.control.driver_trouble():
            return
        driver = Driver(self._process(daemon), daemon)
        job_id, environment = daemon.control.job_begins(driver.name, 1, FACTS)
        daemon.jobs_of[driver.name] = job_id
        daemon.knows_job(environment)
        self.drivers.append(driver)
        self.note("driver %s comes to %s, job %s", driver.name[:8], _short(daemon), job_id)
        if daemon is self.head:
            self.service.when_kept(lambda: self._has_job_id(job_id))
        else:
            self._has_job_id(job_id)

    def _has_job_id(self, job_id: str) -> None:
        """A driver is told of it."""
        self.must(job_id not in self.job_ids, "Q1", "two jobs have the id %s", job_id)
        self.job_ids.add(job_id)

    def _leave(self, driver: Driver) -> None:
        self.note("driver %s leaves", driver.name[:8])
        self._forget(driver)
        driver.daemon.control.client_gone(driver.name)

    def _say(self, client: str, daemon: Daemon, message: Message, body: bytes = b"") -> None:
        daemon.control.on[message["t"]](client, "ns", message, body)

    def _create(self, driver: Driver) -> None:
        if len(self.actors) >= ACTORS_MAX:
            return
        self.id_count += 1
        actor = f"{driver.name}{self.id_count:016x}"
        name = self.chance.choose(("", "n", "m"))
        group = self.chance.choose(list(self.groups)) if self.groups and self.chance.happens(30) else ""
        wanted = {SPECIAL: UNIT} if self.chance.happens(20) and not group else {}
        bundle = self.chance.below(self.groups[group] + 1) - 1 if group else -1
        strategy = {"placement_group": group, "bundle_index": bundle, "captures": False} if group else None
        request = self._asks(driver, f"create {actor}") if name else None
        is_detached = self.chance.happens(30)
        self.actors[actor] = driver
        if not name:
            driver.unnamed.append(actor)
        if not name and not is_detached:
            self.droppable[actor] = None
        self.note("driver %s creates %s %s", driver.name[:8], actor[-4:], name)
        message = {
            "t": "create_actor", "actor": actor, "name": name, "namespace": "ns", "get_if_exists": self.chance.happens(30),
            "detached": is_detached, "max_restarts": self.chance.choose((0, 1, -1)), "placement": wanted,
            "running": wanted, "env": None, "strategy": strategy, "label_selectors": None, "class_name": "C", "meta_size": 0,
            "depth": 0, "lacks_arguments": False, "call_site": "", "rq": request,
        }  # fmt: skip
        self._say(driver.name, driver.daemon, message)
        watcher = self.chance.choose(self.drivers)
        self._say(watcher.name, watcher.daemon, {"t": "actor_watch", "actor": actor, "rq": None})

    def _group(self, driver: Driver) -> None:
        """Is created, watched or removed."""
        is_full = len(self.groups) + len(self.making) >= GROUPS_MAX
        if is_full and not self.groups:
            return
        if self.groups and (is_full or self.chance.happens(50)):
            group = self.chance.choose(list(self.groups))
            if self.chance.happens(50):
                self._say(driver.name, driver.daemon, {"t": "group_watch", "group": group, "rq": None})
                return
            self.note("driver %s removes %s", driver.name[:8], group)
            request = self._asks(driver, f"to remove {group}")
            self._say(driver.name, driver.daemon, {"t": "remove_group", "group": group, "rq": request})
            return
        self.id_count += 1
        group = f"g{self.id_count}"
        count = self.making[group] = 1 + self.chance.below(3)
        strategy = self.chance.choose(bundles.STRATEGIES)
        self.note("driver %s makes %s: %s of %d", driver.name[:8], group, strategy, count)
        message = {
            "t": "create_group", "group": group, "name": "", "namespace": "ns", "bundles": [{CPU: UNIT}] * count,
            "strategy": strategy, "detached": self.chance.happens(60), "label_selectors": [], "soft_target": "", "actor": "",
            "depth": 0, "job": "", "rq": self._asks(driver, f"make {group}"),
        }  # fmt: skip
        self._say(driver.name, driver.daemon, message)

    def _reserve(self) -> bool:
        """A daemon has room for bundles; whether any was to have some."""
        asked = [(one, place) for one in self.daemons if not one.is_dead for place in one.asked]
        if not asked:
            return False
        daemon, place = self.chance.choose(asked)
        self.note("node %s has reserved %s", _short(daemon), place)
        daemon.held[place] = daemon.asked.pop(place)
        daemon.control.bundles_reserved(*place)
        return True

    def _follow(self, daemon: Daemon) -> None:
        """A group of which its creator may have told others."""
        group = self.chance.choose(list(self.groups))
        daemon.follows.setdefault(group, None)
        daemon.control.follow_group(group)

    def _asks(self, driver: Driver, what: str) -> int:
        driver.requests += 1
        driver.asked[driver.requests] = what
        return driver.requests

    def _ask(self, driver: Driver) -> None:
        if self.actors and self.chance.happens(50):
            actor, is_final = self.chance.choose(list(self.actors)), self.chance.happens(70)
            self.note("driver %s kills %s", driver.name[:8], actor[-4:])
            # By another way it may overtake the creation.
            is_certain = is_final and driver.daemon is self.actors[actor].daemon
            request = self._asks(driver, f"kill {actor}" if is_certain else "kill") if self.chance.happens(50) else None
            self.kills[actor] = self.kills.get(actor, 0) + 1
            self._say(
                driver.name, driver.daemon, {"t": "kill_actor", "actor": actor, "no_restart": is_final, "rq": request}
            )
            return
        driver.put += 1
        key = driver.name.encode()
        is_claim = self.chance.happens(50)  # of a key that nobody has
        if is_claim:
            key += b"%d" % driver.put
        request = self._asks(driver, "claim" if is_claim else "put")
        put = {"t": "kv_put", "space_size": 0, "key_size": len(key), "overwrite": not is_claim, "rq": request}
        self._say(driver.name, driver.daemon, put, key + b"%d" % driver.put)
        if not is_claim:
            driver.has_put = driver.put
        else:
            driver.claims.append(key)

    def _drop(self) -> None:
        """The last handle to an actor goes."""
        found = [one for one in self.droppable if self.actors[one] in self.drivers]
        if not found:
            return
        actor = self.chance.choose(found)
        del self.droppable[actor]
        self.dropped.add(actor)
        driver = self.actors[actor]
        self.note("driver %s lets go of %s", driver.name[:8], actor[-4:])
        self._say(driver.name, driver.daemon, {"t": "actor_unreferenced", "actor": actor, "rq": None})

    def _find(self) -> None:
        """A daemon has a worker for an actor."""
        sought = [(one, actor) for one in self.daemons if not one.is_dead for actor in one.sought]
        able = [(one, actor) for one, actor in sought if self._is_able(one, actor)]
        if not able:
            return
        daemon, actor = self.chance.choose(able)
        del daemon.sought[actor]
        worker = Worker(self._process(daemon), actor, daemon)
        self.workers.append(worker)
        self.note("worker %s of %s is for %s", worker.name[:8], _short(daemon), actor[-4:])
        daemon.control.hosted(actor, worker.name, "", {})

    def _is_able(self, daemon: Daemon, actor: str) -> bool:
        known = self.service.table.record(actor)
        return known is None or all(name in daemon.has for name in known.spec.running)

    def _work(self, worker: Worker) -> None:
        if worker.is_ending:
            self._crash(worker, "it was asked to end")
        elif worker.is_called and not worker.is_ready:
            worker.is_ready = True
            ready = {"t": "actor_ready", "actor": worker.actor, "repr_name": "", "rq": None}
            self._say(worker.name, worker.daemon, ready)

    def _crash(self, worker: Worker, reason: str) -> None:
        self.note("worker %s of %s ends: %s", worker.name[:8], worker.actor[-4:], reason)
        self.workers.remove(worker)
        worker.daemon.control.client_gone(worker.name)
        worker.daemon.control.host_died(worker.actor, worker.name, reason)

    def on_told(self, daemon: Daemon, client: str, message: Message, body: bytes) -> None:
        self.must(not daemon.is_dead, "Q4", "a dead node is told %s", message)
        for worker in self.workers:
            if worker.name == client and message["t"] == "create":
                self._called(worker)
        driver = next((one for one in self.drivers if one.name == client), None)
        if driver is None:
            return
        self.must(driver.daemon is daemon, "Q1", "%s was told by another's daemon", client)
        if message["t"] == "reply":
            self.must(message["rq"] in driver.asked, "Q1", "%s is answered twice: %s", client, message)
            self._on_answer(driver.asked.pop(message["rq"]), message)
        elif message["t"] == "actor_state":
            seen = driver.seen.get(message["actor"])
            self.must(seen != "DEAD" or message["state"] == "DEAD", "Q1", "%s lives again", message["actor"])
            driver.seen[message["actor"]] = message["state"]

    def _on_answer(self, asked: str, answer: Message) -> None:
        what, _, actor = asked.partition(" ")
        if what == "claim":
            self.must(not answer["existed"], "Q1", "a key was claimed twice")
        elif what == "create" and answer.get("actor") == actor and not answer["existing"]:
            self.made.add(actor)
        elif what == "make":
            self.groups[actor] = self.making.pop(actor)
        elif what == "kill" and actor:
            self.dead.add(actor)
            self.must(actor not in self.service.table.actors, "Q2", "%s was killed, and lives", actor)

    def killed(self, actor: str) -> None:
        """Because a driver has asked for it."""
        left = self.kills[actor] = self.kills.get(actor, 0) - 1
        self.must(left >= 0, "Q1", "%s is killed more often than it was asked for", actor)

    def _called(self, worker: Worker) -> None:
        self.must(not worker.is_called, "Q1", "%s is constructed twice in %s", worker.actor, worker.name)
        worker.is_called = True
        others = [one.name for one in self.workers if one.actor == worker.actor and one.is_called and one is not worker]
        self.must(not others, "Q3", "%s is in %s, and constructed in %s", worker.actor, others, worker.name)
        self.calls[worker.actor] = self.calls.get(worker.actor, 0) + 1

    def check(self) -> None:
        self.service.table.check()
        if self.members.has_views:
            self.members.views.check()
        for daemon in self.daemons[1:]:
            if not daemon.is_dead:
                daemon.control.channel.check()
        for member in self.members._members.values():
            member.channel.check()

    # Rest

    def settle(self) -> None:
        for daemon in self.daemons[1:]:
            if not daemon.is_dead:
                self._link(daemon)
        for _ in range(REST_STEPS):
            if not self._step():
                self.now_s += UNKNOWN_S
                self.service.tick()
                if not self._step():
                    return
        self.must(condition=False, rule="R2", text="it never rests")

    def _step(self) -> bool:
        if self.deliver_one() or self._commit() or self._reserve():
            return True
        count = self.id_count
        self._find()
        if self.id_count != count:
            return True
        for worker in self.workers:
            if worker.is_ending or (worker.is_called and not worker.is_ready):
                self._work(worker)
                return True
        return False

    def check_rest(self) -> None:
        for driver in self.drivers:
            self.must(not driver.asked, "Q2", "%s has no answer to %s", driver.name, driver.asked)
            found = self.service.kv.get(b"", driver.name.encode())
            self.must(
                int(found or b"0") == driver.has_put,
                "Q1", "%s has written %d, there is %s", driver.name, driver.has_put, found,
            )  # fmt: skip
            for key in driver.claims:
                self.must(self.service.kv.get(b"", key) is not None, "Q2", "%s was claimed, and is missing", key)
        self._check_answered()
        self.must(not self.service.table.is_recovering(), "Q2", "the head still waits for nodes")
        listed = {one["actor"]: one for one in self.service.listed()}
        for driver in self.drivers:
            for actor in driver.unnamed:
                self.must(actor in listed, "Q2", "%s was created by %s, and is missing", actor, driver.name)
        for actor in sorted(self.dropped & listed.keys()):
            self.must(listed[actor]["state"] == "DEAD", "Q2", "%s lives, and nobody has a handle to it", actor)
        hosts = {one.actor: one for one in self.workers}
        self.must(len(hosts) == len(self.workers), "Q3", "two workers host one actor")
        for actor, one in listed.items():
            is_owned = one["state"] == "DEAD" or one["is_detached"] or any(
                driver.name == one["owner"] for driver in self.drivers
            )  # fmt: skip
            self.must(is_owned, "Q4", "%s lives, and its owner is gone", actor)
            if one["state"] == "DEAD":
                self.must(actor not in hosts, "Q2", "%s is dead, and has a worker", actor)
            elif one["state"] == "ALIVE":
                self.must(actor in hosts, "Q2", "%s lives, and has no worker", actor)
            else:
                self._check_waiting(actor)
            self.must(self.calls.get(actor, 0) <= one["restarts"] + 1, "Q1", "%s was constructed too often", actor)
            for driver in self.drivers:
                seen = driver.seen.get(actor, one["state"])
                self.must(seen == one["state"], "Q2", "%s is %s, and %s saw %s", actor, one["state"], driver.name, seen)
        for daemon in self.daemons[1:]:
            if not daemon.is_dead:
                here = {one["actor"] for one in daemon.control.listed()}
                known = {actor for actor, worker in hosts.items() if worker.daemon is daemon} | set(daemon.sought)
                self.must(here == known, "Q2", "%s believes that it hosts %s, it has %s", _short(daemon), here, known)
        self._check_groups()

    def _check_groups(self) -> None:
        """Q5: nodes have the bundles that the head believes they have, and know where those of others are."""
        listed = {one["group"]: one for one in self.service.listed_groups("")}
        living = {group: one for group, one in listed.items() if one["state"] != "REMOVED"}
        for daemon in self.daemons:
            if daemon.is_dead:
                continue
            for group in self.groups:
                nodes = living[group]["nodes"] if group in living else ()
                own = {index for index, node in enumerate(nodes) if node == daemon.node_id}
                found = daemon.bundles_of(group)
                self.must(own == found, "Q5", "%s holds %s of %s, of %s", _short(daemon), found, group, own)
            self.must(set(daemon.held) == daemon.committed, "Q5", "%s holds %s in vain", _short(daemon), daemon.held)
            for group, told in daemon.follows.items():
                known = told is not None and (None if told["is_gone"] else tuple(told["nodes"]))
                places = living[group]["nodes"] if group in living else None
                self.must(known == places, "Q5", "%s believes that %s is on %s", _short(daemon), group, known)

    def _check_waiting(self, actor: str) -> None:
        """Somebody looks for a worker, and nobody has what it needs; or its placement group has no place."""
        spec = self.service.table.actors[actor].spec
        if spec.group:
            _, homes = self.service.group_places(spec.group)
            bundle = spec.strategy["bundle_index"]
            is_placed = bundle in homes if bundle >= 0 else bool(homes)
            self.must(not is_placed, "Q2", "%s waits, and its bundle of %s is on %s", actor, spec.group, homes)
            return
        seeking = [one for one in self.daemons if actor in one.sought and not one.is_dead]
        able = [one for one in self.daemons if not one.is_dead and self._is_able(one, actor)]
        self.must(len(seeking) == 1, "Q3", "%s is looked for by %s", actor, [_short(one) for one in seeking])
        self.must(not able, "Q2", "%s waits, and %s could host it", actor, [_short(one) for one in able])


def _short(daemon: Daemon) -> str:
    return daemon.node_id[8:12]
