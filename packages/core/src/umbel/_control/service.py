"""Messages about actors, as events for the actor table; its commands, as messages and as wishes to the node.

The daemon loads this module by name and gives it a Node to act on: the two know no more of each other. Here is kept
what the table does not need to see: constructor calls, class descriptions and constructors' errors, all opaque bytes.

Where records are kept (`keeping`), what others are told or asked to do goes through that, which withholds it until what it
depends on is in the control storage; nothing else differs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from umbel._control import actors, cluster_events, jobs, kv
from umbel._control import events as ev

if TYPE_CHECKING:
    from umbel._control import group_service, keeping, nodes

Message = dict[str, Any]


_OF_GROUPS = ("create_group", "remove_group", "group_watch", "get_group")


class Node(Protocol):
    """What the actors' service needs of the daemon that it runs in. Sending to a client that has gone does nothing."""

    def now_s(self) -> float: ...

    def time_s(self) -> float:
        """By the system's clock."""

    def send(self, client: str, message: Message, body: bytes = b"") -> None: ...

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None: ...

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None: ...

    def place_actor(self, spec: ev.ActorSpec) -> None:
        """Find a worker; `hosted` or `unplaceable` is called when there is one, or cannot be."""

    def job_of(self, client: str) -> tuple[str, Any]:
        """(id, `jobs.JobEnvironment` or None) of the job that a client belongs to."""

    def release_actor(self, actor: str, grace_s: float | None) -> None:
        """Let its worker finish what it has received and exit; kill it after `grace_s`, unless that is None."""

    def actor_dead(self, actor: str, facts: Message) -> None:
        """For good; facts: as `listed` has them."""

    def kill_actor(self, actor: str, reason: str) -> None:
        """Kill its worker, or stop looking for one."""

    def is_here(self, client: str) -> bool:
        """Whether it is, or was, a process of this node, which ends with it."""

    def launches_for(self, lacks: Mapping[str, Any]) -> str:
        """What is done to have nodes with what no node has, as the end of a reason; "" for nothing."""

    def late_s(self, actor: str) -> float:
        """How much later than a handle to it the actor's creation may come here, beyond what is usual on one node."""

    def ends_of(self, workers: Iterable[str]) -> Mapping[str, ev.HostEnd]:
        """How the nodes of these ended, of those that were declared dead."""


class ActorService:
    """The actor table's shell. `on` says which messages are for it: (client, its namespace, message, body)."""

    def __init__(self, node: Node, keeper: keeping.Keeping | None = None) -> None:
        """keeper: where records are kept; it has the tables as they were."""
        kept = keeper.kept if keeper is not None else None
        self.table = kept.actors if kept is not None else actors.ActorTable()
        self.jobs = kept.jobs if kept is not None else jobs.Jobs()
        self.kv = kept.kv if kept is not None else kv.KeyValues()
        self._events = kept.events if kept is not None else cluster_events.ClusterEvents()
        self.answers = kept.answers if kept is not None else None  # to processes that outlive this service
        self._keeper = keeper
        self._recover_at_s: float | None = None
        self._reported: set[str] = set()  # processes, until then
        self._answered = self.answers.clients() if self.answers is not None else []  # by heads before
        if keeper is not None:
            self._recover_at_s = node.now_s() + keeper.recovery_s
            node = keeper.withheld(node, is_first=lambda spec: not self.table.actors[spec.actor].restarts)
        self.on: dict[str, Callable[[str, str, Message, bytes], None]] = {
            "create_actor": self._on_create_actor,
            "actor_arguments": self._on_actor_arguments,
            "actor_arguments_failed": self._on_actor_arguments_failed,
            "get_actor": self._on_get_actor,
            "list_actors": self._on_list_actors,
            "actor_watch": self._on_actor_watch,
            "kill_actor": self._on_kill_actor,
            "actor_unreferenced": self._on_actor_unreferenced,
            "actor_ready": self._on_actor_ready,
            "actor_failed": self._on_actor_failed,
            "actor_exiting": self._on_actor_exiting,
            "kv_put": self._on_kv_put,
            "kv_get": self._on_kv_get,
            "kv_del": self._on_kv_del,
            "kv_list": self._on_kv_list,
        }
        self._node = node
        self._groups: group_service.GroupService | None = None  # with the first message about one
        self.on |= dict.fromkeys(_OF_GROUPS, self._on_group_message)
        # Constructor calls, while they may be needed again; class descriptions of live actors.
        self._calls: dict[str, bytes] = kept.calls if kept is not None else {}
        self._classes: dict[str, bytes] = kept.classes if kept is not None else {}
        # Why constructors or their arguments failed, as many as the dead that are kept.
        self._errors: OrderedDict[str, bytes] = kept.errors if kept is not None else OrderedDict()
        self._accelerators: dict[
            str, Mapping[str, Sequence[str]]
        ] = {}  # of actors whose constructor is about to be called
        self.on_hosted: Callable[[str], None] = lambda _actor: None  # a worker has been found for this actor
        self.send, self.reply = node.send, node.reply  # for who else says what depends on what is kept here
        self._memory: Message | None = None  # what is published with a death for want of memory
        self._is_preempted = False  # as is that it was taken away with its node
        self._do: dict[type, Callable[[Any], None]] = {
            ev.Place: self._place,
            ev.Create: self._create,
            ev.Release: lambda command: node.release_actor(command.actor, command.grace_s),
            ev.Kill: lambda command: node.kill_actor(command.actor, command.reason),
            ev.Publish: self._publish,
            ev.AnswerCreate: self._answer_create,
            ev.RefuseCreate: lambda command: node.refuse(command.client, command.request, "exists", command.reason),
            ev.Forget: self._forget,
        }
        if kept is not None and kept.has_groups:
            self._begin_groups()

    def _decide(self, event: ev.ActorEvent) -> None:
        commands = []
        for command in self.table.apply(event):
            if type(command) is cluster_events.Happened:  # kept with what it tells of
                self._remember(command)
            else:
                commands.append(command)
        if self._keeper is not None:
            self._keeper.keep()
        for command in commands:
            self._do[type(command)](command)

    def _keep(self) -> None:
        """What another table than that of actors has been told is kept, before anybody is told of it."""
        if self._keeper is not None:
            self._keeper.keep()

    def when_kept(self, effect: Callable[[], None]) -> None:
        """Do this when all that was decided so far is kept, where anything is."""
        if self._keeper is None:
            effect()
        else:
            self._keeper.withhold(effect)

    def may_act(self) -> bool:
        return self._keeper is None or self._keeper.may_act()

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self._keeper is not None

    def _is_answered(self, client: str, request: int | None) -> bool:
        """Whether a head before this one has carried it out; it is told again what that has said."""
        known = self.answers.given(client, request) if self.answers is not None and request is not None else None
        if known is None:
            return False
        self._node.reply(client, request, known)
        return True

    def _answer_once(self, client: str, request: int | None, answer: Message) -> None:
        """To what must not be carried out again by the next head, which a process of another node would ask."""
        if self.answers is not None and request is not None and not self._node.is_here(client):
            self.answers.keep(client, request, answer)
        self._keep()
        self._node.reply(client, request, answer)

    def _trouble(self, size_bytes: int) -> str:
        """Why a request with a body of this size cannot be kept; "" if it can."""
        return self._keeper.trouble(size_bytes) if self._keeper is not None else ""

    # ---- messages ----

    def _on_create_actor(self, client: str, namespace: str, message: Message, body: bytes) -> None:
        actor = message["actor"]
        is_new = self.table.record(actor) is None  # else it is told again, by a node whose head has ended
        trouble = self._trouble(len(body)) if is_new else ""
        if trouble:
            self._refuse_actor(client, message, trouble)
            return
        job_id, job = self._node.job_of(client)
        if is_new:
            self._classes[actor] = body[: message["meta_size"]]
            if not message["lacks_arguments"]:
                self._calls[actor] = body[message["meta_size"] :]
        spec = ev.ActorSpec(
            actor=actor,
            owner=client,
            name=message["name"] or "",
            namespace=message["namespace"] or namespace,
            class_name=message["class_name"],
            is_detached=message["detached"],
            max_restarts=message["max_restarts"],
            placement=message["placement"],
            running=message["running"],
            env=message["env"],
            strategy=message["strategy"],
            label_selectors=message["label_selectors"],
            depth=message["depth"],
            call_site=message["call_site"],
            job=job,
            job_id=job_id,
        )
        self._decide(
            ev.ActorCreated(
                spec,
                message["get_if_exists"],
                message["rq"],
                self._node.now_s(),
                lacks_arguments=message["lacks_arguments"],
            )
        )

    def _refuse_actor(self, client: str, message: Message, reason: str) -> None:
        """Who has asked for no answer is told as a watcher."""
        if message["rq"] is not None:
            self._node.refuse(client, message["rq"], "unavailable", reason)
        else:
            dead, cause = ev.ActorState.DEAD, ev.Cause.UNSCHEDULABLE
            self._publish(ev.Publish(client, message["actor"], dead, "", "", 0, reason, cause))

    def _on_actor_arguments(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        actor = message["actor"]
        if not self.table.awaits_arguments(actor, client):
            return
        trouble = self._trouble(len(body))
        if trouble:
            self._decide(ev.HostingFailed(actor, trouble, is_unschedulable=True, at_s=self._node.now_s()))
        else:
            self._calls[actor] = body
            self._decide(ev.ArgumentsArrived(actor, client, self._node.now_s()))

    def _on_actor_arguments_failed(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        actor = message["actor"]
        if self.table.awaits_arguments(actor, client):
            self._keep_error(actor, body)
            self._decide(ev.ArgumentsFailed(actor, client, self._node.now_s()))

    def _on_get_actor(self, client: str, namespace: str, message: Message, _body: bytes) -> None:
        wanted = message["namespace"] or namespace
        actor = self.table.find(message["name"], wanted)
        if actor is None:
            others = [f"{space}/{name}" for space, name in self.table.named(None)][:10]
            known = f"named actors now (namespace/name): {', '.join(others)}" if others else "there are no named actors"
            self._node.refuse(
                client, message["rq"], "missing", f"no actor named {message['name']!r} in namespace {wanted!r}; {known}"
            )
        else:
            self._node.reply(client, message["rq"], {"actor": actor}, self._classes[actor])

    def _on_list_actors(self, client: str, namespace: str, message: Message, _body: bytes) -> None:
        wanted = None if message["all_namespaces"] else message["namespace"] or namespace
        found = [{"namespace": space, "name": name} for space, name in self.table.named(wanted)]
        self._node.reply(client, message["rq"], {"actors": found})

    def _on_actor_watch(self, client: str, _namespace: str, message: Message, _body: bytes) -> None:
        actor = message["actor"]
        self._decide(ev.ActorWatched(client, actor, self._node.now_s(), self._node.late_s(actor)))

    def _on_kill_actor(self, client: str, _namespace: str, message: Message, _body: bytes) -> None:
        if self._is_answered(client, message["rq"]):
            return
        self._decide(ev.ActorKilled(message["actor"], message["no_restart"], self._node.now_s()))
        self._answer_once(client, message["rq"], {})

    def _on_actor_unreferenced(self, _client: str, _namespace: str, message: Message, _body: bytes) -> None:
        self._decide(ev.ActorUnreferenced(message["actor"], self._node.now_s()))

    def _on_actor_ready(self, client: str, _namespace: str, message: Message, _body: bytes) -> None:
        self._decide(ev.ActorReady(message["actor"], client, self._node.now_s(), message["repr_name"]))

    def _on_actor_failed(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        self._keep_error(message["actor"], body)
        self._decide(ev.ActorInitFailed(message["actor"], client, self._node.now_s()))

    def _keep_error(self, actor: str, error: bytes) -> None:
        self._errors[actor] = error
        if len(self._errors) > actors.DEAD_KEPT_MAX:
            self._errors.popitem(last=False)

    def _on_actor_exiting(self, client: str, _namespace: str, message: Message, _body: bytes) -> None:
        self._decide(ev.ActorExiting(message["actor"], client, message["reason"], self._node.now_s()))

    # ---- key-value store ----

    def _on_kv_put(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        if self._is_answered(client, message["rq"]):
            return
        space_size, key_size = message["space_size"], message["key_size"]
        space, key, value = body[:space_size], body[space_size : space_size + key_size], body[space_size + key_size :]
        if len(space) + len(key) > kv.KEY_BYTES_MAX or len(value) > kv.VALUE_BYTES_MAX:
            text = (
                f"a key has at most {kv.KEY_BYTES_MAX} bytes with its namespace, and a value {kv.VALUE_BYTES_MAX}; got "
                f"{len(space) + len(key)} and {len(value)}: put what is large into the object store"
            )
            self._node.refuse(client, message["rq"], "invalid", text)
        elif self._trouble(len(value)):
            self._node.refuse(client, message["rq"], "unavailable", self._trouble(len(value)))
        else:
            was_there = self.kv.put(space, key, value, overwrites=message["overwrite"])
            self._answer_once(client, message["rq"], {"existed": was_there})

    def _on_kv_get(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        value = self.kv.get(body[: message["space_size"]], body[message["space_size"] :])
        self._node.reply(client, message["rq"], {"found": value is not None}, value or b"")

    def _on_kv_del(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        if self._is_answered(client, message["rq"]):
            return
        space, key = body[: message["space_size"]], body[message["space_size"] :]
        count = self.kv.delete(space, key, is_prefix=message["prefix"])
        self._answer_once(client, message["rq"], {"count": count})

    def _on_kv_list(self, client: str, _namespace: str, message: Message, body: bytes) -> None:
        keys = self.kv.keys(body[: message["space_size"]], body[message["space_size"] :])
        self._node.reply(client, message["rq"], {"sizes": [len(key) for key in keys]}, b"".join(keys))

    # ---- placement groups ----

    def _on_group_message(self, client: str, namespace: str, message: Message, _body: bytes) -> None:
        groups = self._groups if self._groups is not None else self._begin_groups()
        groups.on[message["t"]](client, namespace, message)

    def _begin_groups(self) -> group_service.GroupService:
        from umbel._control import group_service

        node: Any = self._node  # the same daemon, which has what groups need as well
        self._groups = group_service.GroupService(
            node,
            is_detached=lambda actor: actor in self.table.actors and self.table.actors[actor].spec.is_detached,
            on_ended=self.group_ended,
            remember=self._remember,
            scheduling_of=lambda job: self.jobs.scheduling_of(job.partition("@")[0]),
            keep=self._keep,
        )
        if self._keeper is not None:
            self._keeper.kept.take_groups(self._groups.table)
        return self._groups

    def group_trouble(self, group: str) -> str:
        """Why nothing will ever run in this placement group; "" if something may."""
        if self._groups is None:
            return "there is no such placement group"
        return self._groups.table.ended(group)[1]

    def group_places(self, group: str) -> tuple[Sequence[Mapping[str, int]], Mapping[int, str]]:
        """The bundles of one that is there, and the nodes of those that have a place."""
        found = self._groups.table.groups.get(group) if self._groups is not None else None
        return ((), {}) if found is None else (found.spec.bundles, found.nodes)

    def group_ended(self, group: str, reason: str) -> None:
        """With all that lives in it."""
        self._decide(ev.GroupEnded(group, reason, self._node.now_s()))

    def follow_group(self, group: str, node: str = "") -> None:
        """A node wants to be told where the group's bundles are, now and with each change. node: "" for this one; so below."""
        groups = self._groups if self._groups is not None else self._begin_groups()
        groups.follow(node, group)

    def bundles_reserved(self, group: str, attempt: int, node: str = "") -> None:
        if self._groups is not None:
            self._groups.bundles_reserved(node, group, attempt)

    def bundles_refused(self, group: str, attempt: int, reason: str, node: str = "") -> None:
        if self._groups is not None:
            self._groups.bundles_refused(node, group, attempt, reason)

    def bundles_committed(self, node: str, group: str, attempt: int) -> None:
        if self._groups is not None:
            self._groups.bundles_committed(node, group, attempt)

    def bundles_reported(self, node: str, held: Any) -> None:
        """A node lived on while the service was away; as `hosts_reported`."""
        groups = self._groups if self._groups is not None else self._begin_groups()
        groups.bundles_reported(node, held)

    def nodes_changed(self) -> None:
        """Other nodes have come, or have other things free."""
        if self._groups is not None:
            self._groups.nodes_changed()

    def look_at_room(self) -> None:
        """The node of the service itself is looked at when something is placed."""

    def node_gone(self, node: str) -> None:
        """For good, with the bundles that it held."""
        if self._groups is not None:
            self._groups.node_gone(node)

    def listed_groups(self, group: str) -> list[Message]:
        """This placement group, or all for "", for queries."""
        return self._groups.listed(group) if self._groups is not None else []

    def bundle_nodes(self) -> list[str]:
        """Where bundles of placement groups are."""
        return self._groups.table.homes() if self._groups is not None else []

    def waiting_groups(self) -> list[Message]:
        """Of the placement groups, those that want nodes, for the autoscaler."""
        if self._groups is None:
            return []
        from umbel._control import waiting

        return waiting.groups(self._groups.table)

    # ---- what the node reports ----

    def hosted(self, actor: str, worker: str, address: str, accelerators: Mapping[str, Sequence[str]]) -> None:
        """The actor has `worker`, which listens at `address`, and these devices."""
        if actor not in self.table.actors:  # it died while a worker was being found
            self._node.kill_actor(actor, "its actor is dead")
            return
        self._accelerators[actor] = accelerators
        self.on_hosted(actor)
        self._decide(ev.ActorHosted(actor, worker, address, self._node.now_s()))

    def host_died(
        self, actor: str, worker: str, reason: str, *, memory: Message | None = None, is_preempted: bool = False
    ) -> None:
        """The actor's worker is gone. memory: how the memory was, if it was killed for that. is_preempted: its node was taken
        away, with notice."""
        self._memory, self._is_preempted = memory, is_preempted
        self._decide(ev.HostDied(actor, worker, reason, self._node.now_s(), is_preempted))
        self._memory, self._is_preempted = None, False

    def place_again(self, actor: str) -> None:
        """Who was looking for a worker is gone, and has found none."""
        if actor in self.table.actors:
            self._place(ev.Place(self.table.actors[actor].spec))

    def lacks_host(self, actor: str) -> bool:
        """Whether it lives, and a worker for it is looked for."""
        known = self.table.actors.get(actor)
        return known is not None and not known.worker and not known.lacks_arguments

    def unplaceable(self, actor: str, reason: str, *, is_unschedulable: bool) -> None:
        """No worker will ever be found. is_unschedulable: because of what was asked for, not because workers fail."""
        known = self.table.actors.get(actor)
        if is_unschedulable and known is not None:
            from umbel._control import waiting  # few end so

            lacks = waiting.lacks(known.spec)
            reason += self._node.launches_for(lacks) if lacks is not None else ""
        self._decide(ev.HostingFailed(actor, reason, is_unschedulable, self._node.now_s()))

    def preparing(self, actor: str, text: str) -> None:
        """The daemon of this node says so itself when it is asked."""

    def client_gone(self, client: str, why: str = "") -> None:
        """why: for its job, should it be a driver."""
        self._decide(ev.ClientGone(client, self._node.now_s()))
        job = self.jobs.gone(client, self._node.time_s(), why)
        if job is not None:
            self._add_job_event(job)
        if self.answers is not None:
            self.answers.forget_others(client, ())
        self._keep()
        if self._groups is not None:
            self._groups.owner_gone(client)

    def job_begins(
        self, driver: str, pid: int, facts: Mapping[str, Any] | None, *, job_id: str = ""
    ) -> tuple[str, Any]:
        """A driver has come: (id, `jobs.JobEnvironment` or None) of its job. facts: None where workers are the node's own.
        job_id: of those that were reserved; "" for the next."""
        is_known = bool(job_id) and self.jobs.record(job_id) is not None
        job = self.jobs.begin(driver, pid, facts, self._node.time_s(), job_id)
        if not is_known:
            self._add_job_event(job)
        self._keep()
        return job.id, job.environment

    def driver_of_job(self, job_id: str) -> str:
        """The process that drives it; "" when it has ended."""
        return self.jobs.driver_of(job_id)

    def reserve_job_ids(self, count: int) -> int:
        """So many are given by somebody else: the number of the first, see `jobs.job_id`. To be told `when_kept`."""
        first = self.jobs.reserve(count)
        self._keep()
        return first

    def driver_trouble(self) -> str:
        """Why no driver can come now; "" if one can."""
        return ""

    def job_leaves(self, driver: str) -> None:
        self.jobs.leaves(driver)
        self._keep()

    def jobs_listed(self) -> list[Message]:
        """All jobs, for queries."""
        return [
            {
                "job_id": one.id,
                "driver": one.driver,
                "pid": one.pid,
                "status": one.status,
                "message": one.message,
                "entrypoint": one.entrypoint,
                "started_s": one.started_s,
                "ended_s": one.ended_s,
                **one.terms,
            }
            for one in self.jobs.listed()
        ]

    def add_event(self, severity: str, source: str, text: str, **facts: Any) -> None:
        """Of what has happened to the cluster, see `cluster_events`."""
        self._events.add(severity, source, text, self._node.time_s(), facts)
        self._keep()

    def _remember(self, what: cluster_events.Happened) -> None:
        self._events.add(what.severity, what.source, what.text, self._node.time_s(), what.facts)

    def _add_job_event(self, job: jobs.Job) -> None:
        """It has begun, or ended."""
        what = {jobs.RUNNING: "began", jobs.SUCCEEDED: "ended", jobs.FAILED: f"failed: {job.message}"}[job.status]
        severity = cluster_events.WARNING if job.status == jobs.FAILED else cluster_events.INFO
        called = f"job {job.id} ({job.entrypoint})" if job.entrypoint else f"job {job.id}"
        facts = {"job_id": job.id, "driver": job.driver, "pid": job.pid}
        self._events.add(severity, cluster_events.JOBS, f"{called} {what}", self._node.time_s(), facts)

    def events_listed(self) -> list[Message]:
        """What has happened to the cluster, the latest last, for queries."""
        return [one._asdict() for one in self._events.listed()]

    def next_tick_s(self) -> float | None:
        due = [self.table.next_tick_s(), self._groups.next_tick_s() if self._groups is not None else None]
        if self._keeper is not None:
            due += [self._recover_at_s, self._keeper.next_tick_s()]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        if self._keeper is not None:
            self._keeper.tick()
            if self._recover_at_s is not None and self._recover_at_s <= self._node.now_s():
                self.recover()
        self._decide(ev.Ticked(self._node.now_s()))
        if self._groups is not None:
            self._groups.tick()

    def await_nodes(self) -> None:
        """Others lived on while the service was away: nothing is given up before `recover` is called."""
        self._recover_at_s = None

    def is_worker_of(self, actor: str, worker: str) -> bool:
        """Whether the actor lives, and this is its host."""
        return self.table.is_worker_of(actor, worker)

    def spec_of(self, actor: str) -> ev.ActorSpec:
        """Of one that lives."""
        return self.table.actors[actor].spec

    def hosts_reported(
        self,
        node: str,
        hosts: Mapping[str, ev.Hosting],
        processes: Collection[str],
        accelerators: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> None:
        """A node lived on while the service was away; this comes before anything else of it. One node alone never does.
        accelerators: by actors, of those whose constructor may have to be called."""
        self._reported.update(processes)
        self._accelerators.update(accelerators or {})
        self._decide(ev.HostsReported(node, hosts, processes, self._node.now_s()))

    def recover(self) -> None:
        """Whoever lived on while the service was away has been reported."""
        self._recover_at_s = None
        processes, self._reported = self._reported, set()
        for job in self.jobs.recovered(processes, self._node.time_s()):
            self._add_job_event(job)
        answered, self._answered = self._answered, []
        for client in answered:
            if self.answers is not None and client not in processes:  # it has ended, and its node with it
                self.answers.forget_others(client, ())
        self._keep()
        now_s, ends = self._node.now_s(), self._node.ends_of(self.table.hosts())
        self._decide(ev.Recovered("its node ended, and the control service has started again", now_s, ends))
        if self._groups is not None:
            self._groups.recovered(lambda owner: owner in processes or owner in self.table.actors)

    def waits_for(self) -> str:
        """What the control storage is waited for; "" for nothing."""
        return self._keeper.reason() if self._keeper is not None else ""

    def take_nodes(self, table: nodes.NodeTable) -> list[str]:
        """Which nodes there are is kept as well, from now on: those that may have lived on while the service was away."""
        return self._keeper.kept.take_nodes(table) if self._keeper is not None else []

    def keep_nodes(self) -> None:
        """The table of nodes has changed."""
        self._keep()

    def end(self) -> None:
        """Nobody leads any more, if this one did."""
        if self._keeper is not None:
            self._keeper.end()

    def job_environments(self) -> list[Any]:
        """What workers of jobs are like that ended before this service began, and have actors."""
        return self._keeper.kept.job_environments() if self._keeper is not None else []

    def owns_actors(self, client: str) -> bool:
        """Whether actors would die with this process."""
        return self.table.owns_actors(client)

    def may_restart(self, actor: str) -> bool:
        """Whether the actor would restart if its process died."""
        return self.table.may_restart(actor)

    def listed(self) -> list[Message]:
        """All actors, for queries; "worker" is their host's id."""
        return [_as_message(one) for one in self.table.listed()]

    def facts_of_dead(self, actor: str) -> Message | None:
        """Of one that is dead, if it is remembered."""
        dead = self.table.dead(actor)
        return _as_message(dead) if dead is not None else None

    def facts(self, actor: str) -> Message:
        """Of one that lives, as `listed` has it."""
        return _as_message(actors.as_listed(self.table.actors[actor]))

    # ---- commands ----

    def _place(self, command: ev.Place) -> None:
        group = command.spec.group
        trouble = self.group_trouble(group) if group else ""
        if trouble:
            self._decide(ev.GroupEnded(group, trouble, self._node.now_s()))
        else:
            self._node.place_actor(command.spec)

    def _create(self, command: ev.Create) -> None:
        spec = self.table.actors[command.actor].spec
        message = {
            "t": "create",
            "actor": spec.actor,
            "class_name": spec.class_name,
            "name": spec.name or None,
            "namespace": spec.namespace,
            "owner": spec.owner,
            "detached": spec.is_detached,
            "max_restarts": spec.max_restarts,
            "reconstructed": command.reconstructed,
            "placement": spec.placement,
            "running": spec.running,
            "accelerators": self._accelerators.pop(spec.actor, {}),
            "env": spec.env,
            "depth": spec.depth,
            "strategy": spec.strategy,
        }
        self._node.send(command.worker, message, self._calls[spec.actor])

    def _publish(self, command: ev.Publish) -> None:
        message: Message = {
            "t": "actor_state",
            "actor": command.actor,
            "state": command.state.value,
            "address": command.address,
            "worker": command.worker,
            "restarts": command.restarts,
            "reason": command.reason,
            "intended": command.cause is ev.Cause.INTENDED,
            "init_failed": command.cause is ev.Cause.INIT_FAILED,
            "unschedulable": command.cause is ev.Cause.UNSCHEDULABLE,
            "no_environment": command.cause is ev.Cause.NO_ENVIRONMENT,
            "group_removed": command.cause is ev.Cause.GROUP_REMOVED,
            "preempted": self._is_preempted or command.cause is ev.Cause.PREEMPTED,
        }
        if self._memory is not None:
            message["memory"] = self._memory
        body = self._errors.get(command.actor, b"") if command.cause is ev.Cause.INIT_FAILED else b""
        self._node.send(command.client, message, body)

    def _answer_create(self, command: ev.AnswerCreate) -> None:
        answer = {"actor": command.actor, "existing": command.is_existing}
        # Of one that has died since it was asked for, who asks once more has the class.
        self._node.reply(command.client, command.request, answer, self._classes.get(command.actor, b""))

    def _forget(self, command: ev.Forget) -> None:
        self._calls.pop(command.actor, None)
        self._accelerators.pop(command.actor, None)
        if command.actor not in self.table.actors:
            self._classes.pop(command.actor, None)
            dead = self.table.dead(command.actor)
            if dead is not None:
                self._node.actor_dead(command.actor, _as_message(dead))
            if self._groups is not None:
                self._groups.owner_gone(command.actor)


def _as_message(one: actors.Listed) -> Message:
    return {**one._asdict(), "state": one.state.value, "cause": one.cause.value}


def keeping_in(node: Any, url: str, **options: Any) -> ActorService:
    """A service whose records are kept in this control storage. options: as for `storing.lead`, which this waits for."""
    from umbel._control import storing

    return ActorService(node, storing.lead(url, now_s=node.now_s, **options))
