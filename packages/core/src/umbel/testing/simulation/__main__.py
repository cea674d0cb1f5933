"""`python -m umbel.testing.simulation`: run the simulator."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from umbel.testing.simulation import jobs, planted, runner


def main(arguments: list[str] | None = None) -> int:
    """0 when every run kept every invariant, or, with --plant, when the planted bug was found."""
    options = _parser().parse_args(arguments)
    plant = planted.PLANTS[options.plant] if options.plant else None
    names = [plant.machine] if plant else [*runner.machines()] if options.machine == "all" else [options.machine]
    seeds = range(options.first, options.first + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
        if options.trace:
            return _print_trace(names, options.seed, plant)
    has_failed = False
    for result in jobs.run_all(names, seeds, plant=options.plant, job_count=options.jobs):
        has_failed |= result.failure is not None
        _print_result(result, options.plant)
    return int(has_failed != (plant is not None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m umbel.testing.simulation", description="Run the state machines by chance."
    )
    add = parser.add_argument
    add("--machine", choices=[*runner.machines(), "all"], default="all", help="which to run (default: all)")
    add(
        "--seeds",
        type=_count,
        default=2_000,
        help="how many runs of each machine (default: 2000); of those whose runs take long, a part",
    )
    add("--first", type=int, default=0, help="the first seed (default: 0)")
    add("--seed", type=int, help="run this seed only")
    add("--trace", action="store_true", help="with --seed: print everything that happens")
    add("--plant", choices=sorted(planted.PLANTS), help="break the machine in this way first")
    add("--jobs", type=_count, default=os.cpu_count() or 1, help="how many processes (default: one for each core)")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _print_result(result: runner.Result, plant: str | None) -> None:
    if result.failure is not None:
        print(runner.report(result.failure, plant))
    rate = result.run_count / result.duration_s
    print(
        f"{result.machine}: {result.run_count} runs of {result.step_count} steps in {result.duration_s:.1f} s "
        f"({rate:.0f} runs/s in a process): {'FAILED' if result.failure else 'ok'}",
        flush=True,
    )


def _print_trace(names: list[str], seed: int, plant: planted.Planted | None) -> int:
    has_failed = False
    for name in names:
        trace, error = runner.trace_of(runner.machines()[name], seed, plant.apply if plant else contextlib.nullcontext)
        print(*trace, sep="\n")
        print(f"{name}: seed {seed}: {error or 'ok'}")
        has_failed |= error is not None
    return int(has_failed != (plant is not None))


if __name__ == "__main__":
    sys.exit(main())
