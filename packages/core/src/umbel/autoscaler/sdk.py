"""Asking for room before there is work, with the names and the behaviour of `ray.autoscaler.sdk`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from umbel import exceptions
from umbel._client import current
from umbel._client import modules as _modules
from umbel._model import node_labels, resources

__getattr__ = _modules.attributes_of(__name__)  # says what is missing

__all__ = ["request_resources"]

_SPACE, _KEY = b"umbel.autoscaler", b"resource_requests"  # where the head looks for it


def request_resources(
    num_cpus: int | None = None,
    bundles: Sequence[Mapping[str, float]] | None = None,
    bundle_label_selectors: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Have the cluster be large enough for all of this at once, whether it is in use or not: so many CPUs one by one, and each of
    the bundles on one node, which meets the label selector at the same place, if there are such.

    It holds until the next call, which replaces it; one without arguments takes it back. Nodes that are launched for it, at once
    and not by and by, are not ended for being idle. Without an autoscaler nothing comes of it. Raises RuntimeError without a
    session, TypeError and ValueError for what is wrong.
    """
    if not current.is_initialized():
        raise RuntimeError("request_resources() needs a session; call umbel.init() first")
    wanted: list[tuple[Mapping[str, float], int, Mapping[str, str]]] = []
    if num_cpus is not None:
        if type(num_cpus) is not int:
            raise TypeError(f"num_cpus must be a whole number, got {num_cpus!r:.100}")
        if num_cpus < 0:
            raise exceptions.InvalidOption(f"num_cpus must be a number >= 0, got {num_cpus}", option="num_cpus")
        wanted += [({"CPU": 1}, num_cpus, {})] if num_cpus else []
    wanted += _of_bundles(bundles, bundle_label_selectors)
    text = json.dumps([(dict(amounts), count, dict(selector)) for amounts, count, selector in wanted])
    current.engine().key_values.put(_SPACE, _KEY, text.encode(), overwrites=True)


def _of_bundles(
    bundles: Sequence[Mapping[str, float]] | None, selectors: Sequence[Mapping[str, str]] | None
) -> list[tuple[Mapping[str, float], int, Mapping[str, str]]]:
    if bundles is None:
        if selectors is not None:
            raise ValueError("bundle_label_selectors are for bundles, and there are none; pass bundles as well")
        return []
    if not isinstance(bundles, list):
        raise TypeError(f"bundles must be a list of dicts, got {bundles!r:.100}")
    for bundle in bundles:
        if not isinstance(bundle, dict):
            raise TypeError(f"each bundle must be a dict of amounts by resource, got {bundle!r:.100}")
        for name, amount in bundle.items():
            if not isinstance(name, str) or isinstance(amount, bool) or not isinstance(amount, (int, float)):
                raise TypeError(f"each bundle must be a dict of amounts by resource, got {bundle!r:.100}")
        resources.ResourceSet.from_floats(bundle)
    if selectors is None:
        return [(bundle, 1, {}) for bundle in bundles]
    if not isinstance(selectors, list) or len(selectors) != len(bundles):
        raise ValueError(
            f"bundle_label_selectors must be a list as long as bundles, {len(bundles)}, got {selectors!r:.100}; write {{}} for "
            "a bundle that may be anywhere"
        )
    for selector in selectors:
        if not isinstance(selector, dict) or not all(isinstance(one, str) for pair in selector.items() for one in pair):
            raise ValueError(f"each of bundle_label_selectors must be a dict of strings, got {selector!r:.100}")
        node_labels.checked("bundle_label_selectors", selector)
    return [(bundle, 1, selector) for bundle, selector in zip(bundles, selectors, strict=True)]
