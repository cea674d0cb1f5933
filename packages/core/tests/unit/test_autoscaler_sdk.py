"""`umbel.autoscaler.sdk`: what it takes, and what it leaves for the head."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel._client import current
from umbel.autoscaler import sdk


@pytest.fixture
def session() -> Iterator[None]:
    umbel.init(engine="inline")
    yield
    umbel.shutdown()


def left() -> Any:
    found = current.engine().key_values.get(b"umbel.autoscaler", b"resource_requests")
    return json.loads(found)


def test_cpus_and_bundles_are_wanted_together(session: None) -> None:
    sdk.request_resources(num_cpus=64, bundles=[{"GPU": 1, "CPU": 4}])
    assert left() == [[{"CPU": 1}, 64, {}], [{"GPU": 1, "CPU": 4}, 1, {}]]


def test_bundles_may_want_labels(session: None) -> None:
    sdk.request_resources(bundles=[{"CPU": 1}, {"CPU": 2}], bundle_label_selectors=[{"zone": "in(a,b)"}, {}])
    assert left() == [[{"CPU": 1}, 1, {"zone": "in(a,b)"}], [{"CPU": 2}, 1, {}]]


def test_the_last_request_counts_and_one_of_nothing_takes_it_back(session: None) -> None:
    sdk.request_resources(num_cpus=3)
    sdk.request_resources(num_cpus=1)
    assert left() == [[{"CPU": 1}, 1, {}]]
    sdk.request_resources()
    assert left() == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_cpus": 1.5}, TypeError, "num_cpus must be a whole number, got 1.5"),
        ({"num_cpus": -1}, ValueError, "num_cpus must be a number >= 0, got -1"),
        ({"bundles": {"CPU": 1}}, TypeError, "bundles must be a list of dicts"),
        ({"bundles": [3]}, TypeError, "each bundle must be a dict of amounts by resource, got 3"),
        ({"bundles": [{"CPU": True}]}, TypeError, "each bundle must be a dict of amounts by resource"),
        ({"bundles": [{"CPU": -1}]}, ValueError, "resource 'CPU' must be a number >= 0, got -1"),
        ({"bundle_label_selectors": [{}]}, ValueError, "pass bundles as well"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": []}, ValueError, "as long as bundles, 1, got"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": [{"a": 1}]}, ValueError, "must be a dict of strings"),
        (
            {"bundles": [{"CPU": 1}], "bundle_label_selectors": [{"a": "in("}]},
            ValueError,
            "a label selector's value must",
        ),
    ],
)
def test_what_is_wrong_is_said(session: None, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("(", r"\(")):
        sdk.request_resources(**arguments)


def test_without_a_session_it_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"call umbel.init\(\) first"):
        sdk.request_resources(num_cpus=1)


def test_what_ray_has_there_and_this_has_not_is_said() -> None:
    with pytest.raises(AttributeError, match="it is not in this version of Umbel"):
        sdk.teardown_cluster  # noqa: B018 - reading it is the test
