"""`python -m umbel.testing.simulation`: run the simulator."""

from __future__ import annotations

import argparse
import contextlib
import sys

from umbel.testing.simulation import planted, runner


def main(arguments: list[str] | None = None) -> int:
    """0 when every run kept every invariant, or, with --plant, when the planted bug was found."""
    parser = argparse.ArgumentParser(
        prog="python -m umbel.testing.simulation", description="Run the state machines by chance."
    )
    parser.add_argument(
        "--machine", choices=[*runner.machines(), "all"], default="all", help="which to run (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=2_000, help="how many runs of each machine (default: 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--plant", choices=sorted(planted.PLANTS), help="break the machine in this way first")
    options = parser.parse_args(arguments)
    plant = planted.PLANTS[options.plant] if options.plant else None
    names = [plant.machine] if plant else [*runner.machines()] if options.machine == "all" else [options.machine]
    seeds = (
        range(options.first, options.first + options.seeds)
        if options.seed is None
        else range(options.seed, options.seed + 1)
    )
    if options.trace and options.seed is not None:
        return _print_trace(names, options.seed, plant)
    has_failed = False
    for name in names:
        result = runner.run_seeds(
            name, runner.machines()[name], seeds, plant.apply if plant else contextlib.nullcontext
        )
        has_failed |= result.failure is not None
        _print_result(result, options.plant)
    return int(has_failed != (plant is not None))


def _print_result(result: runner.Result, plant: str | None) -> None:
    if result.failure is not None:
        print(runner.report(result.failure, plant))
    rate = result.run_count / result.duration_s
    print(
        f"{result.machine}: {result.run_count} runs of {result.step_count} steps in {result.duration_s:.1f} s "
        f"({rate:.0f} runs/s): {'FAILED' if result.failure else 'ok'}",
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
