"""A program's own metrics: `Counter`, `Gauge` and `Histogram`, in the driver, in tasks and in actors.

They are counted in the process and told to its node about once a second. `umbel.init(_metrics_export_port=...)` offers
them to Prometheus, `umbel metrics show` prints them. A metric `name` is exported as `umbel_name`, a counter as
`umbel_name_total`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from umbel._client import metrics
from umbel._model import metric_catalog as catalog

__all__ = ["Counter", "Gauge", "Histogram"]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_M = TypeVar("_M", bound="Metric")
_UNTAGGED: metrics.Key = ((), ())


class Metric:
    """What all kinds have in common. Metrics of one name share their values; they can be pickled and captured.

    tag_keys: the names of the tags that each value has. Raises TypeError for keys that are not a tuple of strings,
    ValueError for an empty name or one that is defined differently. A name that Prometheus does not take is warned of,
    and its values are discarded.
    """

    _kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(f"tag_keys must be a tuple of strings, got {tag_keys!r}; write ('a', 'b')")
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"tag_keys must be a tuple of strings, got {key!r} of type {type(key).__name__} in it")
        self._family = self._make_family() if _is_valid(name) else None

    def _make_family(self, bounds: tuple[float, ...] = ()) -> metrics.Family:
        return metrics.recorder.family(metrics.Definition(self._kind, self._name, self._description, bounds))

    def set_default_tags(self: _M, default_tags: dict[str, str]) -> _M:
        """Tags for values that do not bring their own; returns the metric itself. Raises ValueError for a key that is
        not among `tag_keys`, TypeError for a value that is not a string."""
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"tag {key!r} is not one of the metric's: {self._tag_keys!r}; add it to tag_keys")
            _check_tag(key, value)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, tag_keys and default_tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _key(self, tags: Mapping[str, str] | None) -> metrics.Key:
        """Raises ValueError when a tag is missing, TypeError when one is not a string."""
        names = self._tag_keys
        if not tags:
            if not names:
                return _UNTAGGED
            merged: Mapping[str, str] = self._default_tags
        else:
            for key, value in tags.items():
                if not isinstance(value, str):
                    _check_tag(key, value)
            merged = {**self._default_tags, **tags} if self._default_tags else tags
        if len(merged) > len(names):  # tags beyond those declared are kept
            names = (*names, *sorted(key for key in merged if key not in names))
        try:
            return names, tuple([merged[name] for name in names])
        except KeyError:
            missing = [name for name in names if name not in merged]
            raise ValueError(
                f"metric {self._name!r} has no value for the tags {missing}; pass them in tags=, or call "
                "set_default_tags"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self._default_tags, self._name, self._description, self._tag_keys)


class Counter(Metric):
    """What only grows, such as requests served. Its total over all processes stays when they end."""

    _kind = catalog.COUNTER

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Add `value`. Raises TypeError unless it is an int or float, ValueError unless it is above zero."""
        _check_number(value)
        if not value > 0:
            raise ValueError(f"value must be > 0, got {value!r}; a Gauge can go down")
        if self._family is not None:
            metrics.recorder.add(self._family, self._key(tags), float(value))


class Gauge(Metric):
    """What goes up and down, such as a queue's length: each process's last value, which ends with the process."""

    _kind = catalog.GAUGE

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Say what it is now; None says nothing. Raises TypeError unless it is an int or float."""
        if value is None:
            return
        _check_number(value)
        if self._family is not None:
            metrics.recorder.set(self._family, self._key(tags), float(value))


class Histogram(Metric):
    """How values are distributed, such as latencies: counts of those up to each boundary, and their sum.

    boundaries: upper bounds of the buckets, ascending and above zero; one more bucket takes what is above them all.
    """

    _kind = catalog.HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        self.boundaries = list(boundaries or ())
        if not self.boundaries:
            raise ValueError(
                f"boundaries must be a list of numbers > 0, got {boundaries!r}; for example "
                f"Histogram({name!r}, boundaries=[0.1, 1, 10])"
            )
        for index, bound in enumerate(self.boundaries):
            _check_number(bound)
            if not 0 < bound < math.inf or (index and bound <= self.boundaries[index - 1]):
                raise ValueError(
                    f"boundaries must be ascending numbers > 0, got {bound!r} at index {index} of {self.boundaries}; "
                    "leave it out or sort them"
                )
        super().__init__(name, description, tag_keys)

    def _make_family(self, bounds: tuple[float, ...] = ()) -> metrics.Family:
        return super()._make_family(bounds or tuple(map(float, self.boundaries)))

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Count one value. Raises TypeError unless it is an int or float."""
        _check_number(value)
        if self._family is not None:
            metrics.recorder.observe(self._family, self._key(tags), float(value))

    @property
    def info(self) -> dict[str, Any]:
        """The same, and boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self._name, self._description, self.boundaries, self._tag_keys)
        return _again, (type(self), self._default_tags, *fields)


def _again(kind: type[_M], default_tags: dict[str, str], *fields: Any) -> _M:
    """A metric from its pickle."""
    return kind(*fields).set_default_tags(default_tags)


def _is_valid(name: Any) -> bool:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a metric's name must be a non-empty string, got {name!r}")
    if _NAME.match(name) is None:
        warnings.warn(
            f"metric name {name!r} has other characters than letters, digits, _ and :, or begins with a digit; its values "
            "are discarded",
            UserWarning,
            stacklevel=4,
        )
        return False
    if ":" in name:
        warnings.warn(
            f"metric name {name!r} has a colon, which Prometheus keeps for rules; it will be an error, so write _",
            FutureWarning,
            stacklevel=4,
        )
    return True


def _check_number(value: Any) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"value must be an int or float, got {value!r} of type {type(value).__name__}; convert it")
    if value != value:
        raise ValueError("value must be a number, got nan; leave such values out")


def _check_tag(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the value of tag {key!r} must be a string, got {value!r} of type {type(value).__name__}")
