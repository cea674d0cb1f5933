"""Tasks that are drawn to a node: which workers get them, and for how long they wait for those."""

from __future__ import annotations

from typing import Any

from umbel._scheduling import dispatch

A, B = "aa" * 6, "bb" * 6


class Task:
    def __init__(self, seq: int, durations: dispatch.Durations | None = None) -> None:
        self.seq = seq
        self.durations = durations or dispatch.Durations()

    def __repr__(self) -> str:
        return f"task {self.seq}"


def made(*nodes: str) -> dispatch.SchedulingClass:
    """With one idle worker of each of these nodes."""
    cls = dispatch.SchedulingClass("f", {}, 0)
    for number, node in enumerate(nodes):
        cls.add_lease(f"{number:08}{node}{'0' * 12}", None, 0.0)
    return cls


def wait(cls: dispatch.SchedulingClass, *tasks: Task, drawn_to: str = "", until_s: float = 1.0) -> None:
    for task in tasks:
        cls.ready.append(task)
        if drawn_to:
            cls.drawn[task.seq] = dispatch.Drawn(drawn_to, until_s)


def pushed(cls: dispatch.SchedulingClass) -> list[tuple[str, list[int]]]:
    return [(lease.node, [task.seq for task in batch]) for lease, batch in cls.assign()]


def waiting(cls: dispatch.SchedulingClass) -> list[int]:
    return [task.seq for task in cls.ready]


def test_a_worker_of_the_node_gets_it_and_no_other() -> None:
    cls = made(A, B)
    wait(cls, Task(1), Task(2), drawn_to=B)
    assert pushed(cls) == [(B, [1])]
    assert pushed(cls) == []
    assert waiting(cls) == [2]
    assert cls.where_drawn() == {B: 1}


def test_others_are_not_held_up_and_get_what_workers_are_left() -> None:
    cls = made(A, B)
    wait(cls, Task(1), Task(2), drawn_to=B)
    wait(cls, Task(3), Task(4))
    assert pushed(cls) == [(B, [1]), (A, [3])]
    assert waiting(cls) == [2, 4]


def test_the_least_busy_of_the_nodes_workers_gets_it() -> None:
    cls = made(B, B)
    quick = dispatch.Durations()
    quick.add(0.000_01)
    wait(cls, *(Task(seq, quick) for seq in range(4)), drawn_to=B)
    assert [seqs for _, seqs in pushed(cls)] == [[0, 2], [1, 3]]


def test_whoever_is_idle_elsewhere_is_none_for_what_is_drawn() -> None:
    cls = made(A)
    wait(cls, Task(1), drawn_to=B)
    assert pushed(cls) == []
    assert cls.wanted(0.0) == 1


def test_after_its_time_any_worker_gets_it() -> None:
    cls = made(A)
    wait(cls, Task(1), drawn_to=B, until_s=0.5)
    assert cls.let_go(0.4) == 0.5
    assert pushed(cls) == []
    assert cls.let_go(0.5) is None
    assert pushed(cls) == [(A, [1])]


def test_an_idle_worker_of_the_node_is_found_at_once() -> None:
    cls = made(A, B)
    found = cls.idle_lease_at(B)
    assert found is not None and found.node == B
    found.is_reclaimed = True
    assert cls.idle_lease_at(B) is None
    wait(cls, Task(1))
    assert cls.idle_lease_at(A) is None  # others wait


def test_of_many_only_the_first_are_looked_at() -> None:
    cls = made(A)
    wait(cls, *(Task(seq) for seq in range(dispatch.DRAWN_LOOKED_AT_MAX)), drawn_to=B)
    wait(cls, Task(1_000), Task(1_001), drawn_to=B)
    told: list[Any] = pushed(cls)
    assert told == [(A, [1_000])]  # there is more than enough to do at B
    assert waiting(cls)[0] == 0
    assert waiting(cls)[-1] == 1_001
