"""What the history of tasks costs, and how quickly it answers over a million of them.

    python benchmarks/state.py                  # both
    python benchmarks/state.py --tasks 100000   # fewer, for a look

Recording is switched off and on in turn within one session, from one batch of tasks to the next, so that what else the
machine does hits both alike; the processor time of the driver is measured beside the elapsed one, since it suffers less from
neighbours. The questions are asked twice: right after the tasks have run, when what has ended is written down and few of it
are rows, and once all are rows; what making those takes is told. Beside the elapsed time stands the processor time of all
of the session's processes. Exit status 1 when recording costs more than a twentieth of the elapsed time, or when a question takes
more than half a second; what does so is marked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

import umbel
from umbel._client import current, links, node_view
from umbel.util import state

BATCH = 1_000
FAILING = 1_000  # one task in so many
BAR_S = 0.5  # for each question over a million tasks
BAR_RATIO = 1.05  # of the elapsed time with recording to that without
ABOVE = "  above the bar"
ASKED = ("questions_as_written", "questions_of_rows")


@umbel.remote
def nothing() -> None:
    pass


@umbel.remote(max_retries=0)
def sometimes(number: int) -> int:
    if number % FAILING == 0:
        raise ValueError("one of those that fail")
    return number


@umbel.remote
class Actor:
    def nothing(self) -> None:
        pass


def run(make: Callable[[], Any], count: int) -> None:
    umbel.get([make() for _ in range(count)])


def cost(make: Callable[[], Any], count: int, rounds: int) -> dict[str, float]:
    """Microseconds for each task, with recording and without, in turn; `rounds` pairs of `count` tasks at a time."""
    engine: Any = current.engine()
    recorder = engine.tasks.recorder
    elapsed: dict[bool, list[float]] = {True: [], False: []}
    processor: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for is_on in random.sample([True, False], 2):
            engine.tasks.recorder = recorder if is_on else None
            for link in engine.links.by_peer.values():
                link.recorded = links.NOTHING_RECORDED
            began, began_cpu = time.perf_counter(), time.process_time()
            run(make, count)
            processor[is_on].append((time.process_time() - began_cpu) / count * 1e6)
            elapsed[is_on].append((time.perf_counter() - began) / count * 1e6)
    engine.tasks.recorder = recorder
    found = {
        "on_us": statistics.median(elapsed[True]),
        "off_us": statistics.median(elapsed[False]),
        "driver_on_us": statistics.median(processor[True]),
        "driver_off_us": statistics.median(processor[False]),
    }
    return found | {
        "ratio": found["on_us"] / found["off_us"],
        "driver_ratio": found["driver_on_us"] / found["driver_off_us"],
    }


def costs(rounds: int) -> dict[str, dict[str, float]]:
    actor = Actor.remote()
    run(nothing.remote, 5 * BATCH)
    run(actor.nothing.remote, 5 * BATCH)
    return {
        "tasks_pipelined": cost(nothing.remote, BATCH, rounds),
        "actor_pipelined": cost(actor.nothing.remote, BATCH, rounds),
        "tasks_sync": cost(nothing.remote, 1, rounds * 20),
        "actor_sync": cost(actor.nothing.remote, 1, rounds * 20),
    }


def record(count: int) -> float:
    """Run so many tasks; how long that took."""
    began = time.perf_counter()
    for start in range(0, count, 10 * BATCH):
        numbers = range(start, min(start + 10 * BATCH, count))
        refs = [sometimes.options(name=f"name {start // BATCH % 20}").remote(number) for number in numbers]
        umbel.wait(refs, num_returns=len(refs))
    return time.perf_counter() - began


def make_rows() -> dict[str, float]:
    """Turn the rest of what is written down into rows, here; how many batches that were, and what it took."""
    context = umbel.get_runtime_context()
    history = node_view.opened(os.path.join(context.get_temp_dir(), context.get_session_name(), "history.db"))
    batch_count = history.raw_count()
    began, began_cpu = time.perf_counter(), time.process_time()
    history.absorb_all()
    took = {"elapsed_s": time.perf_counter() - began, "processor_s": time.process_time() - began_cpu}
    history.close()
    return {"batches": batch_count, **took}


def questions(count: int) -> dict[str, dict[str, float]]:
    """Seconds for each, the medians of three."""
    middle = state.list_tasks(limit=1, offset=min(count // 2, 5_000))[0]
    ended_ms = state.list_tasks(limit=1, order_by="-end_time_ms", detail=True)[0].end_time_ms
    asked: dict[str, Callable[[], Any]] = {
        "list 100": state.list_tasks,
        "list 100 of the first 5,000": lambda: state.list_tasks(offset=5_000),
        "list failed": lambda: state.list_tasks(filters=[("state", "=", "FAILED")], limit=10_000),
        "list by name": lambda: state.list_tasks(filters=[("name", "=", "name 3")]),
        "list by name and state": lambda: state.list_tasks(filters=[("name", "=", "name 3"), ("state", "=", "FAILED")]),
        "list by worker": lambda: state.list_tasks(filters=[("worker_pid", "=", middle.worker_pid)]),
        "list by error": lambda: state.list_tasks(filters=[("error_type", "=", "TASK_EXECUTION_EXCEPTION")]),
        "list not finished": lambda: state.list_tasks(filters=[("state", "!=", "FINISHED")]),
        "list the last to end": lambda: state.list_tasks(order_by="-end_time_ms"),
        "list the last to start": lambda: state.list_tasks(order_by="-start_time_ms"),
        "list what ended in the last second": lambda: state.list_tasks(filters=[("end_time_ms", ">", ended_ms - 1_000)]),
        "list none": lambda: state.list_tasks(filters=[("name", "=", "no such name")]),
        "get one": lambda: state.get_task(middle.task_id),
        "summarize": state.summarize_tasks,
    }  # fmt: skip
    return {name: _median([_timed(ask) for _ in range(3)]) for name, ask in asked.items()}


def _median(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _timed(ask: Callable[[], Any]) -> dict[str, float]:
    began, began_cpu = time.perf_counter(), _processor_s()
    ask()
    return {"elapsed_s": time.perf_counter() - began, "processor_s": _processor_s() - began_cpu}


def _processor_s() -> float:
    """Of this process, exactly, and its children, in hundredths of a second."""
    children = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(one.user + one.system for one in children)


def is_above_bar(found: dict[str, Any]) -> bool:
    """Whether anything that was measured is."""
    asked = [took for what in ASKED for took in found.get(what, {}).values()]
    return any(one["ratio"] > BAR_RATIO for one in found.get("cost", {}).values()) or any(
        took["elapsed_s"] > BAR_S for took in asked
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="how many to record before the questions")
    parser.add_argument("--rounds", type=int, default=150, help="pairs of batches, off and on, for the cost")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with umbel.init(num_cpus=2, log_to_driver=False):
        found: dict[str, Any] = {"cost": costs(given.rounds)} if given.rounds else {}
    if given.tasks:
        with umbel.init(num_cpus=2, log_to_driver=False):
            found["run_s"] = record(given.tasks)
            found["first_question"] = _timed(lambda: state.list_tasks(limit=1))
            found["questions_as_written"] = questions(given.tasks)
            found["rows"] = make_rows()
            found["questions_of_rows"] = questions(given.tasks) | {
                "list 100 in the middle": _median(
                    [_timed(lambda: state.list_tasks(offset=given.tasks // 2)) for _ in range(3)]
                )
            }
    if given.json:
        print(json.dumps(found, indent=2))
        return int(is_above_bar(found))
    for row, numbers in found.get("cost", {}).items():
        print(
            f"{row:<16} on {numbers['on_us']:7.1f} us, off {numbers['off_us']:7.1f} us, ratio {numbers['ratio']:.3f}; driver "
            f"on {numbers['driver_on_us']:6.1f}, off {numbers['driver_off_us']:6.1f}, ratio {numbers['driver_ratio']:.3f}"
            f"{ABOVE if numbers['ratio'] > BAR_RATIO else ''}"
        )
    if "rows" in found:
        rows, first = found["rows"], found["first_question"]
        print(
            f"{given.tasks} tasks ran in {found['run_s']:.1f} s; the first question took {first['elapsed_s']:.2f} s, "
            f"{first['processor_s']:.2f} s of processor time"
        )
        for what in ASKED:
            print(f"{what.replace('_', ' ')}: elapsed, processor time of all processes")
            for name, took in found[what].items():
                mark = ABOVE if took["elapsed_s"] > BAR_S else ""
                print(f"  {name:<36} {took['elapsed_s'] * 1e3:7.1f} ms {took['processor_s'] * 1e3:7.1f} ms{mark}")
        print(f"{rows['batches']} batches were made rows of in {rows['elapsed_s']:.1f} s ({rows['processor_s']:.1f} s)")
    return int(is_above_bar(found))


if __name__ == "__main__":
    sys.exit(main())
