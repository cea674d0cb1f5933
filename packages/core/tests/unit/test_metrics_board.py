"""The Grafana board and the endpoint agree with the list of Umbel's own metrics."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import click.testing
import pytest

from umbel._model import metric_catalog as catalog
from umbel.cli import board, group

_METRIC = re.compile(r"\bumbel_[a-z_]+")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def panels() -> list[dict[str, Any]]:
    shown: dict[str, Any] = board.board()
    return [panel for panel in shown["panels"] if panel["type"] != "row"]


def targets() -> list[dict[str, Any]]:
    return [target for panel in panels() for target in panel["targets"]]


def test_board_shows_every_metric_and_no_other() -> None:
    named = {name for target in targets() for name in _METRIC.findall(target["expr"])}
    assert named == set(catalog.BY_NAME)


def test_labels_on_the_board_are_those_of_the_metrics() -> None:
    for target in targets():
        (*_, name) = _METRIC.findall(target["expr"])
        labels = catalog.BY_NAME[name].labels
        grouped = {label.strip() for found in _GROUPED.findall(target["expr"]) for label in found.split(",")}
        assert grouped <= set(labels), target
        assert set(_LEGEND.findall(target["legendFormat"])) <= set(labels), target
        assert target["expr"].count('{node_id=~"$node"}') == len(_METRIC.findall(target["expr"]))


def test_rates_are_taken_of_counters_and_of_all_of_them() -> None:
    for target in targets():
        for name in _METRIC.findall(target["expr"]):
            is_rate = f"rate({name}{{" in target["expr"]
            assert is_rate == (catalog.BY_NAME[name].kind == catalog.COUNTER), target


def test_lines_of_several_nodes_have_legends_of_their_own_or_are_one() -> None:
    """All has each node's series beside the others': what tells them apart is added up, or in the legend."""
    for target in targets():
        assert target["expr"].startswith("sum"), target
        by = {label.strip() for found in _GROUPED.findall(target["expr"]) for label in found.split(",")}
        assert set(_LEGEND.findall(target["legendFormat"])) == by, target


def test_rows_and_variables_have_what_grafana_reads_without_asking() -> None:
    shown = board.board()
    assert {json.dumps(panel["panels"]) for panel in shown["panels"] if panel["type"] == "row"} == {"[]"}
    current = {variable["name"]: variable["current"] for variable in shown["templating"]["list"]}
    assert current == {"datasource": {}, "node": {"text": ["All"], "value": ["$__all"]}}


def test_panels_do_not_overlap_and_ids_differ() -> None:
    everything = board.board()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in everything)
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < board.COLUMNS


def test_names_follow_prometheus() -> None:
    for metric in catalog.BY_NAME.values():
        assert re.fullmatch(r"umbel_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == catalog.COUNTER), metric
        assert metric.help.endswith("."), metric


def test_command_prints_the_board_as_json() -> None:
    done = click.testing.CliRunner().invoke(group.make(), ["metrics", "dashboard"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == board.board()


def test_exported_names_have_the_prefix_and_counters_the_ending_once() -> None:
    assert catalog.exported_name("served", catalog.COUNTER) == "umbel_served_total"
    assert catalog.exported_name("served_total", catalog.COUNTER) == "umbel_served_total"
    assert catalog.exported_name("depth", catalog.GAUGE) == "umbel_depth"
    assert [catalog.label(key) for key in ("ok", "my-tag", "1st", "")] == ["ok", "my_tag", "_1st", "_"]


@pytest.mark.parametrize("name", sorted(catalog.BY_NAME))
def test_names_are_read_back_as_they_are_written(name: str) -> None:
    """The client library adds and takes endings of its own."""
    core = pytest.importorskip("prometheus_client.metrics_core")
    parser = pytest.importorskip("prometheus_client.parser")
    exposition = pytest.importorskip("prometheus_client")
    from umbel._agent import exporter

    metric = catalog.BY_NAME[name]
    made = core.Metric(exporter._base(name, metric.kind), metric.help, metric.kind)
    made.add_sample(name, {}, 1.0)
    registry = exposition.CollectorRegistry()
    registry.register(type("One", (), {"collect": lambda self: [made]})())
    (read,) = parser.text_string_to_metric_families(exposition.generate_latest(registry).decode())
    assert ([sample.name for sample in read.samples], read.type) == ([name], metric.kind)
