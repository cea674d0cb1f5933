"""In the place of the control service, on a node that has joined a cluster: that is the head's.

What processes of this node say to it goes to the head, in order and once, over a `channels.Channel`, and waits while there is no
connection (`waits_for`). The head's answers and news are passed on to whom they are for, its orders about actors are given to the
daemon, and what comes of them is told to the head. Its other side is `umbel._control.members`.

A head that has ended may come back with what it has kept. The conversation with it is a new one, which begins with what there is
here (`_restate`); then comes again whatever the head before may not have carried out, or has not answered. What was answered
is carried out; all else may be said twice, or is remembered by the head until its answer was heard.

Here is kept what the daemon asks without waiting: which processes own actors that would die with them, and what the
actors are like that are hosted here. The head also says which bundles of placement groups are to lie here, and where others are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from umbel._base import pairs
from umbel._wire import channels

KEPT_BYTES_MAX = 64 << 20  # of bodies that wait for the head; beyond it requests are refused
KEPT_MAX = 100_000  # and things
JOB_IDS_MIN = 32  # below it, more are asked for
ROOM_LOOKS = 3  # for so many, it is said at once how much room bundles leave that were given back

Message = dict[str, Any]

_PASSED_ON = (
    "create_actor", "actor_arguments", "actor_arguments_failed", "get_actor", "list_actors", "actor_watch", "kill_actor",
    "actor_unreferenced", "actor_ready", "actor_failed", "actor_exiting", "kv_put", "kv_get", "kv_del", "kv_list",
    "create_group", "remove_group", "group_watch", "get_group",
)  # fmt: skip
_ASKED_OF_HEAD = {
    "actors": "actors", "jobs": "jobs", "placement_groups": "placement groups", "autoscaler": "autoscaler's launches",
    "cluster_events": "events", "launches": "autoscaler's launches", "bundle_nodes": "bundles",
}  # fmt: skip
# What need not be said to another head: it is told of this by what there is, or decides it anew.
_RESTATED = (
    "restate", "restated", "hosted", "unhosted", "unplaceable", "want_job_ids", "actor_watch", "bundles_held", "bundles_reserved",
    "bundles_refused", "bundles_committed", "room", "follow_group", "group_watch", "load", "preparing",
)  # fmt: skip


class Daemon(Protocol):
    """What is needed of the daemon."""

    def now_s(self) -> float: ...

    def send(self, client: str, message: Message, body: bytes = b"") -> None: ...

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None: ...

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None: ...

    def job_of(self, client: str) -> tuple[str, Any]: ...

    def pid_of(self, worker: str) -> int: ...

    def jobs_of_processes(self) -> Mapping[str, str]:
        """Of all processes here, each with the id of its job."""

    def answer_query(self, client: str, message: Message) -> None:
        """About this node."""

    def place_actor(self, spec: Wish, source: str = "") -> None:
        """source: another node that has the packages of its environment; "" for none."""

    def release_actor(self, actor: str, grace_s: float | None) -> None: ...

    def kill_actor(self, actor: str, reason: str, worker: str = "") -> None:
        """worker: only that one, and whatever is looked for goes on; "" for all."""

    def actor_dead(self, actor: str, facts: Message) -> None: ...

    def job_environment(self, job_id: str) -> Any: ...

    def knows_job(self, environment: Any) -> None: ...

    def own_load(self) -> Message:
        """What waits here, and whether anything runs."""

    def as_seen(self) -> Message:
        """Its "available" resources in units, beside others."""

    def reserve_bundles(
        self, node: str, group: str, attempt: int, wanted: Mapping[int, Mapping[str, int]], depth: int, job: list[Any]
    ) -> None:
        """node: always this one; so below. `bundles_reserved` or `bundles_refused` is called when that is decided."""

    def commit_bundles(self, node: str, group: str, attempt: int) -> None: ...

    def cancel_bundles(self, node: str, group: str, attempt: int) -> None: ...

    def drop_group(self, node: str, group: str, reason: str) -> None: ...

    def tell_places(self, node: str, message: Message) -> None: ...

    def held_bundles(self) -> Sequence[tuple[str, int, Sequence[int], bool]]:
        """Group, attempt, indices, and whether anything may run in them."""


class Job:
    """What the workers of a job are like. driver: the process that drives it; "" for one that had ended."""

    __slots__ = ("__weakref__", "driver", "facts", "id")

    def __init__(self, id: str, facts: Mapping[str, Any] | None, driver: str) -> None:
        self.id = id
        self.facts = facts
        self.driver = driver


class Wish(NamedTuple):
    """An actor that is to be hosted here."""

    actor: str
    placement: Mapping[str, int]
    running: Mapping[str, int]
    env: Any
    strategy: Any
    label_selectors: Any
    depth: int
    job: Any


class Hosted:
    """An actor that is hosted here, or is to be. worker: "" until it has one. facts: for listings. stage: as in
    `umbel._control.events`."""

    __slots__ = ("accelerators", "attempt", "facts", "may_restart", "stage", "wish", "worker")

    def __init__(self, wish: Wish, attempt: int, facts: Message, *, may_restart: bool) -> None:
        self.wish = wish
        self.attempt = attempt  # the head's number of this order
        self.worker = ""
        self.accelerators: Message = {}
        self.stage = "uncalled"
        self.facts = facts
        self.may_restart = may_restart


class Owned:
    """An actor that a process here has created."""

    __slots__ = ("client", "needs_owner", "needs_owner_after")

    def __init__(self, client: str, message: Message) -> None:
        self.client = client
        self.needs_owner_after = not message["detached"]
        self.needs_owner = self.needs_owner_after or message["lacks_arguments"]


class ControlProxy:
    """An `_agent.control.Control`."""

    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon
        self.channel = channels.Channel()
        self._head = ""  # the id of the head's node, with which that conversation is
        self._unanswered: dict[tuple[str, int], tuple[int, Message, bytes]] = {}  # requests, as they were said
        self._watched = pairs.Pairs()  # actors that live, with the processes here that watch them
        self._own_requests = itertools.count(1)
        self._send: Callable[[Message, bytes], None] | None = None  # to the head, while there is a connection
        self._job_ids: list[int] = []  # for drivers to come
        self._has_asked_for_ids = False
        self._hosted: dict[str, Hosted] = {}
        self._owned: dict[str, Owned] = {}
        self._owners = pairs.Pairs()  # the same actors, with the processes here that have created them
        self._creations: dict[tuple[str, int], str] = {}  # requests by which some of them are created, with those
        self._askers: dict[str, dict[int, None]] = {}  # processes with requests that were not answered
        self._jobs: dict[str, Job] = {}  # of drivers here
        self.tells_load = False  # the head has an autoscaler
        self._told_load: Message | None = None
        self._told_room: Message | None = None  # since bundles were given back, for some beats
        self._room_looks = 0  # of those, so many are left
        self._asked_for: dict[tuple[str, int], None] = {}  # attempts of groups that are to have bundles here
        self._followed: dict[str, None] = {}  # groups
        self._watched_groups = pairs.Pairs()  # with the processes here that wait for them
        self.on: dict[str, Callable[[str, str, Message, bytes], None]] = {
            **dict.fromkeys(_PASSED_ON, self._pass_on),
            "query": self._on_query,
        }
        self._on_order: dict[str, Callable[[Message, bytes], None]] = {
            "deliver": self._deliver,
            "place_actor": self._place_actor,
            "release_actor": self._release_actor,
            "kill_actor": self._kill_actor,
            "actor_dead": self._actor_dead,
            "job_ids": lambda message, _body: self._take_job_ids(message["ids"]),
            "tell_load": lambda _message, _body: self._begin_to_tell_load(),
            "reserve_bundles": self._reserve_bundles,
            "commit_bundles": self._commit_bundles,
            "cancel_bundles": self._cancel_bundles,
            "drop_group": self._drop_group,
            "group_places": self._tell_places,
        }
        self.send, self.reply = daemon.send, daemon.reply

    # ---- the head ----

    def _say(self, message: Message, body: bytes = b"") -> None:
        frame = self.channel.say(message, body)
        asked = _asked(message)
        if asked is not None:
            self._unanswered[asked] = (self.channel.said, message, body)
            self._askers.setdefault(asked[0], {})[asked[1]] = None
        if self._send is not None:
            self._send(frame, body)

    def heard_of(self) -> tuple[str, int]:
        """With which head the conversation is, and what of that was heard."""
        return self._head, self.channel.counts

    def linked(
        self, heard: int, job_ids: Sequence[int], send: Callable[[Message, bytes], None], *, head: str = ""
    ) -> None:
        """There is a connection to the head, of that node, which has heard so much. Raises ValueError when it cannot have."""
        if self._head and head != self._head:
            self._begin_anew()
        self._head = head
        again = self.channel.linked(heard)
        if not self._job_ids and not self._has_asked_for_ids:
            self._take_job_ids(job_ids)
        self._send = send
        for frame, body in again:
            send(frame, body)

    # ---- another head ----

    def _begin_anew(self) -> None:
        """Of the head before nothing will be heard any more."""
        left = self._left_open()
        self.channel, self._unanswered, self._has_asked_for_ids = channels.Channel(), {}, False
        self._askers = {}
        self._told_room = None
        # Of those that need a worker the head knows, and looks for one anew.
        sought = [one for one, hosted in self._hosted.items() if not hosted.worker]
        for actor in sought:
            del self._hosted[actor]
        self._restate(left)
        for actor in sought:
            self._daemon.kill_actor(actor, "the head has started again")
        self._restate_bundles()
        for message, body in left:
            self._say(self._with_time_left(message), body)
        self._watched_again()
        made = {message["message"]["actor"] for message, _ in left if _kind(message) == "create_actor"}
        self._say({"t": "restated", "owned": [actor for actor in self._owned if actor not in made]})
        if len(self._job_ids) < JOB_IDS_MIN:
            self._ask_for_job_ids()

    def _with_time_left(self, message: Message) -> Message:
        """A deadline is told as the time until then, which has passed in part since the head before was told."""
        if message["t"] != "drain_node" or message["message"]["deadline_s"] is None:
            return message
        now_s, asked = self._daemon.now_s(), message["message"]
        left_s = max(0.0, asked["deadline_s"] - (now_s - message["said_s"]))
        return {**message, "said_s": now_s, "message": {**asked, "deadline_s": left_s}}

    def _watched_again(self) -> None:
        for actor, client in self._watched:
            self._request(client, "", {"t": "actor_watch", "actor": actor, "rq": None}, b"")
        for group in self._followed:
            self._say({"t": "follow_group", "group": group})
        for group, client in self._watched_groups:
            self._request(client, "", {"t": "group_watch", "group": group, "rq": None}, b"")

    def _left_open(self) -> list[tuple[Message, bytes]]:
        """What was said and may not have been carried out, or was not answered, in the order in which it was said."""
        said = {number: (message, body) for number, message, body in self.channel.kept if _asked(message) is None}
        said |= {number: (message, body) for number, message, body in self._unanswered.values()}
        return [said[number] for number in sorted(said) if self._is_open(said[number][0])]

    def _is_open(self, message: Message) -> bool:
        kind = _kind(message)
        if kind == "create_actor":
            return message["message"]["actor"] in self._owned  # else the head has told of its end
        return kind not in _RESTATED

    def _restate(self, left: Sequence[tuple[Message, bytes]]) -> None:
        """What there is here. left: what will be said again afterwards."""
        hosts = {
            hosted.worker: {
                "actor": actor, "attempt": hosted.attempt, "pid": self._daemon.pid_of(hosted.worker),
                "stage": hosted.stage, "accelerators": hosted.accelerators, "has_ended": False,
            }
            for actor, hosted in self._hosted.items()
        }  # fmt: skip
        asked: dict[str, list[int]] = {}
        for message, _ in left:
            kind = _kind(message)
            if kind == "host_died":
                hosts[message["worker"]] = {
                    "actor": message["actor"], "attempt": message["attempt"], "pid": 0, "stage": "constructing",
                    "accelerators": {}, "has_ended": True,
                }  # fmt: skip
            elif kind == "actor_ready":  # the head shall hear of it as it was said
                worker = message["client"]
                if worker in hosts:
                    hosts[worker]["stage"] = "constructing"
            request = _asked(message)
            if request is not None:
                asked.setdefault(request[0], []).append(request[1])
        jobs = {job.id: driver for driver, job in self._jobs.items()}
        processes = dict(self._daemon.jobs_of_processes())
        self._say({"t": "restate", "hosts": hosts, "processes": processes, "jobs": jobs, "asked": asked})

    # ----

    def unlinked(self) -> None:
        self._send = None

    def on_frame(self, frame: Message, body: bytes) -> None:
        """What the head says. Raises ValueError when it cannot be."""
        if frame["t"] == "heard_said":
            self.channel.acknowledged(frame["heard"])
            return
        if self.channel.takes(frame, body):
            message = frame["message"]
            carry_out = self._on_order.get(message.get("t"))
            if carry_out is None:
                raise ValueError(f"unknown order {message.get('t')!r:.100}; known are {', '.join(self._on_order)}")
            carry_out(message, body)
        acknowledgement = self.channel.acknowledgement()
        if acknowledgement is not None and self._send is not None:
            self._send(acknowledgement, b"")

    def _begin_to_tell_load(self) -> None:
        """It is told by the next look."""
        self.tells_load, self._told_load = True, None

    def look(self) -> None:
        """To be called with each beat: tell the head what waits here, if it wants to know and that has changed."""
        if self._room_looks:
            self._room_looks -= 1
            if not self._room_looks:
                self._told_room = None
        if not self.tells_load or self._send is None:
            return
        load = self._daemon.own_load()
        if load != self._told_load:
            self._told_load = load
            self._say({"t": "load", **load})

    def waits_for(self) -> str:
        count = self.channel.kept_count
        if self._send is not None or not count:
            return ""
        return f"waits for a connection to the head, to tell it {count} things"

    # ---- messages of this node's processes ----

    def _pass_on(self, client: str, namespace: str, message: Message, body: bytes) -> None:
        kind = message["t"]
        is_full = self.channel.kept_bytes + len(body) > KEPT_BYTES_MAX or self.channel.kept_count >= KEPT_MAX
        if is_full and (message["rq"] is not None or kind == "create_actor"):
            self._refuse(client, message)
            return  # all else is small, and must not be lost
        if kind == "create_actor":
            self._owned[message["actor"]] = Owned(client, message)
            self._owners.add(message["actor"], client)
            if message["rq"] is not None:
                self._creations[client, message["rq"]] = message["actor"]
        elif kind in ("actor_arguments", "actor_arguments_failed"):
            owned = self._owned.get(message["actor"])
            if owned is not None and owned.client == client:
                owned.needs_owner = owned.needs_owner_after
        elif kind == "actor_ready":
            hosted = self._hosted.get(message["actor"])
            if hosted is not None and hosted.worker == client:
                hosted.stage = "ready"
                hosted.facts |= {"state": "ALIVE", "repr_name": message["repr_name"], "reason": ""}
        elif kind == "group_watch":
            self._watched_groups.add(message["group"], client)
        elif kind == "actor_watch":
            self._watched.add(message["actor"], client)
        elif kind == "kill_actor" and not message["no_restart"] and message["rq"] is None:
            # It must not happen twice, so that it was carried out has to be heard.
            message = {**message, "rq": -next(self._own_requests)}
        self._request(client, namespace, message, body)

    def _request(self, client: str, namespace: str, message: Message, body: bytes) -> None:
        job_id, _ = self._daemon.job_of(client)
        told = {"t": "request", "client": client, "namespace": namespace, "job": job_id, "message": message}
        self._say(told, body)

    def _refuse(self, client: str, message: Message) -> None:
        text = f"too much waits for the head: {self.waits_for() or 'it does not keep up'}"
        if message["rq"] is not None:
            self._daemon.refuse(client, message["rq"], "unavailable", text)
            return
        state = {
            "t": "actor_state", "actor": message["actor"], "state": "DEAD", "address": "", "worker": "", "restarts": 0,
            "reason": text, "intended": False, "init_failed": False, "unschedulable": True, "no_environment": False,
            "group_removed": False,
        }  # fmt: skip
        self._daemon.send(client, state)

    def _on_query(self, client: str, _namespace: str, message: Message, _body: bytes) -> None:
        what = message["what"]
        if what in _ASKED_OF_HEAD and self._send is None:  # who looks wants to know that now
            text = f"the {_ASKED_OF_HEAD[what]} of a cluster are known to its head, to which this node has no connection now"
            self._daemon.refuse(client, message["rq"], "unavailable", text)
        elif what in _ASKED_OF_HEAD:
            about = message.get("about", "")
            self._say({"t": "query", "client": client, "rq": message["rq"], "what": what, "about": about})
        else:
            self._daemon.answer_query(client, message)

    def ask_to_drain(self, client: str, message: Message) -> None:
        """A process or command of this node wants a node of the cluster drained."""
        if self._send is None:
            text = "nodes are drained by the head of their cluster, to which this node has no connection now"
            self._daemon.refuse(client, message["rq"], "unavailable", text)
        else:
            self._say({"t": "drain_node", "client": client, "message": message, "said_s": self._daemon.now_s()})

    # ---- what the daemon reports ----

    def hosted(self, actor: str, worker: str, address: str, accelerators: Mapping[str, Sequence[str]]) -> None:
        hosted = self._hosted.get(actor)
        if hosted is None:  # it was to end while a worker was being found
            self._daemon.kill_actor(actor, "its actor is dead")
            return
        hosted.worker = hosted.facts["worker"] = worker
        hosted.accelerators = devices = {name: list(ids) for name, ids in accelerators.items()}
        told = {"t": "hosted", "actor": actor, "attempt": hosted.attempt, "worker": worker, "address": address}
        self._say({**told, "accelerators": devices, "pid": self._daemon.pid_of(worker)})

    def host_died(self, actor: str, worker: str, reason: str, *, memory: Message | None = None) -> None:
        hosted = self._hosted.get(actor)
        if hosted is not None and hosted.worker == worker:
            del self._hosted[actor]
            told = {"t": "host_died", "actor": actor, "attempt": hosted.attempt, "reason": reason, "memory": memory}
            self._say({**told, "worker": worker})

    def unplaceable(self, actor: str, reason: str, *, is_unschedulable: bool) -> None:
        hosted = self._hosted.pop(actor, None)
        if hosted is not None:
            self._say_unplaceable(actor, hosted.attempt, reason, is_unschedulable=is_unschedulable)

    def _say_unplaceable(self, actor: str, attempt: int, reason: str, *, is_unschedulable: bool) -> None:
        told = {"t": "unplaceable", "actor": actor, "attempt": attempt, "reason": reason}
        self._say({**told, "is_unschedulable": is_unschedulable})

    def preparing(self, actor: str, text: str) -> None:
        hosted = self._hosted.get(actor)
        if hosted is not None:
            self._say({"t": "preparing", "actor": actor, "attempt": hosted.attempt, "text": text})

    def client_gone(self, client: str, why: str = "") -> None:
        for actor in self._owners.pop_right(client):
            del self._owned[actor]
        self._jobs.pop(client, None)
        for request in self._askers.pop(client, ()):
            self._unanswered.pop((client, request), None)
            self._creations.pop((client, request), None)
        self._watched.pop_right(client)
        self._watched_groups.pop_right(client)
        self._say({"t": "client_gone", "client": client, **({"why": why} if why else {})})

    def job_begins(self, driver: str, pid: int, facts: Mapping[str, Any] | None) -> tuple[str, Any]:
        job_id = self._job_ids.pop(0).to_bytes(4, "little").hex()
        self._jobs[driver] = job = Job(job_id, facts, driver)
        self._say({"t": "job_begins", "client": driver, "pid": pid, "facts": facts, "job": job_id})
        if len(self._job_ids) < JOB_IDS_MIN and not self._has_asked_for_ids:
            self._ask_for_job_ids()
        return job_id, job

    def _ask_for_job_ids(self) -> None:
        self._has_asked_for_ids = True
        self._say({"t": "want_job_ids"})

    def driver_trouble(self) -> str:
        if self._job_ids:
            return ""
        return (
            "this node has no numbers for jobs left, and has to wait for the head of its cluster to give it more "
            f"({self.waits_for() or 'it was asked'}); try again"
        )

    def _take_job_ids(self, ids: Sequence[int]) -> None:
        first, count = ids
        self._job_ids += range(first, first + count)
        self._has_asked_for_ids = False

    def job_leaves(self, driver: str) -> None:
        self._say({"t": "job_leaves", "client": driver})

    # ---- what the daemon asks ----

    def driver_of_job(self, job_id: str) -> str:
        """The process that drives it; "" where that is not known here."""
        job = self._daemon.job_environment(job_id)
        return job.driver if isinstance(job, Job) else ""

    def owns_actors(self, client: str) -> bool:
        return any(self._owned[actor].needs_owner for actor in self._owners.lefts(client))

    def may_restart(self, actor: str) -> bool:
        hosted = self._hosted.get(actor)
        return hosted is not None and hosted.may_restart

    def listed(self) -> list[Message]:
        """Those that are hosted here, or are to be."""
        return [hosted.facts for hosted in self._hosted.values()]

    def jobs_listed(self) -> list[Message]:
        """The head is asked."""
        return []

    events_listed = jobs_listed

    def add_event(self, severity: str, source: str, text: str, **facts: Any) -> None:
        """Of what has happened here, for the head to remember."""
        self._say({"t": "event", "severity": severity, "source": source, "text": text, "facts": facts})

    def job_environments(self) -> list[Any]:
        return []

    def next_tick_s(self) -> float | None:
        return None

    def tick(self) -> None:
        """Nothing here depends on time."""

    def end(self) -> None:
        """The head hears of it from who keeps the connection."""

    # ---- the head's orders ----

    def _deliver(self, message: Message, body: bytes) -> None:
        to, told = message["to"], message["message"]
        if told["t"] == "reply":
            self._note_answer(to, told)
            self._answered(to, told["rq"])
            if told["rq"] < 0:
                return  # nobody has asked
        elif told["t"] == "create":
            hosted = self._hosted.get(told["actor"])
            if hosted is not None and hosted.worker == to:
                hosted.stage = "constructing"
        elif told["t"] == "actor_state" and told["state"] == "DEAD":
            self._watched.discard(told["actor"], to)
        elif told["t"] == "group_state":
            self._watched_groups.discard(told["group"], to)
        self._daemon.send(to, told, body)

    def _answered(self, client: str, request: int) -> None:
        self._unanswered.pop((client, request), None)
        asked = self._askers.get(client, {})
        asked.pop(request, None)
        if not asked:
            self._askers.pop(client, None)

    def _note_answer(self, client: str, answer: Message) -> None:
        """Of a named actor that was not created, nothing will be heard."""
        actor = self._creations.pop((client, answer["rq"]), "")
        if actor in self._owned and ("error" in answer or answer.get("existing")):
            self._disown(actor)

    def _disown(self, actor: str) -> None:
        owned = self._owned.pop(actor, None)
        if owned is not None:
            self._owners.discard(actor, owned.client)

    def _place_actor(self, message: Message, _body: bytes) -> None:
        actor, job = message["actor"], self._job(message["job"])
        if job is None:
            self._say_unplaceable(actor, message["attempt"], "its job has ended", is_unschedulable=False)
            return
        fields = {name: message[name] for name in Wish._fields if name != "job"}
        wish = Wish(**fields, job=job)
        self._hosted[actor] = Hosted(wish, message["attempt"], message["facts"], may_restart=message["may_restart"])
        self._daemon.place_actor(wish, message["source"])

    def _job(self, message: Message) -> Any:
        """As it is known here, or from now on, for as long as somebody holds on to it. None for one that has ended."""
        found = self._daemon.job_environment(message["id"])
        if found is None and message["facts"] is not None:
            found = Job(message["id"], message["facts"], message["driver"])
            self._daemon.knows_job(found)
        return found

    def _release_actor(self, message: Message, _body: bytes) -> None:
        hosted = self._hosted.get(message["actor"])
        if hosted is not None:
            hosted.may_restart = False
            self._daemon.release_actor(message["actor"], message["grace_s"])
            self._forget_unhosted(message["actor"], hosted)

    def _kill_actor(self, message: Message, _body: bytes) -> None:
        worker = message.get("worker", "")
        if worker:  # of before the head came back, which may have had another one looked for meanwhile
            self._daemon.kill_actor(message["actor"], message["reason"], worker)
            return
        hosted = self._hosted.get(message["actor"])
        self._daemon.kill_actor(message["actor"], message["reason"])
        if hosted is not None:
            self._forget_unhosted(message["actor"], hosted)

    def _forget_unhosted(self, actor: str, hosted: Hosted) -> None:
        """No worker is looked for any more, and of one that there is the end will be told."""
        if not hosted.worker and self._hosted.get(actor) is hosted:
            del self._hosted[actor]
            self._say({"t": "unhosted", "actor": actor, "attempt": hosted.attempt})

    def _actor_dead(self, message: Message, _body: bytes) -> None:
        """For good. Its worker, if there is one, may live on for a while."""
        self._disown(message["actor"])
        self._daemon.actor_dead(message["actor"], message["facts"])

    # ---- placement groups ----

    def follow_group(self, group: str) -> None:
        """The daemon is told where the group's bundles are, when the head has answered and with each change."""
        self._followed[group] = None
        self._say({"t": "follow_group", "group": group})

    def _restate_bundles(self) -> None:
        """Those that are here. What the head before was about to place, the next one places anew."""
        for group, attempt in [*self._asked_for]:
            self._daemon.cancel_bundles("", group, attempt)
        self._asked_for.clear()
        self._say({"t": "bundles_held", "held": self._daemon.held_bundles()})

    def _tell_places(self, message: Message, _body: bytes) -> None:
        if message["is_gone"]:
            self._followed.pop(message["group"], None)
        self._daemon.tell_places("", message)

    def _reserve_bundles(self, message: Message, _body: bytes) -> None:
        group, attempt = message["group"], message["attempt"]
        self._asked_for[group, attempt] = None
        wanted, depth, job = dict(message["wanted"]), message["depth"], message["job"]
        self._daemon.reserve_bundles("", group, attempt, wanted, depth, job)

    def bundles_reserved(self, group: str, attempt: int) -> None:
        free = self._daemon.as_seen()["available"]
        self._say({"t": "bundles_reserved", "group": group, "attempt": attempt, "available": free})

    def bundles_refused(self, group: str, attempt: int, reason: str) -> None:
        self._asked_for.pop((group, attempt), None)
        self._say({"t": "bundles_refused", "group": group, "attempt": attempt, "reason": reason})

    def _commit_bundles(self, message: Message, _body: bytes) -> None:
        group, attempt = message["group"], message["attempt"]
        self._asked_for.pop((group, attempt), None)
        self._daemon.commit_bundles("", group, attempt)
        self._say({"t": "bundles_committed", "group": group, "attempt": attempt})

    def _cancel_bundles(self, message: Message, _body: bytes) -> None:
        self._asked_for.pop((message["group"], message["attempt"]), None)
        self._daemon.cancel_bundles("", message["group"], message["attempt"])
        self._give_room()

    def _drop_group(self, message: Message, _body: bytes) -> None:
        for place in [place for place in self._asked_for if place[0] == message["group"]]:
            del self._asked_for[place]
        self._daemon.drop_group("", message["group"], message["reason"])
        self._give_room()

    def _give_room(self) -> None:
        self._room_looks = ROOM_LOOKS
        self._say_room()

    def _say_room(self) -> None:
        """Now, and for a while again when there is more: what ran in the bundles takes some time to end."""
        self._told_room = dict(self._daemon.as_seen()["available"])
        self._say({"t": "room", "available": self._told_room})

    def look_at_room(self) -> None:
        """All that was decided on the node is done. Where there is less room, beats say so; of more than there was at the last
        beat, and is again, they say nothing for a period."""
        told = self._told_room
        if told is not None and any(
            told.get(name, 0) < amount for name, amount in self._daemon.as_seen()["available"].items()
        ):
            self._say_room()

    def group_trouble(self, _group: str) -> str:
        """The head says when one is gone: here nothing is known that it has not said."""
        return ""

    def listed_groups(self, _group: str) -> list[Message]:
        """The head is asked."""
        return []


def _kind(said: Message) -> str:
    """Of what was said to the head: for a process's message, of that."""
    return str(said["message"]["t"] if said["t"] == "request" else said["t"])


def _asked(said: Message) -> tuple[str, int] | None:
    """Who waits for an answer to it, and by which number; None if nobody does."""
    if said["t"] not in ("request", "query", "drain_node"):
        return None
    request = said["rq"] if said["t"] == "query" else said["message"]["rq"]
    return None if request is None else (said["client"], request)
