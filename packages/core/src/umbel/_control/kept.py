"""What of the control store's tables is kept, as records, and the tables that are made from these.

Each thing has a record of what never changes and one of its state, so that little is written when that changes:

    actor/ID/spec   what was asked for        actor/ID/state  state, worker, restarts, why it is dead
    actor/ID/class  its class's description   actor/ID/call   its constructor call, while it may be needed
    actor/ID/error  why its constructor failed
    group/ID/spec, group/ID/state             likewise; the state has the nodes of its bundles
    job/ID          a driver, and how it ended
    job/ID/workers  what its workers are like, while it runs or an actor of it lives
    jobs            how many there have been
    kv/HASH         a namespace, a key and a value
    cluster         its id
    node/ID         a node, and how it ended
    event/NUMBER    something that people ask for afterwards
    answer/ID/N     to a request of another node's process, until that node has heard it

Names are those of actors and groups that have not ended. Watchers, requests and attempts to place something are not kept:
who waits for something asks again. The number "n" tells what was written when: things come back in the order in which they
were made, ended ones in the order in which they ended.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from umbel._control import actors as actor_table
from umbel._control import answers as answer_table
from umbel._control import cluster_events, records
from umbel._control import jobs as job_table
from umbel._control import kv as key_values
from umbel._control.events import ActorSpec, ActorState, Cause

if TYPE_CHECKING:
    from umbel._control import groups as group_table
    from umbel._control import nodes as node_table

_ID_CHARS_MAX = 100  # of ids that are part of a key as they are: those of processes, actors and groups are shorter
_OF_ACTOR = ("spec", "class", "call", "state", "error")


class Kept:
    """The tables, with the bodies that belong to them, and which records there are of them."""

    def __init__(self, stored: Iterable[tuple[str, bytes]], now_s: float) -> None:
        """stored: as `load` of the storage has it. Raises StorageMismatch."""
        self.book = records.Book()
        self.classes: dict[str, bytes] = {}  # class descriptions of live actors
        self.calls: dict[str, bytes] = {}  # constructor calls that may be needed
        self.errors: OrderedDict[str, bytes] = OrderedDict()  # of actors that are dead
        self.jobs = job_table.Jobs()
        self.kv = key_values.KeyValues()
        self.groups: group_table.GroupTable | None = None  # once it is there
        self._now_s = now_s
        self._count = 0  # the largest n so far
        self._job_count = 0  # as it is kept
        self.answers = answer_table.Answers()
        self.events = cluster_events.ClusterEvents()
        self.cluster = ""  # its id, once it has one
        self.nodes: node_table.NodeTable | None = None  # where nodes may join
        self._stored_nodes: list[dict[str, Any]] = []
        self._users: Counter[str] = Counter()  # live actors by the job whose workers theirs are like
        self._workers: dict[str, job_table.JobEnvironment] = {}
        self._of_groups: dict[str, dict[str, dict[str, Any]]] = {}
        self.actors = self._load(stored)
        self.jobs.changed = {}
        self.kv.changed = {}
        self.answers.changed = {}

    # ---- loading ----

    def _load(self, stored: Iterable[tuple[str, bytes]]) -> actor_table.ActorTable:
        of_actors: dict[str, dict[str, Any]] = {}
        of_jobs: dict[str, dict[str, Any]] = {}
        events: list[cluster_events.ClusterEvent] = []
        for key, record in self.book.read(stored):
            facts, body = record
            self._count = max(self._count, facts.get("n", 0))
            kind, _, rest = key.partition("/")
            what = rest.rpartition("/")[2]
            if kind == "actor":
                parts = of_actors.setdefault(facts["id"], {})
                parts[what] = body if what in ("class", "call", "error") else facts
            elif kind == "group":
                self._of_groups.setdefault(facts["id"], {})[what] = facts
            elif kind == "job" and what == "workers":
                self._workers[facts["id"]] = job_table.JobEnvironment(facts["id"], facts["workers"])
            elif kind == "job":
                of_jobs[facts["id"]] = facts
            elif kind == "jobs":
                self._job_count = facts["count"]
            elif kind == "cluster":
                self.cluster = facts["id"]
            elif kind == "node":
                self._stored_nodes.append(facts)
            elif kind == "event":
                events.append(
                    cluster_events.ClusterEvent(**{name: facts[name] for name in cluster_events.ClusterEvent._fields})
                )
            elif kind == "answer":
                self.answers.keep(facts["client"], facts["rq"], facts["answer"])
            elif kind == "kv":
                self.kv.restore(_bytes(facts["namespace"]), _bytes(facts["key"]), body)
        jobs = [_job(facts, self._workers.get(facts["id"])) for facts in sorted(of_jobs.values(), key=_n)]
        self.jobs.restore(jobs, self._job_count)
        self.events.restore(events)
        return actor_table.ActorTable.restored(self._actor(parts) for parts in sorted(of_actors.values(), key=_age))

    def _actor(self, parts: Mapping[str, Any]) -> actor_table.Actor:
        spec, state = parts["spec"], parts["state"]
        actor_id = spec["id"]
        fields = {name: value for name, value in spec.items() if name in ActorSpec._fields}
        job_id = spec["job_id"]
        is_live = state["state"] != ActorState.DEAD.value
        if is_live and spec["has_job"]:
            self._users[job_id] += 1
            fields["job"] = self._workers.get(job_id)
        actor = actor_table.Actor(ActorSpec(**fields), lacks_arguments=state["lacks_arguments"])
        actor.preemptions = state.get("preemptions", 0)  # which earlier versions did not count
        for name in ("worker", "address", "repr_name", "restarts", "exit_reason", "reason"):
            setattr(actor, name, state[name])
        actor.kill_reason = state.get("kill_reason", "")
        actor.state, actor.cause = ActorState(state["state"]), Cause(state["cause"])
        for what, bodies in (("class", self.classes), ("call", self.calls), ("error", self.errors)):
            if what in parts:
                bodies[actor_id] = parts[what]
        return actor

    @property
    def has_groups(self) -> bool:
        return bool(self._of_groups)

    def take_groups(self, table: group_table.GroupTable) -> None:
        """The table of groups is there, and gets those that are kept."""
        self.groups = table
        table.changed = {}
        parts, self._of_groups = self._of_groups, {}
        if parts:
            from umbel._control import group_records

            table.restore(group_records.group(one, self._now_s) for one in sorted(parts.values(), key=_age))

    def take_nodes(self, table: node_table.NodeTable) -> list[str]:
        """The table of nodes is there, and gets those that are kept, and the id of the cluster. Returns the ids of those that
        may live on."""
        self.nodes = table
        awaited = table.restore(self.cluster, sorted(self._stored_nodes, key=_n))
        self._stored_nodes = []
        return awaited

    def job_environments(self) -> list[job_table.JobEnvironment]:
        return list(self._workers.values())

    # ---- writing ----

    def writes(self) -> records.Writes:
        """What has to be written for the storage to have what the tables have."""
        writes: records.Writes = {}
        for actor_id in _taken(self.actors.changed):
            writes |= self._writes_of_actor(actor_id)
        for job_id in _taken(self.jobs.changed):
            writes |= self._writes_of_job(job_id)
        if self.jobs.count != self._job_count:
            self._job_count = self.jobs.count
            writes |= self.book.put("jobs", {"count": self._job_count})
        for namespace, key in _taken(self.kv.changed):
            writes |= self._writes_of_key(namespace, key)
        for client, request in _taken(self.answers.changed):
            writes |= self._writes_of_answer(client, request)
        for number in _taken(self.events.changed):
            key, event = f"event/{number:016x}", self.events.record(number)
            writes |= self.book.delete(key) if event is None else self.book.put(key, event._asdict())
        if self.nodes is not None:
            writes |= self._writes_of_nodes(self.nodes)
        if self.groups is not None and self.groups.changed:
            from umbel._control import group_records

            for group_id in _taken(self.groups.changed):
                base, group = _base("group", group_id), self.groups.record(group_id)
                if group is None:
                    writes |= {**self.book.delete(f"{base}/spec"), **self.book.delete(f"{base}/state")}
                    continue
                if f"{base}/spec" not in self.book:
                    writes |= self._put(f"{base}/spec", group_records.facts_of_spec(group.spec))
                writes |= self._put(f"{base}/state", {"id": group_id, **group_records.facts_of_state(group)})
        return writes

    def _put(self, key: str, facts: Mapping[str, Any], body: bytes = b"") -> records.Writes:
        self._count += 1
        return self.book.put(key, {"n": self._count, **facts}, body)

    def _writes_of_actor(self, actor_id: str) -> records.Writes:
        base, actor = _base("actor", actor_id), self.actors.record(actor_id)
        writes: records.Writes = {}
        if actor is None:
            for what in _OF_ACTOR:
                writes |= self.book.delete(f"{base}/{what}")
            return writes
        spec, is_dead = actor.spec, actor.state is ActorState.DEAD
        if f"{base}/spec" not in self.book:
            facts = {**spec._asdict(), "job": None, "has_job": spec.job is not None}
            writes |= self._put(f"{base}/spec", {"id": actor_id, **facts})
            if spec.job is not None and not is_dead:  # of a driver of another node nothing else is kept
                writes |= self._writes_of_workers(spec.job)
        was_live = f"{base}/class" in self.book
        writes |= self._body(f"{base}/class", actor_id, None if is_dead else self.classes.get(actor_id, b""))
        call = self.calls.get(actor_id) if actor_table.needs_call(actor) else None
        writes |= self._body(f"{base}/call", actor_id, call)
        writes |= self._body(f"{base}/error", actor_id, self.errors.get(actor_id) if is_dead else None)
        state = {
            "id": actor_id, "state": actor.state.value, "lacks_arguments": actor.lacks_arguments, "worker": actor.worker,
            "address": actor.address, "repr_name": actor.repr_name, "restarts": actor.restarts,
            "preemptions": actor.preemptions, "exit_reason": actor.exit_reason, "kill_reason": actor.kill_reason,
            "reason": actor.reason,
            "cause": actor.cause.value,
        }  # fmt: skip
        writes |= self._put(f"{base}/state", state)
        if spec.job is not None and was_live is is_dead:
            self._users[spec.job_id] += -1 if is_dead else 1
            writes |= self._drop_workers(spec.job_id)
        return writes

    def _body(self, key: str, actor_id: str, body: bytes | None) -> records.Writes:
        """Bodies never change: each is there or not."""
        if body is None:
            return self.book.delete(key)
        return {} if key in self.book else self.book.put(key, {"id": actor_id}, body)

    def _writes_of_job(self, job_id: str) -> records.Writes:
        base, job = _base("job", job_id), self.jobs.record(job_id)
        if job is None:
            return self.book.delete(base) | self._drop_workers(job_id)
        facts = {
            "id": job_id, "driver": job.driver, "pid": job.pid, "entrypoint": job.entrypoint, "status": job.status,
            "message": job.message, "started_s": job.started_s, "ended_s": job.ended_s, **job.terms,
        }  # fmt: skip
        writes = self._put(base, facts)
        if job.environment is not None:
            writes |= self._writes_of_workers(job.environment)
        return writes | self._drop_workers(job_id)

    def _writes_of_workers(self, environment: job_table.JobEnvironment) -> records.Writes:
        key = f"{_base('job', environment.id)}/workers"
        return {} if key in self.book else self.book.put(key, {"id": environment.id, "workers": environment.facts})

    def _drop_workers(self, job_id: str) -> records.Writes:
        """What the workers of a job are like is kept while they may be started."""
        if self._users[job_id] or self.jobs.is_running(job_id):
            return {}
        del self._users[job_id]
        return self.book.delete(f"{_base('job', job_id)}/workers")

    def _writes_of_answer(self, client: str, request: int) -> records.Writes:
        key, answer = f"{_base('answer', client)}/{request}", self.answers.given(client, request)
        if answer is None:
            return self.book.delete(key)
        return self.book.put(key, {"client": client, "rq": request, "answer": answer})

    def _writes_of_nodes(self, table: node_table.NodeTable) -> records.Writes:
        writes: records.Writes = {}
        if self.cluster != table.cluster:
            self.cluster = table.cluster
            writes |= self.book.put("cluster", {"id": self.cluster})
        for node_id in _taken(table.changed):
            found = table.record(node_id)
            key = _base("node", node_id)
            writes |= self.book.delete(key) if found is None else self._put(key, {"id": node_id, **found})
        return writes

    def _writes_of_key(self, namespace: bytes, key: bytes) -> records.Writes:
        name = hashlib.sha256(b"%d %b%b" % (len(namespace), namespace, key)).hexdigest()
        value = self.kv.get(namespace, key)
        if value is None:
            return self.book.delete(f"kv/{name}")
        return self.book.put(f"kv/{name}", {"namespace": _text(namespace), "key": _text(key)}, value)


def _taken(changed: dict[Any, None] | None) -> list[Any]:
    """What has changed, which counts as kept from now on."""
    found = list(changed or ())
    if changed:
        changed.clear()
    return found


def _base(kind: str, name: str) -> str:
    """The key of a thing, whatever a client has called it."""
    if not (name.isascii() and name.isalnum() and len(name) <= _ID_CHARS_MAX):
        name = "~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kind}/{name}"


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _n(facts: Mapping[str, Any]) -> int:
    return int(facts["n"])


def _age(parts: Mapping[str, Any]) -> int:
    """When it was made, or for what has ended, when it did."""
    has_ended = parts["state"]["state"] in ("DEAD", "REMOVED")
    return _n(parts["state" if has_ended else "spec"])


def _job(facts: Mapping[str, Any], environment: job_table.JobEnvironment | None) -> job_table.Job:
    job = job_table.Job(facts["id"], facts["driver"], facts["pid"], None, facts["started_s"])
    job.environment = environment if facts["ended_s"] is None else None
    job.terms = {
        name: facts.get(name, default) for name, default in job_table.TERMS.items()
    }  # earlier versions had none
    for name in ("entrypoint", "status", "message", "ended_s"):
        setattr(job, name, facts[name])
    return job
