"""Which actors there are, who may find them by name, and what becomes of them when a process dies.

An actor is PENDING until its constructor has returned, then ALIVE; when its worker dies it is RESTARTING while it has
restarts left, else DEAD, which is final. It is known here from the moment it is asked for, but no worker is looked for
before its creator has sent all arguments of the constructor. A name belongs to at most one actor that is not DEAD.
Creation by name is atomic here, so that of many callers with `get_if_exists` exactly one creates. This module only
decides; `service` sends, and finding workers is the node's business.

A table made from records (`restored`) is being recovered until `Recovered`: nodes that had workers before report what
they have (`HostsReported`). Then an actor whose worker nobody has reported has lost it, one without a worker is placed
again, and one that needs an owner which nobody has reported ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from umbel._base import checks
from umbel._control import cluster_events
from umbel._control import events as ev
from umbel._control.events import ActorSpec, ActorState, Cause

EXIT_GRACE_S = 30.0  # for exit handlers of an actor that has ended by itself; Ray allows as much
UNKNOWN_GRACE_S = 2.0  # a handle may overtake its creator's message, which comes on another connection
DEAD_KEPT_MAX = 1_000  # dead actors whose cause of death can still be asked for
_LACKING = "arguments of its constructor are still being computed"


class Actor:
    """One actor's record."""

    __slots__ = (
        "address", "cause", "exit_reason", "kill_reason", "lacks_arguments", "preemptions", "reason", "repr_name", "restarts",
        "spec", "state", "watchers", "worker",
    )  # fmt: skip

    def __init__(self, spec: ActorSpec, *, lacks_arguments: bool) -> None:
        self.spec = spec
        self.state = ActorState.PENDING
        self.lacks_arguments = lacks_arguments  # its creator has not sent the constructor call yet
        self.worker = ""  # its host, "" while it has none
        self.address = ""
        self.repr_name = ""
        self.restarts = 0
        self.preemptions = 0  # of those, how many do not count, as its node was taken away
        self.exit_reason = ""  # why it is about to exit, once that is known
        self.kill_reason = ""  # why its worker is being killed, so that it restarts
        self.reason = _LACKING if lacks_arguments else ""  # why it is DEAD or RESTARTING, or not placed yet
        self.cause = Cause.NONE
        self.watchers: dict[str, None] = {}  # in order of arrival


class Listed(NamedTuple):
    """One actor for `list_actors` and `query`."""

    actor: str
    name: str
    namespace: str
    class_name: str
    state: ActorState
    worker: str
    owner: str
    is_detached: bool
    restarts: int
    reason: str
    cause: Cause
    lacks_arguments: bool
    resources: Mapping[str, int]
    env: Any
    label_selectors: Any
    repr_name: str
    call_site: str
    job_id: str
    group: str
    preemptions: int


class ActorTable:
    """The machine. `apply` takes events and returns the commands that they cause."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self._dead: OrderedDict[str, Actor] = OrderedDict()
        self._names: dict[tuple[str, str], str] = {}
        self._of_clients: dict[
            str, dict[str, None]
        ] = {}  # by process or placement group, the living whom its end concerns
        self._unknown: dict[str, tuple[float, dict[str, None]]] = {}  # watched before created: (since, watchers)
        self.changed: dict[str, None] | None = None  # whose records are to be kept anew; None where nobody keeps any
        self._unreported: dict[str, None] | None = (
            None  # while it is recovered: who may have lost a worker, or needs one
        )
        self._awaited: dict[str, None] = {}  # meanwhile: owners that have not been reported
        self._handlers: dict[type, Callable[..., list[ev.ActorCommand]]] = {
            ev.ActorCreated: self._on_created,
            ev.ArgumentsArrived: self._on_arguments_arrived,
            ev.ArgumentsFailed: self._on_arguments_failed,
            ev.ActorWatched: self._on_watched,
            ev.ActorHosted: self._on_hosted,
            ev.ActorReady: self._on_ready,
            ev.ActorInitFailed: self._on_init_failed,
            ev.ActorExiting: self._on_exiting,
            ev.ActorKilled: self._on_killed,
            ev.ActorUnreferenced: self._on_unreferenced,
            ev.HostDied: self._on_host_died,
            ev.HostingFailed: self._on_hosting_failed,
            ev.GroupEnded: self._on_group_ended,
            ev.ClientGone: self._on_client_gone,
            ev.HostsReported: self._on_hosts_reported,
            ev.Recovered: self._on_recovered,
            ev.Ticked: self._on_ticked,
        }

    @classmethod
    def restored(cls, actors: Iterable[Actor]) -> ActorTable:
        """From what was kept of each, in the order of their creation, or for dead ones of their deaths."""
        table = cls()
        table.changed = {}
        for actor in actors:
            spec = actor.spec
            if actor.state is ActorState.DEAD:
                table._dead[spec.actor] = actor
            else:
                table.actors[spec.actor] = actor
                for one in _concerned(actor):
                    table._concerns(one, spec.actor)
                if spec.name:
                    table._names[spec.namespace, spec.name] = spec.actor
        while len(table._dead) > DEAD_KEPT_MAX:
            table._forget_oldest()
        table._unreported = dict.fromkeys(table.actors)
        table._awaited = {one.spec.owner: None for one in table.actors.values() if _needs_owner(one)}
        table.check()
        return table

    def _concerns(self, client: str, actor: str) -> None:
        """The end of the client, or of the placement group, does."""
        self._of_clients.setdefault(client, {})[actor] = None

    def _concerns_no_more(self, client: str, actor: str) -> None:
        concerned = self._of_clients.get(client, {})
        concerned.pop(actor, None)
        if not concerned:
            self._of_clients.pop(client, None)

    def _changes(self, actor: Actor) -> None:
        """What is kept of it differs from now on."""
        if self.changed is not None:
            self.changed[actor.spec.actor] = None

    def record(self, actor: str) -> Actor | None:
        """What is to be kept of it; None for nothing."""
        return self.actors.get(actor) or self._dead.get(actor)

    def apply(self, *events: ev.ActorEvent) -> list[ev.ActorCommand]:
        commands: list[ev.ActorCommand] = []
        for event in events:
            commands += self._handlers[type(event)](event)
        return commands

    # ---- birth ----

    def _on_created(self, event: ev.ActorCreated) -> list[ev.ActorCommand]:
        spec = event.spec
        if spec.actor in self.actors or spec.actor in self._dead:  # told twice; who asks again has not been answered
            if event.request is None or not spec.name:
                return []
            return [ev.AnswerCreate(spec.owner, event.request, spec.actor, is_existing=False)]
        commands: list[ev.ActorCommand] = []
        if spec.name:
            place = (spec.namespace, spec.name)
            holder = self._names.get(place)
            if holder is not None:
                return [self._refused(event, holder), ev.Forget(spec.actor)]
            self._names[place] = spec.actor
            if event.request is not None:
                commands.append(ev.AnswerCreate(spec.owner, event.request, spec.actor, is_existing=False))
        actor = Actor(spec, lacks_arguments=event.lacks_arguments)
        self.actors[spec.actor] = actor
        _, actor.watchers = self._unknown.pop(spec.actor, (0.0, {}))
        for one in _concerned(actor):
            self._concerns(one, spec.actor)
        self._changes(actor)
        commands += self._publish(actor)
        if not event.lacks_arguments:
            commands.append(ev.Place(spec))
        return commands

    def awaits_arguments(self, actor_id: str, client: str) -> bool:
        """Whether `client` is to send the actor's constructor call, or why there is none."""
        actor = self.actors.get(actor_id)
        return actor is not None and actor.lacks_arguments and actor.spec.owner == client

    def _on_arguments_arrived(self, event: ev.ArgumentsArrived) -> list[ev.ActorCommand]:
        if not self.awaits_arguments(event.actor, event.client):
            return []  # it was killed, or lost its last handle, while they were computed
        actor = self.actors[event.actor]
        actor.lacks_arguments = False
        actor.reason = ""
        self._changes(actor)
        self._leaves_recovery(actor)
        return [ev.Place(actor.spec)]

    def _on_arguments_failed(self, event: ev.ArgumentsFailed) -> list[ev.ActorCommand]:
        if not self.awaits_arguments(event.actor, event.client):
            return []
        reason = "an argument of its constructor could not be computed"
        return self._bury(self.actors[event.actor], reason, Cause.INIT_FAILED)

    def _refused(self, event: ev.ActorCreated, holder: str) -> ev.ActorCommand:
        spec = event.spec
        if event.get_if_exists and event.request is not None:
            return ev.AnswerCreate(spec.owner, event.request, holder, is_existing=True)
        reason = (
            f"an actor named {spec.name!r} already exists in namespace {spec.namespace!r} (class "
            f"{self.actors[holder].spec.class_name}, id {holder}); "
            "choose another name, kill it, or pass get_if_exists=True"
        )
        return ev.RefuseCreate(spec.owner, event.request, spec.actor, reason)

    def _on_hosted(self, event: ev.ActorHosted) -> list[ev.ActorCommand]:
        actor = self.actors.get(event.actor)
        if actor is None:  # it died while a worker was being found; the shell has released that worker already
            return []
        checks.invariant(not actor.worker, "an actor got a second worker", actor=event.actor, worker=event.worker)
        actor.worker = event.worker
        actor.address = event.address
        self._changes(actor)  # before it is constructed, so that this never happens more often than it may
        return [ev.Create(event.actor, event.worker, reconstructed=actor.restarts)]

    def _on_ready(self, event: ev.ActorReady) -> list[ev.ActorCommand]:
        actor = self._hosted_by(event.actor, event.worker)
        if actor is None or actor.state is ActorState.ALIVE:
            return []
        actor.state = ActorState.ALIVE
        actor.reason = ""
        actor.repr_name = event.repr_name
        self._changes(actor)
        commands = self._publish(actor)
        if not actor.spec.max_restarts:
            commands.append(ev.Forget(event.actor))
        return commands

    def _hosted_by(self, actor_id: str, worker: str) -> Actor | None:
        """The live actor, if `worker` still hosts it: messages of an earlier host are void."""
        actor = self.actors.get(actor_id)
        return actor if actor is not None and actor.worker == worker else None

    # ---- finding ----

    def _on_watched(self, event: ev.ActorWatched) -> list[ev.ActorCommand]:
        actor = self.actors.get(event.actor)
        if actor is not None:
            actor.watchers[event.client] = None
            self._concerns(event.client, event.actor)
            return [self._state(event.client, actor)]
        dead = self._dead.get(event.actor)
        if dead is not None:
            return [self._state(event.client, dead)]
        self._unknown.setdefault(event.actor, (event.at_s + event.late_s, {}))[1][event.client] = None
        return []

    def find(self, name: str, namespace: str) -> str | None:
        """The id of the live actor of that name."""
        return self._names.get((namespace, name))

    def named(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of all named actors; of one namespace unless that is None."""
        return sorted(place for place in self._names if namespace in (None, place[0]))

    def owns_actors(self, client: str) -> bool:
        """Whether live actors would die with this process."""
        concerned = (self.actors[one] for one in self._of_clients.get(client, ()))
        return any(actor.spec.owner == client and _needs_owner(actor) for actor in concerned)

    def hosts(self) -> list[str]:
        """The workers of all that have one."""
        return [actor.worker for actor in self.actors.values() if actor.worker]

    def may_restart(self, actor_id: str) -> bool:
        """Whether the actor would restart if its worker died."""
        actor = self.actors.get(actor_id)
        return actor is not None and not actor.exit_reason and not _is_used_up(actor)

    def listed(self) -> list[Listed]:
        """All actors, the dead ones that are remembered last."""
        return [as_listed(one) for group in (self.actors, self._dead) for one in group.values()]

    def dead(self, actor: str) -> Listed | None:
        """One that is dead and remembered."""
        found = self._dead.get(actor)
        return as_listed(found) if found is not None else None

    def _publish(self, actor: Actor) -> list[ev.ActorCommand]:
        return [self._state(client, actor) for client in actor.watchers]

    def _state(self, client: str, actor: Actor) -> ev.ActorCommand:
        is_alive = actor.state is ActorState.ALIVE
        return ev.Publish(
            client,
            actor.spec.actor,
            actor.state,
            address=actor.address if is_alive else "",
            worker=actor.worker if is_alive else "",
            restarts=actor.restarts,
            reason=actor.reason,
            cause=actor.cause,
        )

    # ---- death ----

    def _on_init_failed(self, event: ev.ActorInitFailed) -> list[ev.ActorCommand]:
        actor = self._hosted_by(event.actor, event.worker)
        if actor is None:
            return []
        commands = self._fail(actor, "its constructor raised an error", Cause.INIT_FAILED)
        return [*commands, ev.Release(event.actor, EXIT_GRACE_S)]

    def _on_exiting(self, event: ev.ActorExiting) -> list[ev.ActorCommand]:
        actor = self._hosted_by(event.actor, event.worker)
        if actor is None:
            return []
        self._changes(actor)
        actor.exit_reason = event.reason  # DEAD once the process is gone: answers may still be on their way to callers
        return [ev.Release(event.actor, EXIT_GRACE_S)]

    def _on_killed(self, event: ev.ActorKilled) -> list[ev.ActorCommand]:
        actor = self.actors.get(event.actor)
        if actor is None:
            return []
        reason = "it was killed by umbel.kill()"
        if event.is_final:
            return [*self._bury(actor, reason, Cause.INTENDED), ev.Kill(event.actor, reason)]
        if not actor.worker:
            return []  # it is waiting for arguments or a worker: killing it so that it restarts changes nothing
        actor.kill_reason = reason
        self._changes(actor)
        return [ev.Kill(event.actor, reason)]

    def _on_unreferenced(self, event: ev.ActorUnreferenced) -> list[ev.ActorCommand]:
        actor = self.actors.get(event.actor)
        if actor is None or actor.spec.is_detached:
            return []
        reason = "no handle to it is left"
        if actor.worker:
            actor.exit_reason = reason
            self._changes(actor)
            return [ev.Release(event.actor, None)]
        return [*self._bury(actor, reason, Cause.INTENDED), ev.Kill(event.actor, reason)]

    def _on_host_died(self, event: ev.HostDied) -> list[ev.ActorCommand]:
        actor = self._hosted_by(event.actor, event.worker)
        return self._lose_host(actor, event.reason, is_preempted=event.is_preempted) if actor is not None else []

    def _lose_host(self, actor: Actor, reason: str, *, is_preempted: bool = False) -> list[ev.ActorCommand]:
        actor.worker = actor.address = actor.kill_reason = ""
        self._leaves_recovery(actor)
        if actor.exit_reason:
            return self._bury(actor, actor.exit_reason, Cause.INTENDED)
        is_free = is_preempted and actor.spec.max_restarts != 0
        if _is_used_up(actor) and not is_free:
            if actor.spec.max_restarts:
                reason += f"; its {actor.spec.max_restarts} restarts are used up"
            return self._fail(actor, reason, Cause.PREEMPTED if is_preempted else Cause.CRASHED)
        actor.state = ActorState.RESTARTING
        actor.restarts += 1
        actor.preemptions += is_free
        actor.reason = reason
        self._changes(actor)
        allowed = "any number" if actor.spec.max_restarts < 0 else actor.spec.max_restarts
        what = f"restarts, {actor.restarts} of {allowed}"
        return [*self._publish(actor), ev.Place(actor.spec), _happened(actor, cluster_events.WARNING, what)]

    def _on_hosting_failed(self, event: ev.HostingFailed) -> list[ev.ActorCommand]:
        actor = self.actors.get(event.actor)
        if actor is None or actor.worker:
            return []
        return self._fail(actor, event.reason, Cause.UNSCHEDULABLE if event.is_unschedulable else Cause.NO_ENVIRONMENT)

    def _on_client_gone(self, event: ev.ClientGone) -> list[ev.ActorCommand]:
        for since_and_watchers in self._unknown.values():
            since_and_watchers[1].pop(event.client, None)
        commands: list[ev.ActorCommand] = []
        for actor in [self.actors[one] for one in self._of_clients.pop(event.client, ())]:
            actor.watchers.pop(event.client, None)
            if actor.spec.owner == event.client and _needs_owner(actor):
                reason = f"its owner, the process {event.client} that created it, is gone"
                if actor.spec.is_detached:
                    reason += ", and had not sent all arguments of its constructor"
                else:
                    reason += "; pass lifetime='detached' for actors that shall outlive their creator"
                commands += self._bury(actor, reason)
                commands.append(ev.Kill(actor.spec.actor, reason))
        return commands

    def _on_group_ended(self, event: ev.GroupEnded) -> list[ev.ActorCommand]:
        commands: list[ev.ActorCommand] = []
        for actor in [self.actors[one] for one in self._of_clients.get(event.group, ())]:
            reason = f"the placement group {event.group} that it was to live in is gone: {event.reason}"
            commands += self._bury(actor, reason, Cause.GROUP_REMOVED)
            commands.append(ev.Kill(actor.spec.actor, reason))
        return commands

    def _fail(self, actor: Actor, reason: str, cause: Cause) -> list[ev.ActorCommand]:
        """Make it DEAD, as nobody wanted it."""
        return [*self._bury(actor, reason, cause), _happened(actor, cluster_events.ERROR, "is dead")]

    def _bury(self, actor: Actor, reason: str, cause: Cause = Cause.CRASHED) -> list[ev.ActorCommand]:
        """Make it DEAD. Its worker, if it has one, is the caller's business."""
        spec = actor.spec
        actor.state = ActorState.DEAD
        actor.reason = reason
        actor.cause = cause
        actor.worker = actor.address = ""
        if spec.name:
            del self._names[spec.namespace, spec.name]
        del self.actors[spec.actor]
        self._dead[spec.actor] = actor
        self._changes(actor)
        if len(self._dead) > DEAD_KEPT_MAX:
            self._forget_oldest()
        commands = self._publish(actor)
        for one in _concerned(actor):
            self._concerns_no_more(one, spec.actor)
        actor.watchers = {}
        commands.append(ev.Forget(spec.actor))
        return commands

    def _forget_oldest(self) -> None:
        _, actor = self._dead.popitem(last=False)
        self._changes(actor)

    # ---- recovery ----

    def is_recovering(self) -> bool:
        return self._unreported is not None

    def is_worker_of(self, actor_id: str, worker: str) -> bool:
        """Whether it lives, and this is its host."""
        return self._hosted_by(actor_id, worker) is not None

    def _leaves_recovery(self, actor: Actor) -> None:
        """What becomes of it does not depend on what nodes report."""
        if self._unreported is not None:
            self._unreported.pop(actor.spec.actor, None)

    def _on_hosts_reported(self, event: ev.HostsReported) -> list[ev.ActorCommand]:
        if self._unreported is None:
            return []
        for process in event.processes:
            self._awaited.pop(process, None)
        commands: list[ev.ActorCommand] = []
        for worker, hosting in event.hosts.items():
            actor = self.actors.get(hosting.actor)
            if actor is None:
                commands.append(ev.Kill(hosting.actor, "nobody knows of it any more"))
            elif not actor.worker:
                commands.append(
                    ev.Kill(hosting.actor, "it was not called before its service ended")
                )  # placed again later
            elif actor.worker == worker:
                self._unreported.pop(hosting.actor, None)
                commands += self._take_up(actor, worker, hosting.stage, event.at_s)
        return commands

    def _take_up(self, actor: Actor, worker: str, stage: ev.Stage, at_s: float) -> list[ev.ActorCommand]:
        """Its worker is there: what has the head missed?"""
        if actor.kill_reason:
            return [ev.Kill(actor.spec.actor, actor.kill_reason)]
        if actor.exit_reason:
            return [ev.Release(actor.spec.actor, EXIT_GRACE_S)]
        if stage is ev.Stage.UNCALLED:
            return [ev.Create(actor.spec.actor, worker, reconstructed=actor.restarts)]
        if stage is ev.Stage.READY:
            return self._on_ready(ev.ActorReady(actor.spec.actor, worker, at_s, actor.repr_name))
        return []  # its worker will say how the constructor has ended

    def _on_recovered(self, event: ev.Recovered) -> list[ev.ActorCommand]:
        unreported, self._unreported = self._unreported or {}, None
        commands: list[ev.ActorCommand] = []
        owners, self._awaited = self._awaited, {}
        for owner in owners:  # first, so that nobody looks for workers of what ends
            commands += self._on_client_gone(ev.ClientGone(owner, event.at_s))
        for actor in [self.actors[one] for one in unreported if one in self.actors]:
            if actor.worker:
                end = event.ends.get(actor.worker, ev.HostEnd(event.reason, is_preempted=False))
                commands += self._lose_host(actor, end.reason, is_preempted=end.is_preempted)
            elif not actor.lacks_arguments:
                commands.append(ev.Place(actor.spec))
        return commands

    # ---- time ----

    def next_tick_s(self) -> float | None:
        """When `Ticked` is due next, or None while nothing depends on time."""
        return min((since_s + UNKNOWN_GRACE_S for since_s, _ in self._unknown.values()), default=None)

    def _on_ticked(self, event: ev.Ticked) -> list[ev.ActorCommand]:
        commands: list[ev.ActorCommand] = []
        for actor_id, (since_s, watchers) in list(self._unknown.items()):
            if since_s + UNKNOWN_GRACE_S > event.at_s:
                continue
            del self._unknown[actor_id]
            reason = "no such actor is known here: it belongs to another session, or died long ago"
            for client in watchers:
                commands.append(ev.Publish(client, actor_id, ActorState.DEAD, "", "", 0, reason, Cause.CRASHED))
        return commands

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        hosts: dict[str, str] = {}
        for actor_id, actor in self.actors.items():
            spec = actor.spec
            if spec.actor != actor_id:
                raise checks.broken("an actor in another's place", actor=actor_id)
            if actor.state is ActorState.DEAD:
                raise checks.broken("a dead actor among the living", actor=actor_id)
            if actor.state is ActorState.ALIVE and not actor.worker:
                raise checks.broken("an actor is alive without a worker", actor=actor_id)
            if actor.lacks_arguments and (actor.state is not ActorState.PENDING or actor.worker):
                raise checks.broken("an actor was made without its arguments", actor=actor_id)
            if spec.name and self._names.get((spec.namespace, spec.name)) != actor_id:
                raise checks.broken("a live actor lost its name", actor=actor_id, name=spec.name)
            if 0 <= spec.max_restarts < actor.restarts - actor.preemptions:
                raise checks.broken("too many restarts", actor=actor_id)
            if actor.worker:
                checks.invariant(actor.worker not in hosts, "a worker hosts two actors", worker=actor.worker)
                hosts[actor.worker] = actor_id
            for client in (*actor.watchers, spec.group):
                if client and actor_id not in self._of_clients.get(client, ()):
                    raise checks.broken("an end is not heard that concerns an actor", actor=actor_id, client=client)
        for (namespace, name), actor_id in self._names.items():
            checks.invariant(actor_id in self.actors, "a name of no live actor", name=name, namespace=namespace)
        for actor_id, actor in self._dead.items():  # which are many
            if actor.state is not ActorState.DEAD:
                raise checks.broken("a live actor among the dead", actor=actor_id)
            if actor.watchers or actor.worker:
                raise checks.broken("a dead actor is attended to", actor=actor_id)
        checks.invariant(len(self._dead) <= DEAD_KEPT_MAX, "too many dead are remembered", count=len(self._dead))
        for actor_id in self._unknown:
            checks.invariant(actor_id not in self.actors, "a known actor is awaited", actor=actor_id)
        for client, concerned in self._of_clients.items():
            if not concerned or not concerned.keys() <= self.actors.keys():
                raise checks.broken("a process is to do with actors that are dead", client=client)


def _happened(actor: Actor, severity: str, what: str) -> cluster_events.Happened:
    spec = actor.spec
    text = f"actor {spec.name or spec.class_name} {what}: {actor.reason}"
    facts = {"actor_id": spec.actor, "class_name": spec.class_name, "name": spec.name, "job_id": spec.job_id}
    return cluster_events.Happened(severity, cluster_events.ACTORS, text, facts)


def _concerned(actor: Actor) -> tuple[str, ...]:
    """Whose end concerns it: of processes, and of its placement group."""
    spec = actor.spec
    return (spec.owner, *actor.watchers, spec.group) if spec.group else (spec.owner, *actor.watchers)


def _is_used_up(actor: Actor) -> bool:
    """Whether no restart is left."""
    return 0 <= actor.spec.max_restarts <= actor.restarts - actor.preemptions


def as_listed(one: Actor) -> Listed:
    """As it is told to others."""
    spec = one.spec
    return Listed(
        spec.actor, spec.name, spec.namespace, spec.class_name, one.state, one.worker, spec.owner, spec.is_detached,
        one.restarts, one.reason, one.cause, one.lacks_arguments, spec.running, spec.env, spec.label_selectors,
        one.repr_name, spec.call_site, spec.job_id, spec.group, one.preemptions,
    )  # fmt: skip


def needs_call(actor: Actor) -> bool:
    """Whether its constructor may be called (again)."""
    is_done = actor.state is ActorState.ALIVE and not actor.spec.max_restarts
    return actor.state is not ActorState.DEAD and not is_done


def _needs_owner(actor: Actor) -> bool:
    """Whether it dies with the process that created it: only that one can send what its constructor lacks."""
    return not actor.spec.is_detached or actor.lacks_arguments
