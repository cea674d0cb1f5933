"""Deliberate defects, each of which the simulated world must find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple

from umbel.data._engine import (
    assignments,
    capacity,
    events,
    exchanges,
    flow,
    following,
    pools,
    runs,
    scheduling,
    splits,
)


class Defect(NamedTuple):
    """signs: what the message of the failure may begin with."""

    apply: Callable[[], AbstractContextManager[None]]
    signs: tuple[str, ...]


def _instead(owner: Any, name: str, replacement: Any, *signs: str) -> Defect:
    @contextmanager
    def planted() -> Iterator[None]:
        before = owner.__dict__[name]
        setattr(owner, name, replacement)
        try:
            yield
        finally:
            setattr(owner, name, before)

    return Defect(planted, signs)


def _handler(event: type, replacement: Any, *signs: str) -> Defect:
    return _instead(scheduling.Machine, "_handlers", {**scheduling.Machine._handlers, event: replacement}, *signs)


def _first_come(order: flow.Order, _task: int, piece: events.Piece) -> None:
    order._emit(piece)


def _from_the_beginning(assigned: assignments.Assignments, task: runs.Task, **options: Any) -> None:
    """What is tried again gives all of its blocks again."""
    _begin_attempt(assigned, task, **options)
    command = assigned._commands[-1]
    assigned._commands[-1] = command._replace(skipped_blocks=0)  # type: ignore[union-attr,call-arg]


def _never_given_up(machine: scheduling.Machine, event: events.TaskFailed) -> None:
    _on_failed(machine, event._replace(is_lost=True))


def _given_up_at_once(machine: scheduling.Machine, event: events.TaskFailed) -> None:
    options, machine.options = machine.options, dataclasses.replace(machine.options, retries_max=0)
    _on_failed(machine, event)
    machine.options = options


def _without_the_last(run: exchanges.ExchangeRun, number: int, partition: int) -> tuple[events.Piece, ...]:
    pieces = _shards_of(run, number, partition)
    return pieces[:-1] if len(pieces) > 1 and run.count != 1 else pieces


def _without_a_share(run: exchanges.ExchangeRun, partition: int) -> list[runs.Plan]:
    """Of a partition that several tasks share, what the last one would do."""
    plans = _plans(run, partition)
    return plans[:-1] if len(plans) > 1 else plans


def _let_go_early(run: exchanges.ExchangeRun) -> None:
    """Of what every task is given, when the first one has it."""
    if run.whole is not None and run._next_partition:
        edge = run.edges[run.whole]
        while edge.pieces:
            piece = edge.pop()
            run.services.ledger.unpark(piece)
            run.services.ledger.let_go([piece])


def _more_than_wanted(pool: pools.Pool, ready_count: int) -> int:
    return _wanted(pool, ready_count) + 1 if ready_count else 0


def _unmarked(run: runs.LimitRun) -> None:
    """What is above goes on."""
    run._is_over = True
    run.edges[0].is_wanted = False
    run.services.ledger.let_go(run.edges[0].pieces)
    run.edges[0].pieces.clear()


def _unbalanced(run: splits.SplitRun) -> None:
    edge = run.edges[0]
    while edge.pieces:
        run._give(min(range(run.stage.count), key=lambda one: run.rows[one]), edge.pop())


def _all_there_is(_run: runs.MapRun, edge: flow.Edge, _free_count: int) -> int:
    return len(edge.pieces)


def _left_running(assigned: assignments.Assignments, actor: int) -> None:
    assigned.capacity.remove_actor(actor)


def _taken_for_good(_following: following.Following, task: runs.Task | None) -> None:
    if task is not None:
        for attempt in task.attempts.values():
            attempt.is_paused = False


class _Careless(flow.Ledger):
    def need(self, pieces: Any) -> None:
        """Not at all."""


def _unkept(edge: flow.Edge, row_count: int, _ledger: flow.Ledger) -> list[events.Piece]:
    """A block in two parts is needed once."""
    return _take_rows(edge, row_count, _Careless())


_on_failed = scheduling.Machine._on_failed
_begin_attempt = assignments.Assignments.begin_attempt
_shards_of = exchanges.ExchangeRun._shards_of
_plans = exchanges.ExchangeRun._plans
_wanted = pools.Pool.wanted
_take_rows = flow.Edge.take_rows
_MACHINE: Final = scheduling.Machine

DEFECTS: Final[Mapping[str, Defect]] = {
    "first-come-first-emitted": _instead(flow.Order, "add", _first_come, "F1"),
    "budget-ignored": _instead(_MACHINE, "usage_bytes", property(lambda _: 0), "F2"),
    "heap-ignored": _instead(assignments.Assignments, "has_heap", lambda *_: True, "F6"),
    "models-forgotten": _instead(pools.Pool, "holds", lambda *_: None, "F6"),
    "nothing-forced": _instead(following.Following, "follow", lambda *_: None, "F3"),
    "paused-keep-their-cpus": _instead(following.Following, "_let_go_on", _taken_for_good, "F3"),
    "limit-goes-on": _instead(runs.LimitRun, "_stop", _unmarked, "F7"),
    "actors-left": _instead(assignments.Assignments, "stop_actor", _left_running, "F4", "F6", "F3"),
    "part-not-kept": _instead(flow.Edge, "take_rows", _unkept, "F5", *"123456789-"),  # a block that the ledger misses
    "tried-on-and-on": _instead(runs.Task, "is_alone", property(lambda _: True), "F9", "not enough values", "too many"),
    "again-from-the-beginning": _instead(assignments.Assignments, "begin_attempt", _from_the_beginning, "F1"),
    "user-error-tried-again": _handler(events.TaskFailed, _never_given_up, "F8", "F9"),
    "given-up-at-once": _handler(events.TaskFailed, _given_up_at_once, "F9"),
    "shard-forgotten": _instead(exchanges.ExchangeRun, "_shards_of", _without_the_last, "F1", "F5", "something is left"),
    "share-forgotten": _instead(exchanges.ExchangeRun, "_plans", _without_a_share, "F1", "F5", "something is left"),
    "whole-side-let-go-early": _instead(exchanges.ExchangeRun, "_let_go_of_whole", _let_go_early, "F1", "F5"),
    "too-many-actors": _instead(pools.Pool, "wanted", _more_than_wanted, "F6"),
    "parts-written-together": _instead(runs.MapRun, "_bundle_of_part", _all_there_is, "F1"),
    "unequal-split": _instead(splits.SplitRun, "_spread", _unbalanced, "F1"),
    "more-cpus-than-there-are": _instead(capacity.Capacity, "free_count", lambda *_: 1, "F6", "F3"),
}  # fmt: skip
