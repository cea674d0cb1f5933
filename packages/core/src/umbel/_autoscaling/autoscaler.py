"""The autoscaler: which nodes to launch, and which to end.

It is told what waits, what runs and what a launcher answers, and decides once in a period, by `planning`. A node is drained
before it is ended: only the cluster's head knows whether something has begun to run on it meanwhile, so it is ended when the
head has agreed. What has been launched is known by the launcher's answers and listings; so a head that starts anew, or an answer
that was lost, leaves no node behind that nobody knows.

A type that cannot be launched is left alone for a while, twice as long each time, and others are tried. No clock: every event
says when it was; `apply` takes one and returns commands. Every Launch is answered, if only by an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from umbel._autoscaling import demand, events, node_types, planning
from umbel._autoscaling.planning import NodeState
from umbel._base import checks
from umbel._model import resources

PERIOD_S: Final = 5.0  # Ray's
BACK_OFF_MIN_S: Final = 5.0  # one period
BACK_OFF_MAX_S: Final = 300.0  # a quota that was raised is seen within five minutes
ASK_AGAIN_S: Final = 30.0  # to drain or to end a node, when there was no answer; launchers take seconds
# What is asked of a node that goes, until there is an answer.
_ASKED: Final[Mapping[NodeState, Callable[[str, str], events.Command]]] = {
    NodeState.DRAINING: events.Drain, NodeState.TERMINATING: events.Terminate,
}  # fmt: skip


class Autoscaler:
    """Of one cluster. settings: as `node_types.checked` has let them pass."""

    def __init__(self, settings: node_types.Settings) -> None:
        self.settings = settings
        self.nodes: dict[str, planning.Node] = {}
        self._outstanding: dict[int, planning.Outstanding] = {}
        self._unsure: list[planning.Unsure] = []
        self._failures: dict[str, planning.Failure] = {}
        self._found: dict[str, resources.ResourceSet] = {}
        self._shapes: tuple[demand.Shape, ...] = ()
        self._groups: tuple[demand.Group, ...] = ()
        self._standing: tuple[demand.Shape, ...] = ()
        self._ended: dict[str, float] = {}  # nodes, and when, that a listing which is under way may show all the same
        self._launch_count = 0
        self.last_plan: planning.Plan | None = None  # what was decided last, and why
        self._on: dict[type, Callable[[Any], Iterable[events.Command]]] = {
            events.DemandChanged: self._on_demand,
            events.StandingChanged: self._on_standing,
            events.Configured: self._on_configured,
            events.LaunchAnswered: self._on_launch_answered,
            events.Listed: self._on_listed,
            events.NodeSeen: self._on_seen,
            events.NodeDied: self._on_died,
            events.NodeEnded: self._on_ended,
            events.DrainAnswered: self._on_drain_answered,
            events.Ticked: self._on_ticked,
        }

    def apply(self, event: events.Event) -> list[events.Command]:
        return list(self._on[type(event)](event))

    # Questions, which change nothing.

    @property
    def outstanding(self) -> list[planning.Outstanding]:
        """Launches without an answer."""
        return list(self._outstanding.values())

    @property
    def failures(self) -> dict[str, planning.Failure]:
        """By type."""
        return dict(self._failures)

    def explain(self, now_s: float) -> planning.Plan:
        """What would be done now, why every node is there, and what finds no room."""
        return self.dry_run(now_s)

    def dry_run(
        self,
        now_s: float,
        shapes: Iterable[demand.Shape] = (),
        groups: Iterable[demand.Group] = (),
        standing: Iterable[demand.Shape] = (),
    ) -> planning.Plan:
        """What would be done if all this came to what waits and stands already."""
        return planning.plan(
            planning.Situation(
                self.settings,
                tuple(self.nodes.values()),
                tuple(self._outstanding.values()),
                self._unsure,
                self._failures,
                self._found,
                (*self._shapes, *shapes),
                (*self._groups, *groups),
                (*self._standing, *standing),
                now_s,
            )
        )

    # What has happened.

    def _on_demand(self, event: events.DemandChanged) -> Iterable[events.Command]:
        self._shapes, self._groups = event.shapes, event.groups
        return ()

    def _on_standing(self, event: events.StandingChanged) -> Iterable[events.Command]:
        self._standing = event.shapes
        return ()

    def _on_configured(self, event: events.Configured) -> Iterable[events.Command]:
        """What is known of the types may be so no more."""
        self.settings = event.settings
        self._failures.clear()
        self._found.clear()
        return ()

    def _on_launch_answered(self, event: events.LaunchAnswered) -> Iterable[events.Command]:
        launch = self._outstanding.pop(event.number, None)
        if launch is None:
            return ()
        for name in event.instances:
            node = self._learn(name, launch.type_name, launch.reason, event.now_s)
            node.reason, node.is_early = launch.reason, False
        if not self._is_launching(launch.type_name):
            for node in self.nodes.values():
                node.is_early = node.is_early and node.type_name != launch.type_name
        lacking = launch.node_count - len(event.instances)
        if lacking > 0:
            self._unsure.append(planning.Unsure(launch.type_name, lacking, event.now_s))
            self._fail(launch.type_name, event.error or "the launcher gave no reason", event.retry_after_s, event.now_s)
        return ()

    def _on_listed(self, event: events.Listed) -> Iterable[events.Command]:
        """What came after the question was asked may be missing in the answer, and what has gone since may be in it."""
        self._unsure = [one for one in self._unsure if one.since_s >= event.asked_at_s]
        self._ended = {name: at_s for name, at_s in self._ended.items() if at_s >= event.asked_at_s}
        for name, type_name in event.instances.items():
            if name not in self._ended:
                self._learn(name, type_name, "it was there already", event.now_s)
        for node in list(self.nodes.values()):
            is_known = node.type_name and node.known_at_s < event.asked_at_s and not node.is_early
            if is_known and node.name not in event.instances:
                self._forget(node, event.now_s)
        return ()

    def _on_seen(self, event: events.NodeSeen) -> Iterable[events.Command]:
        node = self.nodes.get(event.node)
        if node is None:
            node = self._learn(event.node, event.type_name, "it was there already", event.now_s)
        if node.state is NodeState.LAUNCHING:
            node.state, node.since_s = NodeState.ALIVE, event.now_s
            self._failures.pop(node.type_name, None)
            if node.type_name:
                self._found[node.type_name] = event.total
        node.total, node.available, node.labels = event.total, event.available, event.labels
        node.idle_since_s = event.idle_since_s
        if event.draining and node.state is NodeState.ALIVE:
            node.state, node.why_it_goes, node.since_s = NodeState.LEAVING, event.draining, event.now_s
        return ()

    def _on_died(self, event: events.NodeDied) -> Iterable[events.Command]:
        node = self.nodes.get(event.node)
        if node is None or node.state is NodeState.TERMINATING:
            return ()
        if not node.type_name:
            del self.nodes[node.name]
            return ()
        if node.state is NodeState.LAUNCHING:
            self._fail(node.type_name, "its daemon died before it was seen", 0.0, event.now_s)
        return [self._terminate(node, "its daemon has died", event.now_s)]

    def _on_ended(self, event: events.NodeEnded) -> Iterable[events.Command]:
        self._ended[event.node] = event.now_s
        node = self.nodes.get(event.node)
        if node is not None:
            self._forget(node, event.now_s)
        return ()

    def _on_drain_answered(self, event: events.DrainAnswered) -> Iterable[events.Command]:
        node = self.nodes.get(event.node)
        if node is None or node.state is not NodeState.DRAINING:
            return ()
        if event.is_accepted:
            return [self._terminate(node, node.why_it_goes, event.now_s)]
        node.state, node.why_it_goes = NodeState.LAUNCHING if node.total.is_empty else NodeState.ALIVE, ""
        node.since_s = node.needed_s = event.now_s
        node.asked_at_s = -math.inf
        return ()

    def _on_ticked(self, event: events.Ticked) -> Iterable[events.Command]:
        now_s = event.now_s
        plan = self.last_plan = self.dry_run(now_s)
        for name in plan.needed & self.nodes.keys():
            self.nodes[name].needed_s = now_s
        commands: list[events.Command] = []
        for launch in plan.launches:
            self._launch_count += 1
            self._outstanding[self._launch_count] = planning.Outstanding(*launch, now_s)
            commands.append(events.Launch(self._launch_count, *launch))
        for drain in plan.drains:
            node = self.nodes[drain.node]
            if node.state is NodeState.LAUNCHING and now_s - node.since_s >= self.settings.boot_timeout_s:
                self._fail(node.type_name, drain.reason, 0.0, now_s)
            node.state, node.why_it_goes, node.since_s = NodeState.DRAINING, drain.reason, now_s
        for node in self.nodes.values():
            ask = _ASKED.get(node.state)
            if ask is not None and now_s - node.asked_at_s >= ASK_AGAIN_S:
                node.asked_at_s = now_s
                commands.append(ask(node.name, node.why_it_goes))
        return commands

    # Its books.

    def _learn(self, name: str, type_name: str, reason: str, now_s: float) -> planning.Node:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = planning.Node(name, type_name, reason, now_s)
            node.is_early = self._is_launching(type_name)
        return node

    def _is_launching(self, type_name: str) -> bool:
        return any(one.type_name == type_name for one in self._outstanding.values())

    def _forget(self, node: planning.Node, now_s: float) -> None:
        del self.nodes[node.name]
        if node.state is NodeState.LAUNCHING:
            self._fail(node.type_name, "it was gone before it joined", 0.0, now_s)

    def _terminate(self, node: planning.Node, reason: str, now_s: float) -> events.Terminate:
        node.state, node.why_it_goes = NodeState.TERMINATING, reason
        node.since_s = node.asked_at_s = now_s
        return events.Terminate(node.name, reason)

    def _fail(self, type_name: str, reason: str, retry_after_s: float, now_s: float) -> None:
        before = self._failures.get(type_name)
        times = 1 if before is None else before.times + 1
        wait_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(times - 1, 16))
        self._failures[type_name] = planning.Failure(times, reason, now_s + max(wait_s, retry_after_s))

    def check(self) -> None:
        """What holds after every event."""
        for name, node in self.nodes.items():
            checks.invariant(name == node.name, "a node has another one's name", node=name, name=node.name)
            checks.invariant(
                node.type_name or node.state not in _ASKED, "a node goes that was not launched here", node=name
            )
            checks.invariant(
                not node.is_early or self._is_launching(node.type_name), "a node is of a launch that is over", node=name
            )
        checks.invariant(len(self._outstanding) <= planning.LAUNCHES_MAX, "too many launches at a time")
        for number, launch in self._outstanding.items():
            checks.invariant(launch.node_count > 0, "a launch of nothing is under way", number=number)
