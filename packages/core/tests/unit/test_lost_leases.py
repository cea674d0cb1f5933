"""What an owner still hears of a worker of which the lease has ended, though both live: the connection between their daemons
broke, and theirs did not."""

from __future__ import annotations

from umbel._scheduling import dispatch


class Task:
    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.durations = dispatch.Durations()
        self.durations.add(0.001)

    def __repr__(self) -> str:
        return f"task {self.seq}"


def running(*tasks: Task) -> tuple[dispatch.SchedulingClass, dispatch.Lease]:
    """With one worker, which has them all."""
    cls = dispatch.SchedulingClass("f", {}, 0)
    lease = cls.add_lease("w", None, 0.0)
    cls.ready.extend(tasks)
    assert cls.assign() == [(lease, [*tasks])]
    return cls, lease


def test_a_task_that_is_handed_back_after_its_lease_was_lost_waits_once() -> None:
    first, second = Task(1), Task(2)
    cls, lease = running(first, second)
    assert cls.lose_lease("w", None) == ([first, second], [])  # nobody can say what had begun
    cls.ready.extend([first, second])  # they may be tried again
    assert cls.take_back(lease, [2]) == []
    assert [*cls.ready] == [first, second]


def test_a_task_that_is_handed_back_while_another_worker_has_it_runs_there() -> None:
    first, second = Task(1), Task(2)
    cls, lease = running(first, second)
    assert cls.lose_lease("w", 1) == ([first], [second])
    other = cls.add_lease("w2", None, 1.0)
    assert cls.assign() == [(other, [second])]
    assert cls.take_back(lease, [2]) == []
    assert not cls.ready
    assert list(other.inflight) == [2]


def test_a_task_that_has_ended_after_all_is_not_begun_again_and_is_left_alone_where_it_has_been() -> None:
    first, second = Task(1), Task(2)
    cls, _lease = running(first, second)
    assert cls.lose_lease("w", 1) == ([first], [second])
    assert cls.withdraw(second)
    assert not cls.ready
    assert not cls.withdraw(second)
    cls.ready.append(first)
    other = cls.add_lease("w2", None, 1.0)
    assert cls.assign() == [(other, [first])]
    assert not cls.withdraw(first)
    assert list(other.inflight) == [1]


def test_what_had_begun_is_told_from_what_had_not() -> None:
    first, second, third = Task(1), Task(2), Task(3)
    assert running(first, second, third)[0].lose_lease("w", 2) == ([first, second], [third])
    assert running(first, second, third)[0].lose_lease("w", -1) == ([], [first, second, third])
    assert running(first)[0].lose_lease("other", None) == ([], [])


def test_a_lease_that_has_ended_is_not_one_of_the_same_worker_that_came_later() -> None:
    cls, lease = running(Task(1))
    assert cls.has(lease)
    cls.lose_lease("w", None)
    assert not cls.has(lease)
    again = cls.add_lease("w", None, 1.0)
    assert (cls.has(lease), cls.has(again)) == (False, True)
