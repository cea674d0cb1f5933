"""The state functions: they check what is asked for, have it listed, and make states of the rows."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umbel import exceptions
from umbel._client import cluster_listing, current, inquiry, node_view, running_nodes, tool
from umbel._history import conditions, selections
from umbel.util.state import common, exception

ANSWER_S = 5.0  # of one process; one that is stopped must not cost the whole time-out
HISTORY_ENDING = ".db"


class StateApiClient:
    """Asks one session: this process's, or the one that runs at `address`.

    address: None or "auto" for this process's session or, without one, the only one that runs here, or the head's where all
    are nodes of one cluster; else a session's directory, the end of its name, host:port of a node, for which the environment has
    to have a token, or the file of a history that was kept, which has tasks, actors and workers. A node answers for all of its
    cluster. Raises ServerUnavailable when there is none.
    """

    def __init__(self, address: str | None = None, cookies: Any = None, headers: Any = None) -> None:
        if cookies is not None or headers is not None:
            raise exceptions.UnsupportedFeature("cookies and headers mean nothing here: a session is not asked by HTTP")
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address must be a str or None, got {address!r}; omit it for the session that runs here")
        self.address = address

    def list(
        self,
        resource: str,
        *,
        filters: Any = None,
        limit: int = common.DEFAULT_LIMIT,
        timeout: float = common.DEFAULT_RPC_TIMEOUT,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        order_by: str | None = None,
        offset: int = 0,
        _explain: bool = False,
    ) -> list[Any]:
        """States of `resource`: "tasks", "actors", and the others of `common.SCHEMAS`. See `list_tasks`."""
        schema = common.SCHEMAS[_known(resource)]
        request = request_of(resource, filters, order_by, limit, offset, timeout)
        found = self.listed(resource, request)
        self._check(resource, found.missing, raise_on_missing_output)
        if _explain:
            for text in found.notes:
                warnings.warn(text, stacklevel=3)
            if found.total > len(found.rows):
                warnings.warn(f"{len(found.rows)} of {found.total} {resource} are listed", stacklevel=3)
        return [state_of(row, schema, detail=detail) for row in found.rows]

    def get(
        self, resource: str, id: str, *, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
    ) -> Any:
        """The state with that id, or None. A list for a task with several attempts, and for objects."""
        schema = common.SCHEMAS[_known(resource)]
        if not schema.ID:
            raise ValueError(f"{resource} have no ids to get them by; list them")
        if not isinstance(id, str):
            raise TypeError(f"id must be the hexadecimal text of one of the {resource}, got {id!r}")
        found = self.list(
            resource, filters=[(schema.ID, "=", id)], limit=common.DEFAULT_LIMIT, timeout=timeout, detail=True,
            raise_on_missing_output=False, _explain=_explain,
        )  # fmt: skip
        if resource == "objects":
            return found
        if not found:
            return None
        return found[0] if len(found) == 1 else found

    def summary(
        self,
        resource: str,
        *,
        filters: Any = None,
        timeout: float = common.DEFAULT_RPC_TIMEOUT,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> dict[str, Any]:
        """Counts of "tasks", "actors" or "objects"; see `summarize_tasks`."""
        if resource not in ("tasks", "actors", "objects"):
            raise ValueError(f"a summary is of tasks, actors or objects, got {resource!r}")
        request = request_of(resource, filters, None, None, 0, timeout)
        notes: Sequence[str] = ()
        if resource == "tasks":
            tasks, missing, notes = self._told(resource, cluster_listing.task_tally, request)
            made = _task_summary(tasks)
        elif resource == "objects":
            objects, missing = self._told(resource, cluster_listing.object_tally, request)
            made = _object_summary(objects)
        else:
            found = self.listed(resource, request)
            missing, notes = found.missing, found.notes
            made = _actor_summary(found.rows)
        self._check(resource, missing, raise_on_missing_output)
        if _explain:
            for text in notes:
                warnings.warn(text, stacklevel=3)
        return {"cluster": made}

    def listed(self, resource: str, request: node_view.Request) -> node_view.Listing:
        """The rows, and what is to be said of them."""
        found: node_view.Listing = self._told(resource, cluster_listing.KINDS[resource], request)
        return found

    def _told(self, resource: str, tell: Any, request: node_view.Request) -> Any:
        """What a function of `cluster_listing` tells, of a session or of a history that was kept."""
        if self.address is None or not self.address.endswith(HISTORY_ENDING):
            with self.asker(request.timeout_s) as asker:
                return tell(asker, request)
        if resource not in cluster_listing.KEPT:
            raise exception.ServerUnavailable(
                f"a history that was kept has {', '.join(cluster_listing.KEPT)}, and no {resource}; ask a session that runs"
            )
        try:
            return tell(None, request, path=os.path.abspath(self.address))
        except exceptions.UmbelError as error:
            raise exception.ServerUnavailable(str(error)) from error

    @contextlib.contextmanager
    def asker(self, timeout_s: float) -> Iterator[inquiry.Asker]:
        """To ask the session by, for each question within that time. Raises DataSourceUnavailable for what is not answered."""
        engine = current.running_engine()
        try:
            if self.address in (None, "auto") and engine is not None:
                if not hasattr(engine, "answers"):
                    raise exceptions.UnsupportedFeature(
                        f"the {engine.name} engine lists no state; use the native engine, init(engine='native')"
                    )
                answer_s = min(ANSWER_S, timeout_s / 4)
                yield inquiry.EngineAsker(engine, timeout_s=answer_s, query_timeout_s=timeout_s)
                return
            with tool.Tool(self._session(), answer_s=timeout_s) as asker:
                yield asker
        except (exceptions.UmbelSystemError, exceptions.GetTimeoutError) as error:
            raise exception.DataSourceUnavailable(f"the session does not tell its state: {error}") from error

    def _session(self) -> str:
        if self.address and tool.is_remote(self.address):
            return self.address
        try:
            return running_nodes.looked_at(self.address or "")
        except ConnectionError as error:
            raise exception.ServerUnavailable(str(error)) from error

    @staticmethod
    def _check(resource: str, missing: Sequence[str], raise_on_missing_output: bool) -> None:
        if not missing:
            return
        text = f"the {resource} are not all known: {'; '.join(missing)}"
        if raise_on_missing_output:
            raise exception.UmbelStateApiException(f"{text}. Pass raise_on_missing_output=False to get the others")
        warnings.warn(text, stacklevel=4)


def _known(resource: Any) -> str:
    name = getattr(resource, "value", resource)
    if name not in common.SCHEMAS:
        raise ValueError(f"there are {', '.join(common.SCHEMAS)}, got {resource!r}")
    return str(name)


def request_of(resource: str, filters: Any, order_by: Any, limit: Any, offset: Any, timeout: Any) -> node_view.Request:
    """Raises InvalidOption, a ValueError, for what makes no sense."""
    kinds = common.SCHEMAS[resource].filter_kinds()
    orders = list(selections.ORDERS) if resource == "tasks" else list(kinds)
    check_timeout(timeout)
    return node_view.Request(
        conditions.read(filters, kinds, resource),
        conditions.read_order(order_by, orders, resource),
        conditions.read_count(limit, "limit") if limit is not None else None,
        conditions.read_count(offset, "offset"),
        float(timeout),
    )


def check_timeout(timeout: Any) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise exceptions.InvalidOption(f"timeout must be a number of seconds > 0, got {timeout!r}", option="timeout")


def state_of(row: Mapping[str, Any], schema: type[Any], *, detail: bool) -> Any:
    """A state with the columns that were asked for."""
    if schema is common.TaskState and detail:
        row = {**row, **_task_details(row)}
    return schema(**{name: row.get(name) for name in schema.list_columns(detail=detail)})


def _task_details(row: Mapping[str, Any]) -> dict[str, Any]:
    times = (
        ("PENDING_ARGS_AVAIL", row.get("creation_time_ms")),
        ("RUNNING", row.get("start_time_ms")),
        (row["state"], row.get("end_time_ms")),
    )
    env = row.get("runtime_env_info")
    return {
        "events": [{"state": state, "created_ms": at_ms} for state, at_ms in times if at_ms is not None],
        "required_resources": json.loads(row.get("required_resources") or "{}"),
        "runtime_env_info": {"serialized_runtime_env": env} if env else None,
    }


def _counted(tally: Mapping[Any, int], key: Any, more: int = 1) -> dict[Any, int]:
    """In the order of the keys, so that equal tallies look alike."""
    return dict(sorted({**tally, key: tally.get(key, 0) + more}.items(), key=lambda pair: str(pair[0])))


def _task_summary(tally: Sequence[tuple[str, str, str, int]]) -> dict[str, Any]:
    summary: dict[str, dict[str, Any]] = {}
    totals: dict[str, int] = {}
    for name, kind, state, count in sorted(tally):
        entry = summary.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})
        entry["state_counts"] = _counted(entry["state_counts"], state, count)
        totals = _counted(totals, kind, count)
    return {
        "summary": summary,
        "total_tasks": totals.get("NORMAL_TASK", 0),
        "total_actor_tasks": totals.get("ACTOR_TASK", 0),
        "total_actor_scheduled": totals.get("ACTOR_CREATION_TASK", 0),
        "summary_by": "func_name",
    }


def _actor_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = summary.setdefault(row["class_name"], {"class_name": row["class_name"], "state_counts": {}})
        entry["state_counts"] = _counted(entry["state_counts"], row["state"])
    return {"summary": summary, "total_actors": len(rows), "summary_by": "class"}


def _object_summary(tally: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """tally: as of `cluster_listing.object_tally`."""
    summary: dict[str, dict[str, Any]] = {}
    places: dict[str, set[tuple[str, Any]]] = {}
    for one in tally:
        site, count = one["call_site"], one["count"]
        entry = summary.setdefault(
            site,
            {
                "total_objects": 0, "total_size_mb": 0.0, "total_num_workers": 0, "total_num_nodes": 0,
                "task_state_counts": {}, "task_attempt_number_counts": {}, "ref_type_counts": {},
            },
        )  # fmt: skip
        entry["total_objects"] += count
        entry["total_size_mb"] += one["bytes"] / 1024**2
        entry["task_state_counts"] = _counted(entry["task_state_counts"], one["task_status"], count)
        attempts = _counted(entry["task_attempt_number_counts"], str(one["attempt_number"]), count)
        entry["task_attempt_number_counts"] = attempts
        entry["ref_type_counts"] = _counted(entry["ref_type_counts"], one["reference_type"], count)
        places.setdefault(site, set()).update((name, one[name]) for name in ("pid", "ip"))
    for site, entry in summary.items():
        entry["total_num_workers"] = sum(name == "pid" for name, _ in places[site])
        entry["total_num_nodes"] = sum(name == "ip" for name, _ in places[site])
    return {
        "summary": summary,
        "total_objects": sum(one["count"] for one in tally),
        "total_size_mb": sum(entry["total_size_mb"] for entry in summary.values()),
        "callsite_enabled": "disabled" not in summary,
        "summary_by": "callsite",
    }
