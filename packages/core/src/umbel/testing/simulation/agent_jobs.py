"""The jobs of the agent's world: what each must get of the node, and whose tasks may be stopped, by the world's own books."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from umbel._agent import events as ev
from umbel._agent import preemption
from umbel._agent.ledger import CPU, UNIT
from umbel._agent.records import WorkerState

if TYPE_CHECKING:
    from umbel.testing.simulation.agent import AgentWorld, Book

ROUNDS: Final = 30  # in which everybody keeps what nobody asks for
ROUNDS_ALONE: Final = 3  # in which only one job wants more
PATIENCE: Final = 12  # rounds in a row in which somebody has more than he should; spells of precedence change with each
ROUNDING: Final = 1e-6
PLAIN: Final = "plain"  # the key of tasks that need one CPU and nothing else


class Task:
    """What runs by one lease."""

    def __init__(self, number: int, since_s: float, keeps: str) -> None:
        self.number = number
        self.since_s = since_s
        self.keeps = keeps  # why it cannot be stopped


class AgentJobs:
    """Of one run. Without jobs, as on a node with one program, all of it is idle."""

    def __init__(self, world: AgentWorld) -> None:
        self._world = world
        chance = world.chance
        self.jobs = [
            ev.Job(f"j{number}", chance.choose((0, 0, 5)), chance.choose((1.0, 1.0, 3.0, 0.5)), chance.happens(70))
            for number in range(chance.choose((0, 1, 2, 3)))
        ]
        self.preempted: set[str] = set()  # workers
        self.unfair: dict[tuple[str, str], int] = {}  # (who must get, from whom) -> rounds

    def choose(self) -> ev.Job:
        return self._world.chance.choose(self.jobs) if self.jobs else ev.NO_JOB

    # Who is stopped

    def look_at(self, worker: str) -> ev.TaskSeen:
        """What the worker answers that it runs."""
        book = self._world.books.get(worker)
        if book is None or book.task is None:
            return ev.TaskSeen(worker, -1, 0.0, "", self._world.now_s)
        task = book.task
        return ev.TaskSeen(worker, task.number, task.since_s, task.keeps, self._world.now_s)

    def preempt(self, command: ev.Preempt) -> None:
        """A20. What the workers run now is looked at, and stopped if it is what was meant."""
        world = self._world
        books = {worker: world.books.get(worker) for worker, _ in command.tasks}
        if any(book is None or worker not in world.workers for worker, book in books.items()):
            return  # one is gone, as the agent will hear
        self._check_needed([worker for worker, _ in command.tasks])
        for worker, number in command.tasks:
            book = world.books[worker]
            self._check_preempted(worker, book)
            if book.task is None or book.task.number != number:
                return
            world.must(not book.task.keeps, "A20", "%s is stopped, though %s", worker, book.task.keeps)
        self.preempted.update(books)
        world.apply(ev.TasksPreempted(tuple(books), command.reason, world.now_s))

    def _check_needed(self, workers: list[str]) -> None:
        """What is free, or will be as workers are known to end, is not enough for somebody who wants it so; with what these have
        it is, and without any of them it is not."""
        world = self._world
        ending = [worker for worker in world.books if world.state.workers[worker].state is WorkerState.DYING]
        there = {name: world.total[name] - world.used(name) + self._held(name, ending) for name in world.total}
        wanting = [one for one in world.state.demands.values() if one.job.preempts]
        if any("GPU" in one.resources for one in wanting):
            return  # of which what is free may be in pieces
        does = {
            demand: [
                self._is_enough(there, demand.resources, [*workers[:left_out], *workers[left_out + 1 :]])
                for left_out in range(len(workers) + 1)
            ]
            for demand in wanting
        }
        counts = sum(demand.count for demand in wanting)
        is_right = counts > 1 or any(not any(without) and enough for *without, enough in does.values())
        world.must(is_right, "A20", "%s are stopped, and that is not what is needed beside %s", workers, there)
        wanted = {name: sum(one.count * one.resources.get(name, 0) for one in wanting) for name in there}
        is_short = any(there[name] < amount for name, amount in wanted.items())
        world.must(is_short, "A20", "%s are stopped, and there is room for %s: %s", workers, wanted, there)
        is_of_use = any(enough for *_, enough in does.values())
        world.must(is_of_use, "A20", "%s are stopped, and that is not enough beside %s", workers, there)

    def _is_enough(self, there: Mapping[str, int], needs: Mapping[str, int], workers: list[str]) -> bool:
        return all(there[name] + self._held(name, workers) >= need for name, need in needs.items())

    def _held(self, name: str, workers: list[str]) -> int:
        """By workers that do not lend it."""
        world = self._world
        return sum(world.books[one].resources.get(name, 0) for one in workers if not world.lends(one, name))

    def _check_preempted(self, worker: str, book: Book) -> None:
        world = self._world
        world.must(book.key, "A20", "the actor's worker %s is stopped", worker)
        asked_s = book.asked_back_s
        is_late = asked_s is not None and asked_s + preemption.PATIENCE_S <= world.now_s + ROUNDING
        world.must(is_late, "A20", "%s is stopped, asked back at %s", worker, asked_s)
        higher = [one.job for one in world.state.demands.values() if one.job.priority > book.job.priority]
        is_wanted = any(job.preempts for job in higher)
        world.must(is_wanted, "A20", "%s is stopped, and nobody wants it so", worker)

    def check_broken(self, command: ev.LeaseBroken) -> None:
        is_stopped = command.worker in self.preempted
        self._world.must(
            command.is_preempted == is_stopped, "A20", "of the end of %s is told %s", command.worker, command
        )

    # Who gets what

    def shares_rest(self) -> None:
        """A19: everybody keeps what nobody asks for and wants what he wants, and time passes: in the end nobody has more than
        he should beside somebody who waits. One job comes first, and may have all there is when the others come."""
        world = self._world
        if len(self.jobs) < 2 or not world.chance.happens(50):
            return
        if world.chance.happens(50):
            world.end_all()
        first = world.chance.choose(self.jobs)
        for is_first in (True, False):
            for client in world.clients.values():
                if (client.job is first) is is_first and not client.is_gone and world.chance.happens(70):
                    world.want_of(client, PLAIN, 1 + world.chance.below(3))
            for _ in range(ROUNDS_ALONE if is_first else 0):
                world.pass_round()
        for _ in range(ROUNDS):
            is_over = not world.pass_round()
            self.unfair = {pair: self.unfair.get(pair, 0) + 1 for pair in {*self._unfair()}}
            for (waiting, having), rounds in self.unfair.items():
                is_fair = rounds < PATIENCE and not is_over
                world.must(is_fair, "A19", "job %s waits beside %s: %s", waiting, having, world.state.pending())
            if is_over:
                return

    def _unfair(self) -> list[tuple[str, str]]:
        """Who waits for a CPU that somebody else has, who should give it."""
        world = self._world
        found = []
        waiting = {one.job.id: one.job for one in world.clients.values() if one.wanted.get(PLAIN) and not one.is_gone}
        for job in waiting.values():
            for worker, book in world.books.items():
                is_free = worker in world.workers and not world.lends(worker, CPU) and book.holder in world.clients
                if not is_free or not book.key or book.resources.get(CPU) != UNIT or book.job.id == job.id:
                    continue
                if job.priority != book.job.priority:
                    must_give = job.priority > book.job.priority
                else:
                    after = self._share(job, {CPU: UNIT})
                    theirs, left = self._share(book.job, {}), self._share(book.job, book.resources, sign=-1)
                    is_last = self._used(book.job, CPU) <= UNIT
                    must_give = after <= left - ROUNDING and after < theirs - ROUNDING and not is_last
                if must_give:
                    found.append((job.id, book.job.id))
        return found

    def _share(self, job: ev.Job, change: Mapping[str, int], *, sign: int = 1) -> float:
        world = self._world
        parts = [(self._used(job, name) + sign * change.get(name, 0)) / total for name, total in world.total.items()]
        return max(0.0, *parts) / job.weight

    def _used(self, job: ev.Job, name: str) -> int:
        """What it has that its workers do not lend."""
        world = self._world
        return sum(
            book.resources.get(name, 0)
            for worker, book in world.books.items()
            if book.job.id == job.id and not world.lends(worker, name)
        )
