"""umbel.util.multiprocessing.assignment: which worker runs which chunk."""

from __future__ import annotations

import random

from umbel.util.multiprocessing.assignment import (
    Assignment,
    Command,
    Kill,
    Run,
    Start,
    Stop,
)


def opened(workers: int, chunks_per_worker_max: int | None = None) -> Assignment:
    pool = Assignment(workers, chunks_per_worker_max)
    assert pool.opened() == [Start(worker) for worker in range(workers)]
    return pool


def test_a_worker_gets_a_chunk_when_it_has_none() -> None:
    pool = opened(2)
    assert [pool.submitted(chunk) for chunk in range(4)] == [[Run(0, 0)], [Run(1, 1)], [], []]
    assert pool.finished(1, 1) == [Run(1, 2)]
    assert pool.finished(1, 2) == [Run(1, 3)]  # nothing waits behind chunk 0, which takes long


def test_a_dead_worker_is_replaced_and_its_chunk_is_not_repeated() -> None:
    pool = opened(1)
    assert [pool.submitted(chunk) for chunk in range(2)] == [[Run(0, 0)], []]
    assert pool.died(0) == [Start(1), Run(1, 1)]
    assert pool.died(0) == []
    assert pool.finished(0, 0) == []


def test_a_spent_worker_is_replaced() -> None:
    pool = opened(1, chunks_per_worker_max=2)
    assert [pool.submitted(chunk) for chunk in range(3)] == [[Run(0, 0)], [], []]
    assert pool.finished(0, 0) == [Run(0, 1)]
    assert pool.finished(0, 1) == [Stop(0), Start(1), Run(1, 2)]


def test_a_closed_pool_ends_when_its_work_has_ended() -> None:
    pool = opened(2)
    pool.submitted(0)
    assert pool.closed() == [Stop(1)]
    assert not pool.is_over
    assert pool.finished(0, 0) == [Stop(0)]
    assert pool.is_over


def test_a_worker_that_dies_after_close_is_replaced_only_if_work_waits() -> None:
    pool = opened(1)
    assert [pool.submitted(chunk) for chunk in range(2)] == [[Run(0, 0)], []]
    assert pool.closed() == []
    assert pool.died(0) == [Start(1), Run(1, 1)]
    assert pool.died(1) == []
    assert pool.is_over


def test_termination_kills_and_gives_up_what_waits() -> None:
    pool = opened(1)
    assert [pool.submitted(chunk) for chunk in range(2)] == [[Run(0, 0)], []]
    assert pool.terminated() == [Kill(0)]
    assert pool.is_over
    assert pool.finished(0, 0) == []


def test_any_order_of_events_runs_every_chunk_once_and_ends() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        per_worker = chance.choice([None, 1, 2, 5])
        pool = Assignment(chance.randint(1, 4), per_worker)
        alive: set[int] = set()
        given: dict[int, int] = {}
        running: list[tuple[int, int]] = []
        ran: list[int] = []

        def carry_out(commands: list[Command]) -> None:
            for command in commands:
                if isinstance(command, Start):
                    alive.add(command.worker)
                elif isinstance(command, Run):
                    assert command.worker in alive, seed
                    given[command.worker] = given.get(command.worker, 0) + 1
                    assert per_worker is None or given[command.worker] <= per_worker, seed
                    running.append((command.worker, command.chunk))
                    ran.append(command.chunk)
                elif isinstance(command, Stop):
                    assert all(worker != command.worker for worker, _ in running), seed
                    alive.remove(command.worker)
                else:
                    raise AssertionError(f"{command} without a termination, seed {seed}")

        carry_out(pool.opened())
        chunks, submitted, is_closed = chance.randint(0, 30), 0, False
        while not pool.is_over:
            choices = ["submit"] * (submitted < chunks) + ["finish", "finish", "die"] * bool(running)
            choices += ["close"] * (submitted == chunks and not is_closed)
            event = chance.choice(choices)
            if event == "submit":
                carry_out(pool.submitted(submitted))
                submitted += 1
            elif event == "close":
                is_closed = True
                carry_out(pool.closed())
            elif event == "finish":
                worker, chunk = running.pop(chance.randrange(len(running)))
                carry_out(pool.finished(worker, chunk))
            else:
                dead = chance.choice(running)[0]
                running[:] = [(worker, chunk) for worker, chunk in running if worker != dead]
                alive.remove(dead)
                carry_out(pool.died(dead))
        assert ran == list(range(chunks)), seed
        assert not alive, seed
