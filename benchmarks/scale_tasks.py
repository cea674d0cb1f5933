"""What waits: an owner's tasks, the leases that its node asks of many nodes for them, and the autoscaler's plan for the rest.

The owner is a production `SchedulingClass`, its node's side a production `Forwarding`, each other node keeps a `Given`, and all
that they and the workers say to each other is encoded, decoded and checked as it is between nodes. A node grants what it
has room for, and a worker is done with a task as soon as it is its turn.
"""

from __future__ import annotations

import collections
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from benchmarks import scale_cluster
from umbel._agent import scaling
from umbel._agent.ledger import CPU, UNIT
from umbel._autoscaling import autoscaler, events, node_types, observing
from umbel._base import nodes as node_ids
from umbel._model import placement, resources
from umbel._scheduling import dispatch, forwarding, policies
from umbel._wire import data_frames, frames, lease_messages, messages

TURN_REPLIES = 64  # that an owner finds when it looks: as many workers as answer while it works off the last ones
KEY = "f"
PAYLOAD = b"x" * 40
HEADER_BYTES = 4
GPU = "GPU"  # what tasks want that no node has yet

T = TypeVar("T")
Message = dict[str, Any]


class Taken(NamedTuple):
    """CPU time in seconds. count: of tasks that were done; leases: that were granted; turns_s: of each turn of the owner."""

    count: int
    leases: int
    queueing_s: float
    owner_s: float
    node_s: float
    turns_s: list[float]
    grants_s: list[float]
    faults: list[str]


class Task:
    __slots__ = ("durations", "seq")

    def __init__(self, seq: int, durations: dispatch.Durations) -> None:
        self.seq = seq
        self.durations = durations


class Lessor:
    """A node of which leases are asked."""

    def __init__(self, node: str, cpus: int) -> None:
        self.node = node
        self.cpus = self.free = cpus
        self.given = forwarding.Given()
        self.wanted = 0  # that were not granted yet

    def view(self, *, is_local: bool) -> placement.NodeView:
        total, free = resources.ResourceSet({CPU: self.cpus * UNIT}), resources.ResourceSet({CPU: self.free * UNIT})
        return placement.NodeView(self.node, total, free, {}, is_local=is_local)


class Queue:
    """One owner with all its tasks, on the first of many nodes."""

    def __init__(self, nodes: int, cpus: int, tasks: int, task_s: float) -> None:
        self._now_s = 0.0
        self._task_s = task_s
        self._lessors = {one.node: one for one in (Lessor(_node_id(number), cpus) for number in range(1, nodes + 1))}
        self._own = _node_id(1)
        self._client = f"{1:08x}{self._own[: 2 * node_ids.TAG_BYTES]}{1:012x}"
        self._homes: dict[str, Lessor] = {}  # of workers
        self._pushed: collections.deque[tuple[dispatch.Lease, bytes]] = collections.deque()
        self._demands = (placement.Demand(resources.ResourceSet({CPU: UNIT})),)
        self._todo: collections.deque[forwarding.Command] = collections.deque()
        self.forwarding = forwarding.Forwarding(self._own, policies.HybridPolicy())
        self.owner_s = self.node_s = 0.0
        self.turns_s: list[float] = []
        self.grants_s: list[float] = []
        self.done = bytearray(tasks)
        durations = dispatch.Durations()
        durations.add(task_s)
        self.cls = dispatch.SchedulingClass(KEY, {}, 0)
        self.queueing_s, _ = _taken(lambda: self.cls.ready.extend(Task(seq, durations) for seq in range(tasks)))
        self._tell(
            *(forwarding.NodeSeen(one.view(is_local=one.node == self._own), 0.0) for one in self._lessors.values())
        )

    def run(self, until_s: float) -> Taken:
        """until_s: by `time.monotonic`; what has not begun by then is taken back."""
        while (self.cls.ready or self._pushed) and time.monotonic() < until_s:
            self._turn()
        self.cls.ready.clear()
        while self._pushed:
            self._turn()
        self._turn()
        faults = self._give_back()
        count = sum(self.done)
        leases = len(self._homes)
        return Taken(count, leases, self.queueing_s, self.owner_s, self.node_s, self.turns_s, self.grants_s, faults)

    def _turn(self) -> None:
        """The owner hears some workers, gives out tasks, and says what it wants, as `_client.leases` does."""
        self._now_s += 0.001
        passed_s, _ = _taken(self._hear)
        pushes_s, pushes = _taken(self._push)
        wanted_s, wanted = _taken(lambda: self.cls.wanted(self._now_s))
        self.owner_s += passed_s + pushes_s + wanted_s
        self.turns_s.append(passed_s + pushes_s + wanted_s)
        self._pushed.extend(pushes)
        if wanted != self.cls.told:
            self.cls.told = wanted
            self._tell(forwarding.WishChanged(self._client, KEY, self._demands, wanted, self._now_s))

    def _hear(self) -> None:
        for _ in range(min(TURN_REPLIES, len(self._pushed))):
            lease, frame = self._pushed.popleft()
            for _, seq, *_ in data_frames.decode(frame[HEADER_BYTES:]):
                task = lease.inflight.pop(seq)
                task.durations.add(self._task_s)
                self.done[seq] += 1
            lease.last_reply_s = lease.idle_since_s = self._now_s

    def _push(self) -> list[tuple[dispatch.Lease, bytes]]:
        """The tasks' frames are read, and answered, by the workers."""
        answers = []
        for lease, batch in self.cls.assign():
            frame = data_frames.encode([(messages.TASK, one.seq, 0, messages.ARGS, PAYLOAD, None, 0) for one in batch])
            tasks = data_frames.decode(frame[HEADER_BYTES:])
            replies = [(messages.REPLY, one[1], 0, PAYLOAD, None, self._task_s, 0.0) for one in tasks]
            answers.append((lease, data_frames.encode(replies)))
        return answers

    # ---- nodes ----

    def _tell(self, *told: forwarding.Event) -> None:
        passed_s, commands = _taken(lambda: self.forwarding.apply(*told))
        self.node_s += passed_s
        self._todo.extend(commands)
        if len(self._todo) > len(commands):
            return  # others are being carried out
        while self._todo:
            command = self._todo[0]
            if isinstance(command, forwarding.Want):
                self._want(command)
            self._todo.popleft()

    def _want(self, command: forwarding.Want) -> None:
        lessor = self._lessors[command.node]
        message = {
            "t": "want", "client": self._client, "key": KEY, "count": command.lease_count, "heard": command.heard_count,
            "job": "01000000", "resources": {CPU: UNIT}, "depth": 0, "env": {}, "group": {}, "impatient": False,
        }  # fmt: skip
        if command.node != self._own:
            message = self._over_wire(message, lease_messages.FROM_LESSEE)
        lessor.wanted = lessor.given.still_wanted(self._client, KEY, message["count"], message["heard"])
        self._grant(lessor)

    def _grant(self, lessor: Lessor) -> None:
        while lessor.wanted and lessor.free:
            lessor.wanted -= 1
            lessor.free -= 1
            lessor.given.granted(self._client, KEY)
            number = len(self._homes) + 1
            worker = f"{number:08x}{lessor.node[: 2 * node_ids.TAG_BYTES]}{number:012x}"
            self._homes[worker] = lessor
            before_s = self.node_s
            self._granted(lessor, worker)
            self.grants_s.append(self.node_s - before_s)
            self.cls.add_lease(worker, None, self._now_s)

    def _granted(self, lessor: Lessor, worker: str) -> None:
        if lessor.node != self._own:
            grant = {
                "t": "grant", "key": KEY, "worker": worker, "address": "127.0.0.1:1", "pid": 1, "accelerators": {},
                "resources": {CPU: UNIT},
            }  # fmt: skip
            told = {"t": "tell", "client": self._client, "message": grant}
            room = {"t": "room", "available": {CPU: lessor.free * UNIT}, "bundles": {}, "draining": "", "returns": 0}
            self._over_wire(told, lease_messages.FROM_LESSOR)
            self._over_wire(room, lease_messages.FROM_LESSOR)
        self._tell(forwarding.Granted(lessor.node, self._client, KEY, self._now_s))
        self._tell(forwarding.NodeSeen(lessor.view(is_local=lessor.node == self._own), self._now_s))

    def _over_wire(self, message: Message, known: Any) -> Message:
        def pass_on() -> Message:
            frame = frames.encode_control(message)
            return lease_messages.parse(frames.decode_control(frame[HEADER_BYTES:])[0], known)

        passed_s, heard = _taken(pass_on)
        self.node_s += passed_s
        return heard

    def _give_back(self) -> list[str]:
        """All leases; what is wrong then."""
        self._tell(forwarding.WishChanged(self._client, KEY, self._demands, 0, self._now_s))
        faults = [f"task {seq} was done {times} times" for seq, times in enumerate(self.done) if times > 1]
        leases = self.cls.idle_leases(self._now_s, 0.0)
        if len(leases) != len(self._homes) or self.cls.leases:
            faults.append(f"{len(self._homes)} leases were granted, {len(leases)} go back")
        for lease in leases:
            self._homes[lease.worker].free += 1
        faults += [
            f"node {one.node[:12]} has {one.free} free" for one in self._lessors.values() if one.free != one.cpus
        ]
        self.forwarding.check()
        if self.forwarding.wishes:
            faults.append("a wish is left that nobody has")
        return faults


class Planned(NamedTuple):
    """CPU time in seconds. observed_s: of the head, to say what there is; frame_bytes: in which it says that; read_s: of the
    autoscaler's process, to read it; plan_s: to decide. launches: nodes."""

    observed_s: float
    frame_bytes: int
    read_s: float
    plan_s: float
    launches: int
    faults: list[str]


def plan(cluster: scale_cluster.Cluster, tasks: int) -> Planned:
    """What the cluster's autoscaler does about so many tasks that wait on it, by the paths of the head and of its process."""
    head = cluster.head
    with tempfile.TemporaryDirectory() as folder:
        head.scaling = scaling.Scaling(head, {"session_dir": folder, "autoscaling": {}})  # type: ignore[arg-type]
    for member in head.members._members.values():
        member.say({"t": "tell_load"})  # as `linked` does from now on
    waiting = [cluster.nodes[number % len(cluster.nodes)] for number in range(20)]
    for number, node in enumerate(waiting):
        count = tasks // len(waiting) + (number < tasks % len(waiting))
        node.load = {"tasks": [*node.load["tasks"], [{CPU: UNIT, GPU: UNIT}, count, []]], "idle": 0}
    cluster.network.run()
    cluster.pass_s(1.0)
    observed_s, told = _taken(head.scaling._observed)
    frame = frames.encode_control({"t": "reply", "rq": 1, "result": told})
    kind = node_types.NodeType("worker", resources.ResourceSet.from_floats({"CPU": 64, GPU: 8}), max_workers=1_000_000)
    machine = autoscaler.Autoscaler(node_types.Settings((kind,), 1_000_000, upscaling_speed=10.0))
    observer = observing.Observer()

    def read() -> None:
        heard, _ = frames.decode_control(frame[HEADER_BYTES:])
        for event in observer.events(heard["result"], 1.0):
            machine.apply(event)

    read_s, _ = _taken(read)
    plan_s, commands = _taken(lambda: machine.apply(events.Ticked(1.0)))
    machine.check()
    launches = sum(one.node_count for one in commands if isinstance(one, events.Launch))
    waits = sum(shape.unit_count for shape in machine._shapes)
    faults = [*observer.complaints] + ([] if waits == tasks else [f"{tasks} tasks wait, the autoscaler knows {waits}"])
    faults += [] if launches else ["nothing is launched"]
    return Planned(observed_s, len(frame), read_s, plan_s, launches, faults)


def _taken(do: Callable[[], T]) -> tuple[float, T]:
    """In seconds of this thread's CPU time, with what it returns."""
    began_s = time.thread_time()
    result = do()
    return time.thread_time() - began_s, result


def _node_id(number: int) -> str:
    return f"{number:012x}".ljust(2 * node_ids.NODE_ID_BYTES, "0")
