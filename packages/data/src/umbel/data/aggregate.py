"""Aggregations for `groupby(...).aggregate(...)` and `Dataset.aggregate(...)`.

Each is named by the column that it makes: `Sum("x")` makes `sum(x)`, unless `alias_name` says otherwise. Write your own as a
subclass of `AggregateFnV2`.
"""

from __future__ import annotations

from umbel.data._blocks.aggregating import AggregateFn as AggregateFn
from umbel.data._blocks.aggregating import AggregateFnV2 as AggregateFnV2
from umbel.data._blocks.aggregating import VectorizedAggregateFnV2 as VectorizedAggregateFnV2
from umbel.data._blocks.gathering import AsList as AsList
from umbel.data._blocks.gathering import CountDistinct as CountDistinct
from umbel.data._blocks.gathering import Quantile as Quantile
from umbel.data._blocks.gathering import Unique as Unique
from umbel.data._blocks.gathering import ValueCounter as ValueCounter
from umbel.data._blocks.sketching import ApproximateQuantile as ApproximateQuantile
from umbel.data._blocks.sketching import ApproximateTopK as ApproximateTopK
from umbel.data._blocks.statistics import AbsMax as AbsMax
from umbel.data._blocks.statistics import Count as Count
from umbel.data._blocks.statistics import First as First
from umbel.data._blocks.statistics import Last as Last
from umbel.data._blocks.statistics import Max as Max
from umbel.data._blocks.statistics import Mean as Mean
from umbel.data._blocks.statistics import Min as Min
from umbel.data._blocks.statistics import MissingValuePercentage as MissingValuePercentage
from umbel.data._blocks.statistics import Std as Std
from umbel.data._blocks.statistics import Sum as Sum
from umbel.data._blocks.statistics import Var as Var
from umbel.data._blocks.statistics import ZeroPercentage as ZeroPercentage

__all__ = [
    "AbsMax",
    "AggregateFn",
    "AggregateFnV2",
    "ApproximateQuantile",
    "ApproximateTopK",
    "AsList",
    "Count",
    "CountDistinct",
    "First",
    "Last",
    "Max",
    "Mean",
    "Min",
    "MissingValuePercentage",
    "Quantile",
    "Std",
    "Sum",
    "Unique",
    "ValueCounter",
    "Var",
    "VectorizedAggregateFnV2",
    "ZeroPercentage",
]
