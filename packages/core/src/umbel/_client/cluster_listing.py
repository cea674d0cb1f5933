"""What all nodes of a cluster have of tasks, actors, objects, workers and all else: each node lists its own, here that is put
together.

A node that is alone is asked directly. Of several, this one's own are listed here, and every other lists its own by a process
for that (`surveys`), at the same time, as many rows as may be wanted of it; `merging` makes one page of them. A node that does
not answer is named in what is missing. A task belongs to the node of the process that has submitted it, and may run on another
one: so what runs is asked of all nodes first.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from umbel._base import nodes as node_ids
from umbel._client import cluster_view, inquiry, listing, merging, node_view, task_listing
from umbel._client import timeline as timelines
from umbel._history import conditions

TRACE_PAGE_ROWS = 5_000  # some 2 MB
PID_SPAN = 10_000_000  # above all process ids, so that those of different nodes differ in a trace

Row = dict[str, Any]
Running = Mapping[str, Mapping[str, Sequence[Any]]]  # by the tag of the owner's node, by task


# ---- tasks ----


class _Tasks:
    """A question about tasks of a cluster: what runs has been asked of all nodes."""

    def __init__(self, cluster: cluster_view.Cluster, wanted: Sequence[conditions.Condition] = ()) -> None:
        self.cluster = cluster
        self.tags = cluster.tags()
        self.pids: dict[str, int] = {}
        self._wanted_pids: dict[str, int] = {}
        self._running: dict[str, dict[str, Sequence[Any]]] = {}
        if cluster.is_alone:
            return
        others = cluster.to_survey()
        answers = list(cluster.survey("running", {one: {} for one in others}).values())
        if cluster.own_id not in others:
            processes = cluster.node.query("owners")
            _, runs_here = task_listing.running(cluster.node, processes)
            answers.append({"running": runs_here, "pids": {one["id"]: one["pid"] for one in processes}})
        for answer in answers:
            self.pids.update(answer["pids"])
            for task, facts in answer["running"].items():
                self._running.setdefault(node_ids.tag_in(task), {})[task] = facts
        by_pid = [one for one in wanted if one.column == "worker_pid"]
        if by_pid:
            few = [one for one in by_pid if one.operator in ("=", "in")]  # others most pids meet
            self._wanted_pids = {
                id: pid for id, pid in self.pids.items() if conditions.all_met(few, {"worker_pid": pid})
            }

    def elsewhere(self, node_id: str) -> task_listing.Elsewhere:
        """Of use to this node."""
        running = self._running.get(node_ids.tag_text(node_id), {})
        return task_listing.Elsewhere(self.tags, running, self._wanted_pids)

    def asked(self, node_ids: Iterable[str], **more: Any) -> dict[str, dict[str, Any]]:
        """What to ask these nodes."""
        return {one: {"elsewhere": list(self.elsewhere(one)), **more} for one in node_ids}

    def with_pids(self, rows: Iterable[Row]) -> Iterator[Row]:
        """An owner does not know those of other nodes' workers."""
        for row in rows:
            if row["worker_pid"] is None and row["worker_id"] is not None:
                row["worker_pid"] = self.pids.get(row["worker_id"])
            yield row


def tasks(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """path: of a history that was kept; then no session is asked."""
    if asker is None:
        return task_listing.of_history(path, request)
    cluster = cluster_view.Cluster(asker, request.timeout_s)
    if cluster.is_alone:
        return task_listing.of_node(cluster.node, cluster.own_id, request)
    question = _Tasks(cluster, request.wanted)
    others = cluster.to_survey()
    size = merging.page_rows(request, len(others))

    def of_own(own: node_view.Request) -> node_view.Listing:
        return task_listing.of_node(cluster.node, cluster.own_id, own, question.elsewhere(cluster.own_id))

    found = _merged(cluster, "tasks", request, size, question.asked(others), of_own)
    return found._replace(rows=list(question.with_pids(found.rows)))


def task_tally(
    asker: inquiry.Asker | None, request: node_view.Request, *, path: str = ""
) -> tuple[task_listing.Tally, list[str], list[str]]:
    """(name, type, state, how many) of all tasks that meet the conditions; what is missing; notes. path: as for `tasks`."""
    if asker is None:
        return task_listing.tally_of_history(path, request)
    cluster = cluster_view.Cluster(asker, request.timeout_s)
    if cluster.is_alone:
        return task_listing.tally_of_node(cluster.node, cluster.own_id, request)
    question = _Tasks(cluster, request.wanted)
    others = cluster.to_survey()
    tallies = []
    if cluster.own_id not in others:
        own = task_listing.tally_of_node(cluster.node, cluster.own_id, request, question.elsewhere(cluster.own_id))
        tallies.append(own.tally)
        cluster.node.notes += own.notes
    for node_id, told in cluster.survey("task_tally", question.asked(others, request=request.encoded())).items():
        tally, missing, notes = told
        tallies.append(tally)
        cluster.note(node_id, missing, notes)
    return merging.summed(tallies, key_size=3), cluster.node.missing, cluster.node.notes


# ---- all else ----


def _merged(
    cluster: cluster_view.Cluster,
    kind: str,
    request: node_view.Request,
    size: int,
    asked: Mapping[str, Mapping[str, Any]],
    of_own: Callable[[node_view.Request], node_view.Listing],
) -> node_view.Listing:
    """size: of the pages of other nodes. asked: of each of these. of_own: lists this node's, if it is not among them."""
    node = cluster.node
    first = request._replace(limit=size, offset=0)
    answers = cluster.survey(kind, {one: {**about, "request": first.encoded()} for one, about in asked.items()})

    def more(node_id: str, at: int) -> list[Row]:
        page = {**asked[node_id], "request": first._replace(offset=at).encoded()}
        rows: list[Row] = cluster.survey_one(node_id, kind, page)["rows"]
        return rows

    streams: dict[str, Iterable[Row]] = {}
    total = 0
    for node_id, told in answers.items():
        cluster.note(node_id, told["missing"], told["notes"])
        total += told["total"]
        streams[node_id] = merging.rows_of(told["rows"], told["total"], size, functools.partial(more, node_id))
    if cluster.own_id not in asked:
        whole = None if request.limit is None else request.limit + request.offset
        own = of_own(request._replace(limit=whole, offset=0))
        node.missing += [text for text in own.missing if text not in node.missing]
        node.notes += [text for text in own.notes if text not in node.notes]
        total += own.total
        streams[cluster.own_id] = own.rows
    rows = merging.merged([streams[node_id] for node_id in sorted(streams)], request)
    return node_view.Listing(rows, total, node.missing, node.notes)


def _of_all(
    kind: str,
    of_node: Callable[[node_view.Node, Row, node_view.Request], node_view.Listing],
    asker: inquiry.Asker,
    request: node_view.Request,
) -> node_view.Listing:
    """What each node lists for itself."""
    cluster = cluster_view.Cluster(asker, request.timeout_s)
    facts = cluster.facts[0]
    if cluster.is_alone:
        return of_node(cluster.node, facts, request)
    others = cluster.to_survey()
    size = merging.page_rows(request, len(others))
    asked: dict[str, dict[str, Any]] = {one: {} for one in others}
    return _merged(cluster, kind, request, size, asked, lambda own: of_node(cluster.node, facts, own))


def workers(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """path: as for `tasks`. A history knows of no driver."""
    if asker is None:
        return listing.workers_of_history(path, request)
    return _of_all("workers", listing.workers_of_node, asker, request)


def objects(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    return _of_all("objects", listing.objects_of_node, asker, request)


def runtime_envs(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    return _of_all("runtime_envs", listing.runtime_envs_of_node, asker, request)


def object_tally(asker: inquiry.Asker, request: node_view.Request) -> tuple[list[Row], list[str]]:
    """What is alike among the objects that meet the conditions: the columns `own_state.COUNTED`, "count" and "bytes"; and
    what is missing."""
    from umbel._client import own_state

    cluster = cluster_view.Cluster(asker, request.timeout_s)
    others = [] if cluster.is_alone else cluster.to_survey()
    tallies: list[Any] = []
    for node_id, told in cluster.survey(
        "object_tally", {one: {"request": request.encoded()} for one in others}
    ).items():
        tallies.append(told["tally"])
        cluster.note(node_id, told["missing"], ())
    if cluster.own_id not in others:
        tallies.append(listing.object_tally_of_node(cluster.node, cluster.facts[0], request))
    names = (*own_state.COUNTED, "count", "bytes")
    summed = merging.summed(tallies, key_size=len(own_state.COUNTED))
    return [dict(zip(names, one, strict=True)) for one in summed], cluster.node.missing


def actors(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """The head knows those that live; its history has those that died, and that of a node those it had to do with. path: as for
    `tasks`."""
    if asker is None:
        return listing.actors_of_history(path, request)
    cluster = cluster_view.Cluster(asker, request.timeout_s)
    node, facts = cluster.node, cluster.facts[0]
    living = node.query("actors")
    dead = listing.dead_actors(node) if node.is_here else []
    if not cluster.is_alone:
        heads = [one["node_id"] for one in cluster.facts if one["is_head"] and one["alive"]]
        wanted = [one for one in {*heads, cluster.own_id} if one != cluster.own_id or not node.is_here]
        for node_id, told in cluster.survey("dead_actors", {one: {} for one in wanted}).items():
            dead += told["dead"]
            cluster.note(node_id, told["missing"], told["notes"])
    return node_view.filtered(listing.actors(facts, living, dead), request, node.missing, node.notes)


KINDS: dict[str, Callable[[inquiry.Asker, node_view.Request], node_view.Listing]] = {
    "actors": actors,
    "cluster_events": listing.cluster_events,
    "jobs": listing.jobs,
    "nodes": listing.nodes,
    "objects": objects,
    "placement_groups": listing.placement_groups,
    "runtime_envs": runtime_envs,
    "tasks": tasks,
    "workers": workers,
}
KEPT = ("actors", "tasks", "workers")  # what a history that was kept has


# ---- what ran when ----


def timeline(asker: inquiry.Asker | None, timeout_s: float = 30.0, *, path: str = "") -> Iterator[timelines.Event]:
    """The trace events of all tasks that run or have ended, with a warning for what is missing. path: as for `tasks`. Raises
    UmbelSystemError."""
    now_s = time.time()
    by_start = node_view.Request(order=task_listing.BY_START, wanted=task_listing.STARTED)
    lost = node_view.Request(wanted=task_listing.LOST)
    if asker is None:
        with_workers = node_view.opened(path)
        processes = {one["worker"]: timelines.Process(one["pid"], False) for one in with_workers.workers()}
        started: Iterable[Row] = task_listing.ended(with_workers, by_start)
        yield from timelines.events(
            itertools.chain(started, task_listing.ended(node_view.opened(path), lost)), processes, now_s
        )
        return
    yield from _Trace(asker, timeout_s).events(now_s, by_start, lost)


class _Trace:
    """Of all nodes."""

    def __init__(self, asker: inquiry.Asker, timeout_s: float) -> None:
        self._asker = asker
        self._timeout_s = timeout_s
        self._cluster = cluster = cluster_view.Cluster(asker, timeout_s)
        self._question = question = _Tasks(cluster)
        others = [] if cluster.is_alone else cluster.to_survey()
        self._begun: dict[str, task_listing.Begun] = {}
        if cluster.own_id not in others:
            own = task_listing.begun_of_node(cluster.node, cluster.own_id, question.elsewhere(cluster.own_id))
            self._begun[cluster.own_id] = own
        for node_id, told in cluster.survey("begun", question.asked(others)).items():
            self._begun[node_id] = task_listing.Begun(*told)
        for text in cluster.node.missing:
            warnings.warn(text, stacklevel=2)

    def events(self, now_s: float, by_start: node_view.Request, lost: node_view.Request) -> Iterator[timelines.Event]:
        running = [row for begun in self._begun.values() for row in begun.running]
        told = {(row["task_id"], row["attempt_number"]) for row in running}
        streams = [sorted(running, key=_start), *(self._ended(one, by_start, told) for one in self._begun)]
        started = self._question.with_pids(heapq.merge(*streams, key=_start))
        others = itertools.chain.from_iterable(self._ended(one, lost, told) for one in self._begun)
        yield from timelines.events(itertools.chain(started, others), self._processes(), now_s)

    def _ended(self, node_id: str, request: node_view.Request, told: set[tuple[str, int]]) -> Iterator[Row]:
        """What has ended of one node's, but for what was told to run."""
        found = self._own(request) if node_id == self._cluster.own_id and self._cluster.node.is_here else None
        for row in found if found is not None else self._pages(node_id, request):
            if (row["task_id"], row["attempt_number"]) not in told:
                yield row

    def _own(self, request: node_view.Request) -> Iterator[Row]:
        elsewhere = self._question.elsewhere(self._cluster.own_id)
        return task_listing.ended(node_view.opened(self._begun[self._cluster.own_id].path), request, elsewhere)

    def _pages(self, node_id: str, request: node_view.Request) -> Iterator[Row]:
        at = 0
        while True:
            page = request._replace(limit=TRACE_PAGE_ROWS, offset=at)
            cluster = cluster_view.Cluster(self._asker, self._timeout_s)  # each page has its time
            asked = {**self._question.asked([node_id])[node_id], "request": page.encoded()}
            rows: list[Row] = cluster.survey_one(node_id, "ended", asked)
            yield from rows
            if len(rows) < TRACE_PAGE_ROWS:
                return
            at += len(rows)

    def _processes(self) -> dict[str, timelines.Process]:
        """Where there are several nodes, each with numbers of its own."""
        found = {}
        for number, (node_id, begun) in enumerate(self._begun.items()):
            for process, pid, is_driver in begun.processes:
                called = f"(pid {pid} on node {node_id[:8]})" if len(self._begun) > 1 else ""
                found[process] = timelines.Process(pid + number * PID_SPAN, is_driver, called)
        return found


def _start(row: Row) -> float:
    return float(row["started_s"])
