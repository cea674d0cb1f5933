"""What all listings share: what is asked for, the node that is asked within a time-out, and the page of what is found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import inquiry, own_state
from umbel._history import conditions
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._history import store

Row = dict[str, Any]
Order = tuple[str, bool] | None


class Request(NamedTuple):
    """What is asked for. order: column, and whether descending; timeout_s: for all of it."""

    wanted: Sequence[conditions.Condition] = ()
    order: Order = None
    limit: int | None = None
    offset: int = 0
    timeout_s: float = 30.0

    def encoded(self) -> list[Any]:
        """As JSON has it; `read` is the inverse."""
        return list(self)

    @classmethod
    def read(cls, told: Sequence[Any]) -> Request:
        wanted, order, limit, offset, timeout_s = told
        by: Order = (order[0], order[1]) if order is not None else None
        return cls([conditions.Condition(*one) for one in wanted], by, limit, offset, timeout_s)


class Listing(NamedTuple):
    """rows: those asked for. total: how many meet the conditions. missing: why rows may be missing, in words. notes:
    what is not there any more, in words."""

    rows: list[Row]
    total: int
    missing: list[str]
    notes: list[str]


class Node:
    """One node's state, looked at within a time-out."""

    def __init__(self, asker: inquiry.Asker, timeout_s: float) -> None:
        self.asker = asker
        self._until_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self.missing: list[str] = []
        self.notes: list[str] = []

    @property
    def is_here(self) -> bool:
        """Whether its files can be read."""
        return self.asker.is_here

    def left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    def query(self, what: str) -> Any:
        self.check_time()
        return self.asker.query(what)

    def gather(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, Row]:
        """See `inquiry.Asker`."""
        self.check_time()
        return self.asker.gather(what, abouts, limit_s)

    def check_time(self) -> None:
        if time.monotonic() > self._until_s:
            raise exceptions.GetTimeoutError(
                f"the node did not tell its state within {self._timeout_s:g} s; allow more by timeout="
            )

    def ask_all(self, what: str, about: str, processes: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
        """(process, answer) of each that answers."""
        for process in processes:
            answer = self.ask(process, what, about)
            if answer is not None:
                yield process, answer

    def ask_pages(self, process: Row, what: str, asked: own_state.Question) -> Iterator[Row]:
        """A process's answers, until it has told all. Rows that come by id are asked for until there are enough."""
        left = asked.limit
        in_order = asked.order is None or asked.order[0] == "task_id"
        while True:
            answer = self.ask(process, what, asked.encoded())
            if answer is None:
                return
            yield answer
            if answer["more"] is None:
                return
            if left is not None and in_order:
                left -= len(answer["rows"])
            asked = asked._replace(after=answer["more"], limit=left)

    def ask(self, process: Row, what: str, about: str) -> Row | None:
        """Its answer; None if there is none, which is noted unless it has just ended."""
        self.check_time()
        try:
            return self.asker.ask(process["id"], what, about)
        except exceptions.UmbelError as error:
            if any(one["id"] == process["id"] for one in self.query("owners")):
                self.missing.append(f"process {process['id'][:8]} (pid {process['pid']}) does not answer: {error}")
            return None

    def runtime_env(self, process: Row) -> dict[str, Any] | None:
        """The environment in which a process runs, as the option is written; None if it does not answer."""
        self.check_time()
        try:
            found: dict[str, Any] = self.asker.ask(process["id"], "runtime_env", "")["runtime_env"]
        except exceptions.UmbelError as error:
            self.notes.append(
                f"the runtime_env of process {process['id'][:8]} (pid {process['pid']}) is not known: {error}"
            )
            return None
        return found

    def history(self) -> store.Store | None:
        """The history of this node, with all in it that had ended; None when nothing is recorded."""
        found = self.query("history")
        if found["trouble"]:
            self.missing.append(f"what has ended is not known: {found['trouble']}")
            return None
        return opened(found["path"])

    def history_if_on(self) -> store.Store | None:
        """The same for what lists the living in the first place: that nothing is recorded is only noted."""
        found = self.query("history")
        if not found["is_on"]:
            self.notes.append(f"the dead are not listed: {found['trouble']}")
            return None
        return self.history()


def opened(path: str) -> store.Store:
    """A history. Raises UmbelSystemError when it cannot be read."""
    from umbel._history import store

    try:
        return store.Store(path)
    except store.Error as error:
        raise exceptions.UmbelSystemError(f"the history in {path} cannot be read: {error}") from error


def host_of(node: Row) -> str:
    """At which others reach it, without the port. node: as the agent tells it."""
    return str(node["address"].rpartition(":")[0].strip("[]") or resource_model.NODE_ADDRESS)


def page(rows: list[Row], request: Request, owners: Mapping[str, int] | None = None) -> list[Row]:
    """Those that are asked for. owners: for tasks by id, which come as in the history, each owner's number there."""
    column, is_descending = request.order or ("", False)
    if owners is not None and column in ("", "task_id"):
        rows = sorted(rows, key=lambda row: _task_key(row, owners), reverse=is_descending)
    elif column or (rows and "task_id" in rows[0]):
        rows = sorted(rows, key=lambda row: own_state.sort_key(row, column or "task_id"), reverse=is_descending)
    end = None if request.limit is None else request.offset + request.limit
    return rows[request.offset : end]


def _task_key(row: Row, owners: Mapping[str, int]) -> tuple[Any, ...]:
    number = owners.get(row["task_id"][:32])
    return number is None, number or 0, row["task_id"], row["attempt_number"]


def filtered(rows: Sequence[Row], request: Request, missing: list[str], notes: list[str]) -> Listing:
    met = [row for row in rows if conditions.all_met(request.wanted, row)]
    return Listing(page(met, request), len(met), missing, notes)
