"""Actors' lives: names, states, restarts and ends, between clients and hosts that behave as they like.

The daemon is the production one: the actor table, the agent that finds workers, and the service that ties them. Its
clients are abstract: they create actors, some by names that others want too and some before the constructor's
arguments are there, look them up, watch, kill and forget them, and die. Hosts are workers that construct an actor or
fail to, leave when they are told to or by themselves, and die. The simulation keeps its own record of what was asked
and told.
"""

from __future__ import annotations

from typing import Any, Final

from umbel._agent.ledger import CPU, UNIT
from umbel._wire import frames
from umbel.testing.simulation.daemon import Daemon
from umbel.testing.simulation.processes import in_words_of_notice
from umbel.testing.simulation.world import Stream, World, facts

NAMES: Final = ("", "", "n", "m")
NEXT_STATES: Final = {  # what a watcher may be told after what
    "": ("PENDING", "ALIVE", "RESTARTING", "DEAD"),
    "PENDING": ("PENDING", "ALIVE", "RESTARTING", "DEAD"),
    "ALIVE": ("ALIVE", "RESTARTING", "DEAD"),
    "RESTARTING": ("ALIVE", "RESTARTING", "DEAD"),
    "DEAD": ("DEAD",),
}
QUIET_ROUNDS_MAX = 3_000
ARGUMENT_ERROR: Final = b"why an argument failed"
CONSTRUCTOR_ERROR: Final = b"why a constructor failed"
LONG_S = 1_000.0
PROMPT_S = 1.0  # no message takes longer: the actor table gives a creation two seconds to arrive after a handle

Message = dict[str, Any]


class Client:
    """A process: a driver, or a worker that may host an actor. All are clients of the daemon."""

    def __init__(self, world: ActorsWorld, name: str) -> None:
        self.name = name
        self.label = f"p{int(name, 16)}"
        self.is_dead = False
        self.requests: dict[int, str] = {}  # number -> the actor it is about
        self.states: dict[str, str] = {}  # watched actor -> what it was told last
        self.restarts: dict[str, int] = {}
        self.hosts = ""  # the actor in this process
        self.is_constructing = False
        self.must_exit = False
        self.exits_asked = 0
        self.stream, _ = world.connect(f"{self.label}<daemon", f"daemon<{self.label}")
        self.stream.on_frame = lambda _stream, frame: world.on_message(self, *frames.decode_control(frame[4:]))


class Created:
    """What the simulation noted of an actor."""

    def __init__(self, owner: Client, message: Message) -> None:
        self.owner = owner
        self.name: str = message["name"]
        self.is_detached: bool = message["detached"]
        self.max_restarts: int = message["max_restarts"]
        self.lacks_arguments: bool = message["lacks_arguments"]  # its owner has said nothing of them yet
        self.construction_count = 0
        self.is_known = False  # to the daemon, as all of the following
        self.has_arguments = False
        self.has_failed_argument = False
        self.is_killed = False
        self.is_unreferenced = False
        self.is_failing = False  # its constructor raised, or it exited by itself
        self.is_refused = False
        self.is_dropped = False  # its owner has said that it is unreferenced, or will have


class ActorsWorld(World):
    """See the module."""

    steps_min, steps_max = 25, 90

    def set_up(self) -> None:
        chance = self.chance
        self.daemon = Daemon(
            self,
            {CPU: UNIT * (1 + chance.below(3))},
            on_start=lambda worker, env: self.starting.append(worker),
            on_kill=self._die,
            starts_max=1 + chance.below(3),
        )
        self.starting: list[str] = []
        self.has_failed_starts = False
        self.drained_at_s = 0.0  # what is under way was sent since then
        self.exited: list[str] = []  # processes whose end the daemon has not heard of
        self.clients: dict[str, Client] = {}  # living
        self.actors: dict[str, Created] = {}
        self.request_count = 0
        self.failures_percent = chance.choose((0, 5, 30))
        self.weights = [10, *(chance.choose((1, 1, 2, 4)) for _ in range(9)), chance.choose((0, 1, 2))]
        for number in range(1, 3 + chance.below(2)):
            self._join(number.to_bytes(16, "big").hex(), is_driver=True)

    def _join(self, name: str, *, is_driver: bool) -> None:
        client = self.clients[name] = Client(self, name)
        self.note("%s connects", client.label)
        self.daemon.join(client.stream, name, is_driver=is_driver)
        hear = client.stream.other.on_frame

        def heard(stream: Stream, frame: Any) -> None:
            message = frames.decode_control(frame[4:])[0]
            self._on_heard(message)
            hear(stream, frame)
            if message["t"] == "create_actor":
                actor = message["actor"]
                self.actors[actor].is_refused = actor not in self.daemon.actor_service.table.actors

        client.stream.other.on_frame = heard

    def _on_heard(self, message: Message) -> None:
        """The daemon is about to hear this. What is said of an actor that it does not know yet has no effect."""
        created = self.actors.get(message.get("actor", ""))
        if created is None:
            return
        if message["t"] == "create_actor":
            created.is_known = True
            created.has_arguments = not message.get("lacks_arguments", False)
        elif created.is_known:
            created.is_killed |= message["t"] == "kill_actor" and message["no_restart"]
            created.is_unreferenced |= message["t"] == "actor_unreferenced"
            created.is_failing |= message["t"] in ("actor_failed", "actor_exiting")
            created.has_arguments |= message["t"] == "actor_arguments"
            created.has_failed_argument |= message["t"] == "actor_arguments_failed"

    # Processes

    def _say(self, client: Client, message: Message, body: bytes = b"") -> None:
        if self.trace is not None:
            self.note("%s says %s", client.label, in_words_of_notice(message))
        client.stream.send(frames.encode_control(message, body))

    def on_message(self, client: Client, message: Message, body: bytes) -> None:
        """A process hears from the daemon."""
        kind = message["t"]
        if kind == "welcome":
            return
        self.note(
            "%s is told %s", client.label, in_words_of_notice({k: v for k, v in message.items() if k != "reason"})
        )
        if kind == "reply":
            self._on_reply(client, message)
        elif kind == "actor_state":
            self._on_state(client, message, body)
        elif kind == "create":
            self._on_create(client, message, body)
        elif kind == "exit":
            if message["idle"]:
                client.exits_asked += 1
            else:
                client.must_exit = True

    def _on_reply(self, client: Client, message: Message) -> None:
        """T9: each request is answered once."""
        actor = client.requests.pop(message["rq"], None)
        self.must(actor is not None, "T9", "%s was answered twice: %s", client.label, message)
        if actor in self.actors:
            created = self.actors[actor]
            is_refused = "error" in message or message.get("existing", False)
            self.must(is_refused == created.is_refused, "T2", "%s was told %s of %s", client.label, message, actor)
            if not is_refused:
                self.must(message["actor"] == actor, "T2", "%s made %s and was told %s", client.label, actor, message)
                self._say(client, {"t": "actor_watch", "actor": actor})

    def _on_state(self, client: Client, message: Message, body: bytes) -> None:
        """T6: what a watcher hears of an actor is its life, and why it failed."""
        actor, state, restarts = message["actor"], message["state"], message["restarts"]
        before = client.states.get(actor, "")
        self.must(
            state in NEXT_STATES[before], "T6", "%s was told that %s is %s after %s", client.label, actor, state, before
        )
        client.states[actor] = state
        if message["init_failed"]:
            cause = ARGUMENT_ERROR if self.actors[actor].has_failed_argument else CONSTRUCTOR_ERROR
            self.must(body == cause, "T6", "%s was told that %s failed because of %s", client.label, actor, body)
        limit = self.actors[actor].max_restarts if actor in self.actors else 0
        self.must(limit < 0 or restarts <= limit, "T5", "%s restarted %d times, allowed are %d", actor, restarts, limit)
        self.must(
            restarts >= client.restarts.get(actor, 0) or state == "DEAD",
            "T6", "%s was told of %d restarts of %s after more", client.label, restarts, actor,
        )  # fmt: skip
        client.restarts[actor] = restarts

    def _on_create(self, client: Client, message: Message, body: bytes) -> None:
        """T3: one host at a time, none before the arguments are there, and no more constructions than restarts."""
        actor = message["actor"]
        created = self.actors[actor]
        created.construction_count += 1
        is_whole = created.has_arguments and body == _call(actor)
        self.must(is_whole, "T3", "%s constructs %s without its arguments: %s", client.label, actor, body)
        others = [other.label for other in self.clients.values() if other.hosts == actor and other is not client]
        self.must(
            not client.hosts and not others, "T3", "%s hosts %s beside %s", client.label, actor, others or client.hosts
        )
        self.must(
            created.max_restarts < 0 or created.construction_count <= 1 + created.max_restarts,
            "T5", "%s is constructed for the %d. time", actor, created.construction_count,
        )  # fmt: skip
        client.hosts = actor
        client.is_constructing = True

    def _die(self, name: str) -> None:
        """The process is gone."""
        if name in self.starting:
            self.has_failed_starts = True
            self.starting.remove(name)
            self.exited.append(name)
            return
        client = self.clients.pop(name, None)
        if client is None:
            return
        self.note("%s DIES", client.label)
        client.is_dead = True
        client.hosts = ""
        waiting = len(client.stream.other.inbox)
        client.stream.cut(kept=waiting - self.chance.below(waiting + 1))
        if int(name, 16) >= 1_000:
            self.exited.append(name)

    # Steps

    def act(self) -> None:
        action = self.chance.weighted(self.weights)
        if action == 0 and self.deliver_one():
            return
        (
            self._start_one, self._create, self._send_arguments, self._watch, self._find, self._end_one,
            self._construct, self._leave, self._pass_time, self._lose,
        )[max(0, action - 1)]()  # fmt: skip

    def _start_one(self) -> None:
        """A forked process connects or fails; the end of one is noticed."""
        if self.exited and (not self.starting or self.chance.happens(50)):
            self._report(self.chance.choose(self.exited))
        elif self.starting:
            name = self.chance.choose(self.starting)
            if self.chance.happens(self.failures_percent):
                self._die(name)
            else:
                self._connect(name)

    def _connect(self, name: str) -> None:
        self.starting.remove(name)
        self._join(name, is_driver=False)

    def _report(self, name: str) -> None:
        self.exited.remove(name)
        self.note("the daemon hears of the end of p%d", int(name, 16))
        self.daemon.reports.on_worker_exited(name, 0, 9)

    def _anyone(self) -> Client | None:
        return self.chance.choose([*self.clients.values()]) if self.clients else None

    def _create(self) -> None:
        client = self._anyone()
        if client is None:
            return
        name = self.chance.choose(NAMES)
        actor = (int(client.name, 16).to_bytes(16, "big") + len(self.actors).to_bytes(8, "big")).hex()
        message: Message = {
            "t": "create_actor", "actor": actor, "name": name, "namespace": "ns", "get_if_exists":
            self.chance.happens(50),
            "detached": self.chance.happens(30), "max_restarts": self.chance.choose((0, 0, 1, 2, -1)),
            "placement": {CPU: UNIT}, "running": self.chance.choose(({}, {CPU: UNIT // 2})), "class_name": "C",
            "meta_size": 0, "lacks_arguments": self.chance.happens(40),
        }  # fmt: skip
        self.actors[actor] = Created(client, message)
        if name:
            message["rq"] = self._request(client, actor)
        self._say(client, message, b"" if message["lacks_arguments"] else _call(actor))
        if not name:
            self._say(client, {"t": "actor_watch", "actor": actor})

    def _lacking(self) -> list[str]:
        """The actors whose owners have something to say of the arguments: they live and want the actor, and know that
        it got its name."""
        return [
            actor
            for actor, created in self.actors.items()
            if created.lacks_arguments
            and not (created.owner.is_dead or created.is_refused or (created.is_dropped and not created.is_detached))
            and actor not in created.owner.requests.values()
            and created.owner.states.get(actor) != "DEAD"
        ]

    def _send_arguments(self) -> None:
        lacking = self._lacking()
        if lacking:
            self._end_lack(self.chance.choose(lacking), has_failed=self.chance.happens(self.failures_percent))

    def _end_lack(self, actor: str, *, has_failed: bool) -> None:
        """The last argument is there, or one could not be computed."""
        created = self.actors[actor]
        created.lacks_arguments = False
        if has_failed:
            self._say(created.owner, {"t": "actor_arguments_failed", "actor": actor}, ARGUMENT_ERROR)
        else:
            self._say(created.owner, {"t": "actor_arguments", "actor": actor}, _call(actor))

    def _request(self, client: Client, actor: str) -> int:
        self.request_count += 1
        client.requests[self.request_count] = actor
        return self.request_count

    def _some_actor(self) -> str | None:
        return self.chance.choose([*self.actors][-6:]) if self.actors else None

    def _watch(self) -> None:
        client, actor = self._anyone(), self._some_actor()
        if client is not None and actor is not None:
            self._say(client, {"t": "actor_watch", "actor": actor})

    def _find(self) -> None:
        client = self._anyone()
        if client is not None:
            self._say(client, {"t": "get_actor", "name": "n", "namespace": "ns", "rq": self._request(client, "")})

    def _end_one(self) -> None:
        """Somebody kills an actor, or its owner has no handle to it any more."""
        client, actor = self._anyone(), self._some_actor()
        if client is None or actor is None:
            return
        created = self.actors[actor]
        if self.chance.happens(50):
            self._say(client, {"t": "kill_actor", "actor": actor, "no_restart": self.chance.happens(50)})
        elif not created.owner.is_dead and not created.is_dropped:
            created.is_dropped = True
            self._say(created.owner, {"t": "actor_unreferenced", "actor": actor})

    def _hosts(self, *, is_constructing: bool) -> list[Client]:
        return [
            client for client in self.clients.values() if client.hosts and client.is_constructing == is_constructing
        ]

    def _construct(self) -> None:
        """A constructor returns or raises."""
        hosts = self._hosts(is_constructing=True)
        if hosts:
            self._end_construction(self.chance.choose(hosts), has_failed=self.chance.happens(self.failures_percent))

    def _end_construction(self, host: Client, *, has_failed: bool) -> None:
        host.is_constructing = False
        if has_failed:
            self._say(host, {"t": "actor_failed", "actor": host.hosts}, CONSTRUCTOR_ERROR)
        else:
            self._say(host, {"t": "actor_ready", "actor": host.hosts})

    def _leave(self) -> None:
        """An actor exits, because it was asked to or by itself; an idle worker answers when asked to go."""
        asked = [
            client for client in self.clients.values() if client.exits_asked or (client.must_exit and client.hosts)
        ]
        if asked:
            self._answer_exit(self.chance.choose(asked), stays=self.chance.happens(40))
            return
        hosts = self._hosts(is_constructing=False)
        if hosts and self.chance.happens(30):
            host = self.chance.choose(hosts)
            self._say(host, {"t": "actor_exiting", "actor": host.hosts, "reason": "exit_actor() was called"})

    def _answer_exit(self, client: Client, *, stays: bool) -> None:
        if client.must_exit or not stays:
            self._leave_by_itself(client)
        else:
            client.exits_asked -= 1
            self._say(client, {"t": "busy_owner"})

    def _leave_by_itself(self, client: Client) -> None:
        """In good order: what it said arrives."""
        self.note("%s exits", client.label)
        del self.clients[client.name]
        client.is_dead = True
        client.hosts = ""
        client.stream.cut(kept=len(client.stream.other.inbox))
        self.exited.append(client.name)

    def _pass_time(self) -> None:
        duration_s = self.chance.choose((0.01, 0.5, 3.0, 40.0))
        if self.now_s + duration_s > self.drained_at_s + PROMPT_S:
            for stream in list(self.streams):
                stream.drain()
            self.drained_at_s = self.now_s + duration_s
        self.note("%s s pass", duration_s)
        self.daemon.pass_time(duration_s)

    def _lose(self) -> None:
        names = [name for name in self.clients if int(name, 16) >= 1_000 or self.chance.happens(20)]
        if names:
            self._die(self.chance.choose(names))

    # What must hold

    def check(self) -> None:
        self.daemon.check()
        table = self.daemon.actor_service.table
        early = [actor for actor in self._wanted() if actor in table.actors and not self.actors[actor].has_arguments]
        self.must(not early, "T3", "workers are looked for before the arguments are there: %s", early)

    def _wanted(self) -> list[str]:
        """The actors that the daemon looks for workers for."""
        return [demand.actor for demand in self.daemon.agent.demands.values() if demand.actor]

    # Coming to rest

    def settle(self) -> None:
        self.rest_at_s = self.now_s
        for _ in range(QUIET_ROUNDS_MAX):
            if not self._settle_one():
                return
            self.check()
        self.must(False, "R2", "actors never come to rest: %s", self.daemon.agent.pending())

    def _settle_one(self) -> bool:
        if self.deliver_one():
            return True
        if self.exited:
            self._report(self.exited[0])
            return True
        if self.starting:
            self._connect(self.starting[0])
            return True
        for actor in self._lacking():
            self._end_lack(actor, has_failed=False)
            return True
        for client in self.clients.values():
            if client.hosts and client.is_constructing:
                self._end_construction(client, has_failed=False)
                return True
            if client.must_exit or client.exits_asked:
                self._leave_by_itself(client)
                return True
        due = self.daemon.due_s()
        if due is not None and due < self.rest_at_s + LONG_S:  # what waits for resources looks less and less often
            self.daemon.pass_time(max(0.0, due - self.now_s) + 1e-6)
            return True
        return False

    def check_rest(self) -> None:
        table = self.daemon.actor_service.table
        for actor, created in self.actors.items():
            state = table.actors[actor].state.value if actor in table.actors else "DEAD"
            hosts = [client.label for client in self.clients.values() if client.hosts == actor]
            self.must(len(hosts) == (state == "ALIVE"), "T3", "%s is %s and lives in %s", actor, state, hosts)
            self._check_end(actor, created, state)
            is_wanted = actor in self._wanted()
            self.must(is_wanted == (state in ("PENDING", "RESTARTING")), "T7", "%s is %s for good", actor, state)
            for client in self.clients.values():
                told = client.states.get(actor)
                self.must(
                    told in (None, state) and (told is not None or created.owner is not client or created.name),
                    "T6", "%s is %s, %s was told %s", actor, state, client.label, told,
                )  # fmt: skip
        for client in self.clients.values():
            self.must(not client.requests, "T9", "%s waits for answers: %s", client.label, client.requests)
        kept = {
            *self.daemon.actor_service._calls,
            *self.daemon.actor_service._classes,
            *self.daemon.actor_service._accelerators,
        }
        self.must(kept <= set(table.actors), "T8", "something is kept of the dead: %s", kept - set(table.actors))

    def _check_end(self, actor: str, created: Created, state: str) -> None:
        """T7: an actor that shall end is dead; one that shall not is alive, or waits for what others hold."""
        owner_is_gone = created.owner.is_dead and not (created.is_detached and created.has_arguments)
        is_unreferenced = created.is_unreferenced and not created.is_detached
        if created.is_killed or owner_is_gone or is_unreferenced or created.has_failed_argument:
            is_right = state == "DEAD" or created.is_refused
        elif created.is_failing or created.is_refused or created.max_restarts >= 0 or self.has_failed_starts:
            is_right = state in ("DEAD", "ALIVE", "PENDING", "RESTARTING")
        else:
            is_right = state != "DEAD" or not created.is_known
        self.must(is_right, "T7", "%s is %s: %s", actor, state, facts(created))


def _call(actor: str) -> bytes:
    """The constructor call of an actor."""
    return b"constructor call of " + actor.encode()
