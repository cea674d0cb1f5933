"""Who holds what in a session, and why one object is alive: asked of every process and put together.

Processes answer through the agent, one after the other; one that does not answer is named and left out. Each node of a cluster
makes the report of its own (`surveys`), and one is made of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._base import nodes
from umbel._model import ids, reasons

if TYPE_CHECKING:
    from umbel._client.inquiry import Asker

Reason = reasons.Reason
UNKNOWN_NAME = "put, or a task that the history does not have"
DISABLED_SITE = "call sites are off (UMBEL_RECORD_CALL_SITES=1 records them)"
UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
GROUPS = {"STACK_TRACE": "call site or task", "NODE_ADDRESS": "process"}
SORTS = {
    "OBJECT_SIZE": lambda entry: (-entry.size_bytes, entry.object_id),
    "PID": lambda entry: (entry.pid, -entry.size_bytes),
    "REFERENCE_TYPE": lambda entry: (entry.reference_type, -entry.size_bytes),
}
_CALLED = {
    "fork_server": "fork server",
    "environment": "server of an environment",
    "history": "recorder of the history",
    "metrics": "server of metrics",
    "surveyor": "surveyor for other nodes",
}
NAMES_S = 5.0  # for the node whose tasks they are
_TASK_DIGITS = 2 * ids.TaskID.SIZE


class Entry(NamedTuple):
    """One object as its owner tells of it. made: the call site, or else the task's name."""

    object_id: str
    pid: int
    process: str
    made: str
    size_bytes: int
    kind: str
    local: int
    pins: int
    borrowers: int
    node_id: str = ""

    @property
    def reference_type(self) -> str:
        """What counts most of what keeps it: the first of these that holds."""
        if self.kind == "actor":
            return "ACTOR_HANDLE"
        if self.pins:
            return "PINNED"
        if self.local:
            return "LOCAL_REFERENCE"
        return "BORROWED" if self.borrowers else "UNKNOWN"


class Report(NamedTuple):
    """left_out: objects of processes that hold more than they tell one by one: (pid, count, bytes). silent: who does not answer,
    or cannot be reached by others. lineage: the calls that processes keep to compute lost values again: (process, count,
    bytes)."""

    entries: list[Entry]
    processes: list[dict[str, Any]]
    left_out: list[tuple[int, int, int]]
    silent: list[str]
    store: dict[str, Any]
    lineage: list[tuple[str, int, int]]

    @classmethod
    def read(cls, told: Sequence[Any]) -> Report:
        """As JSON has it."""
        entries, processes, left_out, silent, store, lineage = told
        return cls(
            [Entry(*one) for one in entries],
            processes,
            [(one[0], one[1], one[2]) for one in left_out],
            silent,
            store,
            [(one[0], one[1], one[2]) for one in lineage],
        )


def collect(asker: Asker, timeout_s: float = 30.0) -> Report:
    """Of all nodes. Raises UmbelError when the agent does not answer."""
    from umbel._client import cluster_view

    cluster = cluster_view.Cluster(asker, timeout_s)
    if cluster.is_alone:
        return of_node(asker)
    others = cluster.to_survey()
    found = {cluster.own_id: of_node(asker)} if cluster.own_id not in others else {}
    answers = cluster.survey("memory", {one: {} for one in others})
    return merged({**found, **{node_id: Report.read(told) for node_id, told in answers.items()}}, cluster.node.missing)


def merged(reports: Mapping[str, Report], silent: Sequence[str]) -> Report:
    """The reports of several nodes as one. silent: what is said of those that have made none."""
    entries, processes, left_out, lineage, missing = [], [], [], [], [*silent]
    store: dict[str, Any] = {"holders": []}
    for node_id, one in reports.items():
        where = f" of node {node_id[:8]}"
        entries += [entry._replace(process=entry.process + where, node_id=node_id) for entry in one.entries]
        processes += [{**process, "node_id": node_id} for process in one.processes]
        left_out += one.left_out
        lineage += [(process + where, count, size) for process, count, size in one.lineage]
        missing += [f"node {node_id[:8]}: {text}" for text in one.silent]
        for name, value in one.store.items():
            store[name] = store.get(name, []) + value if name == "holders" else store.get(name, 0) + value
    store["holders"].sort(key=lambda holder: -holder["bytes"])
    return Report(entries, processes, left_out, missing, store, lineage)


def of_node(asker: Asker) -> Report:
    """Raises UmbelError when the agent does not answer."""
    processes = asker.query("processes")
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    left_out, silent, lineage = [], [], []
    for process in processes:
        if not process["is_connected"]:
            continue
        try:
            answer = asker.ask(process["id"], "objects", "")
        except exceptions.UmbelError as error:
            silent.append(f"{_called(process)} does not answer: {error}")
            continue
        rows += [(process, row) for row in answer["objects"] if row["owned"]]
        count, size = answer["lineage"]
        if count:
            lineage.append((_called(process), count, size))
        if answer["sought"][0]:
            silent.append(_kept_for_sought(_called(process), *answer["sought"]))
        if answer["left_out"]:
            left_out.append((process["pid"], answer["left_out"], answer["left_out_bytes"]))
    store = asker.query("store")
    unnamed = [row["id"] for _, row in rows if not row["site"] and not row["name"]]
    names, trouble = _names(asker, unnamed)
    if trouble:
        silent.append(f"the names of tasks that have ended are missing: {trouble}")
    entries = [
        Entry(
            row["id"],
            process["pid"],
            _called(process),
            _made(row, names),
            row["size"],
            row["kind"],
            row["local"],
            row["pins"],
            len(row["borrowers"]),
        )
        for process, row in rows
    ]
    return Report(entries, processes, left_out, silent, store, lineage)


def _kept_for_sought(name: str, objects: int, borrowers: int) -> str:
    whom = (
        "a process of another node, to which" if borrowers == 1 else f"{borrowers} processes of other nodes, to which"
    )
    return f"{name} keeps {_count(objects, 'object')} for {whom} its connection has broken, and is being made anew"


def _made(row: dict[str, Any], names: dict[str, str]) -> str:
    if row["site"] or row["kind"] == "actor":
        return str(row["site"] or "actors")
    return str(row["name"] or names.get(row["id"][:_TASK_DIGITS], UNKNOWN_NAME))


def _names(asker: Asker, object_ids: Sequence[str]) -> tuple[dict[str, str], str]:
    """Of the tasks that made these objects, of owners on one node, as far as its history still has them, and why it cannot be
    read, or ""."""
    from umbel._client import cluster_view, task_listing  # not needed where call sites are recorded

    wanted = list(dict.fromkeys(one[:_TASK_DIGITS] for one in object_ids))
    if not wanted:
        return {}, ""
    try:
        tag = nodes.tag_in(wanted[0])
        if asker.is_here and tag == nodes.tag_in(asker.process):
            return task_listing.task_names(asker, wanted), ""
        cluster = cluster_view.Cluster(asker, NAMES_S)
        found: dict[str, str] = cluster.survey_one(
            cluster.tags().get(tag, cluster.own_id), "task_names", {"tasks": wanted}
        )
        return found, ""
    except exceptions.UmbelError as error:
        return {}, str(error)


def _called(process: dict[str, Any]) -> str:
    what = f"actor {process['class_name']}" if process["actor"] else _CALLED.get(process["component"], "")
    where = f" of node {process['node_id'][:8]}" if process.get("node_id") else ""
    return f"{what or process['component']} (pid {process['pid']}){where}"


def check_arguments(group_by: str, sort_by: str, units: str, num_entries: int | None) -> None:
    """Raises InvalidOption for what the summary does not know."""
    for name, value, allowed in (
        ("group_by", group_by, GROUPS),
        ("sort_by", sort_by, SORTS),
        ("units", units, (*UNITS, "AUTO")),
    ):
        if not isinstance(value, str) or value.upper() not in allowed:
            raise exceptions.InvalidOption(f"{name} must be one of {', '.join(allowed)}, got {value!r}", option=name)
    if num_entries is not None and (
        isinstance(num_entries, bool) or not isinstance(num_entries, int) or num_entries < 0
    ):
        raise exceptions.InvalidOption(
            f"num_entries must be a whole number >= 0, got {num_entries!r}; omit it for all", option="num_entries"
        )


def in_words(report: Report, *, group_by: str, sort_by: str, units: str, num_entries: int | None) -> str:
    """A table for each group, the group with most bytes first. The arguments are checked already."""
    by_process = group_by.upper() == "NODE_ADDRESS"
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(report.entries, key=SORTS[sort_by.upper()]):
        groups.setdefault(entry.process if by_process else entry.made, []).append(entry)
    lines: list[str] = []
    for name, entries in sorted(groups.items(), key=lambda pair: -sum(one.size_bytes for one in pair[1])):
        size = sum(one.size_bytes for one in entries)
        lines += [f"{name}: {_count(len(entries), 'object')}, {shown(size, units)}"]
        told = entries if num_entries is None else entries[:num_entries]
        lines += [f"  {line}" for line in _table(told, by_process=by_process, units=units)]
        if len(told) < len(entries):
            lines.append(f"  and {len(entries) - len(told)} more")
        lines.append("")
    for pid, count, size in report.left_out:
        lines.append(f"pid {pid} holds {count} smaller objects as well, {shown(size, units)} in all")
    if not any(":" in entry.made and " in " in entry.made for entry in report.entries):
        lines.append(DISABLED_SITE)
    return "\n".join([*lines, stats(report, units=units)])


def stats(report: Report, *, units: str) -> str:
    """The sums: objects, shared memory, processes."""
    shared = [one.size_bytes for one in report.entries if one.kind == "shared"]
    inline = [one.size_bytes for one in report.entries if one.kind in ("inline", "error")]
    pending = sum(one.kind == "pending" for one in report.entries)
    store = report.store
    used = sum(one["bytes"] for one in store["holders"])
    wanting = f"; {shown(store['wanting_bytes'], units)} of it used by others" if store["wanting_bytes"] else ""
    lines = [
        f"{_count(len(shared), 'object')} in the object store, {shown(sum(shared), units)}; "
        f"{_count(len(inline), 'object')} in their owners' memory, {shown(sum(inline), units)}; {pending} pending",
        f"shared memory: {shown(used, units)} of {shown(store['capacity_bytes'], units)} taken, by "
        + (", ".join(_store_holders(report, units)) or "nobody")
        + wanting,
        f"on disk: {shown(store['spilled_bytes'], units)} in {_count(store['spilled_files'], 'file')}",
        "processes: " + ", ".join(f"{_called(one)} {shown(one['private_bytes'], units)}" for one in report.processes),
        *(
            f"{process} keeps {_count(count, 'call')} to compute lost values again, with {shown(size, units)} of arguments"
            for process, count, size in sorted(report.lineage, key=lambda one: -one[2])
        ),
        *report.silent,
    ]
    return "\n".join(lines)


def _store_holders(report: Report, units: str) -> Iterator[str]:
    called = {one["id"]: _called(one) for one in report.processes}
    for holder in report.store["holders"]:
        if holder["bytes"]:
            is_copies = holder.get("kind") == "daemon"
            other = "copies of other nodes' values" if is_copies else "a process that has ended"
            yield f"{called.get(holder['id'], other)} {shown(holder['bytes'], units)}"


def _table(entries: Sequence[Entry], *, by_process: bool, units: str) -> list[str]:
    """The columns are as wide as they must be."""
    if not entries:
        return []
    rows = [["OBJECT", "SIZE", "KIND", "REFS", "PINS", "BORROWERS", "TYPE", "MADE" if by_process else "OWNER"]]
    rows += [
        [
            one.object_id,
            shown(one.size_bytes, units),
            one.kind,
            str(one.local),
            str(one.pins),
            str(one.borrowers),
            one.reference_type,
            one.made if by_process else one.process,
        ]
        for one in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown(size_bytes: int, units: str) -> str:
    """In the unit asked for; "auto": in the largest that leaves a whole part."""
    unit = units.upper()
    if unit == "AUTO":
        unit = next((one for one in ("GB", "MB", "KB") if size_bytes >= UNITS[one]), "B")
    return f"{size_bytes} B" if unit == "B" else f"{size_bytes / UNITS[unit]:.1f} {unit}"


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


# ---- one object ----


def why_alive(asker: Asker, object_id: str) -> list[Reason]:
    """Everything that keeps an object, of its owner and of each process that borrows it. When its owner does not keep it any
    more, only what is kept to compute it again, if anything is. Raises UmbelError when the owner does not answer."""
    owner = object_id[: 2 * ids.WorkerID.SIZE]
    called = {one["id"]: _called(one) for one in asker.query("processes", node=nodes.tag_in(owner))}
    kept = asker.ask(owner, "keeps", object_id)
    if not kept["known"]:
        return list(_lineage(called.get(owner, "its owner"), kept))
    names, _ = _names(asker, [object_id]) if not kept["site"] and not kept["name"] else ({}, "")
    facts = {"object": object_id, "owner": owner, "size_bytes": kept["size"], "kind": kept["kind"]}
    made = f", made by {kept['site'] or kept['name'] or names.get(object_id[:_TASK_DIGITS], UNKNOWN_NAME)}"
    text = f"has {shown(kept['size'], 'auto')} ({kept['kind']}), is owned by {called.get(owner, 'a process')}{made}"
    found = [Reason(reasons.KEPT, f"object {object_id}", text, facts=facts)]
    found += _in_process(called.get(owner, "its owner"), kept)
    for borrower, grants in kept["borrowers"].items():
        name = called.get(borrower, f"process {borrower[:8]}")
        about = {"process": borrower, "grants": grants}
        if borrower in kept["sought"]:
            text = (
                f"borrows it, and the connection to it has broken: it {kept['sought'][borrower]}. Until it is connected, or "
                "known to be gone, the object is kept for it"
            )
            found.append(Reason(reasons.KEPT, name, text, facts={**about, "is_connected": False}))
            continue
        try:
            theirs = asker.ask(borrower, "keeps", object_id)
        except exceptions.UmbelError as error:
            found.append(Reason(reasons.KEPT, name, f"borrows it, and does not say why: {error}", facts=about))
            continue
        own = list(_in_process(name, theirs)) if theirs["known"] else []
        found += own or [Reason(reasons.KEPT, name, "borrows it, and is about to give it back", facts=about)]
    if len(found) == 1:
        found.append(Reason(reasons.KEPT, "nothing", "is known to keep it: it is about to go"))
    return [*found, *_lineage(called.get(owner, "its owner"), kept)]


def _lineage(name: str, kept: dict[str, Any]) -> Iterator[Reason]:
    """What its owner keeps beside it, or without it, lest it, or what was computed from it, be lost."""
    call = kept["lineage"]
    if call is None:
        return
    needed = (
        f"{_count(call['needed_by'], 'other call')} kept to compute what came of it again" if call["needed_by"] else ""
    )
    if call["name"]:
        text = f"keeps the call of {call['name']} that made it, with {shown(call['size'], 'auto')} of arguments"
        text += f", also for {needed}" if needed else ", to compute it again if it is lost"
    else:
        text = f"could not make it again, since it was put; it is an argument of {needed}"
    about = {
        "process": kept["process"],
        "pid": kept["pid"],
        "lineage_bytes": call["size"],
        "needed_by": call["needed_by"],
    }
    yield Reason(reasons.KEPT, name, text, facts=about)


def _in_process(name: str, kept: dict[str, Any]) -> Iterator[Reason]:
    def reason(text: str, advice: str = "", **facts: Any) -> Reason:
        return Reason(reasons.KEPT, name, text, advice, {"process": kept["process"], "pid": kept["pid"], **facts})

    if kept["references"]:
        what = "handle to the actor" if kept["kind"] == "actor" else "reference"
        where = "; ".join(dict.fromkeys(kept["where"]))
        advice = "drop what is not needed any more"
        yield reason(f"has {_count(kept['references'], what)}: {where}", advice, references=kept["references"])
    if kept["views"]:
        text = f"reads its memory in place, in {_count(kept['views'], 'value')}"
        yield reason(text, "copy what shall outlive it", views=kept["views"])
    for argument in kept["arguments"]:
        state = "sent to a worker" if argument["sent"] else "not sent yet"
        text = f"passes it to {_count(argument['count'], 'call')} of {argument['name']}, {state}"
        yield reason(text, task=argument["name"], count=argument["count"])
    for container in kept["contained_in"]:
        yield reason(f"keeps object {container}, whose value contains it", contained_in=container)
    if kept["container_count"] > len(kept["contained_in"]):
        yield reason(f"keeps {kept['container_count'] - len(kept['contained_in'])} more whose values contain it")
    for name_of_count, text, advice in (
        ("constructors", "may need it to construct an actor again", "set max_restarts=0, or drop the actor"),
        ("loans", "keeps it until another owner has acknowledged a borrow", ""),
        ("streams", "has not read it from its generator yet", ""),
        (
            "for_good",
            "keeps it for good: a function or class captured a reference, or the program pickled one by itself",
            "pass it as an argument instead",
        ),
    ):
        if kept[name_of_count]:
            yield reason(text, advice, **{name_of_count: kept[name_of_count]})
