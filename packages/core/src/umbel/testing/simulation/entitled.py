"""Several jobs on several nodes, whose leases are of all nodes: who waits on a full one gets what others have too much elsewhere.

As the world `shares`, and on each node the machine that says where leases are asked for: what a process wants is asked of others
as well, and what nodes say to each other takes its time. Some owners want a few leases only; jobs have priorities; connections
between nodes break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from umbel._agent import events as ev
from umbel._agent.ledger import CPU, UNIT
from umbel._model.placement import Demand, NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import forwarding as fw
from umbel._scheduling import policies
from umbel.testing.simulation import shares

KEY: Final = "f"
ROOM_S: Final = 0.05  # after which who has leases of a node hears what is free there
# How long a job may have less than it is entitled to. The last lease of a share is claimed for 4 s of every 16, in which each
# node that has it draws two numbers, and gives it up by half of these or less: 40 s were too little for one of 2,200 runs.
LATE_S: Final = 100.0
REST_S: Final = 120.0  # in which all has to come about
CALM_S: Final = 45.0  # the same, if nobody has less by then: whoever has less since then only would not be found late
ONE: Final = Demand(ResourceSet({CPU: UNIT}))


class Owner(shares.Owner):
    """lessors: by worker that it has, the node. most: leases that it wants in all; None for as many as there are."""

    def __init__(self, job: ev.Job, node: Node, most: int | None) -> None:
        super().__init__(job, node)
        self.lessors: dict[str, Node] = {}
        self.most = most

    @property
    def waits(self) -> bool:
        return self.most is None or len(self.leases) < self.most


class Node(shares.Node):
    """guests: processes of other nodes that want leases here, and their nodes. views: of all nodes, as they were heard of."""

    world: EntitledWorld
    owners: dict[str, Owner]  # type: ignore[assignment]  # of this world's kind

    def __init__(self, world: EntitledWorld, number: int, cpus: int) -> None:
        super().__init__(world, number, cpus)
        self.forwarding = fw.Forwarding(self.id, policies.HybridPolicy())
        self.given = fw.Given()
        self.guests: dict[str, Node] = {}
        self.views: dict[str, NodeView] = {}
        self.links: dict[str, int] = {}  # by other node, the number of the connection
        self.arrives: dict[str, float] = {}  # when the last of what was sent there does
        self.told_view: NodeView | None = None
        self.is_room_due = False
        self._view: NodeView | None = None  # as it was when it was looked at last

    def view(self) -> NodeView:
        free = 0 if self.is_draining else max(0, self.agent.ledger.free[CPU])
        known = self._view
        if known is None or known.available.get(CPU, 0) != free or known.is_draining != self.is_draining:
            total = ResourceSet({CPU: self.cpus * UNIT})
            known = self._view = NodeView(self.id, total, ResourceSet({CPU: free}), is_draining=self.is_draining)
        return known

    def check(self) -> None:
        super().check()
        self.forwarding.check()

    # ---- the events of both machines, one after another ----

    def apply(self, *events: Any) -> None:
        self.todo.extend(events)
        if len(self.todo) > len(events) or self.is_dead:
            return
        while self.todo:
            self._apply_one(self.todo[0])
            self.todo.popleft()

    def _apply_one(self, event: Any) -> None:
        self.world.changed[self] = None
        if isinstance(event, fw.Want):
            event = self._demand(event)
            if event is None:
                return
        if isinstance(event, fw.Event):
            for order in self.forwarding.apply(event):
                self._forward(order)
            return
        free = self.agent.ledger.free[CPU]
        commands = self.agent.apply(event)
        self._check_decision(commands)
        for command in commands:
            self._carry_out(command)
        if self.agent.ledger.free[CPU] != free or isinstance(event, ev.DrainingChanged):
            self.todo.append(fw.NodeSeen(replace(self.view(), is_local=True), self.world.now_s))
            if not self.is_room_due:
                self.is_room_due = True
                self.world.after(ROOM_S, self._tell_room)

    def _demand(self, want: fw.Want) -> ev.DemandChanged | None:
        _, client, key, count, heard_count, _, is_claim = want
        owner = self.world.owners.get(client)
        if owner is None or (owner.node is not self and client not in self.guests):
            return None  # it has gone since
        left = self.given.still_wanted(client, key, count, heard_count)
        env = f'{{"job":"{owner.job.id}"}}'
        now_s = self.world.now_s
        return ev.DemandChanged(client, key, shares.ONE, left, 0, env, "", now_s, job=owner.job, is_claim=is_claim)

    def _check_decision(self, commands: list[Any]) -> None:
        """A22, as there, of what somebody has on this node."""
        given = {command.client for command in commands if isinstance(command, ev.Grant)}
        if not given or self.has_turns:
            return
        for command in commands:
            if isinstance(command, ev.Reclaim) and command.client in given:
                owner = self.world.owners[command.client]
                had = [worker for worker, lessor in owner.lessors.items() if lessor is self]
                self.world.must(not had, "A22", "%s has %s, is given a lease and asked for one", owner.id, had)

    @property
    def has_turns(self) -> bool:
        """As there; or some of one job take turns."""
        clients = {demand.client for demand in self.agent.demands.values()}
        clients |= {client for client, leases in self.agent.clients.items() if leases}
        jobs = {self.world.owners[client].job for client in clients if client in self.world.owners}
        return len(clients) > min(self.cpus, len(jobs))

    def _forward(self, command: fw.Command) -> None:
        self.world.note("    %s: %s", self.id, command)
        if isinstance(command, fw.Fail):
            self.world.must(False, "W2", "%s was given up: %s", command.client, command.reason)
        elif isinstance(command, fw.Leave):
            self.say(command.node, lambda lessor: lessor.leave(command.client))
        elif command.node == self.id:
            self.todo.append(command)
        else:
            self.say(command.node, lambda lessor: lessor.on_want(self, command))

    def _carry_out(self, command: Any) -> None:
        now_s = self.world.now_s
        self.world.note("    %s: %s", self.id, command)
        if isinstance(command, ev.StartWorker):
            self.todo.extend((ev.ClientJoined(command.worker, now_s), ev.WorkerReady(command.worker, now_s)))
        elif isinstance(command, ev.AskExit | ev.KillWorker):
            self.todo.append(ev.WorkerExited(command.worker, 0, 0, now_s))
        elif isinstance(command, ev.Grant):
            self.given.granted(command.client, command.key)
            view = self.view()
            self.to_home(command.client, lambda home: home.on_granted(self, command, view))
        elif isinstance(command, ev.Reclaim):
            if not self.has_turns:
                self.world.reclaims.append(now_s)
            self.to_home(command.client, lambda home: home.on_reclaim(command))
        elif isinstance(command, ev.Promised):
            self.to_home(command.client, lambda home: home.apply(fw.Promised(self.id, *command, home.world.now_s)))

    # ---- what nodes say to each other ----

    def to_home(self, client: str, what: Callable[[Node], None]) -> None:
        home = self.guests.get(client)
        if home is None:
            what(self)
        else:
            self.say(home.id, what)

    def say(self, node_id: str, what: Callable[[Node], None]) -> None:
        """In order."""
        if self.is_dead:
            return
        world, link = self.world, self.links[node_id]
        at_s = max(world.now_s + world.way_s(), self.arrives.get(node_id, 0.0) + 0.001)
        self.arrives[node_id] = at_s
        other = world.by_id[node_id]

        def arrive() -> None:
            if not other.is_dead and self.links[node_id] == link:
                what(other)

        world.after(at_s - world.now_s, arrive)

    def _tell_room(self) -> None:
        self.is_room_due = False
        view = self.view()
        for home in dict.fromkeys(self.guests.values()):
            self.say(home.id, lambda other: other.see(view))

    def see(self, view: NodeView) -> None:
        self.views[view.node_id] = view
        self.apply(fw.NodeSeen(view, self.world.now_s))

    def on_want(self, home: Node, command: fw.Want) -> None:
        if command.client not in self.guests:
            if not command.lease_count:
                return
            self.guests[command.client] = home
            self.apply(ev.ClientJoined(command.client, self.world.now_s))
        self.apply(command)

    def leave(self, client: str) -> None:
        if self.guests.pop(client, None) is not None:
            self.given.forget(client)
            self.apply(ev.ClientLeft(client, self.world.now_s))

    def on_granted(self, lessor: Node, command: ev.Grant, view: NodeView) -> None:
        now_s, owner = self.world.now_s, self.owners.get(command.client)
        if owner is None:
            return  # its leases end with it
        if lessor not in owner.lessors.values():
            self.world.firsts.append(now_s)
        owner.leases[command.worker] = False
        owner.lessors[command.worker] = lessor
        owner.got_s = now_s
        self.world.begin_task(owner, command.worker)
        self.apply(fw.Granted(lessor.id, command.client, command.key, now_s))
        if lessor is not self:
            self.see(view)

    def on_reclaim(self, command: ev.Reclaim) -> None:
        owner = self.owners.get(command.client)
        if owner is not None and command.worker in owner.leases:
            self.world.asked_back(owner, command.worker)

    def give_back(self, owner: shares.Owner, worker: str) -> None:
        assert isinstance(owner, Owner)
        del owner.leases[worker]
        lessor, returned = owner.lessors.pop(worker), ev.LeaseReturned(owner.id, worker, False, self.world.now_s)
        if lessor is self:
            self.apply(returned)
            return
        self.say(lessor.id, lambda other: other.apply(returned))
        known = self.views[lessor.id]  # it is taken to have room, until it says itself what is free
        self.see(replace(known, available=ResourceSet({CPU: known.available.get(CPU, 0) + UNIT})))

    def want(self, owner: shares.Owner) -> None:
        assert isinstance(owner, Owner)
        wish = self.forwarding.wishes.get((owner.id, KEY))
        count = sum(node.cpus for node in self.world.living()) + shares.WANTED
        if owner.most is not None:
            count = max(0, owner.most - len(owner.leases))
        if owner.is_over:
            count = 0
        if (wish.count if wish is not None else 0) != count:
            self.apply(fw.WishChanged(owner.id, KEY, [ONE], count, self.world.now_s))

    def used(self, job: ev.Job) -> int:
        """Of this node."""
        return sum(worker.lease is not None and worker.lease.job.id == job.id for worker in self.agent.workers.values())

    # ---- shares ----

    def short(self) -> list[tuple[ev.Job, fw.Short]]:
        return [(self.owners[one.client].job, one) for one in self.forwarding.short(self.world.now_s)]

    def use_of_jobs(self) -> Any:
        return self.agent.use_of_jobs(lambda: {job.id: job for job, _ in self.short()})

    def use_told(self) -> None:
        at_s = self.world.now_s
        self.apply(ev.ClusterUseTold(self.news.use(), at_s))
        for place, count in self.agent.entitled(self.short(), at_s).items():
            self.apply(fw.MayAsk(*place, count, at_s))


class EntitledWorld(shares.SharesWorld):
    """See the module."""

    steps_min, steps_max = 10, 50
    nodes: list[Node]  # type: ignore[assignment]  # of this world's kind

    def set_up(self) -> None:
        self.owners: dict[str, Owner] = {}
        super().set_up()

    def layout(self) -> tuple[list[Any], list[ev.Job], list[float]]:
        chance = self.chance
        count = chance.choose((2, 3, 4))
        nodes = [Node(self, number, 1 + chance.below(4)) for number in range(count)]
        jobs = [
            ev.Job(f"j{number}", chance.choose((0, 0, 0, 1)), chance.choose((1.0, 1.0, 3.0, 2.0)))
            for number in range(2 + chance.below(2))
        ]
        self.link_all(nodes)
        return nodes, jobs, [chance.choose((1.0, 2.0)) for _ in jobs]

    def link_all(self, nodes: list[Node]) -> None:
        self.by_id = {node.id: node for node in nodes}
        for node in nodes:
            node.links = {other.id: 0 for other in nodes if other is not node}
            node.views = {other.id: other.view() for other in nodes if other is not node}
            node.apply(fw.NodeSeen(replace(node.view(), is_local=True), 0.0))
            node.apply(*(fw.NodeSeen(view, 0.0) for view in node.views.values()))

    def begin_jobs(self) -> None:
        for job in self.jobs:
            for _ in range(1 + self.chance.below(2)):
                self.begin(job, self.chance.choose(self.nodes))
            self.pass_time(self.chance.choose((0.0, 2.0)))

    def living(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_dead]

    def way_s(self) -> float:
        return 0.001 + self.chance.below(5) / 100

    # ---- owners ----

    def begin(self, job: ev.Job, node: Any) -> None:
        if f"{job.id}@{node.id}" not in self.owners:
            self.begin_owner(Owner(job, node, self.chance.choose((None, None, 1, 3))))

    def begin_owner(self, owner: Owner) -> None:
        node = owner.node
        self.note("%s begins on %s, and wants %s", owner.job.id, node.id, owner.most)
        node.owners[owner.id] = self.owners[owner.id] = owner
        owner.got_s = self.now_s
        node.apply(ev.ClientJoined(owner.id, self.now_s))
        node.want(owner)

    def _end(self, owner: Any) -> None:
        self.note("%s ends", owner.id)
        node = owner.node
        owner.is_over = True
        node.want(owner)
        for worker in [*owner.leases]:
            node.give_back(owner, worker)
        del node.owners[owner.id], self.owners[owner.id]
        node.given.forget(owner.id)
        node.apply(fw.ClientLeft(owner.id, self.now_s), ev.ClientLeft(owner.id, self.now_s))

    # ---- nodes and head ----

    def _look(self, node: Any) -> None:
        if node.is_dead:
            return
        self.after(shares.LOOK_S, lambda: self._look(node))
        due_s = node.agent.next_tick_s()
        if due_s is not None and due_s <= self.now_s:
            node.apply(ev.Ticked(self.now_s))
        due_s = node.forwarding.next_tick_s()
        if due_s is not None and due_s <= self.now_s:
            node.apply(fw.Ticked(self.now_s))
        view = node.view()
        if view != node.told_view:
            node.told_view = view
            for other in node.links:
                node.say(other, lambda other: other.see(view))
        state = node.use_of_jobs()
        if node.is_linked and state != node.told:
            self._say(node, state)
        if node.news.is_due(self.now_s):
            node.use_told()

    def head_tells(self) -> None:
        if self.now_s < self._told_s + shares.TELL_S:
            return
        is_short = len({owner.job.id for owner in self.owners.values()}) > 1 and any(
            node.agent.demands for node in self.living()
        )
        if not self.sum.is_wanted and not is_short:
            return
        self._told_s = self.now_s
        counting = {node.id: node.agent.ledger.total for node in self.living() if not node.is_draining}
        message = self.sum.news(counting, self.now_s, is_short=is_short)
        if message is not None:
            self.note("the head tells %s", message)
            for node in self.living():
                self._tell(node, lambda node=node: self._told(node, message))  # type: ignore[misc]

    def _told(self, node: Any, message: Any) -> None:
        was_told = node.news.is_told
        node.news.told(message, self.now_s)
        node.use_told()
        if node.news.is_told and not was_told:
            self._say(node, node.use_of_jobs())

    # ---- what happens ----

    def act(self) -> None:
        chance = self.chance
        living = self.living()
        if chance.happens(5) and len(living) > 1:
            one = chance.choose(living)
            self._break(one, chance.choose([node for node in living if node is not one]))
        dead = {node.id for node in self.nodes if node.is_dead}
        super().act()
        for node in self.nodes:
            if node.is_dead and node.id not in dead:
                self._died(node)

    def _break(self, one: Node, other: Node) -> None:
        self.note("the connection of %s and %s breaks", one.id, other.id)
        for near, far in ((one, other), (other, one)):
            self._lose(near, far)
        for near, far in ((one, other), (other, one)):
            near.links[far.id] += 1  # nothing comes any more that was said before
        for near, far in ((one, other), (other, one)):
            full = replace(far.view(), available=ResourceSet({CPU: 0}))
            near.apply(fw.NodeForgot(full, self.now_s))
            near.views[far.id] = full
            near.told_view = None  # who it was connected to hears it anew

    def _lose(self, node: Node, other: Node) -> None:
        """What was between them is gone."""
        for client in [client for client, home in node.guests.items() if home is other]:
            node.leave(client)
        for owner in node.owners.values():
            for worker in [worker for worker, lessor in owner.lessors.items() if lessor is other]:
                del owner.leases[worker], owner.lessors[worker]
            node.want(owner)

    def _died(self, dead: Node) -> None:
        for owner in dead.owners.values():
            del self.owners[owner.id]
        dead.links = {other: link + 1 for other, link in dead.links.items()}  # what it has said comes no more
        for node in self.living():
            node.apply(fw.NodeLost(dead.id, self.now_s))
            self._lose(node, dead)
            del node.links[dead.id], node.views[dead.id]

    # ---- what must hold ----

    def settle(self) -> None:
        self.is_settling = True
        late_s: dict[tuple[str, str], float] = {}
        begun_s = self.now_s
        for owner in self.owners.values():
            owner.node.want(owner)
        while self.now_s < begun_s + (REST_S if late_s else CALM_S):
            self.pass_time(shares.LOOK_S)
            self.check()
            unfair = {*self._unfair()}
            late_s = {pair: late_s.get(pair, self.now_s) for pair in unfair}
            for (waiting, having), since_s in late_s.items():
                is_late = self.now_s >= since_s + LATE_S
                self.must(not is_late, "A24", "job %s waits beside %s: %s", waiting, having, self._standings())
        self._check_quiet()

    def _unfair(self) -> Iterator[tuple[str, str]]:
        """A24. Which job waits, wherever that is, beside which other one that has too much: so much that the one would have less
        than the other with one of its leases."""
        counting = [node for node in self.living() if not node.is_draining]
        total = sum(node.cpus for node in counting)
        used = {job: sum(node.used(job) for node in counting) for job in self.jobs}
        for job in {owner.job for owner in self.owners.values() if owner.waits and not owner.node.is_draining}:
            share = (used[job] + 1) / total / job.weight
            for other in self.jobs:
                has = used[other]
                is_lower = other.priority < job.priority
                is_unfair = other.priority == job.priority and share < (has - 1) / total / other.weight
                if has and other is not job and (is_lower or is_unfair):
                    yield job.id, other.id
