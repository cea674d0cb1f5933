"""The scheduler's decisions, by lists of events."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.data._engine import events, exchanges, scheduling, stages
from umbel.data._engine.events import (
    ActorReady,
    Began,
    BlockMade,
    CancelTask,
    ConsumerDone,
    Cost,
    Deliver,
    Fail,
    Finish,
    PauseTask,
    Release,
    ResumeTask,
    StartActor,
    StartTask,
    StopActor,
    TaskEnded,
    TaskFailed,
    TimePassed,
    Took,
)

MIB = 1 << 20
CPUS = {"CPU": 2.0}


def nothing(*_arguments: Any) -> Any:
    raise AssertionError("nothing runs here")


def read(count: int, size_bytes: int | None = 10, **options: Any) -> stages.Read:
    return stages.Read(name="read", parts=[stages.ReadPart(nothing, size_bytes=size_bytes)] * count, **options)


def mapped(stage: stages.Stage, **options: Any) -> stages.Map:
    return stages.Map(name="map", input=stage, transforms=(), **options)


class Told:
    """A machine with the commands that it gave, a list for each event."""

    def __init__(
        self,
        plan: stages.Stage,
        *,
        budget_bytes: int = MIB,
        cpus: float = 2.0,
        memory: float | None = None,
        **options: Any,
    ) -> None:
        self.machine = scheduling.Machine(plan, scheduling.Options(budget_bytes, **options))
        self.blocks = 0
        self.began = self.tell(Began({"CPU": cpus} if memory is None else {"CPU": cpus, "memory": memory}, 0.0))

    def tell(self, event: events.Event) -> list[events.Command]:
        commands = self.machine.apply(event)
        self.machine.check()
        return commands

    def made(self, task: int, rows: int = 1, size_bytes: int = 10, at_s: float = 1.0) -> list[events.Command]:
        self.blocks += 1
        return self.tell(BlockMade(task, 1, self.blocks, rows, size_bytes, at_s))

    def ended(self, task: int, at_s: float = 1.0, wall_s: float = 0.1) -> list[events.Command]:
        return self.tell(TaskEnded(task, 1, Cost(wall_s, wall_s, 0), at_s))


def kinds(commands: list[events.Command]) -> list[type]:
    return [type(command) for command in commands]


def of(kind: type, commands: list[events.Command]) -> list[Any]:
    return [command for command in commands if isinstance(command, kind)]


def test_as_many_tasks_begin_as_there_are_cpus_and_end_with_the_run() -> None:
    told = Told(read(3))
    assert [(one.task, one.number) for one in of(StartTask, told.began)] == [(1, 0), (2, 1)]
    assert kinds(told.made(1)) == [Deliver]
    assert [one.number for one in of(StartTask, told.ended(1))] == [2]
    told.made(2)
    told.ended(2)
    told.made(3)
    assert of(Finish, told.ended(3)) == [Finish()]
    assert kinds(told.tell(Took(1, 2.0))) == [Release]


def test_blocks_come_in_the_order_of_tasks() -> None:
    told = Told(read(2))
    assert told.made(2) == []
    assert told.ended(2) == []
    assert [one.piece.block for one in of(Deliver, told.made(1))] == [2]
    assert [one.piece.block for one in of(Deliver, told.ended(1))] == [1]


def test_blocks_come_as_they_are_made_where_order_is_not_kept() -> None:
    told = Told(read(2), keeps_order=False)
    assert [one.piece.block for one in of(Deliver, told.made(2))] == [1]


def test_task_is_paused_when_the_budget_is_used_up_and_resumed_when_the_consumer_takes() -> None:
    told = Told(read(2, size_bytes=None, block_bytes=100), budget_bytes=850)
    assert len(of(StartTask, told.began)) == 2
    assert of(PauseTask, told.made(1, size_bytes=800))[-1:] == [PauseTask(1, 1)]
    assert told.made(2, size_bytes=500) == [PauseTask(2, 1)]
    assert told.tell(Took(1, 2.0)) == [ResumeTask(1, 1), Release(1)]  # the one whose turn it is


def test_one_task_runs_whatever_the_budget_and_no_second() -> None:
    told = Told(read(3, size_bytes=1_000), budget_bytes=1)
    assert [one.task for one in of(StartTask, told.began)] == [1]
    assert kinds(told.made(1, size_bytes=1_000)) == [Deliver, PauseTask]  # the consumer has something: all wait for it
    assert kinds(told.tell(Took(1, 1.5))) == [ResumeTask, Release]
    assert [one.task for one in of(StartTask, told.ended(1))] == [2]


def test_what_a_task_takes_of_heap_is_learnt() -> None:
    told = Told(read(9, size_bytes=0), memory=1_000)
    told.made(1, size_bytes=0)
    assert heaped(told, 1, 600) == []  # two of them do not fit
    told.made(2, size_bytes=0)
    assert heaped(told, 2, 600) == [3]
    assert len(told.machine.runs[0].tasks) == 1


def heaped(told: Told, task: int, heap_bytes: int, held_bytes: int = 0) -> list[Any]:
    """The tasks that begin when this one has ended."""
    commands = told.tell(TaskEnded(task, 1, Cost(0.1, 0.1, heap_bytes, held_bytes), 1.0))
    return [one.task for one in of(StartTask, commands)]


def test_first_task_of_a_stage_shows_what_its_like_take() -> None:
    told = Told(read(9, size_bytes=0), cpus=4.0, memory=600, learns_first=True)
    assert [one.task for one in of(StartTask, told.began)] == [1]
    assert heaped(told, 1, 200) == [2, 3, 4]  # of four CPUs
    assert heaped(told, 2, 200) == [5]


def test_task_of_which_nothing_is_known_is_taken_for_the_largest_that_is() -> None:
    inputs = (read(9, size_bytes=0), read(9, size_bytes=0))
    told = Told(stages.Union(inputs=inputs), cpus=4.0, memory=600, learns_first=True)
    assert [one.stage for one in of(StartTask, told.began)] == [0, 1]
    assert heaped(told, 1, 200) == [3, 4]  # the other stage's first one is one of three
    assert heaped(told, 2, 300) == [5]  # of the first stage, which goes before


def test_what_a_task_is_said_to_take_is_what_counts() -> None:
    told = Told(read(9, size_bytes=0, resources=stages.Resources(memory_bytes=400)), cpus=4.0, memory=1_000)
    assert len(of(StartTask, told.began)) == 2
    assert len(heaped(told, 1, 1)) == 1


def test_task_that_is_larger_than_all_there_is_runs_alone() -> None:
    told = Told(read(9, size_bytes=0), cpus=4.0, memory=600, learns_first=True)
    assert heaped(told, 1, 700) == [2]
    assert heaped(told, 2, 700) == [3]


def test_actors_are_as_many_as_their_models_fit_in() -> None:
    pool = stages.ActorPool(min_size=1, max_size=9)
    told = Told(mapped(read(9), compute=pool, bundle_bytes=1), cpus=9.0, memory=700, learns_first=True)
    started: list[int] = [one.actor for one in of(StartActor, told.began)]
    for task in range(1, 10):
        commands = [*told.made(task), *told.ended(task)]
        started += [one.actor for one in of(StartActor, commands)]
    assert started == [1]  # whatever there is to do, until it is known what one holds
    told.tell(ActorReady(1, 2.0, held_bytes=200))
    assert len(told.machine.runs[1].pool.starting) == 2  # 600


def test_first_actor_of_another_stage_has_its_model_left_to_it() -> None:
    pool = stages.ActorPool(min_size=1, max_size=9)
    first = mapped(read(9), compute=pool, bundle_bytes=1)
    told = Told(mapped(first, compute=pool, bundle_bytes=1), cpus=9.0, memory=700, learns_first=True)
    for task in range(1, 10):
        told.made(task)
        told.ended(task)
    told.tell(ActorReady(1, 2.0, held_bytes=200))
    assert len(told.machine.runs[1].pool.starting) == 1  # and 200 for the stage behind


def test_limit_cancels_what_is_above_it() -> None:
    told = Told(stages.Limit(input=read(100), row_count=3))
    commands = told.made(1, rows=5)
    (delivered,) = of(Deliver, commands)
    assert delivered.piece.row_count == 3
    assert of(CancelTask, commands) == [CancelTask(1, 1), CancelTask(2, 1)]
    assert commands[-1] == Finish()
    assert told.made(2) == [Release(2)]


def test_limit_of_nothing_starts_nothing() -> None:
    assert Told(stages.Limit(input=read(100), row_count=0)).began[-1] == Finish()


def test_consumer_that_leaves_ends_the_run() -> None:
    told = Told(mapped(read(3), compute=stages.ActorPool(max_size=1)))
    told.made(1)
    commands = told.tell(ConsumerDone(0, 2.0))
    assert of(StopActor, commands) == [StopActor(1)]
    assert commands[-1] == Release(1)
    assert Finish() in commands


def test_small_blocks_are_taken_together() -> None:
    blocks = [stages.Block(nothing, stages.Metadata(1, 8)) for _ in range(100)]
    told = Told(mapped(stages.Input(blocks=blocks)))
    sizes = [len(one.pieces[0]) for one in of(StartTask, told.began)]
    assert sizes == [25, 25]  # two tasks for each CPU in all


def test_batches_wait_until_they_are_full() -> None:
    told = Told(mapped(read(3), bundle_rows=4))
    assert of(StartTask, told.made(1, rows=3)) == []
    told.ended(1)
    told.made(3, rows=0)
    (started,) = of(StartTask, [*told.made(2, rows=1), *told.ended(2)])
    assert [piece.row_count for piece in started.pieces[0]] == [3, 1]


def test_actors_are_started_with_the_work_and_ended_with_it() -> None:
    told = Told(mapped(read(2), compute=stages.ActorPool(max_size=5), resources=stages.Resources(num_cpus=0.0)))
    assert of(StartActor, told.began) == []
    assert of(StartActor, told.made(1)) == [StartActor(1, 1, True)]
    assert of(StartTask, told.tell(ActorReady(1, 1.0)))[0].actor == 1
    told.ended(1)
    told.ended(2)
    assert StopActor(1) in [*told.made(3), *told.ended(3)]


def test_idle_actors_end_after_a_while() -> None:
    told = Told(mapped(read(2), compute=stages.ActorPool(max_size=5), resources=stages.Resources(num_cpus=0.0)))
    told.made(1)
    told.tell(ActorReady(1, 1.0))
    told.made(3)
    told.ended(3)
    assert told.machine.next_wake_s is not None
    assert of(StopActor, told.tell(TimePassed(11.0))) == [StopActor(1)]


def test_first_actor_has_no_cpu_where_tasks_would_be_left_without() -> None:
    told = Told(mapped(read(2), compute=stages.ActorPool(max_size=5)), cpus=1.0)
    assert of(StartActor, told.made(1)) == [StartActor(1, 1, False)]


NODES = {"CPU": 4.0, "node:a": 1.0, "node:__internal_head__": 1.0, "node:b": 1.0}


@pytest.mark.parametrize(
    ("resources", "cpus", "actors"),
    [({"CPU": 4.0}, 0.5, 6), (NODES, 0.5, 3), (NODES, 1.0, 3), ({"CPU": 4.0}, 1.5, 2), (NODES, 1.5, 1)],
)
def test_actors_on_several_nodes_leave_a_task_all_of_its_cpus_on_one(
    resources: dict[str, float], cpus: float, actors: int
) -> None:
    pool = stages.ActorPool(max_size=9)
    plan = mapped(read(20), compute=pool, resources=stages.Resources(num_cpus=cpus), bundle_bytes=10)
    machine = scheduling.Machine(plan, scheduling.Options(MIB))
    commands = machine.apply(Began(resources, 0.0))
    started = 0
    for task in range(1, 16):
        for event in (BlockMade(task, 1, task, 1, 10, 1.0), TaskEnded(task, 1, Cost(1.0, 1.0, 0), 1.0)):
            commands = machine.apply(event)
            started += len([one for one in of(StartActor, commands) if one.has_cpus])
    assert started == actors


def test_lost_task_is_tried_again_from_where_it_stood() -> None:
    told = Told(read(1))
    told.made(1)
    (again,) = of(StartTask, told.tell(TaskFailed(1, 1, OSError("gone"), True, 2.0)))
    assert (again.task, again.attempt, again.skipped_blocks) == (1, 2, 1)


def test_users_error_ends_the_run() -> None:
    told = Told(read(2))
    error = ValueError("no")
    commands = told.tell(TaskFailed(2, 1, error, False, 2.0))
    assert commands == [CancelTask(1, 1), Fail(error, "read", 2)]


def test_what_is_late_is_tried_once_more_and_the_first_block_decides() -> None:
    told = Told(read(6), cpus=6.0)
    for task in range(1, 6):
        told.made(task, at_s=0.2)
        told.ended(task, at_s=0.2)
    assert told.machine.next_wake_s == pytest.approx(1.0)
    (again,) = of(StartTask, told.tell(TimePassed(1.1)))
    assert (again.task, again.attempt) == (6, 2)
    commands = told.tell(BlockMade(6, 2, 99, 1, 10, 1.2))
    assert of(CancelTask, commands) == [CancelTask(6, 1)]
    assert told.tell(BlockMade(6, 1, 100, 1, 10, 1.3)) == [Release(100)]


def test_stall_is_told_with_reasons_less_and_less_often() -> None:
    told = Told(mapped(read(2)))
    assert told.machine.next_wake_s == 10.0
    (warning,) = told.tell(TimePassed(10.0))
    assert warning == events.Warn(10.0, {"read": "tasks", "map": "input"})
    assert told.machine.next_wake_s == 20.0


def exchange(stage: stages.Stage, **options: Any) -> stages.Exchange:
    return stages.Exchange(name="exchange", inputs=(stage,), partition=(nothing,), reduce=nothing, **options)


def test_little_is_not_divided() -> None:
    told = Told(exchange(read(2)))
    told.made(1)
    told.ended(1)
    told.made(2)
    (started,) = of(StartTask, told.ended(2))
    assert (started.kind, started.number, started.partition_count) == (events.REDUCE, 0, 1)
    assert [piece.block for piece in started.pieces[0]] == [1, 2]


def test_partitions_are_as_many_as_the_bytes_want() -> None:
    told = Told(exchange(read(2), partition_bytes=15, bundle_bytes=15))
    told.made(1, size_bytes=30)
    told.ended(1)
    told.made(2, size_bytes=10)
    started = of(StartTask, told.ended(2))
    assert [(one.kind, one.partition_count) for one in started] == [(events.PARTITION, 3)] * 2
    for task in (3, 4):
        for _ in range(3):
            told.made(task, size_bytes=5)
    told.ended(3)
    reductions = of(StartTask, told.ended(4))
    assert [(one.kind, one.number) for one in reductions] == [(events.REDUCE, 0), (events.REDUCE, 1)]
    assert [piece.block for piece in reductions[0].pieces[0]] == [3, 6]


def test_number_of_partitions_does_not_depend_on_which_task_was_quick() -> None:
    """An estimate, by what has come and how many tasks have ended meanwhile, was another one in each order, and so was that of
    the rows."""
    counts = []
    for plan in (read(8), mapped(read(8), bundle_bytes=1)):
        for order in ([1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 1, 2, 3, 4]):
            told = Told(exchange(plan, partition_bytes=30, partition_count_max=99), cpus=8.0)
            for first in (1, 9) if isinstance(plan, stages.Map) else (1,):
                for task in range(first, first + 8):
                    told.made(task, size_bytes=30 if task % 8 else 90)
                for task in order:
                    told.ended(first + task - 1)
            counts.append(told.machine.runs[-1].count)  # type: ignore[attr-defined]  # an exchange's
    assert counts == [8, 8, 10, 10]


def test_partitions_of_a_read_are_counted_before_all_is_there() -> None:
    """Once four would be full, by what the parts that are here as a whole have."""
    told = Told(exchange(read(10), partition_bytes=30, bundle_bytes=30), cpus=11.0)
    for task in range(1, 6):
        started = of(StartTask, told.made(task, size_bytes=30))
        assert [one.kind for one in started] == ([] if task < 5 else [events.PARTITION])
        told.ended(task)
    assert told.machine.runs[-1].count == 10  # type: ignore[attr-defined]  # an exchange's


@pytest.mark.parametrize("options", [{"bundle_rows": 1}, {"is_steady": True, "bundle_bytes": 1}])
def test_and_behind_maps_whose_tasks_are_the_same_each_time(options: dict[str, Any]) -> None:
    told = Told(exchange(mapped(read(10), **options), partition_bytes=30, bundle_bytes=30), cpus=30.0)
    for task in range(1, 11):
        told.made(task)
        told.ended(task)
    for task in range(11, 16):
        started = of(StartTask, told.made(task, size_bytes=30))
        assert {one.kind for one in started} == ({events.PARTITION} if task == 15 else set())
        told.ended(task)
    assert told.machine.runs[-1].count == 10  # type: ignore[attr-defined]  # an exchange's


def test_boundaries_are_made_from_samples_of_whoever_made_the_blocks() -> None:
    told = Told(exchange(read(2), partition_count=2, sample=nothing, boundaries=nothing))
    told.made(2)
    told.ended(2)
    told.made(1)
    assert told.ended(1) == [events.MakeBoundaries(1, (1, 2), 2)]
    dividing = of(StartTask, told.tell(events.BoundariesMade(1, 2.0)))
    assert {one.kind for one in dividing} == {events.PARTITION}


def test_samples_are_taken_of_blocks_that_no_task_makes_or_whose_task_samples_for_another() -> None:
    source = read(1)
    first = exchange(source, partition_count=2, sample=nothing, boundaries=nothing)
    second = exchange(source, partition_count=2, sample=nothing, boundaries=nothing)
    told = Told(stages.Union(inputs=(first, second)))
    told.made(1)
    commands = told.ended(1)
    assert of(events.MakeBoundaries, commands) == [events.MakeBoundaries(1, (1,), 2)]
    (sampling,) = of(StartTask, commands)
    assert (sampling.kind, sampling.stage) == (events.SAMPLE, 2)
    assert of(events.MakeBoundaries, told.ended(2)) == [events.MakeBoundaries(2, (2,), 2)]
    limited = Told(
        exchange(stages.Limit(input=read(1), row_count=1), partition_count=2, sample=nothing, boundaries=nothing)
    )
    assert [one.kind for one in of(StartTask, limited.made(1))] == [events.SAMPLE]


def test_boundaries_by_place_are_made_of_numbers_of_rows() -> None:
    told = Told(exchange(read(1), partition_count=2, boundaries=nothing))
    told.made(1, rows=4)
    told.made(1, rows=3)
    assert told.ended(1) == [events.MakeBoundaries(1, (), 2, (4, 3))]


def join(**options: Any) -> stages.Exchange:
    given = {"inputs": (read(3), read(1)), "whole": (1,), "bundle_bytes": 10, **options}
    return stages.Exchange(name="join", partition=(nothing,) * 2, reduce=nothing, **given)


def test_small_side_of_a_join_goes_to_every_task_and_the_other_is_not_divided() -> None:
    told = Told(join(), cpus=9.0)
    assert [one.stage for one in of(StartTask, told.began)] == [1, 0, 0, 0]  # the small side first
    told.made(1)
    assert of(StartTask, told.made(2)) == []
    (first,) = of(StartTask, told.ended(1))
    told.ended(2)
    (second,) = of(StartTask, told.made(3))
    assert [(one.kind, one.number, one.partition_count) for one in (first, second)] == [
        (events.REDUCE, 0, 0),
        (events.REDUCE, 1, 0),
    ]
    assert [[[piece.block for piece in some] for some in one.pieces] for one in (first, second)] == [
        [[2], [1]],
        [[3], [1]],
    ]
    for task in (3, 4, first.task):
        told.ended(task)
    assert of(Release, told.ended(second.task)) == [Release(3), Release(1)]


def test_broadcast_takes_what_there_is_while_workers_are_idle_but_not_where_tasks_must_be_the_same_each_time() -> None:
    for is_steady in (False, True):
        told = Told(join(is_steady=is_steady), cpus=9.0)
        told.made(1)
        told.ended(1)
        started = of(StartTask, told.made(2))
        assert [one.kind for one in started] == ([] if is_steady else [events.REDUCE])


def test_broadcast_to_nothing_is_one_task_whatever_the_budget() -> None:
    """Nothing of it was ready as far as was counted, and so nothing was forced."""
    plan = join(inputs=(stages.Input(name="none", blocks=[]), read(1)))
    told = Told(plan, budget_bytes=0)
    told.made(1)
    (started,) = of(StartTask, told.ended(1))
    assert [len(some) for some in started.pieces] == [0, 1]


def test_what_passes_through_a_broadcast_counts_against_the_budget() -> None:
    told = Told(join(is_steady=True), cpus=9.0)
    told.made(2, size_bytes=1_000)
    assert (told.machine.ledger.held_bytes, told.machine.ledger.parked_bytes) == (0, 1_000)  # it may have to be divided
    told.made(1)
    told.ended(1)
    assert (told.machine.ledger.held_bytes, told.machine.ledger.parked_bytes) == (1_000, 10)


def test_first_side_that_is_small_goes_whole_and_not_the_one_that_is_complete_first() -> None:
    told = Told(join(whole=(1, 0), broadcast_bytes=25), cpus=9.0)
    for task in (2, 3, 4):  # the left side, which is read by three tasks
        told.made(task, size_bytes=5)
        assert of(StartTask, told.ended(task)) == []
    (started,) = of(StartTask, told.made(1, size_bytes=30))  # now it is too large, and the left is not
    assert [len(some) for some in started.pieces] == [3, 1]
    assert told.machine.runs[-1].how() == "input 1 to every task"


def test_partition_of_many_like_rows_is_shared_by_tasks_that_each_get_all_of_the_other_side() -> None:
    told = Told(join(broadcast_bytes=0, partition_bytes=20, partition_count=2), cpus=9.0)
    dividing = []
    for task in (1, 2, 3, 4):
        dividing += of(StartTask, told.made(task)) + of(StartTask, told.ended(task))
    assert [(one.kind, one.number) for one in dividing] == [(events.PARTITION, number) for number in (0, 0, 0, 1)]
    started: list[StartTask] = []
    for one, sizes in zip(dividing, ((1, 30), (2, 3), (0, 10), (0, 5)), strict=True):
        for size in sizes:
            told.made(one.task, rows=size, size_bytes=size)
        started += of(StartTask, told.ended(one.task))
    assert [one.kind for one in started] == [events.REDUCE] * 3
    assert [one.number for one in started] == [0, 1, 1]
    of_partition_1 = [[[piece.size_bytes for piece in some] for some in one.pieces] for one in started[1:]]
    assert of_partition_1 == [[[30], [5]], [[3, 10], [5]]]
    assert told.machine.runs[-1].how() == "2 partitions, 1 of them shared by several tasks"
    told.ended(started[1].task)
    told.machine.check()
    released = [command.block for command in of(Release, told.ended(started[2].task))]
    assert started[2].pieces[1][0].block in released  # the right side, now that nobody has it


def test_block_much_larger_than_wanted_is_divided_where_tasks_share_it() -> None:
    for plan in (join(broadcast_bytes=0, partition_bytes=20, partition_count=1), join(partition_bytes=20)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchanges, "BROADCAST_BUNDLE_BYTES", 20)
            told = Told(plan, cpus=9.0)
            left = [number for number in (1, 2, 3, 4) if told.machine.assignments.tasks[number].run.index == 0]
            (right,) = {1, 2, 3, 4} - {*left}
            started = []
            for task, size in ((right, 10), (left[0], 10), (left[1], 63), (left[2], 10)):
                commands = told.made(task, rows=size, size_bytes=size) + told.ended(task)
                started += of(StartTask, commands)
        spans = [
            [(piece.offset, piece.row_count) for piece in one.pieces[0] if piece.row_count > 10] for one in started
        ]
        assert [span for some in spans for span in some] == [(0, 21), (21, 21), (42, 21)]
        assert all(len(one.pieces[1]) == 1 for one in started)
        for one in started:
            told.ended(one.task)
        assert told.machine.is_done


def test_partition_of_which_both_sides_have_to_be_whole_is_shared_with_one_task_more_for_what_no_share_knows() -> None:
    for sizes, number in (((30, 10, 20, 5), 0), ((1, 1, 3, 45), 1)):
        plan = join(whole=(), apart=[(nothing, nothing)] * 2, partition_bytes=20, partition_count=1)
        told = Told(plan, cpus=9.0)
        started: list[StartTask] = []
        for task, size in enumerate(sizes, 1):
            started += of(StartTask, told.made(task, rows=size, size_bytes=size) + told.ended(task))
        pieces = [[[piece.size_bytes for piece in some] for some in one.pieces] for one in started]
        rest = [[30, 10, 20], [5]] if number == 0 else [[1, 1, 3], [45]]
        shares = [[[30], [5]], [[10], [5]], [[20], [5]]] if number == 0 else [[[1, 1, 3], [22]], [[1, 1, 3], [23]]]
        assert pieces == [*shares, rest]
        assert [one.kind for one in started] == [*[events.SHARES[number]] * len(shares), events.RESTS[number]]
        released = []
        for one in started:
            released += of(Release, told.ended(one.task))
            told.machine.check()
        assert {one.block for one in released[-4:]} == {1, 2, 3, 4}
        assert told.machine.is_done


def test_partitions_are_as_many_as_bytes_want_or_as_cpus_have_enough_to_do_for() -> None:
    counts = {}
    for parallelism, size in ((1, 100), (4, 10), (4, 40), (4, 100), (4, 700)):
        told = Told(join(broadcast_bytes=0, parallelism=parallelism, bundle_bytes=MIB * 1_000), cpus=9.0)
        for task in (1, 2, 3):
            told.ended(task)
        told.made(4, size_bytes=size * MIB)
        told.ended(4)
        counts[parallelism, size] = told.machine.runs[-1].count
    assert counts == {(1, 100): 1, (4, 10): 1, (4, 40): 2, (4, 100): 4, (4, 700): 6}


def test_side_that_is_not_small_is_divided() -> None:
    told = Told(join(broadcast_bytes=9, partition_bytes=20), cpus=9.0)
    for task in range(1, 5):
        told.made(task)
    started = [command for task in range(1, 5) for command in of(StartTask, told.ended(task))]
    assert {(one.kind, one.partition_count) for one in started} == {(events.PARTITION, 2)}


def test_zip_takes_equally_many_rows_and_fails_where_there_are_not() -> None:
    first, second = read(1), read(1)
    plan = stages.Zip(inputs=(first, second), combine=nothing)
    told = Told(plan, cpus=4.0)
    told.made(1, rows=2)
    (started,) = of(StartTask, told.made(2, rows=3))
    assert [[piece.row_count for piece in some] for some in started.pieces] == [[2], [2]]
    (failed,) = of(Fail, told.ended(1))  # the other may have more
    assert str(failed.error) == (
        "zip() takes datasets with equally many rows, got 2 and 3 or more; use join() for others"
    )


def zipped(*counts: int, **options: Any) -> stages.Zip:
    inputs = tuple(stages.Input(name="in", blocks=[BLOCK] * count) for count in counts)
    return stages.Zip(inputs=inputs, combine=nothing, **options)


BLOCK = stages.Block(None, stages.Metadata(1, 10))  # type: ignore[arg-type]  # nobody looks at it


def test_zip_puts_small_blocks_together_and_each_cpu_gets_something() -> None:
    for cpus, target, counts in ((1.0, 1_000, [50, 50]), (1.0, 300, [15] * 6 + [10]), (2.0, 1_000, [25] * 4)):
        told = Told(zipped(100, 100, bundle_bytes=target), cpus=cpus)
        started = of(StartTask, told.began)
        while len(started) < len(counts):
            started += of(StartTask, told.ended(len(started)))
        rows = [[sum(piece.row_count for piece in some) for some in one.pieces] for one in started]
        assert rows == [[count, count] for count in counts]
        assert [piece.block for one in started for piece in one.pieces[1]] == [-1 - at - (1 << 32) for at in range(100)]


def test_zip_waits_for_a_task_s_worth_unless_a_worker_is_idle_or_what_follows_goes_by_place() -> None:
    for is_steady, first_counts, last_counts in ((False, [1], [1]), (True, [3], [2])):
        inputs = (stages.Input(name="in", blocks=[BLOCK] * 5), read(1))
        plan = stages.Zip(inputs=inputs, combine=nothing, bundle_bytes=60, is_steady=is_steady)
        told = Told(plan, cpus=2.0)
        started = [command for _ in range(5) for command in of(StartTask, told.made(1))]
        assert [len(one.pieces[0]) for one in started] == first_counts
        last = of(StartTask, told.ended(1))  # all is here: of four rows every CPU gets two tasks
        assert [len(one.pieces[0]) for one in last] == last_counts


def test_zip_gives_a_task_no_more_blocks_than_it_may_have_arguments() -> None:
    first = stages.Input(name="in", blocks=[stages.Block(None, stages.Metadata(500, 10))] * 4)  # type: ignore[arg-type]
    second = stages.Input(name="in", blocks=[BLOCK] * 2_000)
    told = Told(stages.Zip(inputs=(first, second), combine=nothing, is_steady=True), cpus=9.0)
    assert [[len(some) for some in one.pieces] for one in of(StartTask, told.began)] == [[2, 1_000]] * 2


def test_union_gives_one_input_after_the_other() -> None:
    told = Told(stages.Union(inputs=(read(1), read(1))))
    assert of(Deliver, told.made(2)) == []
    assert [one.piece.block for one in of(Deliver, told.made(1))] == [2]
    assert [one.piece.block for one in of(Deliver, told.ended(1))] == [1]


@pytest.mark.parametrize("rows", [[5, 5], [1, 9], [3, 3, 3], [10]])
def test_equal_split_gives_each_as_many(rows: list[int]) -> None:
    told = Told(stages.Split(input=read(len(rows)), count=2, is_equal=True), cpus=8.0)
    commands = [command for task, count in enumerate(rows, 1) for command in told.made(task, rows=count)]
    commands += [command for task in range(1, len(rows) + 1) for command in told.ended(task)]
    counts = [sum(one.piece.row_count for one in of(Deliver, commands) if one.consumer == at) for at in range(2)]
    assert counts == [sum(rows) // 2] * 2


def test_consumer_of_a_split_that_is_quick_is_given_more_ahead_and_one_that_becomes_slow_is_not() -> None:
    told = Told(stages.Split(input=stages.Input(name="in", blocks=[BLOCK] * 1_000), count=2), cpus=1.0)
    waiting = [[one.delivery for one in of(Deliver, told.began) if one.consumer == at] for at in range(2)]
    at_s, most, seen = 0.0, 0, []
    for pace_s in (0.0001, 1.0):
        for _ in range(300):
            at_s += pace_s
            for one in of(Deliver, told.tell(Took(waiting[0].pop(0), at_s))):
                waiting[one.consumer].append(one.delivery)
            most = max(most, len(waiting[0]))
        seen.append((most, len(waiting[0])))
    assert seen == [(64, 64), (64, 2)]
    assert len(waiting[1]) == 2  # it took nothing


def test_blocks_of_a_split_go_to_whoever_takes() -> None:
    told = Told(stages.Split(input=read(9), count=2), cpus=9.0)
    commands = [command for task in range(1, 7) for command in (*told.made(task), *told.ended(task))]
    assert [one.consumer for one in of(Deliver, commands)] == [0, 1, 0, 1]  # two each, that they have not taken
    (first,) = [one for one in of(Deliver, commands) if one.consumer == 1][:1]
    assert [one.consumer for one in of(Deliver, told.tell(Took(first.delivery, 2.0)))] == [1]


def test_statistics_say_what_was_waited_for() -> None:
    told = Told(mapped(read(1)))
    told.made(1, rows=7, size_bytes=70, at_s=3.0)
    found = told.machine.runs
    assert found[0].stats.rows_out == found[1].stats.rows_in == 7
    assert found[1].stats.blocked_s == {"input": 3.0}
