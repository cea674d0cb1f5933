"""What is wanted of a node and was not given yet: by clients, for actors, and by placement groups.

Knows what a demand lacks, for good or for now, of what it can be served from: the node, or the bundles of its placement group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from umbel._agent import bundles, shares
from umbel._agent import events as ev
from umbel._agent.ledger import Ledger
from umbel._agent.records import Demand, Place
from umbel._base import checks
from umbel._model import reasons

INFEASIBLE_WARNING_S = 1.0  # users add resources or nodes right after; do not cry at once
BUSY_FAILS_S: Final = (
    1.0  # for owners to give back leases that they do not use, which takes milliseconds where there is time
)
NODE: Final = (None,)  # what all is served from that is in no placement group


class DemandTable:
    def __init__(self, ledger: Ledger, held: bundles.Bundles, known: shares.Shares, timeout_s: float | None) -> None:
        """held: what placement groups have of the ledger. timeout_s: how long a demand that can never be served may wait;
        None for ever."""
        self.demands: dict[Place, Demand] = {}
        self.infeasible: dict[Place, Demand] = {}  # those of them that can never be served here
        self._impatient: dict[Place, Demand] = {}  # those that are not to wait for what others have
        self.turns = 0  # a number that grows with whatever is wanted anew
        self._ledger = ledger
        self._bundles = held
        self._shares = known
        self._timeout_s = timeout_s

    def next_turn(self) -> int:
        self.turns += 1
        return self.turns

    def add(self, place: Place, event: ev.DemandChanged | ev.ActorWanted | ev.BundlesWanted) -> Demand:
        turn = self.next_turn()
        self.drop(place)
        demand = self.demands[place] = Demand(place, event, turn)
        self._shares.begins(demand.job)
        self.note_lacking(demand)
        if demand.fails_when_busy:
            self._impatient[place] = demand
        return demand

    def drop(self, place: Place) -> None:
        demand = self.demands.pop(place, None)
        self.infeasible.pop(place, None)
        self._impatient.pop(place, None)
        if demand is not None:
            self._shares.ends(demand.job)

    def fail(self, failed: Iterable[Demand], reason: str, log_of: str = "") -> list[ev.AgentCommand]:
        commands: list[ev.AgentCommand] = []
        for demand in failed:
            self.drop(demand.place)
            if demand.actor:
                commands.append(ev.ActorUnplaceable(demand.actor, reason, log_of=log_of))
            else:
                commands.append(ev.DemandFailed(demand.client, demand.key, reason, log_of=log_of))
        return commands

    # ---- some of them ----

    def of_group(self, group: str) -> list[Demand]:
        """What is to run in it."""
        return [demand for demand in self.demands.values() if demand.group == group and not demand.bundles]

    def in_environment(self, env: str) -> list[Demand]:
        """What waits for workers of this environment."""
        return [demand for demand in self.demands.values() if demand.env == env and not demand.bundles]

    # ---- what they lack ----

    def note_lacking(self, demand: Demand) -> None:
        """What it can never have: of the node, or of that bundle of its group which lacks least."""
        if not demand.group:
            demand.lacking = {**self._ledger.lacking(demand.placement), **self._ledger.lacking(demand.resources)}
        elif demand.bundles:
            demand.lacking = bundles.missing(self._ledger.emptied(), demand.bundles)
            return
        else:
            there = [one.ledger for one in self._bundles.usable(demand.group, demand.bundle_index)]
            lacking = [{**one.lacking(demand.placement), **one.lacking(demand.resources)} for one in there]
            demand.lacking = min(lacking, key=len, default={})
            self.infeasible.pop(demand.place, None)
        if not self.is_feasible(demand):
            self.infeasible[demand.place] = demand

    def is_feasible(self, demand: Demand) -> bool:
        return not demand.lacking and not demand.refusal

    def pools(self, demand: Demand) -> Sequence[bundles.Bundle | None]:
        """What it can be served from: the node, which is None, or bundles; nothing while its group has no place."""
        if not demand.group or demand.bundles:
            return NODE
        return self._bundles.usable(demand.group, demand.bundle_index)

    def pool_of(self, demand: Demand) -> bundles.Bundle | None:
        """Of those, the one that lacks least now. There must be one."""
        pools = self.pools(demand)
        return pools[0] if len(pools) == 1 else min(pools, key=lambda pool: len(self.missing(demand, pool)))

    def missing(self, demand: Demand, pool: bundles.Bundle | None) -> dict[str, int]:
        """What of its resources is not free there now."""
        if demand.bundles:
            return bundles.missing(self._ledger, demand.bundles)
        return (self._ledger if pool is None else pool.ledger).missing(demand.resources)

    # ---- those that are not to wait ----

    def is_short(self, demand: Demand, at_s: float) -> float:
        """It lacks what others have. Returns since when."""
        if demand.short_since_s is None:
            demand.short_since_s = at_s
        if demand.fails_when_busy and demand.busy_since_s is None:
            demand.busy_since_s = at_s
        return demand.short_since_s

    def look_at_impatient(self, at_s: float, reason_of: Callable[[Demand], object]) -> list[ev.AgentCommand]:
        """End those that still lack what others have, of whom all have been asked to give back what they do not use."""
        commands: list[ev.AgentCommand] = []
        for place, demand in list(self._impatient.items()):
            if demand.busy_since_s is None or at_s < demand.busy_since_s + BUSY_FAILS_S:
                continue
            if not self.missing(demand, self.pool_of(demand)):
                demand.busy_since_s = at_s  # it waits for a process
                continue
            self.drop(place)
            reason = f"{reason_of(demand)}; its affinity says not to wait"
            commands.append(ev.DemandFailed(demand.client, demand.key, reason, is_unschedulable=True, is_busy=True))
        return commands

    # ---- those that can never be served ----

    def due_s(self) -> list[float]:
        """When `look_at_infeasible` or `look_at_impatient` has something to do."""
        due = [one.busy_since_s + BUSY_FAILS_S for one in self._impatient.values() if one.busy_since_s is not None]
        for demand in self.infeasible.values():
            if not demand.is_warned_of:
                due.append(demand.since_s + INFEASIBLE_WARNING_S)
            if self._timeout_s is not None:
                due.append(demand.since_s + self._timeout_s)
        return due

    def look_at_infeasible(self, at_s: float, reason_of: Callable[[Demand], reasons.Reason]) -> list[ev.AgentCommand]:
        """Warn of demands that can never be served, once each, and end those that have waited too long for a change."""
        commands: list[ev.AgentCommand] = []
        limit_s = self._timeout_s
        for place, demand in list(self.infeasible.items()):
            if limit_s is not None and demand.since_s + limit_s <= at_s:
                self.drop(place)
                why = reason_of(demand)
                reason = f"{why} (it has waited for {limit_s:g} s, which is infeasible_timeout_s)"
                if demand.actor:
                    commands.append(ev.ActorUnplaceable(demand.actor, reason, is_unschedulable=True))
                else:
                    lacks = why.facts.get("lacks")
                    failed = ev.DemandFailed(demand.client, demand.key, reason, is_unschedulable=True, lacks=lacks)
                    commands.append(failed)
            elif not demand.is_warned_of and demand.since_s + INFEASIBLE_WARNING_S <= at_s:
                demand.is_warned_of = True
                what = "An actor" if demand.actor else "A task"
                why = reason_of(demand)
                commands.append(ev.Warn(f"{what} cannot be scheduled and waits: {why}", why.facts.get("lacks")))
        return commands

    def check(self, clients: Mapping[str, object]) -> None:
        """The invariants. clients: those that there are."""
        for place, demand in self.demands.items():
            if place != demand.place:
                raise checks.broken("a demand in another's place", client=place[0])
            if demand.count <= 0:
                raise checks.broken("a demand for nothing", client=demand.client, key=demand.key)
            if not (demand.actor or demand.bundles or demand.client in clients):
                raise checks.broken("a demand of nobody", client=demand.client)
