"""Placement groups over several nodes: the table of groups, and on each node the agent's machine with its bundles.

Groups are created, watched, followed and removed; nodes join, say what they have, and die with what they held; tasks run inside
of groups and outside, end, and are killed. What the table and a node say to each other arrives in order, but how late is
chance. What nodes are told and say they hold is entered in books of the simulation's own, and compared.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any, Final

from umbel._agent import events as agent_ev
from umbel._agent.ledger import CPU, UNIT, Ledger
from umbel._agent.state import AgentState
from umbel._control import group_events as ev
from umbel._control.group_events import GroupSpec, GroupState
from umbel._control.group_state import Group
from umbel._control.groups import GroupTable
from umbel._model.placement import NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import bundles
from umbel.testing.simulation.world import World

NODES_MAX = 4
GROUPS_MAX = 6
BUNDLES_MAX = 3
REST_ROUNDS_MAX = 25  # of a second each: several times as long as nodes may wait for one another
DRIVER: Final = "driver"
OUTSIDE: Final = "outside"


class Node:
    """One node: its agent's machine, and what the simulation knows of it."""

    def __init__(self, world: GroupsWorld, name: str, cpus: int) -> None:
        self.name = name
        self.total = ResourceSet({CPU: cpus * UNIT})
        self.state = AgentState(
            ledger=Ledger(self.total, {}), worker_ids=_ids(name), starts_max=4, idle_max=2, infeasible_timeout_s=None
        )
        self.leases: dict[str, str] = {}  # worker -> key
        self.wanted: dict[str, int] = {}  # key -> leases
        self.dying: list[str] = []  # processes that are gone without the agent's knowing
        self.held: dict[
            tuple[str, int], frozenset[int]
        ] = {}  # (group, attempt) -> bundles, as it was told and has said
        self.asked: dict[tuple[str, int], frozenset[int]] = {}  # the same, of what it has not said yet
        self.committed: set[tuple[str, int]] = set()
        self.dropped: set[str] = set()
        self.follows: dict[str, ev.Tell | None] = {}  # groups, with what was told last of each
        self.todo: collections.deque[Any] = collections.deque()
        self.end, self.control_end = world.connect(f"{name}<table", f"table<{name}")
        self.end.on_frame = lambda _stream, command: world.on_order(self, command)
        self.control_end.on_frame = lambda _stream, event: world.tell(event)
        self.control_end.on_close = lambda _stream: world.on_node_lost(self)
        self.is_gone = False

    def view(self) -> NodeView:
        free = ResourceSet({CPU: max(0, self.state.ledger.free[CPU])})
        return NodeView(self.name, self.total, free)


def _ids(name: str) -> Iterator[str]:
    return (f"{name}w{number}" for number in itertools.count())


def _group_of(key: str) -> str:
    return key.partition(":")[0] if ":" in key else ""


class GroupsWorld(World):
    """See the module."""

    steps_min, steps_max = 40, 140

    def set_up(self) -> None:
        chance = self.chance
        self.infeasible_timeout_s = chance.choose((None, None, 20.0))
        self.table = GroupTable(infeasible_timeout_s=self.infeasible_timeout_s)
        self.nodes: dict[str, Node] = {}
        self.node_count = self.group_count = 0
        self.makers: dict[str, str] = {}  # of groups, who hears when they are not CREATED any more
        self.waiting: collections.Counter[tuple[str, str]] = collections.Counter()  # (client, group) -> untold watches
        self.weights = [12, *(chance.choose((1, 2, 4)) for _ in range(10)), chance.choose((0, 1, 2))]
        for _ in range(1 + chance.below(3)):
            self._join()

    def act(self) -> None:
        self.now_s += 0.01
        acts = (
            self.deliver_one, self._create, self._say, self._demand_outside, self._demand_inside, self._give_back,
            self._watch, self._report, self._pass_time, self._remove, self._follow, self._disturb,
        )  # fmt: skip
        acts[self.chance.weighted(self.weights)]()
        self.forget_closed()

    # ---- what happens ----

    def _join(self) -> None:
        self.node_count += 1
        name = f"n{self.node_count}"
        node = self.nodes[name] = Node(self, name, 1 + self.chance.below(4))
        self.note("node %s joins with %d CPUs", name, node.total[CPU] // UNIT)
        self._apply(node, agent_ev.ClientJoined(DRIVER, self.now_s))
        node.end.send(ev.NodeSeen(node.view(), self.now_s))

    def _create(self) -> None:
        chance = self.chance
        if len(self.table.groups) >= GROUPS_MAX:
            return
        self.group_count += 1
        wanted = tuple(ResourceSet({CPU: (1 + chance.below(3)) * UNIT}) for _ in range(1 + chance.below(BUNDLES_MAX)))
        strategy = chance.choose(bundles.STRATEGIES)
        spec = GroupSpec(f"g{self.group_count}", chance.choose((DRIVER, "other")), "", "ns", wanted, strategy, False)
        self.note("group %s is created: %s of %s", spec.group, strategy, [one[CPU] // UNIT for one in wanted])
        maker, is_near = chance.choose((DRIVER, "other", "w1")), chance.happens(50)
        if is_near:
            self.makers[spec.group] = maker
        self.tell(ev.GroupCreated(spec, maker, None, self.now_s, is_near))

    def _remove(self) -> None:
        if self.table.groups:
            client = self.chance.choose((DRIVER, "other", "w1"))
            self.tell(ev.RemovalWanted(self.chance.choose([*self.table.groups]), self.now_s, client))

    def _watch(self) -> None:
        if self.group_count:
            client, group = self.chance.choose(("w1", "w2")), f"g{1 + self.chance.below(self.group_count)}"
            self.waiting[client, group] = 1  # however often it asks, one answer is enough
            self.tell(ev.GroupWatched(client, group, self.now_s))

    def _follow(self) -> None:
        if self.nodes and self.group_count:
            node = self.nodes[self.chance.choose([*self.nodes])]
            group = f"g{1 + self.chance.below(self.group_count)}"
            node.follows.setdefault(group, None)
            node.end.send(ev.GroupFollowed(node.name, group, self.now_s))

    def _say(self) -> None:
        if self.nodes:
            node = self.nodes[self.chance.choose([*self.nodes])]
            node.end.send(ev.NodeSeen(node.view(), self.now_s))

    def _demand_outside(self) -> None:
        if self.nodes:
            self._demand(self.nodes[self.chance.choose([*self.nodes])], OUTSIDE, None)

    def _demand_inside(self) -> None:
        if not self.nodes or not self.group_count:
            return
        node = self.nodes[self.chance.choose([*self.nodes])]
        group = f"g{1 + self.chance.below(self.group_count)}"
        if (
            group in self.table.groups and group not in node.dropped
        ):  # else who asks is told, without the agent's machine
            index = self.chance.below(BUNDLES_MAX + 1) - 1
            self._demand(node, f"{group}:{index}", {"placement_group": group, "bundle_index": index})

    def _demand(self, node: Node, key: str, strategy: dict[str, Any] | None) -> None:
        node.wanted[key] = count = self.chance.below(3)
        self.note("%s wants %d of %s", node.name, count, key)
        self._apply(node, agent_ev.DemandChanged(DRIVER, key, {CPU: UNIT}, count, 0, "", "", self.now_s, strategy))

    def _give_back(self) -> None:
        leased = [(node, worker) for node in self.nodes.values() for worker in node.leases]
        if leased:
            self._return(*self.chance.choose(leased))

    def _return(self, node: Node, worker: str) -> None:
        self.note("%s has done %s", worker, node.leases.pop(worker))
        self._apply(node, agent_ev.LeaseReturned(DRIVER, worker, False, self.now_s))

    def _report(self) -> None:
        """A process that is gone is found to be."""
        dying = [(node, worker) for node in self.nodes.values() for worker in node.dying]
        if dying:
            self._exited(*self.chance.choose(dying))

    def _exited(self, node: Node, worker: str) -> None:
        node.dying.remove(worker)
        self.note("%s has exited", worker)
        self._apply(node, agent_ev.WorkerExited(worker, 0, 9, self.now_s))

    def _pass_time(self) -> None:
        due = [self.table.next_tick_s(), *(node.state.next_tick_s() for node in self.nodes.values())]
        soonest_s = min((at_s for at_s in due if at_s is not None), default=self.now_s)
        self.now_s = max(self.now_s, soonest_s)
        self._tick()

    def _tick(self) -> None:
        self.note("it is %.2f", self.now_s)
        self.tell(ev.Ticked(self.now_s))
        for node in [*self.nodes.values()]:
            self._apply(node, agent_ev.Ticked(self.now_s))

    def _disturb(self) -> None:
        chance = self.chance
        what = chance.below(4)
        if what == 0 and len(self.nodes) < NODES_MAX:
            self._join()
        elif what == 1 and self.nodes:
            node = self.nodes.pop(chance.choose([*self.nodes]))
            self.note("node %s dies", node.name)
            node.is_gone = True
            node.end.cut(kept=chance.below(len(node.control_end.inbox) + 1))
        elif what == 2:
            leased = [(node, worker) for node in self.nodes.values() for worker in node.leases]
            if leased:
                node, worker = chance.choose(leased)
                if worker not in node.dying:
                    node.dying.append(worker)
        elif chance.happens(20):
            self.note("a driver goes")
            self.tell(ev.OwnerGone("other", self.now_s))

    # ---- the table ----

    def tell(self, event: ev.GroupEvent) -> None:
        self.note("table: %s", event)
        before = {name: dict(group.nodes) for name, group in self.table.groups.items() if group.nodes}
        created = [name for name, group in self.table.groups.items() if group.state is GroupState.CREATED]
        heard: set[tuple[str, str]] = set()
        for command in self.table.apply(event):
            self.note("    %s", command)
            if isinstance(command, (ev.Reserve, ev.Commit, ev.Cancel, ev.Drop, ev.Tell)):
                node = self.nodes.get(command.node)
                if node is not None:
                    node.control_end.send(command)
            elif isinstance(command, ev.Publish):
                heard.add((command.client, command.group))
                told = self.waiting[command.client, command.group]
                is_maker = self.makers.get(command.group) == command.client
                if is_maker and (command.state is GroupState.RESCHEDULING or not told):
                    continue
                self.must(told > 0, "P7", "%s is told of %s, and does not wait", command.client, command.group)
                self.waiting[command.client, command.group] -= 1
        self.table.check()
        self._check_kept(event, before)
        self._check_makers(event, created, heard)
        self._check_waiting()

    def on_node_lost(self, node: Node) -> None:
        self.tell(ev.NodeLost(node.name, self.now_s))

    def _check_makers(self, event: ev.GroupEvent, created: list[str], heard: set[tuple[str, str]]) -> None:
        """P12: whoever has made a group, and may have been told that it is CREATED, hears when that is over."""
        gone = event.owner if isinstance(event, ev.OwnerGone) else ""
        for name in [name for name, maker in self.makers.items() if maker == gone]:
            del self.makers[name]
        for name in created:
            maker, group = self.makers.get(name), self.table.groups.get(name)
            if maker is None or (group is not None and group.state is GroupState.CREATED):
                continue
            knows = isinstance(event, ev.RemovalWanted) and event.client == maker
            self.must(knows or (maker, name) in heard, "P12", "%s does not hear what became of its %s", maker, name)

    def _check_kept(self, event: ev.GroupEvent, before: dict[str, dict[int, str]]) -> None:
        """P4: what a created group has stays where it is, but for what is lost with a node."""
        lost = event.node if isinstance(event, ev.NodeLost) else ""
        for name, homes in before.items():
            group = self.table.groups.get(name)
            if group is None:
                continue
            for index, home in homes.items():
                is_kept = group.nodes.get(index) == home
                self.must(is_kept or home == lost, "P4", "bundle %d of %s was on %s", index, name, home)

    def _check_waiting(self) -> None:
        """P11, by what the table knows."""
        for name, group in self.table.groups.items():
            attempt = group.attempt
            if attempt is None or attempt.is_committing:
                continue
            full = [node for node, _ in attempt.waits_for if self.table._room.is_crowded(node, name)]
            has_room = bool(full) and self.table._place(group, attempt.reserved()).is_ready
            self.must(not has_room, "P11", "%s waits for %s, and there is room elsewhere", name, full)

    # ---- nodes ----

    def on_order(self, node: Node, command: Any) -> None:
        """What the table tells a node."""
        self.note("%s: %s", node.name, command)
        place = (command.group, getattr(command, "attempt", 0))
        if isinstance(command, ev.Reserve):
            node.asked[place] = frozenset(command.bundles)
            wanted = {index: dict(bundle) for index, bundle in command.bundles.items()}
            self._apply(node, agent_ev.BundlesWanted(*place, wanted, command.depth, self.now_s))
        elif isinstance(command, ev.Commit):
            self.must(place in node.held, "P1", "%s is to commit %s, which it does not hold", node.name, place)
            node.committed.add(place)
            self._apply(node, agent_ev.BundlesCommitted(*place, self.now_s))
            node.end.send(ev.BundlesCommitted(node.name, *place, self.now_s))
        elif isinstance(command, ev.Tell):
            self._told(node, command)
        elif isinstance(command, ev.Cancel):
            self._forget(node, {place})
            self._apply(node, agent_ev.BundlesUnwanted(*place, self.now_s))
        else:
            node.dropped.add(command.group)
            self._forget(node, {one for one in (*node.asked, *node.held) if one[0] == command.group})
            for key in [key for key in node.wanted if _group_of(key) == command.group]:
                del node.wanted[key]
            self._apply(node, agent_ev.GroupDropped(command.group, command.reason, self.now_s))

    def _told(self, node: Node, command: ev.Tell) -> None:
        """P9: what a node is told to be its own is its own."""
        self.must(
            command.group in node.follows, "P9", "%s is told of %s, and does not follow it", node.name, command.group
        )
        node.follows[command.group] = command
        for index, home in enumerate(command.nodes):
            held = [one for place, one in node.held.items() if place[0] == command.group and place in node.committed]
            is_held = home != node.name or any(index in one for one in held)
            self.must(is_held, "P9", "bundle %d of %s is said to be on %s", index, command.group, node.name)

    @staticmethod
    def _forget(node: Node, places: set[tuple[str, int]]) -> None:
        for place in places:
            node.asked.pop(place, None)
            node.held.pop(place, None)
            node.committed.discard(place)

    def _apply(self, node: Node, event: Any) -> None:
        node.todo.append(event)
        if len(node.todo) > 1:
            return  # it is being told of another
        while node.todo:
            for command in node.state.apply(node.todo[0]):
                self._carry_out(node, command)
            node.state.check()
            node.todo.popleft()

    def _carry_out(self, node: Node, command: Any) -> None:
        self.note("    %s: %s", node.name, command)
        if isinstance(command, agent_ev.StartWorker):
            node.todo.append(agent_ev.ClientJoined(command.worker, self.now_s))
            node.todo.append(agent_ev.WorkerReady(command.worker, self.now_s))
        elif isinstance(command, (agent_ev.KillWorker, agent_ev.AskExit)):
            if command.worker not in node.dying:
                node.dying.append(command.worker)
        elif isinstance(command, agent_ev.Grant):
            self._granted(node, command)
        elif isinstance(command, agent_ev.LeaseBroken):
            group = _group_of(node.leases.pop(command.worker, ""))
            is_gone = group in node.dropped
            self.must(is_gone or not command.group, "P8", "%s ended with %s", command.worker, command.group)
        elif isinstance(command, agent_ev.BundlesReserved):
            place = (command.group, command.attempt)
            self.must(place in node.asked or place in node.held, "P3", "%s reserves %s for nobody", node.name, place)
            if place in node.asked:
                node.held[place] = node.asked.pop(place)
            node.end.send(ev.BundlesReserved(node.name, *place, self.now_s, node.view()))
        elif isinstance(command, agent_ev.BundlesRefused):
            node.asked.pop((command.group, command.attempt), None)
            node.end.send(ev.BundlesRefused(node.name, command.group, command.attempt, command.reason, self.now_s))

    def _granted(self, node: Node, command: agent_ev.Grant) -> None:
        group = _group_of(command.key)
        if group:
            index = int(command.key.partition(":")[2])
            there = [one for place, one in node.held.items() if place[0] == group and place in node.committed]
            is_there = any(index < 0 or index in one for one in there)
            self.must(is_there, "P1", "a task runs in %s, of which %s has %s", command.key, node.name, there)
        node.leases[command.worker] = command.key

    # ---- what must hold ----

    def check(self) -> None:
        for name, group in self.table.groups.items():
            homes = [*group.nodes.values()]
            strategy = group.spec.strategy
            is_right = strategy != bundles.STRICT_SPREAD or len({*homes}) == len(homes)
            is_right &= strategy != bundles.STRICT_PACK or len({*homes}) <= 1
            self.must(is_right, "P2", "%s of %s is on %s", strategy, name, homes)
            if group.state is GroupState.CREATED:
                self._check_created(name, group)

    def _check_created(self, name: str, group: Group) -> None:
        for index in range(len(group.spec.bundles)):
            node = self.nodes.get(group.nodes.get(index, ""))
            if node is None:
                continue  # it has died, and the table does not know yet
            places = [place for place in node.committed if place[0] == name]
            is_held = any(index in node.held.get(place, ()) for place in places)
            self.must(is_held, "P1", "bundle %d of %s, which is created, is not on %s", index, name, node.name)

    # ---- coming to rest ----

    def settle(self) -> None:
        self._rest()
        self._check_rest()
        while len(self.table.groups) > 1:  # the last one has all nodes to itself
            self.tell(ev.RemovalWanted(next(iter(self.table.groups)), self.now_s))
        self._rest()
        for name, group in self.table.groups.items():
            is_possible = self._is_possible(group.spec)
            is_created = group.state is GroupState.CREATED
            self.must(is_created == is_possible, "P6", "%s is %s: %s", name, group.state, group.reason)
        for name in [*self.table.groups]:
            self.tell(ev.RemovalWanted(name, self.now_s))
        self._rest()

    def _rest(self) -> None:
        for _ in range(REST_ROUNDS_MAX):
            for node in [*self.nodes.values()]:
                for key in [*node.wanted]:
                    del node.wanted[key]
                    self._apply(node, agent_ev.DemandChanged(DRIVER, key, {CPU: UNIT}, 0, 0, "", "", self.now_s))
                for worker in [one for one in node.leases if one not in node.dying]:
                    self._return(node, worker)
                for worker in [*node.dying]:
                    self._exited(node, worker)
                node.end.send(ev.NodeSeen(node.view(), self.now_s))
            while self.deliver_one():
                pass
            self.now_s += 1.0
            self._tick()
            if self._is_calm():
                break
        while self.deliver_one():
            pass
        self.forget_closed()

    def _is_calm(self) -> bool:
        """Whether another round would change nothing: nothing is under way, nobody waits for time, and the table knows
        what the nodes have."""
        if any(stream.inbox for stream in self.streams) or self.table.next_tick_s() is not None:
            return False
        known = self.table.nodes
        return all(
            not node.wanted
            and not node.leases
            and not node.dying
            and node.state.next_tick_s() is None
            and known.get(node.name) == node.view()
            for node in self.nodes.values()
        )

    def _check_rest(self) -> None:
        untold = [place for place, count in self.waiting.items() if count and place[1] not in self.table.groups]
        self.must(not untold, "P7", "%s wait for groups that are gone", untold)
        created = {name for name, group in self.table.groups.items() if group.state is GroupState.CREATED}
        untold = [place for place, count in self.waiting.items() if count and place[1] in created]
        self.must(not untold, "P7", "%s wait for groups that are created", untold)
        for node in self.nodes.values():
            self._check_followed(node)
            for group, _ in node.held:
                homes = self.table.groups[group].nodes.values() if group in self.table.groups else ()
                attempt = self.table.groups[group].attempt if group in self.table.groups else None
                is_wanted = node.name in homes or (attempt is not None and node.name in attempt.nodes.values())
                self.must(is_wanted, "P3", "%s holds bundles of %s in vain", node.name, group)

    def _check_followed(self, node: Node) -> None:
        for name, told in node.follows.items():
            group = self.table.groups.get(name)
            homes = [] if group is None else [group.nodes.get(index, "") for index in range(len(group.spec.bundles))]
            known = None if told is None else [*told.nodes]
            is_gone = told is not None and told.state is GroupState.REMOVED
            is_right = is_gone if group is None else known == homes
            self.must(is_right, "P9", "%s believes that %s is on %s, it is on %s", node.name, name, known, homes)

    def check_rest(self) -> None:
        for node in self.nodes.values():
            left = [*node.state.bundles]
            self.must(not left, "P8", "%s has %d bundles of groups that are gone", node.name, len(left))
            free = node.state.ledger.free
            self.must(free == dict(node.total), "P8", "%s has %s free", node.name, free)
            self.must(not node.held, "P3", "%s holds %s", node.name, [*node.held])

    def _is_possible(self, spec: GroupSpec) -> bool:
        """Whether any arrangement there is fits."""
        for homes in itertools.product(self.nodes.values(), repeat=len(spec.bundles)):
            count = len({node.name for node in homes})
            if spec.strategy == bundles.STRICT_PACK and count > 1:
                continue
            if spec.strategy == bundles.STRICT_SPREAD and count < len(homes):
                continue
            loads: collections.Counter[str] = collections.Counter()
            for node, bundle in zip(homes, spec.bundles, strict=True):
                loads[node.name] += bundle[CPU]
            if all(load <= self.nodes[name].total[CPU] for name, load in loads.items()):
                return True
        return False
