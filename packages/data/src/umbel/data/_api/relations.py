"""Methods of a dataset that put rows in relation to others: of other datasets, of a group, of a window. Nothing runs."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel.data._api import checks, options
from umbel.data._blocks import asof
from umbel.data._plan import logical, schemas

if TYPE_CHECKING:
    from umbel.data import window as window_functions
    from umbel.data.dataset import Dataset
    from umbel.data.grouped_data import GroupedData


class MixStoppingCondition(str, enum.Enum):
    """STOP_ON_SHORTEST: with the first dataset that has ended; STOP_ON_LONGEST_DROP: with the last, the others go on."""

    STOP_ON_SHORTEST = "stop_on_shortest"
    STOP_ON_LONGEST_DROP = "stop_on_longest_drop"


JOIN_TYPES = {
    "inner": "inner",
    "left": "left_outer",
    "left_outer": "left_outer",
    "right": "right_outer",
    "right_outer": "right_outer",
    "outer": "full_outer",
    "full_outer": "full_outer",
    "semi": "left_semi",
    "left_semi": "left_semi",
    "right_semi": "right_semi",
    "anti": "left_anti",
    "left_anti": "left_anti",
    "right_anti": "right_anti",
}


class Relations:
    """See the module."""

    _node: logical.Node

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    # ---- several datasets ----

    def union(self, *other: Dataset) -> Dataset:
        """All rows of this one, then of the others. Columns that one has not are null there; but where a function decides which
        columns there are, blocks have their own until rows of several come together. Raises ValueError, when it runs or the
        schema is asked for, where a column has types that do not go together."""
        return self._with(logical.Union(several=(self._node, *(one._node for one in other))))

    def zip(self, *other: Dataset) -> Dataset:
        """Columns side by side, of datasets with equally many rows; otherwise the run raises ValueError. A name that is taken
        gets `_1`, `_2`, …"""
        return self._with(logical.Zip(several=(self._node, *(one._node for one in other))))

    def join(
        self,
        ds: Dataset,
        join_type: str = "inner",
        num_partitions: int | None = None,
        on: str | Sequence[str] = ("id",),
        right_on: str | Sequence[str] | None = None,
        left_suffix: str | None = None,
        right_suffix: str | None = None,
        *,
        broadcast: bool | None = None,
        partition_size_hint: int | None = None,
        aggregator_ray_remote_args: Mapping[str, Any] | None = None,
        validate_schemas: bool = False,
    ) -> Dataset:
        """Rows of both that are equal in the keys. A null equals nothing; NaN equals NaN.

        join_type: "inner"; "left" (or "left_outer"), "right" or "outer" ("full_outer") to have the rows without a partner too,
        of the left, the right or both, with nulls beside them; "semi" ("left_semi") or "right_semi" for the rows of one side
        that have a partner, "anti" ("left_anti") or "right_anti" for those that have none. The columns are those of the left,
        then those of the right without its keys; the suffixes go to names that both have. Of semi and anti joins they are
        those of the one side.

        A side that is small goes whole to every task, and the other is joined as it comes, in its order: the right one of inner,
        left, semi and anti joins, the left one of inner joins and of those of the right. In an outer join neither can. What is
        small is measured (`DataContext.broadcast_bytes_max`); broadcast: True whatever its size, which must fit into a task's
        memory, False never. Otherwise both are divided by the keys, and many rows with one key among several tasks, where the
        kind of join allows it.

        num_partitions: into how many both are divided; then neither goes whole. None to choose by size. With broadcast=True it
        has no effect. aggregator_ray_remote_args: what its tasks take. partition_size_hint has no effect: sizes are measured.
        validate_schemas: also where a first block has to be made to see a schema, which the run makes again; what is known is
        checked at once in any case.

        Names that both have beside the keys raise ValueError without suffixes, a key that is known not to be there KeyError.
        """
        if join_type not in JOIN_TYPES:
            near = difflib.get_close_matches(str(join_type), JOIN_TYPES, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            meant = "; that is join_asof()" if str(join_type).lower() in ("asof", "as_of", "as-of") else meant
            raise ValueError(f"join_type must be one of {', '.join(map(repr, JOIN_TYPES))}, got {join_type!r}{meant}")
        how = JOIN_TYPES[join_type]
        if broadcast and not logical.WHOLE_SIDES[how]:
            raise ValueError(
                "broadcast=True gives one side to several tasks, none of which could tell which of its rows have no partner in "
                "any; an outer join needs both divided: leave broadcast out"
            )
        if num_partitions is not None and num_partitions < 1:
            raise ValueError(f"num_partitions must be at least 1, got {num_partitions}; leave it out to choose by size")
        left_on = checks.keys("on", on)
        right = checks.keys("right_on", right_on) or left_on
        if not left_on or len(left_on) != len(right):
            raise ValueError(f"on and right_on must name equally many columns, got {list(left_on)} and {list(right)}")
        checks.columns(self._node, left_on)
        checks.columns(ds._node, right)
        node = logical.Join(
            left=self._node,
            right=ds._node,
            how=how,
            left_on=left_on,
            right_on=right,
            left_suffix=left_suffix,
            right_suffix=right_suffix,
            partition_count=num_partitions,
            is_broadcast=broadcast,
            resources=options.resources(aggregator_ray_remote_args or {}),
        )
        schemas.of(node)  # keys that cannot be equal, and names that both have
        if validate_schemas:
            found = [self._with(self._node).schema(), ds.schema()]
            schemas.of(
                node, {one: schema and schema.base_schema for one, schema in zip(node.inputs, found, strict=True)}
            )
        return self._with(node)

    def groupby(self, key: str | Sequence[str] | None = None, num_partitions: int | None = None) -> GroupedData:
        """Groups of rows that are equal in these columns; None for one of all. num_partitions: of how many tasks each has some of
        the groups; None to choose by size. Raises KeyError for a column that is known not to be there."""
        from umbel.data.grouped_data import GroupedData

        names = checks.keys("key", key)
        checks.columns(self._node, names)
        return GroupedData(self, names, num_partitions)

    def join_asof(
        self,
        ds: Dataset,
        on: str,
        *,
        right_on: str | None = None,
        by: str | Sequence[str] | None = None,
        right_by: str | Sequence[str] | None = None,
        direction: str = "backward",
        tolerance: Any = None,
        allow_exact_matches: bool = True,
        left_suffix: str | None = None,
        right_suffix: str | None = None,
        broadcast: bool | None = None,
    ) -> Dataset:
        """Each row with the one of `ds` that is nearest in `on`, such as the last price before a trade; nulls where there is
        none.

        by: columns in which both must be equal; without, there is nothing to divide both by, and all of `ds` goes to every task,
        also where it is large. broadcast: as in `join`. direction: "backward" for the last that is not above, "forward" for the
        first that is not below, or "nearest". tolerance: how far off it may be, in the unit of `on`, or a timedelta. Neither need
        be sorted."""
        if direction not in asof.DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(map(repr, asof.DIRECTIONS))}, got {direction!r}")
        left_by = checks.keys("by", by)
        others = checks.keys("right_by", right_by) or left_by
        if len(others) != len(left_by):
            raise ValueError(f"by and right_by must name equally many columns, got {list(left_by)} and {list(others)}")
        checks.columns(self._node, (on, *left_by))
        checks.columns(ds._node, (right_on or on, *others))
        return self._with(
            logical.AsofJoin(
                left=self._node,
                right=ds._node,
                left_on=on,
                right_on=right_on or on,
                left_by=left_by,
                right_by=others,
                direction=direction,
                tolerance=tolerance,
                is_exact_allowed=allow_exact_matches,
                left_suffix=left_suffix,
                right_suffix=right_suffix,
                is_broadcast=broadcast,
            )
        )

    def mix(
        self,
        *others: Dataset,
        weights: Sequence[float] | None = None,
        stopping_condition: MixStoppingCondition | str = MixStoppingCondition.STOP_ON_LONGEST_DROP,
    ) -> Dataset:
        """Rows of all, in turns: so many of each as its weight says, in the same order each time.

        weights: of this one and of the others, of any sum; None for equal ones. stopping_condition: with "shortest" it ends with
        the first that does, with "longest_drop" it goes on with the others until all have ended.
        """
        several = (self._node, *(one._node for one in others))
        given = [1.0] * len(several) if weights is None else [float(one) for one in weights]
        if len(given) != len(several) or not all(0 < one < float("inf") for one in given):
            raise ValueError(
                f"weights must be {len(several)} numbers above 0, one for each dataset, this one first, got {weights!r}"
            )
        try:
            said = str(getattr(stopping_condition, "value", stopping_condition)).lower()
            stop = MixStoppingCondition(f"stop_on_{said.removeprefix('stop_on_')}")
        except ValueError:
            raise ValueError(
                f"stopping_condition must be 'shortest' or 'longest_drop', got {stopping_condition!r}"
            ) from None
        is_shortest = stop is MixStoppingCondition.STOP_ON_SHORTEST
        return self._with(logical.Mix(several=several, weights=tuple(given), is_shortest=is_shortest))

    def window(
        self,
        functions: Mapping[str, window_functions.WindowFunction],
        *,
        partition_by: str | Sequence[str] | None = None,
        order_by: str | Sequence[str] | None = None,
        descending: bool | Sequence[bool] = False,
    ) -> Dataset:
        """Columns of window functions, by name, such as {"before": window.lag("price")}; see `umbel.data.window`.

        partition_by: rows that are equal in these are a window; None for one of all rows, in one task. Rows come partition by
        partition, and within one in the order that they had.
        """
        by = checks.keys("partition_by", partition_by)
        order = checks.keys("order_by", order_by)
        each = checks.descending(descending, order)
        made = []
        for name, function in functions.items():
            if not callable(function):
                raise TypeError(f"{name!r} must be a function of umbel.data.window, such as lag('x'), got {function!r}")
            made.append(function(name))
        if not made:
            raise ValueError("window needs a function at least, such as {'n': window.row_number()}")
        checks.columns(self._node, (*by, *order, *(one.on for one in made if one.on is not None)))
        return self._with(
            logical.Window(input=self._node, partition_by=by, order_by=order, descending=each, functions=tuple(made))
        )
