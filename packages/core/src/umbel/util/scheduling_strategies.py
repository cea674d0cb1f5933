"""Values of the `scheduling_strategy` option, besides "DEFAULT" and "SPREAD".

They only describe; which of them a running engine can honour, it says when a task or an actor is submitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from umbel import exceptions


class _Value:
    """Compares, hashes and prints by its fields."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


class PlacementGroupSchedulingStrategy(_Value):
    """Run inside a placement group: in its bundle `placement_group_bundle_index`, or in any for -1.

    With `placement_group_capture_child_tasks`, what the task or actor submits runs in the group too. None as the
    group asks for no group.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy(_Value):
    """Run on the node with this id (hex, as in `umbel.nodes()`).

    `soft` allows another node when this one is gone or could never hold the request, not when it is merely busy. The
    underscored options extend that to a busy node: spill to another (needs soft), or fail (needs hard), which takes a second, in
    which workers come back that their owners do not use; actors do not fail, but wait.
    """

    def __init__(
        self,
        node_id: str,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        text = node_id if isinstance(node_id, str) else getattr(node_id, "hex", lambda: None)()
        if not isinstance(text, str) or not _is_hex(text):
            raise ValueError(
                f"node_id must be a node's id in hex, got {node_id!r}; take one from umbel.nodes() or "
                "umbel.get_runtime_context().get_node_id()"
            )
        _check_flag("soft", soft, "write soft=False to wait for this node")
        _check_flag("_spill_on_unavailable", _spill_on_unavailable, "omit it for False")
        _check_flag("_fail_on_unavailable", _fail_on_unavailable, "omit it for False")
        if _spill_on_unavailable and not soft:
            raise ValueError("_spill_on_unavailable needs soft=True, got soft=False; a hard affinity never spills")
        if _fail_on_unavailable and soft:
            raise ValueError(
                "_fail_on_unavailable needs soft=False, got soft=True; a soft affinity goes elsewhere instead"
            )
        self.node_id = text
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable


def _check_flag(name: str, value: object, advice: str) -> None:
    if not isinstance(value, bool):
        raise exceptions.InvalidOptionType(f"{name} must be True or False, got {value!r}; {advice}", option=name)


def _is_hex(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) > 0
    except ValueError:
        return False


class In(_Value):
    """The label is there and has one of these values."""

    def __init__(self, *values: str) -> None:
        self.values = _checked_values("In", values)


class NotIn(_Value):
    """The label is absent, or has none of these values."""

    def __init__(self, *values: str) -> None:
        self.values = _checked_values("NotIn", values)


class Exists(_Value):
    """The label is there, whatever its value."""


class DoesNotExist(_Value):
    """The label is absent."""


LabelOperator: TypeAlias = "In | NotIn | Exists | DoesNotExist"


def _checked_values(operator: str, values: tuple[str, ...]) -> list[str]:
    if not values:
        raise ValueError(f'{operator} needs at least one value, got none; write {operator}("a", "b")')
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f'the values of {operator} must be str, got {value!r}; write {operator}("a", "b")')
    return list(values)


class NodeLabelSchedulingStrategy(_Value):
    """Run on a node whose labels satisfy all of `hard`, and of those preferably one that satisfies `soft`."""

    def __init__(
        self, hard: Mapping[str, LabelOperator] | None, *, soft: Mapping[str, LabelOperator] | None = None
    ) -> None:
        self.hard = _checked_labels("hard", hard)
        self.soft = _checked_labels("soft", soft)
        if not self.hard and not self.soft:
            raise ValueError('hard and soft are both empty; name a label, such as hard={"zone": In("a")}')


def _checked_labels(name: str, labels: Mapping[str, LabelOperator] | None) -> dict[str, LabelOperator]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise ValueError(f'{name} must map labels to operators, such as {{"zone": In("a")}}, got {labels!r}')
    for key, operator in labels.items():
        if not isinstance(key, str):
            raise ValueError(f"the labels of {name} must be str, got {key!r}")
        if not isinstance(operator, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(
                f"{name}[{key!r}] must be In(...), NotIn(...), Exists() or DoesNotExist(), got {operator!r}"
            )
    return dict(labels)
