"""The seeds of several machines, spread over processes.

Runs share nothing, so it makes no difference which process makes one: what comes out is what one process would have
found by taking seed after seed, except for the time it takes.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent import futures

from umbel.testing.simulation import planted, runner

CHUNK_SEEDS = 250  # some seconds of work: no process is left alone with much in the end
# Of several machines, those that get every so-many-th seed: with all of them 5,000 seeds would take two cores seven minutes.
EVERY = {"dispatch": 2, "shares": 5, "entitled": 5, "borrows": 5}


def run_all(
    names: Sequence[str], seeds: range, *, plant: str | None = None, job_count: int = 1
) -> Iterator[runner.Result]:
    """The result of each machine, in the order of `names`. After a failure the machine's later seeds do not count. Of several
    machines those in `EVERY` get a part of the seeds.

    plant: one of `planted.PLANTS`. job_count: processes; with 1 it is this one.
    """
    of_each = {name: seeds[:: EVERY.get(name, 1)] if len(names) > 1 else seeds for name in names}
    if min(job_count, sum(len(_chunks(some)) for some in of_each.values())) <= 1:
        for name, some in of_each.items():
            yield run_chunk(name, some, plant)
        return
    context = multiprocessing.get_context("spawn")  # not forked: a process that has run a simulation has had threads
    cores = context.SimpleQueue()
    for at, core in enumerate(itertools.cycle(sorted(os.sched_getaffinity(0)))):
        if at == job_count:
            break
        cores.put(core)
    with futures.ProcessPoolExecutor(job_count, context, _stay_on_one_core, (cores,)) as pool:
        waiting = {
            name: [pool.submit(run_chunk, name, chunk, plant) for chunk in _chunks(some)]
            for name, some in of_each.items()
        }
        for name in names:
            yield _merged(waiting[name])


def _chunks(seeds: range) -> list[range]:
    return [seeds[at : at + CHUNK_SEEDS] for at in range(0, len(seeds), CHUNK_SEEDS)]


def _stay_on_one_core(cores: multiprocessing.SimpleQueue[int]) -> None:
    """The fibers of a run are threads of which one runs at a time: to wake another on the same core is quicker."""
    os.sched_setaffinity(0, {cores.get()})


def run_chunk(name: str, seeds: range, plant: str | None) -> runner.Result:
    """Run the seeds in this process; a failure ends it."""
    apply = planted.PLANTS[plant].apply if plant is not None else contextlib.nullcontext
    return runner.run_seeds(name, runner.machines()[name], seeds, apply)


def _merged(waiting: list[futures.Future[runner.Result]]) -> runner.Result:
    """One machine's chunks as one result; those behind a failure are not begun any more."""
    done = []
    for future in waiting:
        done.append(future.result())
        if done[-1].failure is not None:
            break
    for future in waiting[len(done) :]:
        future.cancel()
    return runner.Result(
        machine=done[-1].machine,
        run_count=sum(one.run_count for one in done),
        step_count=sum(one.step_count for one in done),
        duration_s=sum(one.duration_s for one in done),
        failure=done[-1].failure,
    )
