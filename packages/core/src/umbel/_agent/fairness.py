"""Who must give way when there is not enough for all. Pure.

A group of leases (one client, one key) gives to a demand whose group has none, or at least two fewer than itself. So
long queues take turns, and nobody's lease goes back and forth between equals.

A demand that needs more than comes free at a time would starve beside a stream of smaller ones. So after a while it
has *precedence*: what comes free is kept for it. But a running task may be waiting, unknown to us, for one that would
be held up by this; so spells of precedence alternate with spells of none, each pair twice as long as the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from umbel._agent.ledger import CPU
from umbel._agent.records import Demand, Lease

Order = Callable[[Iterable[Demand]], Iterable[Demand]]

FIRST_SPELL_S = 1.0  # most leases are given back within it, so that most demands never need precedence


def deepest_first(demands: Iterable[Demand]) -> list[Demand]:
    """Deeper demands first (shallower tasks wait for them), then whoever was served longest ago."""
    return sorted(demands, key=lambda demand: (-demand.depth, demand.turn))


def has_precedence(waited_s: float, *, at_once: bool = False) -> bool:
    """Whether a demand that has lacked resources for so long has precedence now: off 1 s, on 1, off 2, on 2, off 4 …
    at_once: it has in the first of these spells too, for the priority of its job."""
    start_s, spell_s = _spells(waited_s)
    return waited_s >= start_s + spell_s or (at_once and not start_s)


def next_change_s(waited_s: float) -> float:
    """When that changes next, on the same scale."""
    start_s, spell_s = _spells(waited_s)
    return start_s + spell_s if waited_s < start_s + spell_s else start_s + 2 * spell_s


def _spells(waited_s: float) -> tuple[float, float]:
    """(start, length) of the pair of spells that `waited_s` is in; length is of each of the two."""
    start_s, spell_s = 0.0, FIRST_SPELL_S
    while waited_s >= start_s + 2 * spell_s:
        start_s += 2 * spell_s
        spell_s *= 2
    return start_s, spell_s


def leases_to_reclaim(
    unserved: Iterable[Demand], leases: Iterable[Lease], missing_of: Callable[[Demand], dict[str, int]]
) -> list[Lease]:
    """For every demand that lacks resources, enough for one more lease of it. Leases already asked back count for it.
    missing_of: what a demand lacks of the node or bundle in which all of these leases are.

    Leases of workers that wait for other tasks are left alone: their CPUs are free already.
    """
    groups, coming = grouped(leases)
    chosen: list[Lease] = []
    for demand in unserved:
        missing = missing_of(demand)
        take_coming(missing, coming)
        own = len(groups.get((demand.client, demand.key), ()))
        for place, group in groups.items():
            if place != (demand.client, demand.key):
                chosen += take_from(group, missing, own)
    return chosen


def grouped(leases: Iterable[Lease]) -> tuple[dict[tuple[str, str], list[Lease]], dict[str, int]]:
    """Those that could be asked back, by client and key; and what those will free soon that have been."""
    groups: dict[tuple[str, str], list[Lease]] = {}
    coming: dict[str, int] = {}
    for lease in leases:
        if lease.is_blocked:
            continue
        if lease.is_reclaimed:
            for name, amount in () if lease.keeps else lease.resources.items():
                coming[name] = coming.get(name, 0) + amount
        else:
            groups.setdefault((lease.client, lease.key), []).append(lease)
    return groups, coming


def take_coming(missing: dict[str, int], coming: dict[str, int]) -> None:
    """Count what comes back in any case; both become what is left."""
    for name, amount in missing.items():
        taken = min(amount, coming.get(name, 0))
        missing[name] = amount - taken
        if taken:
            coming[name] -= taken


def take_from(group: list[Lease], missing: dict[str, int], own: int) -> list[Lease]:
    """Take leases that hold what is missing out of a group, as long as it is fair; `missing` becomes what is left. Those
    that were asked back to be replaced, and are still held, are likely to run something long: they come last."""
    taken = []
    group.sort(key=lambda lease: lease.is_recycled)
    while any(missing.values()) and not (own and len(group) < own + 2):
        useful = next((one for one in group if any(missing.get(name) and n for name, n in one.resources.items())), None)
        if useful is None:
            break
        group.remove(useful)
        taken.append(useful)
        for name, amount in missing.items():
            missing[name] = max(0, amount - useful.resources.get(name, 0))
    return taken


def leases_in_excess(excess: int, idle: Iterable[Lease], busy: Iterable[Lease], changed: Lease) -> list[Lease]:
    """Which leases to ask back where so many CPUs more are in use than there are, since workers that had lent theirs go on. What
    runs goes on as well, but nothing more is begun until there are enough: else owners that have work for each of these leases
    would keep the node so, whatever is free on others.

    changed: of whom it is known since now whether it waits; it comes first, then those granted last. idle: of holders that are
    workers and do not wait. What those had submitted is over, most likely, and goes back soon; were it counted, each task that
    waits for its own would have to be leased for anew.
    """
    excess -= sum(one.resources.get(CPU, 0) for one in idle)
    in_use = []
    for one in busy:
        if one.is_reclaimed:
            excess -= one.resources.get(CPU, 0)
        else:
            in_use.append(one)
    in_use.sort(key=lambda one: one is changed)
    chosen = []
    for one in reversed(in_use):
        amount = one.resources.get(CPU, 0)
        if excess > 0 and amount:
            chosen.append(one)
            excess -= amount
    return chosen
