"""A Grafana board of Umbel's own metrics."""

from __future__ import annotations

from typing import Any

COLUMNS = 24  # of Grafana's grid
WIDTH, HEIGHT = 8, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_NODE = '{node_id=~"$node"}'
# (row, ((title, unit, ((expression, legend), ...)), ...)). NODE stands for the selector of the chosen nodes.
_ROWS: tuple[tuple[str, tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]], ...] = (
    (
        "Tasks and actors",
        (
            ("Tasks and calls", "short", (
                ("sum by (state) (umbel_tasks NODE)", "{{state}}"),
                ("sum(umbel_tasks_running NODE)", "running"),
            )),
            ("Ended per second", "ops", (
                ("sum by (outcome) (rate(umbel_tasks_ended_total NODE[$__rate_interval]))", "{{outcome}}"),
            )),
            ("Mean run time by name", "s", (
                (
                    "sum by (name) (rate(umbel_task_run_seconds_total NODE[$__rate_interval])) / "
                    "sum by (name) (rate(umbel_tasks_ended_total NODE[$__rate_interval]))",
                    "{{name}}",
                ),
            )),
            ("Actors", "short", (("sum by (state) (umbel_actors NODE)", "{{state}}"),)),
            ("Workers", "short", (("sum by (state) (umbel_workers NODE)", "{{state}}"),)),
            ("Workers waited for", "short", (("sum(umbel_leases_pending NODE)", "leases"),)),
        ),
    ),
    (
        "Objects",
        (
            ("Object store", "bytes", (
                ("sum(umbel_object_store_used_bytes NODE)", "used"),
                ("sum(umbel_object_store_reserved_bytes NODE)", "reserved"),
                ("sum(umbel_object_store_capacity_bytes NODE)", "capacity"),
            )),
            ("On disk", "bytes", (("sum(umbel_object_store_spilled_bytes NODE)", "spilled"),)),
            ("Spilling", "Bps", (
                ("sum(rate(umbel_object_store_spill_written_bytes_total NODE[$__rate_interval]))", "written"),
                ("sum(rate(umbel_object_store_spill_read_bytes_total NODE[$__rate_interval]))", "read back"),
            )),
            ("Objects", "short", (
                ("sum(umbel_objects NODE)", "referred to"),
                ("sum(umbel_object_store_segments NODE)", "segments"),
            )),
            ("Dropped values of metrics per second", "ops", (
                ("sum(rate(umbel_metric_series_dropped_total NODE[$__rate_interval]))", "dropped"),
            )),
        ),
    ),
    (
        "Processes",
        (
            ("Processor time", "percentunit", (
                (
                    "sum by (component, name) (rate(umbel_process_cpu_seconds_total NODE[$__rate_interval]))",
                    "{{component}} {{name}}",
                ),
            )),
            ("Memory", "bytes", (
                ("sum by (component, name) (umbel_process_memory_bytes NODE)", "{{component}} {{name}}"),
            )),
            ("Recomputed per second", "ops", (
                ("sum(rate(umbel_tasks_recomputed_total NODE[$__rate_interval]))", "tasks"),
            )),
            ("Killed for memory per second", "ops", (
                ("sum(rate(umbel_memory_kills_total NODE[$__rate_interval]))", "workers"),
            )),
            ("Processes", "short", (
                ("sum by (component, name) (umbel_processes NODE)", "{{component}} {{name}}"),
            )),
        ),
    ),
    (
        "Node",
        (
            ("Processor time", "percentunit", (
                ("sum by (mode) (rate(umbel_node_cpu_seconds_total NODE[$__rate_interval]))", "{{mode}}"),
            )),
            ("Memory", "bytes", (
                ("sum(umbel_node_memory_capacity_bytes NODE)", "capacity"),
                ("sum(umbel_node_memory_available_bytes NODE)", "available"),
            )),
            ("Disk", "bytes", (
                ("sum(umbel_node_disk_capacity_bytes NODE)", "capacity"),
                ("sum(umbel_node_disk_free_bytes NODE)", "free"),
            )),
            ("Disk traffic", "Bps", (
                ("sum(rate(umbel_node_disk_read_bytes_total NODE[$__rate_interval]))", "read"),
                ("sum(rate(umbel_node_disk_written_bytes_total NODE[$__rate_interval]))", "written"),
            )),
        ),
    ),
)  # fmt: skip


def board() -> dict[str, Any]:
    """As Grafana imports it; it asks for the data source."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, drawn in _ROWS:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        head = {"type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": place}
        panels.append({"id": len(panels) + 1, **head})
        top += 1
        for index, (title, unit, queries) in enumerate(drawn):
            line, column = divmod(index, COLUMNS // WIDTH)
            place = {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": top + line * HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(title, unit, queries)})
        top += HEIGHT * -(-len(drawn) // (COLUMNS // WIDTH))
    return {
        "title": "Umbel",
        "uid": "umbel-node",
        "tags": ["umbel"],
        "schemaVersion": 39,
        "refresh": "15s",
        "graphTooltip": 1,  # the cursor shows the same moment in all panels
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_variable(), _node_variable()]},
        "panels": panels,
    }


def _panel(title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": expression.replace(" NODE", _NODE),
                "legendFormat": legend,
            }
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def _source_variable() -> dict[str, Any]:
    """Empty or not, "current" must be there: the first Grafana built on scenes looks into it without asking."""
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _node_variable() -> dict[str, Any]:
    return {
        "name": "node",
        "label": "Node",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(umbel_workers, node_id)", "refId": "node"},
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
