"""Gang reservations: bundles of resources that are set aside together, on one node or on several, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel import exceptions
from umbel._client import api, context, current, groups, refs
from umbel._model import ids
from umbel._model import resources as resource_model

WAIT_S = 30.0  # Ray's default


class PlacementGroup:
    """A handle to a placement group. Handles to the same group are equal, and can be sent to tasks and actors."""

    def __init__(self, id: ids.PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        """Made by `placement_group` and `get_placement_group`."""
        self.id = id
        self.bundle_cache = bundle_cache
        self._amounts: list[resource_model.ResourceSet] | None = None

    @staticmethod
    def empty() -> PlacementGroup:
        """The handle that stands for no group."""
        return PlacementGroup(ids.PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    def ready(self) -> refs.ObjectRef[PlacementGroup]:
        """A reference to the group itself, which is there once all bundles are placed.

        Its error is TaskPlacementGroupRemoved when the group is gone before, TaskUnschedulableError when it was never
        possible and `infeasible_timeout_s` is over.
        """
        engine = _engine()
        if self.is_empty:
            made: refs.ObjectRef[PlacementGroup] = engine.put(self)
            return made
        waited_for: refs.ObjectRef[PlacementGroup] = engine.groups.ready(self.id.hex(), self)
        return waited_for

    def wait(self, timeout_seconds: float | None = WAIT_S) -> bool:
        """Whether all bundles are placed, within so many seconds, None for ever. Raises what `ready()` has for an error."""
        api.check_timeout(timeout_seconds, "timeout_seconds")
        engine = _engine()
        if engine.groups.is_placed(self.id.hex()):
            return True
        ref = self.ready()
        if not engine.wait([ref], 1, timeout_seconds, True)[0]:
            return False
        engine.get([ref], None)
        return True

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The resources of each bundle. Raises ValueError for a group that nobody knows (any more)."""
        if self.bundle_cache is None:
            self.bundle_cache = [] if self.is_empty else _engine().groups.bundles(self.id.hex())
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def _bundle_amounts(self) -> list[resource_model.ResourceSet]:
        if self._amounts is None:
            self._amounts = [resource_model.ResourceSet.from_floats(one) for one in self.bundle_specs]
        return self._amounts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self.bundle_cache)


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Ask for bundles of resources, such as [{"CPU": 2}, {"CPU": 1, "GPU": 1}], all of them or none. Returns at once.

    strategy: "PACK" (the default) on as few nodes as will do, "SPREAD" over as many as there are, "STRICT_PACK" on one,
    "STRICT_SPREAD" on one for each bundle. name: for `get_placement_group`, once in a namespace. lifetime: None for a
    group that ends with the job, or with the detached actor, that makes it; "detached" for one that is there until it is
    removed. _soft_target_node_id: the node to prefer, for STRICT_PACK. bundle_label_selector: conditions on the labels of
    the node, for each bundle. Raises ValueError for what is none of that, UmbelSystemError when the name is taken,
    UnsupportedFeature for topology_strategy.
    """
    amounts = _checked_bundles(bundles)
    if topology_strategy is not None:
        raise exceptions.UnsupportedFeature(
            f"topology_strategy={topology_strategy!r} is not supported: this version of Umbel places bundles by node only; "
            "use strategy="
        )
    chosen = _checked_strategy(strategy, _soft_target_node_id)
    if name is not None and not isinstance(name, str):
        raise exceptions.InvalidOptionType(f"name must be a str, got {name!r}; omit it for no name", option="name")
    if lifetime not in (None, "detached"):
        raise exceptions.InvalidOption(
            f'lifetime must be None or "detached", got {lifetime!r}; omit it for a group that ends with the job',
            option="lifetime",
        )
    selectors = _checked_selectors(bundle_label_selector, len(bundles))
    made = ids.PlacementGroupID.from_random()
    _engine().groups.create(
        made.hex(),
        amounts,
        strategy=chosen,
        name=name or "",
        is_detached=lifetime == "detached",
        label_selectors=selectors,
        soft_target=_soft_target_node_id or "",
    )
    return PlacementGroup(made, [{key: float(amount) for key, amount in bundle.items()} for bundle in bundles])


def _checked_bundles(bundles: Any) -> list[resource_model.ResourceSet]:
    advice = 'write [{"CPU": 1}, {"CPU": 1, "GPU": 1}]'
    if not isinstance(bundles, list) or not bundles or not all(isinstance(one, Mapping) for one in bundles):
        raise exceptions.InvalidOption(
            f"bundles must be a non-empty list of dicts of amounts by resource, got {bundles!r}; {advice}",
            option="bundles",
        )
    amounts = [resource_model.ResourceSet.from_floats(one) for one in bundles]
    for index, one in enumerate(amounts):
        if one.is_empty:
            raise exceptions.InvalidOption(
                f"a bundle must have something in it, got {bundles[index]!r} as bundle {index}; {advice}",
                option="bundles",
            )
    return amounts


def _checked_strategy(strategy: str | None, target: str | None) -> str:
    from umbel._scheduling import bundles

    chosen = bundles.PACK if strategy is None else strategy
    if chosen not in bundles.STRATEGIES:
        raise exceptions.InvalidOption(
            f"strategy must be one of {', '.join(bundles.STRATEGIES)}, got {strategy!r}; omit it for PACK",
            option="strategy",
        )
    if target and chosen != bundles.STRICT_PACK:
        raise exceptions.InvalidOption(
            f"_soft_target_node_id needs strategy='STRICT_PACK', got {chosen!r}; omit it, or pack all on one node",
            option="_soft_target_node_id",
        )
    return chosen


def _checked_selectors(selectors: Any, count: int) -> list[dict[str, str]]:
    if selectors is None:
        return []
    advice = "write one dict of conditions by label for each bundle, {} for none"
    is_right = isinstance(selectors, list) and all(
        isinstance(one, Mapping) and all(isinstance(text, str) for pair in one.items() for text in pair)
        for one in selectors
    )
    if not is_right or len(selectors) != count:
        raise exceptions.InvalidOption(
            f"bundle_label_selector must be a list of {count} dicts of str to str, as many as bundles, got {selectors!r}; "
            f"{advice}",
            option="bundle_label_selector",
        )
    from umbel._model import node_labels  # few groups have conditions

    for one in selectors:
        node_labels.checked("bundle_label_selector", one)
    return [dict(one) for one in selectors]


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the bundles back. Actors and tasks in them are killed; what waits for them fails. No error if it is gone."""
    _engine().groups.remove(_checked_group("remove_placement_group", placement_group).id.hex())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of that name in this namespace. Raises ValueError when there is none."""
    if not isinstance(placement_group_name, str) or not placement_group_name:
        raise ValueError(
            f"get_placement_group() takes the name of a group, a non-empty str, got {placement_group_name!r}; "
            "placement_group_table() lists all"
        )
    group, bundles = _engine().groups.find(placement_group_name)
    return PlacementGroup(ids.PlacementGroupID.from_hex(group), bundles)


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What is known of a group, or of all groups by id, removed ones included while they are remembered. Keys are Ray's."""
    engine = _engine()
    if placement_group is None:
        return {one["group"]: _as_row(one) for one in engine.query("placement_groups")}
    group = _checked_group("placement_group_table", placement_group).id.hex()
    return next(map(_as_row, engine.query("placement_groups", about=group)), {})


def _checked_group(function: str, group: Any) -> PlacementGroup:
    if not isinstance(group, PlacementGroup):
        raise TypeError(
            f"{function}() takes a PlacementGroup, got {group!r}; placement_group() makes one, get_placement_group() finds one"
        )
    return group


def _as_row(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "placement_group_id": one["group"],
        "name": one["name"],
        "bundles": {
            index: resource_model.ResourceSet(bundle).to_floats() for index, bundle in enumerate(one["bundles"])
        },
        "bundles_to_node_id": dict(enumerate(one["nodes"])),
        "strategy": one["strategy"],
        "state": one["state"],
        "stats": groups.stats(one),
    }


def get_current_placement_group() -> PlacementGroup | None:
    """The group in which the running task or actor is; None in the driver, and outside of any group."""
    current.engine()
    group = context.current_group()
    return PlacementGroup(ids.PlacementGroupID.from_hex(group.group)) if group is not None else None


def _engine() -> Any:
    """Raises UnsupportedFeature when the engine, of a plugin, has no placement groups."""
    engine = current.engine()
    if not hasattr(engine, "groups"):
        raise exceptions.UnsupportedFeature(
            f"the engine {getattr(engine, 'name', engine)!r} has no placement groups; use native or inline"
        )
    return engine
