"""A cluster that grows and shrinks: the production autoscaler, a simulated head with work, and a simulated cloud.

The cloud has quotas, launches less than it was asked for, or more than it admits, takes its time, and loses answers; nodes
boot late or never, have less than their type says, die, and are drained by others. The head places what waits as it likes.
What either says to the autoscaler comes late: the head's news in order, the cloud's answers in any. The world's books are what
there really is.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from umbel._autoscaling import autoscaler, demand, events, node_types, packing, planning
from umbel._autoscaling.planning import NodeState
from umbel._model import node_labels, placement, resources
from umbel._scheduling import bundles
from umbel.testing.simulation.processes import attribute
from umbel.testing.simulation.world import World

IDLE_S = 60.0
UPSCALING_MIN = 2  # instead of the real one, for which there would have to be many nodes
LAUNCHES_MAX = 3  # likewise
BOOT_S = 120.0
PAUSES_S = (0.1, 1.0, 5.0, 5.0, 20.0, 70.0)
LABELS: tuple[Mapping[str, str], ...] = ({}, {}, {"zone": "a"}, {"zone": "b"})
SELECTORS: tuple[tuple[node_labels.Selector, ...], ...] = (
    (), (), (), ((("zone", "a"),),), ((("zone", "b"),), (("zone", "a"),)), ((("zone", "c"),),),
)  # fmt: skip
SIZES: tuple[Mapping[str, float], ...] = ({"CPU": 2}, {"CPU": 4}, {"CPU": 8}, {"CPU": 4, "GPU": 1})
NEEDS: tuple[Mapping[str, float], ...] = (
    {"CPU": 1},
    {"CPU": 1},
    {"CPU": 2},
    {"CPU": 3},
    {"CPU": 8},
    {"CPU": 1, "GPU": 1},
    {"CPU": 9},
    {},
)  # fmt: skip
REST_ROUNDS = 60
REST_PERIOD_S = 35.0  # so that nothing is still to be asked again in the next round


class Work(NamedTuple):
    """A task, or the bundles of a group, which end together."""

    name: str
    shapes: tuple[demand.Shape, ...]
    strategy: str = ""  # of a group


class Instance:
    """A machine of the cloud. has: what its daemon finds, once it is up. runs: by what, how much of it."""

    def __init__(self, name: str, made: node_types.NodeType, has: resources.ResourceSet) -> None:
        self.name = name
        self.made = made
        self.has = has
        self.is_up = False
        self.is_drained = False
        self.leaves = False  # somebody else has had it drained, and it ends when it likes to
        self.free = has
        self.runs: list[tuple[Work, resources.ResourceSet]] = []
        self.idle_since_s = 0.0


class AutoscalingWorld(World):
    """See the module."""

    steps_min, steps_max = 20, 70

    def run_guarded(self) -> None:
        with attribute(planning, "UPSCALING_MIN", UPSCALING_MIN), attribute(planning, "LAUNCHES_MAX", LAUNCHES_MAX):
            self.run()

    def set_up(self) -> None:
        chance = self.chance
        self.now_s = 1.0
        self.counter = 0
        self.types = tuple(self._type(index) for index in range(1 + chance.below(3)))
        least = sum(one.min_workers for one in self.types)
        most = least + 1 + chance.below(6)
        speed = chance.choose((1.0, 0.0, 2.0))
        self.settings = node_types.checked(node_types.Settings(self.types, most, speed, IDLE_S, BOOT_S))
        self.note("%s", self.settings)
        self.machine = autoscaler.Autoscaler(self.settings)
        self.quotas = {one.name: chance.choose((100, 100, 1, 0)) for one in self.types}
        self.instances: dict[str, Instance] = {}
        self.launches: list[events.Launch] = []  # that the cloud has not seen to
        self.listings: list[float] = []  # when each was asked for
        self.ends: list[str] = []
        self.drains: list[str] = []
        self.head: deque[Callable[[], events.Event]] = deque()  # its news, on their way
        self.cloud: list[Callable[[], events.Event]] = []  # its answers
        self.waiting: list[Work] = []
        self.known_waiting: list[Work] = []  # as the autoscaler has been told
        self.standing: tuple[demand.Shape, ...] = ()
        self.known_standing: tuple[demand.Shape, ...] = ()
        self.failed_s: dict[str, float] = {}  # when the last launch of a type was answered by an error
        self.failures: Counter[str] = Counter()
        self.is_resting = False

    def _type(self, index: int) -> node_types.NodeType:
        chance = self.chance
        least = chance.choose((0, 0, 1, 2))
        return node_types.NodeType(
            f"t{index}",
            resources.ResourceSet.from_floats(chance.choose(SIZES)),
            least + chance.below(5),
            least,
            chance.choose(LABELS),
            chance.choose((None, None, 10.0)),
        )

    def _name(self, kind: str) -> str:
        self.counter += 1
        return f"{kind}{self.counter}"

    # What happens

    def act(self) -> None:
        chance = self.chance
        what = chance.weighted((14, 16, 12, 8, 20, 14, 10, 5, 3, 4, 3, 8, 1))
        if what == 0:
            self.now_s += chance.choose(PAUSES_S)
        elif what == 1:
            self._tick()
        elif what == 2:
            self._submit()
        elif what == 3:
            self._end_some()
        elif what == 4:
            self._hear()
        elif what == 5:
            self._cloud_acts()
        elif what == 6:
            self._boot(chance.choose(list(self.instances.values())) if self.instances else None)
        elif what == 7:
            self.listings.append(self.now_s)
            self.now_s += 0.001  # it is answered later than it was asked for
        elif what == 8:
            self._die()
        elif what == 9:
            self._stand()
        elif what == 10:
            self.quotas[chance.choose(self.types).name] = chance.choose((100, 100, 2, 0))
        elif what == 12:
            self._take_away()
        else:
            self._head_acts()

    def _submit(self) -> None:
        chance = self.chance
        if chance.happens(25):
            shapes = tuple(self._shape() for _ in range(1 + chance.below(3)))
            work = Work(self._name("group"), shapes, chance.choose(bundles.STRATEGIES))
        else:
            work = Work(self._name("task"), (self._shape(),))
            for _ in range(chance.below(4)):
                self.waiting.append(work._replace(name=self._name("task")))
        self.waiting.append(work)
        self.note("%s waits", work)
        self._tell_demand()

    def _shape(self) -> demand.Shape:
        wanted = resources.ResourceSet.from_floats(self.chance.choose(NEEDS))
        return demand.Shape(wanted, 1, self.chance.choose(SELECTORS))

    def _stand(self) -> None:
        self.standing = tuple(
            demand.Shape(resources.ResourceSet.from_floats(self.chance.choose(NEEDS)), 1 + self.chance.below(2))
            for _ in range(self.chance.below(3))
        )
        shapes = self.standing
        self.head.append(lambda: self._know_standing(shapes))

    def _know_standing(self, shapes: tuple[demand.Shape, ...]) -> events.Event:
        self.known_standing = shapes
        return events.StandingChanged(shapes, self.now_s)

    def _tell_demand(self) -> None:
        waiting = list(self.waiting)
        self.head.append(lambda: self._know_demand(waiting))

    def _know_demand(self, waiting: list[Work]) -> events.Event:
        self.known_waiting = waiting
        shapes = demand.merged(work.shapes[0] for work in waiting if not work.strategy)
        return events.DemandChanged(
            tuple(shapes), tuple(_group(work) for work in waiting if work.strategy), self.now_s
        )  # fmt: skip

    # The head

    def _head_acts(self) -> None:
        """It places what waits, answers who asks to drain, and tells."""
        while self.drains:
            self._drain(self.drains.pop(0))
        members = [one for one in self.instances.values() if one.is_up and not one.is_drained]
        for work in list(self.waiting):
            views = [placement.NodeView(one.name, one.has, one.free, self._labels(one)) for one in members]
            placed = _placed(work, placement.ClusterView(tuple(views)))
            if placed is None:
                continue
            self.waiting.remove(work)
            self.note("%s runs on %s", work.name, placed)
            for shape, name in zip(work.shapes, placed, strict=True):
                instance = self.instances[name]
                instance.free = instance.free.subtract(shape.resources)
                instance.runs.append((work, shape.resources))
        for one in (*members, *(one for one in self.instances.values() if one.leaves)):
            self._tell(one)
        self._tell_demand()

    def _take_away(self) -> None:
        """Somebody else has a node drained, which takes nothing more."""
        members = [one for one in self.instances.values() if one.is_up and not one.is_drained]
        if members:
            instance = self.chance.choose(members)
            self.note("%s is drained by somebody else", instance.name)
            instance.is_drained = instance.leaves = True
            self._tell(instance)

    def _labels(self, one: Instance) -> Mapping[str, str]:
        return one.made.labels

    def _tell(self, one: Instance) -> None:
        idle_s, free = (None if one.runs else one.idle_since_s), resources.EMPTY if one.leaves else one.free
        why = "a preemption" if one.leaves else ""
        self.head.append(
            lambda: events.NodeSeen(one.name, one.made.name, one.has, free, one.made.labels, idle_s, self.now_s, why)
        )  # fmt: skip

    def _drain(self, name: str) -> None:
        instance = self.instances.get(name)
        accepted = instance is None or not instance.runs
        if instance is not None and accepted:
            instance.is_drained = True
        self.note("the head lets %s go: %s", name, accepted)
        self.head.append(lambda: events.DrainAnswered(name, accepted, self.now_s))

    def _end_some(self) -> None:
        running = list(dict.fromkeys(work for one in self.instances.values() for work, _ in one.runs))
        for work in self.chance.some(running, 2):
            self._end(work)
        if self.waiting and self.chance.happens(30):
            work = self.chance.choose(self.waiting)
            self.waiting.remove(work)
            self.note("%s is cancelled", work.name)
            self._tell_demand()

    def _end(self, work: Work) -> None:
        for one in self.instances.values():
            for held in [held for held in one.runs if held[0] is work]:
                one.runs.remove(held)
                one.free = one.free.add(held[1])
                if not one.runs:
                    one.idle_since_s = self.now_s
                    self._tell(one)

    # The cloud

    def _cloud_acts(self) -> None:
        what = self.chance.weighted((4, 2, 2)) if not self.is_resting else 0
        if what == 0 and self.launches:
            self._launch(self.launches.pop(0))
        elif what == 1 and self.ends:
            self._terminate(self.ends.pop(0))
        elif self.listings:
            self._list(self.listings.pop(0))

    def _launch(self, launch: events.Launch) -> None:
        made = self._made(launch.type_name)
        there = sum(one.made is made for one in self.instances.values())
        count = max(0, min(launch.node_count, self.quotas[made.name] - there))
        if not self.is_resting and self.chance.happens(10):
            count = self.chance.below(count + 1)
        names = []
        for _ in range(count):
            has = made.resources
            if not self.is_resting and self.chance.happens(3):
                has = resources.ResourceSet.from_floats({"CPU": 1})
            instance = Instance(self._name("i"), made, has)
            self.instances[instance.name] = instance
            names.append(instance.name)
        hides = not self.is_resting and self.chance.happens(8)
        told = () if hides else tuple(names)
        error = "" if len(told) == launch.node_count else "no more of them"
        self.note("the cloud launches %s for %s, and says %s %s", names, launch, told, error)

        def answer() -> events.Event:
            if error:
                self.failed_s[made.name] = self.now_s
                self.failures[made.name] += 1
            return events.LaunchAnswered(launch.number, told, self.now_s, error)

        self.cloud.append(answer)

    def _terminate(self, name: str) -> None:
        instance = self.instances.pop(name, None)
        if instance is not None:
            self.must(not instance.runs, "U3", "%s is ended while %d things run on it", name, len(instance.runs))
        self.note("the cloud ends %s", name)
        if self.is_resting or self.chance.happens(90):
            self.cloud.append(lambda: events.NodeEnded(name, self.now_s))

    def _list(self, asked_at_s: float) -> None:
        found = {one.name: one.made.name for one in self.instances.values()}
        self.cloud.append(lambda: events.Listed(found, asked_at_s, self.now_s))

    def _boot(self, instance: Instance | None) -> None:
        if instance is None or instance.is_up:
            return
        instance.is_up = True
        instance.idle_since_s = self.now_s
        self.note("%s joins", instance.name)
        if not instance.is_drained:
            self._tell(instance)

    def _die(self) -> None:
        """A daemon, or its whole machine."""
        alive = [one for one in self.instances.values() if one.is_up]
        if not alive:
            return
        instance = self.chance.choose(alive)
        for work in dict.fromkeys(work for work, _ in instance.runs):
            self._end(work)
            self.waiting.append(work)
        name, is_gone = instance.name, self.chance.happens(50)
        self.note("%s dies%s", name, ", its machine too" if is_gone else "")
        instance.is_up, instance.is_drained, instance.leaves = False, True, False
        self.head.append(lambda: events.NodeDied(name, self.now_s))
        if is_gone:
            del self.instances[name]
        self._tell_demand()

    # The autoscaler

    def _hear(self) -> None:
        """Some news of the head, or any answer of the cloud."""
        if self.cloud and (not self.head or self.chance.happens(50)):
            self._apply(self.cloud.pop(self.chance.below(len(self.cloud)))())
        elif self.head:
            self._apply(self.head.popleft()())

    def _apply(self, event: events.Event) -> None:
        if isinstance(event, events.NodeSeen):
            self.failures[event.type_name] = 0
        for command in self.machine.apply(event):
            self._carry_out(command)

    def _carry_out(self, command: events.Command) -> None:
        self.note("%s", command)
        self.must(command.reason, "U6", "%s has no reason", command)
        if isinstance(command, events.Launch):
            self.launches.append(command)
        elif isinstance(command, events.Drain):
            self.drains.append(command.node)
        else:
            self.ends.append(command.node)

    def _tick(self) -> None:
        foretold = None
        if not self.is_resting and self.chance.happens(20):
            before = self._books()
            self.machine.dry_run(self.now_s, [self._shape()], (), [self._shape()])
            foretold = self.machine.explain(self.now_s)
            self.must(before == self._books(), "U8", "a question has changed %s", before)
        states = {name: node.state for name, node in self.machine.nodes.items()}
        coming = Counter(one.type_name for one in self.machine.nodes.values() if one.state is NodeState.LAUNCHING)
        for outstanding in self.machine._outstanding.values():
            coming[outstanding.type_name] += outstanding.node_count
        commands = self.machine.apply(events.Ticked(self.now_s))
        for command in commands:
            self._carry_out(command)
            if isinstance(command, events.Launch):
                self._check_back_off(command)
        plan = self.machine.last_plan
        if plan is None:
            return
        self.must(foretold in (None, plan), "U8", "%s was foretold, and it was %s", foretold, plan)
        launched = [tuple(one)[1:] for one in commands if isinstance(one, events.Launch)]
        self.must(launched == list(plan.launches), "U8", "%s was to come, and %s did", plan.launches, launched)
        self._check_plan(plan, states, coming)
        self._check_drains(commands, states)

    def _books(self) -> str:
        parts = [f"{one.name} {one.state} {one.needed_s} {one.asked_at_s}" for one in self.machine.nodes.values()]
        return f"{parts} {self.machine._outstanding} {self.machine._shapes} {self.machine._standing} {self.machine._launch_count}"

    # What must hold

    def check(self) -> None:
        count = len(self.machine.outstanding)
        self.must(count <= LAUNCHES_MAX, "U11", "%d launches are without an answer", count)
        self.machine.check()
        counts = Counter(one.made.name for one in self.instances.values())
        for one in self.types:
            self.must(
                counts[one.name] <= one.max_workers, "U1", "%d of %s are there, not %d", counts[one.name], one.name,
                one.max_workers,
            )  # fmt: skip
        self.must(
            counts.total() <= self.settings.max_workers, "U1", "%d nodes are there, not %d", counts.total(),
            self.settings.max_workers,
        )  # fmt: skip

    def _check_plan(self, plan: planning.Plan, states: Mapping[str, NodeState], coming: Counter[str]) -> None:
        for name in states:
            said = name in plan.kept or any(one.node == name for one in plan.drains)
            self.must(said, "U6", "nothing is said of node %s", name)
        for unmet in plan.unmet:
            self.must(
                len(unmet.looked) == (1 if unmet.what.startswith("min_workers") else len(self.types)),
                "U6", "not every type was looked at for %s", unmet,
            )  # fmt: skip
        wanted = [one for one in plan.launches if "min_workers" not in one.reason and "standing" not in one.reason]
        self._check_need(plan, states, sum(one.node_count for one in wanted))
        there = Counter(
            self.machine.nodes[name].type_name for name, state in states.items() if state is NodeState.ALIVE
        )
        for planned in wanted:
            limit = max(UPSCALING_MIN, math.ceil(self.settings.upscaling_speed * there[planned.type_name]))
            self.must(
                coming[planned.type_name] + planned.node_count <= limit,
                "U9", "%d more of %s are launched, though %d come already", planned.node_count, planned.type_name,
                coming[planned.type_name],
            )  # fmt: skip

    def _check_need(self, plan: planning.Plan, states: Mapping[str, NodeState], count: int) -> None:
        """Each node that is launched serves something that finds no place on one that comes: whatever the order, as many things
        find places as there are rooms that could hold each of them."""
        if not count:
            return
        unmet = {one.what for one in plan.unmet}
        units: list[demand.Shape] = []
        for work in self.known_waiting:
            if not work.strategy:
                units += work.shapes
            elif f"placement group {work.name} ({work.strategy})" not in unmet:
                units += [_group(work).as_one()] if work.strategy == bundles.STRICT_PACK else work.shapes
        lost = sum(one.unit_count for one in plan.unmet if one.what[0] in "{0123456789" and "standing" not in one.what)
        rooms = 0
        for name, state in states.items():
            made = self._made(self.machine.nodes[name].type_name)
            found = self.machine._found.get(made.name, made.resources)
            has = resources.ResourceSet({name: min(of, found.get(name, 0)) for name, of in made.resources.items()})
            rooms += state is NodeState.LAUNCHING and all(_holds(has, made.labels, one) for one in units)
        self.must(
            count <= len(units) - lost - rooms,
            "U7", "%d nodes are launched for %d things, %d of which are not met, and %d come that could hold any",
            count, len(units), lost, rooms,
        )  # fmt: skip

    def _made(self, name: str) -> node_types.NodeType:
        return next(one for one in self.types if one.name == name)

    def _check_back_off(self, launch: events.Launch) -> None:
        name = launch.type_name
        if not self.failures[name]:
            return
        wait_s = min(autoscaler.BACK_OFF_MAX_S, autoscaler.BACK_OFF_MIN_S * 2 ** (self.failures[name] - 1))
        passed_s = self.now_s - self.failed_s[name]
        self.must(
            passed_s >= wait_s - 1e-6, "U10", "%s is launched %s s after failure %d", name, round(passed_s, 3),
            self.failures[name],
        )  # fmt: skip

    def _check_drains(self, commands: list[events.Command], states: Mapping[str, NodeState]) -> None:
        """As the autoscaler knew the nodes before."""
        alive = Counter(
            self.machine.nodes[name].type_name for name, state in states.items() if state is NodeState.ALIVE
        )
        for command in commands:
            if isinstance(command, events.Launch) or states[command.node] is not NodeState.ALIVE:
                continue  # it is asked again, or has not joined
            node = self.machine.nodes[command.node]
            alive[node.type_name] -= 1
            self.must(
                alive[node.type_name] >= self._made(node.type_name).min_workers,
                "U2", "%s goes, and only %d of %s stay", node.name, alive[node.type_name], node.type_name,
            )  # fmt: skip
            idle_s = None if node.idle_since_s is None else self.now_s - node.idle_since_s
            self.must(
                idle_s is not None and idle_s >= self.settings.idle_timeout_of(node.type_name),
                "U2", "%s goes, which is idle for %s s", node.name, idle_s,
            )  # fmt: skip

    # Coming to rest

    def settle(self) -> None:
        """All answer, nobody dies, there are no quotas, and what runs ends: what still waits has a reason that is so."""
        self.is_resting = True
        self.quotas = dict.fromkeys(self.quotas, 100)
        quiet = 0
        for _ in range(REST_ROUNDS):
            before = (len(self.waiting), sorted(self.instances))
            self._round()
            for work in list(dict.fromkeys(work for one in self.instances.values() for work, _ in one.runs)):
                self._end(work)
            is_quiet = not self.launches and before == (len(self.waiting), sorted(self.instances))
            quiet = quiet + 1 if is_quiet else 0
            if quiet * REST_PERIOD_S > IDLE_S + REST_PERIOD_S and not self._is_failing():
                break
        self._check_unmet()
        self.waiting.clear()
        self._tell_demand()
        for _ in range(4):
            self._round()

    def _is_failing(self) -> bool:
        return any(one.retry_at_s > self.now_s for one in self.machine._failures.values())

    def _round(self) -> None:
        self.now_s += REST_PERIOD_S
        self.listings.append(self.now_s)
        self.now_s += 0.001
        while self.launches:
            self._launch(self.launches.pop(0))
        while self.ends:
            self._terminate(self.ends.pop(0))
        while self.listings:
            self._list(self.listings.pop(0))
        for instance in list(self.instances.values()):
            self._boot(instance)
        self._head_acts()
        while self.cloud:
            self._apply(self.cloud.pop(0)())
        while self.head:
            self._apply(self.head.popleft()())
        self._tick()
        self.check()

    def _check_unmet(self) -> None:
        plan = self.machine.explain(self.now_s)
        self.must(not plan.launches, "R2", "%s is still launched", plan.launches)
        told = Counter[str]()
        for one in plan.unmet:
            told[one.what.removeprefix(f"{one.unit_count} x ")] += one.unit_count
        for work in self.waiting:
            shape = _group(work).as_one() if work.strategy else work.shapes[0]
            what = f"placement group {work.name} ({work.strategy})" if work.strategy else demand.in_words(shape)
            self.must(told[what] > 0, "U4", "%s waits, and is not said to be unmet: %s", work, plan.unmet)
            told[what] -= 1
        counts = Counter(one.made.name for one in self.instances.values())
        types = {one.name: one for one in self.types}
        for unmet in plan.unmet:
            for looked in unmet.looked:
                made = types[looked.type_name]
                full, all_full = counts[made.name] == made.max_workers, counts.total() == self.settings.max_workers
                is_group = unmet.what.startswith("placement group")
                self.must(looked.kind != packing.FAILING, "U6", "%s fails at rest", made.name)
                self.must(is_group or looked.kind != packing.TYPE_MAX or full, "U6", "%s: %s", unmet, counts)
                self.must(is_group or looked.kind != packing.CLUSTER_MAX or all_full, "U6", "%s: %s", unmet, counts)
                self.must(is_group or looked.kind != packing.TOGETHER, "U6", "%s is together with nothing", unmet)
        for work in self.waiting:
            self._check_reason(plan, work)

    def _check_reason(self, plan: planning.Plan, work: Work) -> None:
        """A task that fits on a type is not refused for its labels or its size."""
        if work.strategy:
            return
        words = demand.in_words(work.shapes[0])
        for unmet in plan.unmet:
            if unmet.what.removeprefix(f"{unmet.unit_count} x ") != words:
                continue
            for looked in unmet.looked:
                made = self._made(looked.type_name)
                has = self.machine._found.get(made.name, made.resources)
                fits = _holds(has, made.labels, work.shapes[0])
                is_so = fits is (looked.kind not in (packing.LABELS, packing.TOO_SMALL))
                self.must(is_so, "U6", "%s is said of %s", looked, words)

    def check_rest(self) -> None:
        counts = Counter(one.made.name for one in self.instances.values() if not one.leaves)
        unmet = {one.what for one in self.machine.explain(self.now_s).unmet}
        for one in self.types:
            is_met = counts[one.name] >= one.min_workers or f"min_workers of {one.name}" in unmet
            self.must(is_met, "U5", "%d of %s are there", counts[one.name], one.name)
        least = sum(one.min_workers for one in self.types)
        standing = sum(shape.unit_count for shape in self.standing)
        self.must(counts.total() <= least + standing, "U5", "%d nodes stay: %s", counts.total(), self.standing)


def _group(work: Work) -> demand.Group:
    selectors = tuple(shape.label_selectors[0] if shape.label_selectors else () for shape in work.shapes)
    return demand.Group(work.name, tuple(shape.resources for shape in work.shapes), work.strategy, selectors)


def _holds(has: resources.ResourceSet, labels: Mapping[str, str], shape: demand.Shape) -> bool:
    """Whether an empty node could hold it."""
    meets = not shape.label_selectors or any(node_labels.meets(one, labels) for one in shape.label_selectors)
    return meets and shape.resources.fits_in(has)


def _placed(work: Work, view: placement.ClusterView) -> list[str] | None:
    """A node for each of its shapes, if all are free now."""
    if not work.strategy:
        (shape,) = work.shapes
        for node in view.nodes:
            if shape.resources.fits_in(node.available) and _holds(node.total, node.labels, shape):
                return [node.node_id]
        return None
    group = _group(work)
    wanted = bundles.GroupDemand(group.bundles, group.strategy, {}, [dict(one) for one in group.label_selectors])
    found = bundles.place(wanted, view)
    return [found.nodes[index] for index in range(len(work.shapes))] if found.is_ready else None
