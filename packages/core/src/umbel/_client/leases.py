"""Which workers a process has leased, and what it sends them.

`umbel._scheduling.dispatch` decides what goes where; this module sends it, asks the agent for workers and gives them back.
Everything here runs under the engine's lock.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from umbel._base import nodes
from umbel._client import links
from umbel._client.task import Task, Template, cancelled_error, known, resolve_deps
from umbel._objects import ownership
from umbel._scheduling import dispatch
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client import locality
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
LOST_GRACE_S = 1.0  # for another node's agent to tell how a worker ended of which the connection is gone
READY_PUSH = 32  # waiting tasks that are worth an assignment round while more are being submitted


class Leases:
    """The leases of one process. depth: how deep the tasks are that it submits."""

    def __init__(self, engine: NativeEngine, depth: int) -> None:
        self._engine = engine
        self.depth = depth
        self.classes: dict[str, dispatch.SchedulingClass] = {}
        self.dirty: set[dispatch.SchedulingClass] = set()  # those that `pump` has to look at
        self._locality: locality.Locality | None = (
            None  # once a task has references as arguments, on a node of a cluster
        )
        self._lost: deque[tuple[float, links.Link]] = deque()  # to workers of other nodes, and when they count as dead

    def class_of(self, request: dict[str, Any]) -> dispatch.SchedulingClass:
        key = json.dumps(request, sort_keys=True)
        found = self.classes.get(key)
        if found is None:
            found = self.classes[key] = dispatch.SchedulingClass(key, request, self.depth)
        return found

    # Pushing

    def enqueue(self, task: Task) -> None:
        cls = known(task.template.cls)
        drawn = None
        if task.deps is not None and self._engine.links.remote is not None:
            drawn = self._drawn(task, cls)
        if drawn is not None:
            lease = cls.idle_lease_at(drawn.node)
        else:
            lease = cls.quick_lease() if not cls.ready else None
        if lease is not None:
            lease.inflight[task.seq] = task
            task.lease = lease
            lease.last_reply_s = time.monotonic()
            self._push(lease.link, task)
            lease.link.flush()
            return
        cls.ready.append(task)
        if drawn is not None:
            self._await(task, cls, drawn)
        if len(cls.ready) >= READY_PUSH:
            self._assign(cls)
        if cls not in self.dirty:
            self.dirty.add(cls)
            if not cls.leases and not cls.told:
                self._tell_demand(cls, time.monotonic())
            else:
                self._engine.reactor.poke()

    def _drawn(self, task: Task, cls: dispatch.SchedulingClass) -> dispatch.Drawn | None:
        if self._locality is None:
            from umbel._client import locality  # a node that is alone never needs it

            self._locality = locality.Locality(self._engine)
        return self._locality.drawn(task, cls, time.monotonic())

    def _await(self, task: Task, cls: dispatch.SchedulingClass, drawn: dispatch.Drawn) -> None:
        """A worker of the node that a task is drawn to."""
        cls.drawn[task.seq] = drawn
        is_there = any(lease.node == drawn.node for lease in cls.leases.values())
        if self._locality is not None and self._locality.is_elsewhere(drawn) and not is_there:
            self._make_room(drawn.node)  # that node's agent asks for it only when somebody waits there

    def _make_room(self, node: str | None) -> None:
        """Give back what nothing runs on: on this node, by its tag, or on any."""
        for cls in [one for one in self.classes.values() if not one.ready]:
            for lease in [one for one in cls.leases.values() if not one.inflight and node in (None, one.node)]:
                del cls.leases[lease.worker]
                self._give_back(lease, retire=lease.is_retired)

    def push_behind(self, task: Task) -> None:
        """Send a task to the worker that is about to compute its last missing argument, which saves the way there and
        back. Only for quick functions, and only while the worker has room; a worker that no longer has the argument
        hands the task back."""
        cls = task.template.cls
        producer = None
        for _, record in task.deps or ():
            if record.kind == PENDING:
                producer = record.task
                break
        if not isinstance(producer, Task) or producer.template.cls is not cls or producer.stream is not None:
            return
        lease = producer.lease
        if (
            lease is None
            or len(producer.records) != 1
            or producer.is_cancelled
            or lease.is_blocked
            or lease.is_reclaimed
        ):
            return
        room = min(task.durations.depth(), producer.durations.depth())
        if room <= len(lease.inflight) or producer.seq not in lease.inflight or task.template.max_retries == 0:
            return
        lease.inflight[task.seq] = task
        task.lease = lease
        self._push(lease.link, task)
        if len(lease.link.outbox) >= READY_PUSH:
            lease.link.flush()
        else:
            self._engine.mark_dirty(lease.link)
            self._engine.reactor.poke()

    def _push(self, link: links.Link, task: Task) -> None:
        template = task.template
        if template.index not in link.known:
            announce(link, template)
        if link.depth_told != self.depth:
            self.tell_depth(link)
        deps = resolve_deps(task) if task.deps is not None else None
        link.outbox.append((messages.TASK, task.seq, template.index, task.kind, task.payload, deps, task.attempt))

    def tell_depth(self, link: links.Link) -> None:
        """The agent serves deeper demands first, so that wide recursion needs few processes; so a worker has to know
        how deep its tasks are, whichever task of ours it was that submitted them."""
        link.depth_told = self.depth
        link.post((messages.DEPTH, self.depth))

    def _assign(self, cls: dispatch.SchedulingClass) -> None:
        for lease, batch in cls.assign():
            link = lease.link
            if len(lease.inflight) == len(batch):
                lease.last_reply_s = time.monotonic()
            for task in batch:
                task.lease = lease
                self._push(link, task)
            link.flush()

    def _tell_demand(self, cls: dispatch.SchedulingClass, now_s: float) -> None:
        wanted = cls.wanted(now_s)
        near = cls.where_drawn() if cls.drawn else {}
        if wanted != cls.told or near != cls.told_drawn:
            if wanted > cls.told and self._engine.links.remote is not None:
                self._make_room_for(cls.request)
            cls.told, cls.told_drawn = wanted, near
            self.classes[cls.key] = cls  # of which it may have been taken: see `forget`
            self._engine.agent.notify(
                {
                    "t": "demand",
                    "key": cls.key,
                    "resources": cls.request["resources"],
                    "env": cls.request["env"],
                    "strategy": cls.request["strategy"],
                    "label_selectors": cls.request.get("label_selectors"),
                    "near": near,
                    "count": wanted,
                    "depth": self.depth,
                }
            )

    def _make_room_for(self, request: dict[str, Any]) -> None:
        """Tasks that go elsewhere if there is no room where they had better run find there what we keep for a moment."""
        strategy = request["strategy"]
        if len(request.get("label_selectors") or ()) > 1:
            self._make_room(None)
        elif isinstance(strategy, dict) and strategy.get("spills_when_busy"):
            self._make_room(nodes.tag_text(strategy["node_id"]))

    def pump(self) -> None:
        """Push what waits and tell the agent what is wanted; before waiting, and in housekeeping."""
        if not self.dirty:
            return
        dirty, self.dirty = self.dirty, set()
        now = time.monotonic()
        for cls in dirty:
            self._assign(cls)
            self._tell_demand(cls, now)
            self._give_back_idle(cls, now, self._engine.config.idle_lease_s)

    def give_back_unused(self) -> None:
        """Return every lease on which nothing runs, though more tasks might come."""
        now = time.monotonic()
        for cls in self.classes.values():
            self._tell_demand(cls, now)
            self._give_back_idle(cls, now, 0.0)

    def housekeep(self, now_s: float) -> float | None:
        """What time brings: idle leases go back, stalled work is offered to others. Returns when to look again."""
        kills = self._engine.deaths.memory_kills
        due = kills.release(now_s) if kills is not None else None
        if self._lost:
            lost_due = self._end_lost(now_s)
            due = min((one for one in (due, lost_due) if one is not None), default=None)
        idle_lease_s = self._engine.config.idle_lease_s
        for cls in self.classes.values():
            if cls.drawn:
                due_s = cls.let_go(now_s)
                if due_s is not None:
                    due = due_s - now_s if due is None else min(due, due_s - now_s)
            if not cls.leases and not cls.ready:
                if cls.told:
                    self._tell_demand(cls, now_s)
                continue
            self._assign(cls)
            self._tell_demand(cls, now_s)
            self._steal(cls)
            self._give_back_idle(cls, now_s, idle_lease_s)
            for lease in cls.leases.values():
                if not lease.inflight:
                    wait = max(0.0, lease.idle_since_s + idle_lease_s - now_s)
                else:
                    wait = lease.check_due_s() - now_s
                    if wait <= 0:
                        wait = self._check(lease, now_s)
                    if len(lease.inflight) > 1:
                        wait = dispatch.STALLED_AFTER_S
                due = wait if due is None else min(due, wait)
        return due

    def _check(self, lease: dispatch.Lease, now_s: float) -> float:
        """Have the agent say it if the worker is not leased any more. Returns when to ask again, from now."""
        lease.checked_s = now_s
        self._engine.agent.notify({"t": "check_lease", "worker": lease.worker})
        return dispatch.CHECKED_AFTER_S

    def _steal(self, cls: dispatch.SchedulingClass) -> None:
        found = cls.steal_from()
        if found is not None:
            lease, count = found
            lease.link.post((messages.STEAL, count))
            lease.link.flush()

    def _give_back_idle(self, cls: dispatch.SchedulingClass, now_s: float, idle_lease_s: float) -> None:
        """Return what was not used for so long; a lease asked back as soon as it has drained, since somebody waits for
        it."""
        for lease in cls.idle_leases(now_s, idle_lease_s):
            self._give_back(lease, retire=lease.is_retired)

    def _give_back(self, lease: dispatch.Lease, *, retire: bool = False) -> None:
        lease.link.lease = None
        self._engine.agent.notify({"t": "return", "worker": lease.worker, "retire": retire})

    def link_gone(self, link: links.Link) -> None:
        """The connection to a worker has ended. It has died, as its agent will say; but one of another node may live, and
        knows nothing of us any more: then its agent is to end it, and says what it had begun."""
        if link.lease is not None and not self._engine.links.is_of_this_node(link.peer):
            self._lost.append((time.monotonic() + LOST_GRACE_S, link))
            self._engine.reactor.poke()

    def _end_lost(self, now_s: float) -> float | None:
        """Returns when to look again."""
        while self._lost and self._lost[0][0] <= now_s:
            _, link = self._lost.popleft()
            if link.lease is not None and link.lease[0].has(link.lease[1]):
                reason = "has lost its connection to the process that leased it"
                self._engine.agent.notify({"t": "kill_worker", "worker": link.peer.hex(), "reason": reason})
        return self._lost[0][0] - now_s if self._lost else None

    # From the agent and from workers

    def on_grant(self, message: dict[str, Any]) -> None:
        cls = self.classes.get(message["key"])
        worker = message["worker"]
        link = self._engine.links.to(bytes.fromhex(worker))
        if cls is None or link is None:
            if cls is not None:
                cls.told = max(0, cls.told - 1)
                self.dirty.add(cls)
            self._engine.agent.notify({"t": "return", "worker": worker, "retire": True})
            return
        before = link.lease
        if before is not None and before[0].has(before[1]):
            self._engine.deaths.lease_ended_unsaid(worker, message.get("pid", 0))
        lease = cls.add_lease(worker, link, time.monotonic())
        link.lease = (cls, lease)
        if message.get("accelerators"):
            link.post((messages.TEMPLATE, 0, {"accelerators": message["accelerators"]}))
        self._assign(cls)
        if cls.drawn and cls.ready and not lease.inflight:
            cls.drawn.pop(cls.ready[0].seq, None)  # there was no room where it is drawn to
            self._assign(cls)
        self._steal(cls)
        link.flush()

    def on_reclaim(self, worker: str) -> None:
        for cls in self.classes.values():
            lease = cls.leases.get(worker)
            if lease is None:
                continue
            if cls.ready or len(lease.inflight) > 1:
                # Work waits here too: give back what has not started, so that the worker drains soon.
                lease.link.post((messages.STEAL, len(lease.inflight)))
                lease.link.flush()
            lease.is_reclaimed = True
            self._give_back_idle(cls, time.monotonic(), self._engine.config.idle_lease_s)
            self.dirty.add(cls)

    def on_unstarted(self, link: links.Link, message: tuple[Any, ...]) -> None:
        if link.lease is None:
            return
        cls, lease = link.lease
        self.wait_again(cls, cls.take_back(lease, message[1]))
        lease.is_blocked = message[2]
        self.dirty.add(cls)

    def on_retire(self, link: links.Link, _message: tuple[Any, ...]) -> None:
        if link.lease is None:
            return
        cls, lease = link.lease
        # What it had not started has come back before this. Of the rest the answers are on their way: some may have to
        # wait for others to acknowledge borrows.
        lease.is_reclaimed = lease.is_retired = True
        self.dirty.add(cls)

    # Tasks in the queue again

    def wait_again(self, cls: dispatch.SchedulingClass, tasks: list[Task]) -> None:
        """Tasks that a worker had and did not start are in the queue again, unless they ended or were cancelled
        meanwhile, or had been sent ahead of an argument which they now have to wait for like others."""
        book = self._engine.tasks
        for task in tasks:
            task.lease = None
            is_ended = task.is_cancelled or task.seq not in book.unfinished
            if is_ended or task.missing or book.arguments.waits_again(task):
                cls.ready.remove(task)
            if task.is_cancelled:
                book.fail(task, cancelled_error(task))

    def begin_again(self, task: Task, *, is_delayed: bool = False) -> None:
        """A task that had begun is in the queue again, before others; with `is_delayed` it will be."""
        if task.lease is not None:
            task.attempt += 1
            task.lease = None
        cls = known(task.template.cls)
        if is_delayed or task.missing or task in cls.ready or self._engine.tasks.arguments.waits_again(task):
            return  # an argument is computed anew, or else it is there already
        cls.ready.appendleft(task)
        self.dirty.add(cls)

    def not_to_run(self, task: Task) -> None:
        """It has ended after all, by the answer of a worker whose lease was lost: it is not begun once more. If it has been, that
        attempt's answer is of no interest."""
        cls = task.template.cls
        if cls is not None and cls.withdraw(task):
            self.dirty.add(cls)  # the agent is told that less is wanted

    def forget(self, cls: dispatch.SchedulingClass) -> None:
        """Of a placement group that has ended: a program may make many, and classes are looked through. If more of its tasks
        are submitted all the same, it is there again with the demand for them."""
        if not cls.leases and not cls.ready:
            self.classes.pop(cls.key, None)


def announce(link: links.Link, template: Template) -> None:
    """Tell the peer what it has to know before the first call of this template."""
    known = link.known
    if template.index in known:
        return
    known.add(template.index)
    if template.function_blob and template.digest not in known:
        known.add(template.digest)
        link.post((messages.FUNCTION, template.digest, template.function_blob))
    link.post((messages.TEMPLATE, template.index, template.announcement))
