"""Ended tasks that are only written down, looked through as they are.

To make a row of a task takes several microseconds; to look at it in its batch, whose columns are numbers, a twentieth of
that. Beside each batch stands a digest: how many tasks each group has, and between which values ids and ends lie. By that,
questions look into few batches. So whoever asks a busy session does not wait for rows to be made. No
SQLite here: `store` reads the batches, and puts what is found here together with the rows that there are.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umbel._history import batches, codes, conditions, selections

Condition = conditions.Condition
Order = tuple[str, bool] | None
Key = tuple[Any, ...]
Tally = dict[tuple[str, str, str], int]
_TEMPLATE_COLUMNS = {"name": "name", "func_or_class_name": "function", "type": "type", "actor_id": "actor"}
_WORKER_COLUMNS = {"node_id": 0, "worker_pid": 1}
_OWN_COLUMNS = ("task_id", "error_type", "creation_time_ms", "start_time_ms", "end_time_ms")  # the others, groups have


class Names(NamedTuple):
    """What the store knows of processes. owners: the numbers by which it sorts them; workers: (node, pid) of each."""

    owners: dict[str, int]
    workers: Mapping[str, tuple[Any, Any]]


class Recent:
    """Batches that are only written down, as of one moment."""

    def __init__(self, parts: Sequence[Part], names: Names) -> None:
        for part in parts:  # owners that the store does not know get the numbers that it will give them
            for owner in part.owners:
                names.owners.setdefault(owner, len(names.owners) + 1)
            part.names = names
        self.names = names
        self._parts = parts

    def count(self, wanted: Sequence[Condition]) -> int:
        """How many tasks meet the conditions."""
        return sum(part.count(wanted) for part in self._parts)

    def ended(
        self, process: str, attempt: int, ranges: Sequence[Sequence[int]], wanted: Sequence[Condition]
    ) -> Iterator[int]:
        """As `store.Store.ended`, in any order."""
        for part in self._parts:
            yield from part.ended(process, attempt, ranges, wanted)

    def tally(self, wanted: Sequence[Condition]) -> Tally:
        """How many of each (name, type, state) do."""
        tally: Tally = {}
        for part in self._parts:
            for key, count in part.tally(wanted):
                tally[key] = tally.get(key, 0) + count
        return tally

    def first(self, wanted: Sequence[Condition], order: Order, count: int) -> list[tuple[Key, Part, int]]:
        """The first so many of those that meet the conditions: (key, part, place in it)."""
        column, is_descending = order or ("task_id", False)
        side = 1 if is_descending else 0
        parts = [(part.bounds(column)[side], part) for part in self._parts if part.count(wanted)]
        parts.sort(key=operator.itemgetter(0), reverse=is_descending)
        comes_later = operator.lt if is_descending else operator.gt
        found: list[tuple[Key, Part, int]] = []
        for bound, part in parts:
            if len(found) >= count and (not found or comes_later(bound, found[-1][0][: len(bound)])):
                break  # and so do those behind it
            rows = part.sorted(part.rows(wanted), column, is_descending)[:count]
            found += zip(part.keys(column, rows), itertools.repeat(part), rows)
            found.sort(key=operator.itemgetter(0), reverse=is_descending)
            del found[count:]
        return found


class Part:
    """One batch, read without its numbers; `load` reads those. Its tasks are called by their place in it."""

    def __init__(self, batch: batches.Batch, digest: batches.Digest, load: Callable[[], batches.Batch]) -> None:
        self.names: Names  # as of the moment of the question
        self._batch = batch
        self._digest = digest
        self._load = load
        self._whole: batches.Batch | None = None
        self._columns: dict[int, Sequence[float]] = {}
        self._failures = {one.row: one for one in batch.failures}
        self._groups_found: tuple[Any, set[int]] = None, set()
        self._rows_found: tuple[Any, Sequence[int]] = None, ()

    @property
    def owners(self) -> list[str]:
        """The processes that it names as owners of tasks, in order."""
        return [self._batch.owner, *dict.fromkeys(parent[: batches.PROCESS_DIGITS] for parent in self._batch.parents)]

    def _column(self, number: int) -> Sequence[float]:
        if self._whole is None:
            self._whole = self._load()
        if number not in self._columns:
            self._columns[number] = self._whole.column(number)
        return self._columns[number]

    def _started(self, row: int) -> float | None:
        duration_s = self._column(codes.DURATION)[row]
        return self._column(codes.ENDED)[row] - duration_s if duration_s >= 0 else None

    # ---- which tasks ----

    def count(self, wanted: Sequence[Condition]) -> int:
        """How many meet the conditions."""
        if any(one.column in _OWN_COLUMNS for one in wanted):
            return len(self.rows(wanted))
        return sum(map(self._digest.counts.__getitem__, self._meeting_groups(wanted)))

    def tally(self, wanted: Sequence[Condition]) -> Iterator[tuple[tuple[str, str, str], int]]:
        """((name, type, state), how many) of each group, of those that meet the conditions."""
        if any(one.column in _OWN_COLUMNS for one in wanted):
            groups = self._column(codes.GROUP) if self.rows(wanted) else ()
            counts: Mapping[Any, int] = Counter(groups[row] for row in self.rows(wanted))
        else:
            counts = {group: self._digest.counts[group] for group in self._meeting_groups(wanted)}
        for number, count in counts.items():
            group = self._batch.groups[int(number)]
            template = self._batch.templates[group.template - 1]
            yield (template.name, template.type, codes.STATES[group.state]), count

    def rows(self, wanted: Sequence[Condition]) -> Sequence[int]:
        """Which meet the conditions. Kept: one question counts and lists."""
        if self._rows_found[0] is not wanted:
            self._rows_found = wanted, self._rows(wanted)
        return self._rows_found[1]

    def ended(
        self, process: str, attempt: int, ranges: Sequence[Sequence[int]], wanted: Sequence[Condition]
    ) -> Iterator[int]:
        """The numbers of tasks of that process, in the ranges and of that attempt, that meet the conditions."""
        first, last = self._digest.seqs
        near = sorted((one for one in ranges if one[0] <= last and one[1] >= first), key=operator.itemgetter(0))
        if process != self._batch.owner or not near or not self.count(wanted):
            return
        firsts = [one[0] for one in near]
        seqs, groups = self._column(codes.SEQ), self._column(codes.GROUP)
        for row in self.rows(wanted):
            seq = int(seqs[row])
            place = bisect.bisect_right(firsts, seq) - 1
            if place >= 0 and seq <= near[place][1] and self._batch.groups[int(groups[row])].attempt == attempt:
                yield seq

    def _rows(self, wanted: Sequence[Condition]) -> Sequence[int]:
        groups = self._meeting_groups(wanted)
        rows: Sequence[int] = range(self._digest.row_count) if groups else ()
        if groups and groups <= self._failed_groups:
            rows = sorted(self._failures)  # few, as a rule
            if groups == self._failed_groups:
                return self._own_met(wanted, rows)
        rows = self._own_met(wanted, rows)
        if rows and len(groups) < len(self._digest.counts):
            column = self._column(codes.GROUP)
            of_rows = column if isinstance(rows, range) else map(column.__getitem__, rows)
            rows = list(itertools.compress(rows, map(groups.__contains__, of_rows)))
        return rows

    @functools.cached_property
    def _failed_groups(self) -> set[int]:
        """Those whose tasks failed, if it is told of each why; else none."""
        counts = self._digest.counts
        found = {number for number in counts if self._batch.groups[number].state == codes.FAILED}
        return found if sum(counts[number] for number in found) == len(self._failures) else set()

    def _own_met(self, wanted: Sequence[Condition], rows: Sequence[int]) -> Sequence[int]:
        """Those of `rows` that meet the conditions on what each task has for itself."""
        for one in wanted:
            if one.column in _OWN_COLUMNS and rows:
                rows = self._meeting(one, rows)
        return rows

    def _meeting_groups(self, wanted: Sequence[Condition]) -> set[int]:
        """Those with tasks, which meet the conditions on what a group's tasks share. Kept as well."""
        if self._groups_found[0] is not wanted:
            groups = set(self._digest.counts)
            for one in wanted:
                if one.column not in _OWN_COLUMNS:
                    groups &= self._groups(one)
            self._groups_found = wanted, groups
        return self._groups_found[1]

    def _groups(self, one: Condition) -> set[int]:
        """The groups whose tasks meet a condition on what they share."""
        batch, column = self._batch, one.column
        values: Mapping[int, Any] | Sequence[Any]
        if column in _TEMPLATE_COLUMNS:
            field = "template"
            values = [None, *(getattr(template, _TEMPLATE_COLUMNS[column]) or None for template in batch.templates)]
        elif column == "worker_id":
            field, values = "worker", [None, *batch.workers]
        elif column in _WORKER_COLUMNS:
            known, place = self.names.workers, _WORKER_COLUMNS[column]
            field, values = "worker", [None, *(known.get(worker, (None, None))[place] for worker in batch.workers)]
        elif column == "parent_task_id":
            field, values = "parent", [None, *batch.parents]
        elif column == "state":
            field, values = "state", codes.STATES
        elif column == "attempt_number":
            field, values = "attempt", {group.attempt: group.attempt for group in batch.groups}
        else:  # all tasks of the batch share it
            is_met = one.is_met({**selections.CONSTANT, "job_id": batch.job})
            return set(range(len(batch.groups))) if is_met else set()
        items = values.items() if isinstance(values, Mapping) else enumerate(values)
        met = {number for number, value in items if one.is_met({column: value})}
        place = batches.Group._fields.index(field)
        return {number for number, group in enumerate(batch.groups) if group[place] in met}

    def _meeting(self, one: Condition, rows: Sequence[int]) -> Sequence[int]:
        """Those of `rows` that meet a condition on what each task has for itself."""
        if one.operator in ("<", ">"):
            return self._compared(one, rows)
        given = one.value if one.operator == "in" else [one.value]
        wanted: set[Any] = {value.lower() if isinstance(value, str) else value for value in given}
        is_wanted = one.operator != "!="
        values: Mapping[int, Any] | Sequence[Any]
        if one.column == "error_type":
            types = {row: failure.type.lower() for row, failure in self._failures.items()}
            if is_wanted and None not in wanted:
                found = rows if isinstance(rows, range) else set(rows)
                return [row for row in sorted(types) if types[row] in wanted and row in found]
            return [row for row in rows if (types.get(row) in wanted) is is_wanted]
        if one.column == "task_id":
            owner = self._batch.owner
            wanted = {_seq(text) for text in wanted if text and f"{owner}{_seq(text):016x}" == text}
        least, most = self._between(one.column)
        if None not in wanted and not any(least <= value <= most for value in wanted):
            return () if is_wanted else rows
        values = self._column(codes.SEQ) if one.column == "task_id" else self._milliseconds(one.column)
        return [row for row in rows if (values[row] in wanted) is is_wanted]

    def _compared(self, one: Condition, rows: Sequence[int]) -> Sequence[int]:
        """Those of `rows` with a time before, or after, that of the condition."""
        compare = operator.lt if one.operator == "<" else operator.gt
        least, most = self._between(one.column)
        if compare(least, one.value) and compare(most, one.value) and least > 0:  # 0: one is not known, perhaps
            return rows
        if not compare(least, one.value) and not compare(most, one.value):
            return ()
        times = self._milliseconds(one.column)
        return [row for row in rows if (value := times[row]) is not None and compare(value, one.value)]

    def _between(self, column: str) -> tuple[float, float]:
        """Between which values, as they are listed, a column's lie."""
        least, most = (key[-1] for key in self.bounds(column))
        return (least, most) if column == "task_id" else (int(least * 1e3), int(most * 1e3))

    def _milliseconds(self, column: str) -> list[int | None]:
        """A time of each task, as it is listed."""
        if column == "creation_time_ms":
            return [int(at_s * 1e3) if at_s else None for at_s in self._column(codes.SUBMITTED)]
        ended = self._column(codes.ENDED)
        if column == "end_time_ms":
            return [int(at_s * 1e3) for at_s in ended]
        return [
            int((at_s - duration_s) * 1e3) if duration_s >= 0 else None
            for at_s, duration_s in zip(ended, self._column(codes.DURATION), strict=True)
        ]

    # ---- in which order ----

    def _keys(self, column: str) -> Sequence[float]:
        """By what tasks of one owner are sorted first; 0.0 where the time is not known."""
        if column == "task_id":
            return self._column(codes.SEQ)
        if column == "creation_time_ms":
            return self._column(codes.SUBMITTED)
        if column == "end_time_ms":
            return self._column(codes.ENDED)
        return [
            at_s - duration_s if duration_s >= 0 else 0.0
            for at_s, duration_s in zip(self._column(codes.ENDED), self._column(codes.DURATION), strict=True)
        ]

    def bounds(self, column: str) -> tuple[Key, Key]:
        """Beginnings of keys, of which none of its tasks is before the first or after the second."""
        if column == "task_id":
            rank = self.names.owners[self._batch.owner]
            return (rank, self._digest.seqs[0]), (rank, self._digest.seqs[1])
        first_s, last_s = self._digest.ended
        return (first_s if column == "end_time_ms" else 0.0,), (last_s,)  # nothing begins after it has ended

    def sorted(self, rows: Sequence[int], column: str, is_descending: bool) -> list[int]:
        keys, seqs, groups = self._keys(column), self._column(codes.SEQ), self._column(codes.GROUP)
        attempts = [group.attempt for group in self._batch.groups]
        if column == "task_id" and not any(attempts):
            return sorted(rows, key=keys.__getitem__, reverse=is_descending)
        return sorted(rows, key=lambda row: (keys[row], seqs[row], attempts[int(groups[row])]), reverse=is_descending)

    def keys(self, column: str, rows: Sequence[int]) -> Iterator[Key]:
        """As `key_of` makes them of rows."""
        rank = self.names.owners[self._batch.owner]
        attempts = [group.attempt for group in self._batch.groups]
        keys, seqs, groups = self._keys(column), self._column(codes.SEQ), self._column(codes.GROUP)
        if column == "task_id":
            return ((rank, seqs[row], attempts[int(groups[row])]) for row in rows)
        return ((keys[row], rank, seqs[row], attempts[int(groups[row])]) for row in rows)

    # ---- what they are ----

    def _group(self, row: int) -> batches.Group:
        return self._batch.groups[int(self._column(codes.GROUP)[row])]

    def selected(self, row: int) -> tuple[Any, ...]:
        """Its columns, as `store` selects them; of a row that was found."""
        batch, group = self._batch, self._group(row)
        template = batch.templates[group.template - 1]
        parent = batch.parents[group.parent - 1] if group.parent else ""
        worker = batch.workers[group.worker - 1] if group.worker else None
        node, pid = self.names.workers.get(worker or "", (None, None))
        failure = self._failures.get(row)
        return (
            batch.owner, int(self._column(codes.SEQ)[row]), group.attempt, *template[:6], group.state, batch.job,
            parent[: batches.PROCESS_DIGITS] or None, _seq(parent) if parent else None, worker, node, pid,
            self._column(codes.SUBMITTED)[row] or None, self._started(row), self._column(codes.ENDED)[row],
            failure.type if failure else None, failure.message if failure else None, template.call_site,
        )  # fmt: skip


def key_of(row: Mapping[str, Any], order: Order, owners: Mapping[str, int]) -> Key:
    """By what a row, a dictionary as listings have it, is sorted."""
    task_id = row["task_id"]
    task = owners[task_id[: batches.PROCESS_DIGITS]], _seq(task_id), row["attempt_number"]
    column = order[0] if order is not None else "task_id"
    if column == "task_id":
        return task
    seconds = {"creation_time_ms": "submitted_s", "start_time_ms": "started_s", "end_time_ms": "ended_s"}
    return (row[seconds[column]] or 0.0, *task)


def _seq(task_id: str) -> int:
    """-1 for what is no id of a task."""
    if len(task_id) != batches.TASK_DIGITS:
        return -1
    try:
        return int(task_id[batches.PROCESS_DIGITS :], 16)
    except ValueError:
        return -1
