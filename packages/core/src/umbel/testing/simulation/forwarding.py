"""Leases across nodes: on each node the agent's machine and the one that says where leases are asked for.

Processes want leases, some of them of environments that take long to build, hold them for a while, give them back and die; nodes
join, tell each other what they have, late, lose each other for a moment, and die with all that is on them. What nodes say to each
other arrives in order, but how late is chance. What was granted is entered in books of the simulation's own.
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from umbel._agent import environments
from umbel._agent import events as ev
from umbel._agent.ledger import CPU, UNIT, Ledger
from umbel._agent.state import AgentState
from umbel._model.placement import Demand, NodeAffinity, NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import forwarding as fw
from umbel._scheduling import policies
from umbel.testing.simulation.world import Stream, World

NODES_MAX: Final = 4
CPUS_MAX: Final = 4
WANTED_MAX: Final = 5
REST_ROUNDS_MAX: Final = 200  # of half a second; all leases are given back in each of them
BUILT_CPUS: Final = 3  # what needs so many needs an environment that has to be built
BUILD_S: Final = (
    3.0  # longer than a node gets to grant what it has room for, and than a build goes on that nobody wants
)
QUIET_S: Final = 3 * fw.PATIENCE_S + BUILD_S  # a wish has been tried at every node by then


class Process:
    """One that wants leases of its node's agent. wanted: how many more of each key; held: worker -> (node, key)."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.wanted: collections.Counter[str] = collections.Counter()
        self.held: dict[str, tuple[str, str]] = {}
        self.is_dead = False


class Node:
    """One node's machines, and its connections to the others."""

    def __init__(self, world: ForwardingWorld, name: str, cpus: int, policy: fw.Policy) -> None:
        self.world = world
        self.name = name
        self.total = ResourceSet({CPU: cpus * UNIT})
        self.state = AgentState(
            ledger=Ledger(self.total, {}), worker_ids=_ids(name), starts_max=8, idle_max=2, infeasible_timeout_s=None
        )
        self.forwarding = fw.Forwarding(name, policy)
        self.processes: dict[str, Process] = {}
        self.given = fw.Given()
        self.guests: dict[str, str] = {}  # processes of other nodes that want leases here -> their node
        self.links: dict[str, Stream] = {}
        self.dying: list[str] = []  # workers that are gone without the agent's knowing
        self.building: dict[str, float] = {}  # servers of environments, and when they will be ready
        self.makers: set[tuple[str, str, str]] = (
            set()
        )  # process, key and node: of those that make an environment for it
        self.todo: collections.deque[Any] = collections.deque()
        self.is_dead = False
        self.is_draining = False
        self.told: NodeView | None = None  # how the others were told that it is, last

    def view(self, *, is_local: bool) -> NodeView:
        free = ResourceSet({CPU: 0 if self.is_draining else max(0, self.state.ledger.free[CPU])})
        return NodeView(self.name, self.total, free, is_local=is_local, is_draining=self.is_draining)

    # The events of both machines, one after another, as a daemon's loop has them.

    def tell(self, *events: Any) -> None:
        if self.is_dead:
            return
        self.todo.extend(events)
        if len(self.todo) > len(events):
            return  # it is being told of others
        while self.todo:
            event = self.todo[0]
            if isinstance(event, fw.Want):
                event = self._demand(*event[1:6])  # now, and not when it was said: there were grants in between
            if isinstance(event, fw.Event):
                asked = {maker: self._asked_of(maker) for maker in self.makers}
                for command in self.forwarding.apply(event):
                    self._forward(command)
                self.forwarding.check()
                self._note_makers(event, asked)
            else:
                before = self.state.ledger.free[CPU]
                for order in self.state.apply(event):
                    self._carry_out(order)
                self.state.check()
                if self.state.ledger.free[CPU] != before:
                    self.todo.append(fw.NodeSeen(self.view(is_local=True), self.world.now_s))
            self.todo.popleft()

    def _asked_of(self, maker: tuple[str, str, str]) -> int:
        wish = self.forwarding.wishes.get(maker[:2])
        return wish.on.get(maker[2], 0) if wish is not None else 0

    def _note_makers(self, event: fw.Event, asked: dict[tuple[str, str, str], int]) -> None:
        """W10: nobody is given up for being late who makes an environment."""
        if isinstance(event, fw.Preparing):
            maker = event.client, event.key, event.node
            (self.makers.add if event.text else self.makers.discard)(maker)
        elif isinstance(event, fw.NodeForgot):  # it makes it still, and is to say so again
            self.makers -= {maker for maker in self.makers if maker[2] == event.view.node_id}
        for maker in [*self.makers]:
            now = self._asked_of(maker)
            is_late = isinstance(event, fw.Ticked) and now < asked[maker]
            self.world.must(not is_late, "W10", "%s is asked for less while it builds", maker)
            if not now:
                self.makers.discard(maker)

    def _forward(self, command: fw.Command) -> None:
        world = self.world
        world.note("    %s: %s", self.name, command)
        if isinstance(command, fw.Fail):
            self.world.failed(self, command)
        elif isinstance(command, fw.Leave):
            self.links[command.node].send(("leave", command.client))
        elif command.node == self.name:
            self.todo.append(command)
        else:
            self.links[command.node].send(("want", *command[1:]))

    def _demand(self, client: str, key: str, lease_count: int, heard_count: int, refusal: str) -> ev.DemandChanged:
        needs = {CPU: self.world.cpus_of(key) * UNIT}
        count = self.given.still_wanted(client, key, lease_count, heard_count)
        built = "built" if self.world.cpus_of(key) == BUILT_CPUS else ""
        return ev.DemandChanged(client, key, needs, count, 0, built, refusal, self.world.now_s, None, built, None)

    def _carry_out(self, command: Any) -> None:
        world = self.world
        world.note("    %s: %s", self.name, command)
        if isinstance(command, ev.StartWorker):
            self.todo.append(ev.ClientJoined(command.worker, world.now_s))
            self.todo.append(ev.WorkerReady(command.worker, world.now_s))
        elif isinstance(command, environments.Begin):
            self.building[command.server] = world.now_s + BUILD_S
        elif isinstance(command, environments.End):
            self.building.pop(command.server, None)
        elif isinstance(command, ev.Preparing):
            told = command.client, command.key, command.text
            if command.client in self.guests:
                self.links[self.guests[command.client]].send(("preparing", *told))
            else:
                self.todo.append(fw.Preparing(self.name, *told, world.now_s))
        elif isinstance(command, (ev.KillWorker, ev.AskExit)):
            if command.worker not in self.dying:
                self.dying.append(command.worker)
        elif isinstance(command, ev.Grant):
            world.enter(self, command)
            self.given.granted(command.client, command.key)
            if command.client in self.guests:
                view = self.view(is_local=False)
                self.told = None  # one of the others knows better than the rest
                self.links[self.guests[command.client]].send(
                    ("grant", command.client, command.key, command.worker, view)
                )
            else:
                self._granted(self.name, command.client, command.key, command.worker)
        elif isinstance(command, ev.LeaseBroken):
            home = self.guests.get(command.client)
            if home is None:
                self._broken(command.client, command.worker)
            else:
                self.links[home].send(("broken", command.client, command.worker))
        elif isinstance(command, ev.Reclaim):
            home = self.guests.get(command.client)
            if home is None:
                self.world.reclaimed(self, command.client, command.worker)
            else:
                self.links[home].send(("reclaim", command.client, command.worker))

    def _granted(self, node: str, client: str, key: str, worker: str) -> None:
        self.todo.append(fw.Granted(node, client, key, self.world.now_s))
        process = self.processes.get(client)
        if process is None:
            return  # it has died: its leases end with it
        process.held[worker] = (node, key)
        process.wanted[key] -= 1
        if process.wanted[key] < 0:  # two messages have crossed
            process.wanted[key] = 0
            self.give_back(process, worker)

    def give_back(self, process: Process, worker: str) -> None:
        node, key = process.held.pop(worker)
        self.world.note("%s gives %s back, of %s", process.name, worker, key)
        if node == self.name:
            self._returned(process.name, worker)
        else:
            self.links[node].send(("return", process.name, worker))

    def _returned(self, client: str, worker: str) -> None:
        self.world.booked.pop((self.name, worker), None)
        self.todo.append(ev.LeaseReturned(client, worker, False, self.world.now_s))

    def _broken(self, client: str, worker: str) -> None:
        process = self.processes.get(client)
        if process is not None:
            process.held.pop(worker, None)

    # What other nodes say.

    def on_frame(self, other: str, _stream: Stream, message: tuple[Any, ...]) -> None:
        self.world.note("%s hears from %s: %s", self.name, other, message)
        now_s = self.world.now_s
        kind, *facts = message
        before = len(self.todo)
        if kind == "view":
            self.todo.append(fw.NodeSeen(facts[0], now_s))
        elif kind == "want":
            if facts[0] not in self.guests:
                self.guests[facts[0]] = other
                self.todo.append(ev.ClientJoined(facts[0], now_s))
            self.todo.append(fw.Want(self.name, *facts))
        elif kind == "leave":
            self._leave(facts[0])
        elif kind == "grant":
            client, key, worker, view = facts
            self._granted(other, client, key, worker)
            self.todo.append(fw.NodeSeen(view, now_s))
        elif kind == "preparing":
            client, key, text = facts
            self.todo.append(fw.Preparing(other, client, key, text, now_s))
        elif kind == "return":
            self._returned(*facts)
        elif kind == "broken":
            self._broken(*facts)
        else:
            self.world.reclaimed(self, *facts)
        self._go_on(before)

    def _go_on(self, before: int) -> None:
        """What was added to an empty queue is worked off; `tell` does so when something is being told already."""
        if not before and self.todo:
            events = [*self.todo]
            self.todo.clear()
            self.tell(*events)

    def _leave(self, client: str) -> None:
        if self.guests.pop(client, None) is not None:
            self.world.unbook(self.name, client)
            self.given.forget(client)
            self.todo.append(ev.ClientLeft(client, self.world.now_s))

    def on_lost(self, other: str, _stream: Stream) -> None:
        if self.is_dead:
            return
        self.world.note("%s has lost %s", self.name, other)
        del self.links[other]
        self.lose(other, fw.NodeLost(other, self.world.now_s))

    def lose(self, other: str, event: fw.NodeLost | fw.NodeForgot) -> None:
        """The connection to another node is gone, or the node."""
        before = len(self.todo)
        for client in [client for client, home in self.guests.items() if home == other]:
            self._leave(client)
        for process in self.processes.values():
            for worker in [worker for worker, (node, _) in process.held.items() if node == other]:
                del process.held[worker]
        self.todo.append(event)
        self._go_on(before)


def _ids(name: str) -> Iterator[str]:
    return (f"{name}w{number}" for number in itertools.count())


class ForwardingWorld(World):
    """See the module."""

    steps_min, steps_max = 30, 110

    def set_up(self) -> None:
        chance = self.chance
        self.policy: fw.Policy = policies.HybridPolicy() if chance.happens(50) else policies.SpreadPolicy()
        self.nodes: dict[str, Node] = {}
        self.node_count = self.process_count = 0
        self.booked: dict[tuple[str, str], tuple[str, int]] = {}  # (node, worker) -> (client, CPUs), as granted
        self.affinity: dict[str, str] = {}  # key -> the node that it insists on
        self.weights = [16, *(chance.choose((2, 4, 6)) for _ in range(6)), chance.choose((0, 0, 1, 2))]
        for _ in range(2 + chance.below(NODES_MAX - 1)):
            self._join()
        for node in [*self.nodes.values()]:
            self._begin(node)

    def cpus_of(self, key: str) -> int:
        return int(key.partition("-")[0])

    def act(self) -> None:
        self.now_s += 0.01
        acts = (
            self.deliver_one, self._want, self._give_back, self._say, self._report, self._pass_time, self._new_process,
            self._disturb,
        )  # fmt: skip
        acts[self.chance.weighted(self.weights)]()
        self.forget_closed()

    # ---- what happens ----

    def _join(self) -> None:
        self.node_count += 1
        new = Node(self, f"n{self.node_count}", 1 + self.chance.below(CPUS_MAX), self.policy)
        self.note("node %s joins with %d CPUs", new.name, new.total[CPU] // UNIT)
        new.tell(fw.NodeSeen(new.view(is_local=True), self.now_s))
        for other in self.nodes.values():
            self._link(new, other)
        self.nodes[new.name] = new

    def _link(self, one: Node, other: Node) -> None:
        near, far = self.connect(f"{one.name}<{other.name}", f"{other.name}<{one.name}")
        for node, peer, stream in ((one, other, near), (other, one, far)):
            node.links[peer.name] = stream
            stream.on_frame = functools.partial(node.on_frame, peer.name)
            stream.on_close = functools.partial(node.on_lost, peer.name)
            stream.send(("view", node.view(is_local=False)))
            node.told = None  # one of the others knows better than the rest

    def _begin(self, node: Node) -> None:
        self.process_count += 1
        name = f"p{self.process_count}"
        node.processes[name] = Process(node, name)
        self.note("%s begins on %s", name, node.name)
        node.tell(ev.ClientJoined(name, self.now_s))

    def _processes(self) -> list[Process]:
        return [process for node in self.nodes.values() for process in node.processes.values()]

    def _want(self) -> None:
        processes = self._processes()
        if not processes:
            return
        process = self.chance.choose(processes)
        key = f"{1 + self.chance.below(CPUS_MAX)}"
        if self.chance.happens(20):
            key += f"-{self.chance.choose(('soft', 'hard'))}-n{1 + self.chance.below(self.node_count)}"
        self.want(process, key, self.chance.below(WANTED_MAX + 1))

    def want(self, process: Process, key: str, count: int) -> None:
        self.note("%s wants %d of %s", process.name, count, key)
        process.wanted[key] = count
        near = [
            (f"n{1 + self.chance.below(self.node_count)}", 1 + self.chance.below(2))
            for _ in range(self.chance.below(3))
        ]
        process.node.tell(fw.WishChanged(process.name, key, [self._demand(key)], count, self.now_s, near))

    def _demand(self, key: str) -> Demand:
        cpus, *affinity = key.split("-")
        needs = ResourceSet({CPU: int(cpus) * UNIT})
        if not affinity:
            return Demand(needs)
        return Demand(needs, NodeAffinity(affinity[1], is_soft=affinity[0] == "soft"))

    def _give_back(self) -> None:
        held = [(process, worker) for process in self._processes() for worker in process.held]
        if held:
            self._return(*self.chance.choose(held))

    def _return(self, process: Process, worker: str) -> None:
        node = process.node
        node.give_back(process, worker)
        node._go_on(0)

    def reclaimed(self, node: Node, client: str, worker: str) -> None:
        """It is asked back for others: its holder gives it back now, or later."""
        process = node.processes.get(client)
        if process is not None and worker in process.held and self.chance.happens(70):
            node.give_back(process, worker)

    def _say(self) -> None:
        if self.nodes:
            self._tell_others(self.nodes[self.chance.choose([*self.nodes])])

    def _tell_others(self, node: Node) -> None:
        node.told = node.view(is_local=False)
        for link in node.links.values():
            link.send(("view", node.told))

    def _report(self) -> None:
        """A worker that is gone is found to be."""
        dying = [(node, worker) for node in self.nodes.values() for worker in node.dying]
        if dying:
            self._exited(*self.chance.choose(dying))

    def _exited(self, node: Node, worker: str) -> None:
        node.dying.remove(worker)
        self.booked.pop((node.name, worker), None)
        self.note("%s has exited", worker)
        node.tell(ev.WorkerExited(worker, 0, 9, self.now_s))

    def _pass_time(self) -> None:
        due = [self.now_s + fw.PATIENCE_S]
        for node in self.nodes.values():
            due += [at_s for at_s in (node.state.next_tick_s(), node.forwarding.next_tick_s()) if at_s is not None]
        self.now_s = max(self.now_s, min(due))
        self._tick()

    def _tick(self) -> None:
        self.note("it is %.2f", self.now_s)
        for node in [*self.nodes.values()]:
            for server in [server for server, ready_s in node.building.items() if ready_s <= self.now_s]:
                del node.building[server]
                node.tell(environments.Ready(server, self.now_s))
            if self._is_due(node.state.next_tick_s()):
                node.tell(ev.Ticked(self.now_s))
            if self._is_due(node.forwarding.next_tick_s()):
                node.tell(fw.Ticked(self.now_s))

    def _is_due(self, at_s: float | None) -> bool:
        return at_s is not None and at_s <= self.now_s

    def _new_process(self) -> None:
        if self.nodes and len(self._processes()) < 2 * NODES_MAX:
            self._begin(self.nodes[self.chance.choose([*self.nodes])])

    def _disturb(self) -> None:
        chance = self.chance
        what = chance.below(6)
        if what == 0 and len(self.nodes) < NODES_MAX:
            self._join()
        elif what == 1 and len(self.nodes) > 1:
            self._die(self.nodes[chance.choose([*self.nodes])])
        elif what == 2 and self._processes():
            self._end(chance.choose(self._processes()))
        elif what == 3 and self.nodes:
            self._drain(self.nodes[chance.choose([*self.nodes])])
        elif what == 5 and len(self.nodes) > 1:
            one = self.nodes[chance.choose([*self.nodes])]
            self._cut(one, self.nodes[chance.choose([name for name in self.nodes if name != one.name])])
        else:
            leased = [(self.nodes[node], worker) for node, worker in self.booked if node in self.nodes]
            if leased:
                node, worker = chance.choose(leased)
                if worker not in node.dying:
                    self.note("worker %s dies", worker)
                    node.dying.append(worker)

    def _cut(self, one: Node, other: Node) -> None:
        """The connection of two nodes breaks, with what is under way, and another one follows. Until something has come by
        that, each takes the other for full."""
        self.note("the connection of %s and %s breaks", one.name, other.name)
        for stream in (one.links[other.name], other.links[one.name]):
            stream.is_closed = True
            stream.inbox.clear()
        self._link(one, other)
        for node, peer in ((one, other), (other, one)):
            full = replace(peer.view(is_local=False), available=ResourceSet({CPU: 0}))
            node.lose(peer.name, fw.NodeForgot(full, self.now_s))

    def _drain(self, node: Node) -> None:
        self.note("node %s is drained", node.name)
        node.is_draining = True
        node.tell(ev.DrainingChanged("preemption", self.now_s), fw.NodeSeen(node.view(is_local=True), self.now_s))
        self._tell_others(node)

    def _die(self, node: Node) -> None:
        self.note("node %s dies", node.name)
        del self.nodes[node.name]
        node.is_dead = True
        for place in [place for place in self.booked if place[0] == node.name]:
            del self.booked[place]
        for stream in node.links.values():
            stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))

    def _end(self, process: Process) -> None:
        """It dies; what it held here ends at once, and elsewhere when that is heard of."""
        node = process.node
        self.note("%s dies", process.name)
        del node.processes[process.name]
        self.unbook(node.name, process.name)
        node.given.forget(process.name)
        node.tell(fw.ClientLeft(process.name, self.now_s), ev.ClientLeft(process.name, self.now_s))

    def unbook(self, node: str, client: str) -> None:
        """Its leases there are nobody's any more; the agent's machine ends them."""
        for place in [place for place, (holder, _) in self.booked.items() if place[0] == node and holder == client]:
            del self.booked[place]

    # ---- what must hold ----

    def enter(self, node: Node, command: ev.Grant) -> None:
        """W1: what is granted to those who live is never more than there is. W9: by a node that is drained, nothing."""
        self.must(not node.is_draining, "W9", "%s is drained, and has granted %s", node.name, command.worker)
        self.booked[node.name, command.worker] = (command.client, self.cpus_of(command.key))
        used = sum(cpus for (where, _), (_, cpus) in self.booked.items() if where == node.name)
        there = node.total[CPU] // UNIT
        self.must(used <= there, "W1", "%s has granted %d of %d CPUs", node.name, used, there)

    def failed(self, node: Node, command: fw.Fail) -> None:
        """W2: only what insists on a node that is not there, drained, or too small, is given up."""
        *_, kind, wanted = command.key.split("-")
        there = node.forwarding.nodes.get(wanted)
        is_able = there is not None and there.total[CPU] >= self.cpus_of(command.key) * UNIT and not there.is_draining
        self.must(
            kind == "hard" and not is_able, "W2", "%s of %s was given up: %s", command.key, node.name, command.reason
        )
        process = node.processes.get(command.client)
        if process is not None:
            process.wanted[command.key] = 0

    def check(self) -> None:
        for node in self.nodes.values():
            for process in node.processes.values():
                for key, count in process.wanted.items():
                    wish = node.forwarding.wishes.get((process.name, key))
                    asked = wish.count if wish is not None else 0
                    self.must(
                        asked == count, "W3", "%s wants %d of %s, %d are asked for", process.name, count, key, asked
                    )

    # ---- coming to rest ----

    def settle(self) -> None:
        self._quiet()
        self._check_agreed()
        self._check_no_idle_room()
        for _ in range(REST_ROUNDS_MAX):
            held = [(process, worker) for process in self._processes() for worker in process.held]
            if not held and not self._has_feasible():
                break
            for process, worker in held:
                if worker in process.held:  # it was not asked back meanwhile
                    self._return(process, worker)
            self._quiet(0.5)
        for process in self._processes():
            for key, count in [*process.wanted.items()]:
                is_possible = self._is_possible(key)
                self.must(not count or not is_possible, "W4", "%s was never granted %s", process.name, key)
                self.want(process, key, 0)
        self._quiet()

    def _quiet(self, duration_s: float = QUIET_S) -> None:
        """All messages arrive, and time passes, while nobody gives anything back of his own accord."""
        until_s = self.now_s + duration_s
        while True:
            while self.deliver_one():
                pass
            for node in [*self.nodes.values()]:
                for worker in [*node.dying]:
                    self._exited(node, worker)
            if self.next_to_deliver() is not None:
                continue
            if self.now_s >= until_s:
                break
            for node in self.nodes.values():
                if node.view(is_local=False) != node.told:
                    self._tell_others(node)
            self.now_s += 0.5
            self._tick()
        self.forget_closed()

    def _has_feasible(self) -> bool:
        return any(
            count and self._is_possible(key) for process in self._processes() for key, count in process.wanted.items()
        )

    def _is_possible(self, key: str) -> bool:
        demand = self._demand(key)
        staying = [node for node in self.nodes.values() if not node.is_draining]
        able = [node.name for node in staying if node.total[CPU] >= demand.resources[CPU]]
        if isinstance(demand.strategy, NodeAffinity) and not demand.strategy.is_soft:
            return demand.strategy.node_id in able
        return bool(able)

    def _check_agreed(self) -> None:
        """W3: once all that was said is heard, nodes are asked for what is wanted of them, and for nothing else. W9: those that
        are drained, only for what none of the others can have."""
        wanted = {
            (node, wish.client, wish.key): count
            for one in self.nodes.values()
            for wish in one.forwarding.wishes.values()
            for node, count in wish.on.items()
        }
        asked = {
            (node.name, demand.client, demand.key): demand.count
            for node in self.nodes.values()
            for demand in node.state.demands.values()
        }
        self.must(wanted == asked, "W3", "%s is wanted, %s is asked for", wanted, asked)
        for node, client, key in wanted:
            is_drained = node in self.nodes and self.nodes[node].is_draining
            self.must(
                not is_drained or not self._is_possible(key),
                "W9",
                "%s of %s is asked of %s, which is drained",
                key,
                client,
                node,
            )

    def _check_no_idle_room(self) -> None:
        """W5: nothing waits that some node has room for, unless it insists on another or somebody else waits for it there."""
        for process in self._processes():
            for key, count in process.wanted.items():
                demand = self._demand(key)
                if not count:
                    continue
                for node in [one for one in self.nodes.values() if not one.is_draining]:
                    is_other = isinstance(demand.strategy, NodeAffinity) and demand.strategy.node_id != node.name
                    is_room = node.state.ledger.free[CPU] >= demand.resources[CPU] and not node.state.demands
                    self.must(
                        is_other or not is_room, "W5", "%s waits for %s, and %s has room", process.name, key, node.name
                    )

    def check_rest(self) -> None:
        """W6: nobody is asked for anything any more, and all that was granted has come back."""
        for node in self.nodes.values():
            self.must(not node.forwarding.wishes, "W6", "%s has wishes", node.name)
            self.must(not node.state.demands, "W6", "%s is asked for %s", node.name, node.state.demands)
            free = node.state.ledger.free
            self.must(free == dict(node.total), "W6", "%s has %s free", node.name, free)
