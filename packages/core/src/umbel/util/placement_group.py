"""Gang reservations of resources. They come with the cluster; until then every call says so."""

from __future__ import annotations

from typing import NoReturn

from umbel import exceptions


def _unsupported(what: str) -> NoReturn:
    raise exceptions.UnsupportedFeature(
        f"{what}: this version of Umbel has no placement groups; they come with multi-node clusters. On one machine, "
        "ask for what is needed with num_cpus, num_gpus and resources"
    )


class PlacementGroup:
    """A reservation of several bundles of resources; made by `placement_group` only."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        _unsupported("PlacementGroup")


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Raises UnsupportedFeature."""
    _unsupported("placement_group")


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Raises UnsupportedFeature."""
    _unsupported("remove_placement_group")


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Raises UnsupportedFeature."""
    _unsupported("get_placement_group")


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, object]:
    """Raises UnsupportedFeature."""
    _unsupported("placement_group_table")


def get_current_placement_group() -> PlacementGroup | None:
    """Raises UnsupportedFeature."""
    _unsupported("get_current_placement_group")
