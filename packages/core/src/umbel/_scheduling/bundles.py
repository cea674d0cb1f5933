"""Where the bundles of a placement group go: all of them at once, or nowhere.

PACK wants as few nodes as will do and SPREAD as many; STRICT_PACK insists on one and STRICT_SPREAD on one for each bundle.
Labels, resources and what the group's other bundles hold already are obeyed by all four. Where not everything is free
now, the answer is where it could be once others have ended; only if there is no such place either is the group
infeasible. Pure, as the policies for tasks are: the same question has the same answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from umbel._model import node_labels, placement, resources

PACK: Final = "PACK"
SPREAD: Final = "SPREAD"
STRICT_PACK: Final = "STRICT_PACK"
STRICT_SPREAD: Final = "STRICT_SPREAD"
STRATEGIES: Final = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)

SEARCH_STEPS_MAX: Final = 20_000  # packing is hard in general; what people ask for is found at once, or never could be
_NAMED_NODES_MAX: Final = 3  # in a reason

_Free = dict[str, dict[str, int]]  # by node, what is left of each resource
_Selector = tuple[tuple[str, str], ...]
_Kind = tuple[resources.ResourceSet, _Selector]  # of a bundle


class _TooHard(Exception):
    """Whether there is a place was not found out."""


class GroupDemand(NamedTuple):
    """The bundles of one group. placed: the nodes of those that have one, by index. label_selectors: one for each bundle,
    or none at all. soft_target: the node that STRICT_PACK takes if it can; "" for any."""

    bundles: Sequence[resources.ResourceSet]
    strategy: str
    placed: Mapping[int, str] = {}
    label_selectors: Sequence[Mapping[str, str]] = ()
    soft_target: str = ""

    def missing(self) -> list[int]:
        """The bundles without a node."""
        return [index for index in range(len(self.bundles)) if index not in self.placed]

    def selector(self, index: int) -> Mapping[str, str]:
        return self.label_selectors[index] if self.label_selectors else {}

    def kind(self, index: int) -> _Kind:
        """What decides which nodes suit the bundle."""
        return self.bundles[index], tuple(sorted(self.selector(index).items()))


class GroupPlacement(NamedTuple):
    """The node of each bundle that had none, or nothing, and why. is_ready: all of it is free there now, as far as the view
    says. is_feasible: waiting may help."""

    nodes: Mapping[int, str]
    reason: str
    is_ready: bool = False
    is_feasible: bool = True


def place(demand: GroupDemand, view: placement.ClusterView) -> GroupPlacement:
    """Raises InvalidOption for an unreadable label selector."""
    try:
        found = _on_first(demand, view)
        if found is None:
            found = _assigned_among(_shortlist(demand, view, is_free=True), demand, lambda node: dict(node.available))
    except _TooHard:
        found = None
    if found is not None:
        return GroupPlacement(found, f"{_how(demand.strategy)}, on {_names(found)}", is_ready=True)
    try:
        found = _assigned_among(_shortlist(demand, view, is_free=False), demand, lambda node: _emptied(demand, node))
    except _TooHard:
        return GroupPlacement({}, f"has no place that {SEARCH_STEPS_MAX} attempts to arrange its bundles have found")
    if found is not None:
        return GroupPlacement(found, f"waits for room on {_names(found)}")
    nodes = [node for node in view.nodes if node.is_alive]
    return GroupPlacement({}, _why_not(demand, nodes, _able(demand, nodes)), is_feasible=False)


def _on_first(demand: GroupDemand, view: placement.ClusterView) -> dict[int, str] | None:
    """What the rest would find as well, where a node has room for all of what is to be packed, and none is better by what there
    is of the group."""
    if demand.strategy not in (PACK, STRICT_PACK) or demand.placed or demand.soft_target:
        return None
    missing = demand.missing()
    whole = _whole(demand, missing, view, is_free=True)
    return dict.fromkeys(missing, whole[0].node_id) if whole else None


def _assigned_among(
    nodes: Sequence[placement.NodeView], demand: GroupDemand, free: Callable[[placement.NodeView], dict[str, int]]
) -> dict[int, str] | None:
    return _assigned(demand, _able(demand, nodes), {node.node_id: free(node) for node in nodes})


def _able(demand: GroupDemand, nodes: Sequence[placement.NodeView]) -> dict[int, list[str]]:
    """The nodes for each bundle that has none."""
    missing, staying = demand.missing(), [node for node in nodes if not node.is_draining]
    kinds = {demand.kind(index) for index in missing}
    fitting = {kind: [node.node_id for node in staying if _suits(node, *kind)] for kind in kinds}
    return {index: fitting[demand.kind(index)] for index in missing}


def _emptied(demand: GroupDemand, node: placement.NodeView) -> dict[str, int]:
    """All that a node has, but for the group's own bundles there."""
    room = dict(node.total)
    for index, node_id in demand.placed.items():
        if node_id == node.node_id:
            _take(room, demand.bundles[index])
    return room


def _shortlist(demand: GroupDemand, view: placement.ClusterView, *, is_free: bool) -> list[placement.NodeView]:
    """So many nodes that the others make no difference, in the order in which they are taken: with as many for each bundle as
    there are bundles, every bundle that has more of them to choose from has one left, whatever the others have. is_free: of what
    is free there now; else of all that they have."""
    missing, kept = demand.missing(), {*demand.placed.values(), *([demand.soft_target] if demand.soft_target else ())}
    chosen = {node_id: view.find(node_id) for node_id in kept}
    whole: Sequence[placement.NodeView] = ()
    if demand.strategy in (PACK, STRICT_PACK):  # the first that takes all
        whole = _whole(demand, missing, view, is_free=is_free)[: 1 + len(kept)]
        chosen |= {node.node_id: node for node in whole}
    if demand.strategy in (SPREAD, STRICT_SPREAD) or (demand.strategy == PACK and len(whole) <= len(kept)):
        is_by_room = demand.strategy != STRICT_SPREAD
        for kind in dict.fromkeys(demand.kind(index) for index in missing):
            rank = functools.partial(_rank_for, *kind, is_free=is_free, is_by_room=is_by_room)
            ranked = view.ranked(("bundle", is_free, is_by_room, kind), rank)
            chosen |= {node.node_id: node for node in ranked[: len(missing) + len(kept)]}
    nodes = [node for node in chosen.values() if node is not None and node.is_alive]
    return sorted(nodes, key=lambda node: (not node.is_local, node.node_id))


def _whole(
    demand: GroupDemand, missing: Sequence[int], view: placement.ClusterView, *, is_free: bool
) -> Sequence[placement.NodeView]:
    """The nodes that take all missing bundles, in the order in which they are taken."""
    kinds = tuple(dict.fromkeys(demand.kind(index) for index in missing))
    together = (_sum([demand.bundles[index] for index in missing]), kinds)
    return view.ranked(("whole", is_free, together), functools.partial(_rank_of_whole, *together, is_free=is_free))


def _rank_of_whole(
    wanted: resources.ResourceSet, kinds: Sequence[_Kind], node: placement.NodeView, *, is_free: bool
) -> tuple[bool, str] | None:
    """Of the nodes that take all missing bundles."""
    room = node.available if is_free else node.total
    if node.is_alive and not node.is_draining and wanted.fits_in(room) and all(_suits(node, *kind) for kind in kinds):
        return not node.is_local, node.node_id
    return None


def _rank_for(
    bundle: resources.ResourceSet, selector: _Selector, node: placement.NodeView, *, is_free: bool, is_by_room: bool
) -> tuple[float, bool, str] | None:
    """Of the nodes that take a bundle. is_by_room: the one with most room first."""
    room = node.available if is_free else node.total
    if node.is_alive and not node.is_draining and bundle.fits_in(room) and _suits(node, bundle, selector):
        return -_room(bundle, room) if is_by_room else 0.0, not node.is_local, node.node_id
    return None


def _suits(node: placement.NodeView, bundle: resources.ResourceSet, selector: _Selector) -> bool:
    """Whether the node, if it were empty, could hold the bundle."""
    return node_labels.meets(selector, node.labels) and bundle.fits_in(node.total)


def _assigned(demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free) -> dict[int, str] | None:
    """A node for each missing bundle, out of `able` and within `free`, which it may change; None if there is none."""
    if demand.strategy == STRICT_PACK:
        return _on_one_node(demand, able, free)
    if demand.strategy == STRICT_SPREAD:
        return _matched(demand, able, free)
    order = sorted(able, key=lambda index: (-_size(demand.bundles[index], free), index))
    attempt = _packed if demand.strategy == PACK else _spread
    found = attempt(demand, able, {node: dict(left) for node, left in free.items()}, order)
    return found if found is not None else _searched(demand, able, free, order)


def _on_one_node(demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free) -> dict[int, str] | None:
    wanted = _sum([demand.bundles[index] for index in able])
    homes = set(demand.placed.values())
    for node in sorted(free, key=lambda node: node != demand.soft_target):
        if homes <= {node} and all(node in able[index] for index in able) and wanted.fits_in(free[node]):
            return dict.fromkeys(able, node)
    return None


def _matched(demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free) -> dict[int, str] | None:
    """Each on a node of its own: a matching, by augmenting paths."""
    taken = set(demand.placed.values())
    fitting = {
        index: [node for node in nodes if node not in taken and demand.bundles[index].fits_in(free[node])]
        for index, nodes in able.items()
    }
    holder: dict[str, int] = {}

    def settle(index: int, seen: set[str]) -> bool:
        for node in sorted(fitting[index], key=lambda node: node in holder):  # who has settled moves only if it must
            if node in seen:
                continue
            seen.add(node)
            if node not in holder or settle(holder[node], seen):
                holder[node] = index
                return True
        return False

    if not all(settle(index, set()) for index in able):
        return None
    return {index: node for node, index in sorted(holder.items(), key=lambda pair: pair[1])}


def _packed(
    demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free, order: Sequence[int]
) -> dict[int, str] | None:
    """The node that takes most of what is left, again and again; nodes that hold some of the group first."""
    used = set(demand.placed.values())
    found: dict[int, str] = {}
    left = list(order)
    while left:
        best: list[int] = []
        chosen = ""
        for node in sorted(free, key=lambda node: node not in used):
            fitting = list(_fitting(demand, able, node, dict(free[node]), left))
            if len(fitting) > len(best):
                best, chosen = fitting, node
        if not best:
            return None
        for index in best:
            _take(free[chosen], demand.bundles[index])
            found[index] = chosen
        left = [index for index in left if index not in found]
        used.add(chosen)
    return found


def _fitting(
    demand: GroupDemand, able: Mapping[int, Sequence[str]], node: str, room: dict[str, int], left: Sequence[int]
) -> Iterator[int]:
    """Those that fit into the room together, which is used up."""
    for index in left:
        if node in able[index] and demand.bundles[index].fits_in(room):
            _take(room, demand.bundles[index])
            yield index


def _spread(
    demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free, order: Sequence[int]
) -> dict[int, str] | None:
    """Each to the node that has fewest of the group, and of those to the one with most room."""
    counts = dict.fromkeys(free, 0)
    for node in demand.placed.values():
        if node in counts:
            counts[node] += 1
    found: dict[int, str] = {}
    for index in order:
        bundle = demand.bundles[index]
        fitting = [node for node in able[index] if bundle.fits_in(free[node])]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda node: (counts[node], -_room(bundle, free[node])))
        _take(free[chosen], bundle)
        counts[chosen] += 1
        found[index] = chosen
    return found


def _searched(
    demand: GroupDemand, able: Mapping[int, Sequence[str]], free: _Free, order: Sequence[int]
) -> dict[int, str] | None:
    """Any placement that fits, by trying; what the quick ways above miss. Raises _TooHard."""
    found: dict[int, str] = {}
    steps = [0]

    def settle(position: int) -> bool:
        if position == len(order):
            return True
        index = order[position]
        bundle = demand.bundles[index]
        for node in able[index]:
            steps[0] += 1
            if steps[0] > SEARCH_STEPS_MAX:
                raise _TooHard
            if not bundle.fits_in(free[node]):
                continue
            _take(free[node], bundle)
            found[index] = node
            if settle(position + 1):
                return True
            _give(free[node], bundle)
        return False

    return found if settle(0) else None


def _take(room: dict[str, int], bundle: resources.ResourceSet) -> None:
    for name, amount in bundle.items():
        room[name] = room.get(name, 0) - amount


def _give(room: dict[str, int], bundle: resources.ResourceSet) -> None:
    for name, amount in bundle.items():
        room[name] = room.get(name, 0) + amount


def _sum(bundles: Sequence[resources.ResourceSet]) -> resources.ResourceSet:
    total = resources.EMPTY
    for bundle in bundles:
        total = total.add(bundle)
    return total


def _size(bundle: resources.ResourceSet, free: _Free) -> float:
    """How large it is beside the largest room for each of its resources."""
    most = {name: max((room.get(name, 0) for room in free.values()), default=0) for name in bundle}
    return max((amount / max(1, most[name]) for name, amount in bundle.items()), default=0.0)


def _room(bundle: resources.ResourceSet, room: Mapping[str, int]) -> float:
    """How often the bundle fits."""
    return min((room.get(name, 0) / amount for name, amount in bundle.items()), default=0.0)


# ---- words ----


def _how(strategy: str) -> str:
    return {
        PACK: "packed on as few nodes as will do",
        SPREAD: "spread over as many nodes as there are",
        STRICT_PACK: "all on one node",
        STRICT_SPREAD: "each on a node of its own",
    }[strategy]


def _names(found: Mapping[int, str]) -> str:
    nodes = list(dict.fromkeys(found.values()))
    shown = ", ".join(node[:8] for node in nodes[:_NAMED_NODES_MAX])
    hidden_count = len(nodes) - _NAMED_NODES_MAX
    more = f" and {hidden_count} more" if hidden_count > 0 else ""
    return f"{'node' if len(nodes) == 1 else 'nodes'} {shown}{more}"


def _why_not(demand: GroupDemand, nodes: Sequence[placement.NodeView], able: Mapping[int, Sequence[str]]) -> str:
    if not nodes:
        return "no node is alive; add one"
    count = f"{len(nodes)} {'node is' if len(nodes) == 1 else 'nodes are'} alive"
    for index, fitting in able.items():
        bundle, selector = demand.bundles[index], demand.selector(index)
        if fitting:
            continue
        if not any(_suits(node, resources.EMPTY, tuple(selector.items())) for node in nodes):
            return (
                f"bundle {index} needs a node with labels like {dict(selector)}, which none of those alive has; correct the "
                "selector or add such a node"
            )
        largest = {name: max(node.total.get(name, 0) for node in nodes) for name in bundle}
        lacking = ", ".join(sorted(name for name in bundle if bundle[name] > largest[name]))
        short_of = f" (no node has so much {lacking})" if lacking else ""
        return (
            f"bundle {index} needs {_described(bundle)}, which no node that may hold it has in all{short_of}; ask for less or "
            "add a node"
        )
    if demand.strategy == STRICT_SPREAD:
        needed = f"its {len(demand.bundles)} bundles need as many nodes, one each (STRICT_SPREAD)"
        short_of = f"but {count}" if len(nodes) < len(demand.bundles) else _crowded(demand, able, len(nodes))
        return f"{needed}, {short_of}; add nodes, ask for fewer bundles, or use SPREAD"
    if demand.strategy == STRICT_PACK:
        wanted = _described(_sum([demand.bundles[index] for index in able]))
        return (
            f"its bundles need {wanted} on one node (STRICT_PACK), which no node has in all; ask for less, add a larger node, or "
            "use PACK"
        )
    wanted = _described(_sum([demand.bundles[index] for index in able]))
    in_all = _sum([node.total for node in nodes])
    has = _described(resources.ResourceSet({name: in_all.get(name, 0) for name in _sum(demand.bundles)}))
    return f"its bundles, {wanted} together, do not all fit on the nodes, which have {has} together; ask for less or add a node"


def _crowded(demand: GroupDemand, able: Mapping[int, Sequence[str]], alive_count: int) -> str:
    """Why there is no node for each missing bundle, though there are nodes enough."""
    taken, alive = set(demand.placed.values()), f"{alive_count} nodes alive"
    alike: dict[_Kind, list[int]] = {}
    for index in able:
        alike.setdefault(demand.kind(index), []).append(index)
    for (bundle, selector), indices in alike.items():
        able_count = len(set(able[indices[0]]) - taken)
        if able_count < len(indices):
            where = f" and has labels like {dict(selector)}" if selector else ""
            others = " and holds none of the others" if taken else ""
            each = f"each of {len(indices)} of them needs one that has {_described(bundle)}{where}{others}"
            return f"and {each}, as {able_count} of the {alive} {'does' if able_count == 1 else 'do'}"
    able_count = len({node for nodes in able.values() for node in nodes} - taken)
    return f"and the {able_count} of the {alive} that can hold any of them do not suffice"


def _described(amounts: resources.ResourceSet) -> str:
    return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in amounts.to_floats().items()) + "}"
