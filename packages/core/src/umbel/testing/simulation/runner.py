"""Many runs of the simulated worlds, and what to say of one that fails."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from umbel.testing.simulation.chance import Chance, Script
from umbel.testing.simulation.world import Violation, World

SHRINK_RUNS_MAX = 600  # a few seconds; what has not become short by then stays long

MakeWorld = Callable[[Chance, "list[str] | None"], World]
Plant = Callable[[], AbstractContextManager[None]]


class Failure(NamedTuple):
    """A run that broke an invariant. `trace`: a line for each thing that happened, in the shortest run found."""

    machine: str
    seed: int
    error: str
    trace: list[str]
    step_count: int  # of the original run
    shrunk_step_count: int


class Result(NamedTuple):
    """What many runs of one machine came to."""

    machine: str
    run_count: int
    step_count: int
    duration_s: float
    failure: Failure | None


def kind_of(error: BaseException) -> str:
    """What makes two failures the same when a run is shortened: the invariant, or the internal error's text."""
    if isinstance(error, Violation):
        return error.rule
    return f"{type(error).__name__} {str(error).split(' (')[0][:60]}"


class Attempt(NamedTuple):
    """One run: what ended it if it failed, and the record of its decisions."""

    error: BaseException | None
    record: Script
    main_step_count: int


def attempt_seed(make: MakeWorld, seed: int, script: Script | None = None, trace: list[str] | None = None) -> Attempt:
    """One run, by a seed or as a record says. Nothing of it is left afterwards."""
    gc.freeze()  # which makes collections quick: they look at nothing that was there before the run
    try:
        return _attempt(make, Chance(seed, script), trace)
    finally:
        gc.collect()
        gc.unfreeze()


def _attempt(make: MakeWorld, chance: Chance, trace: list[str] | None) -> Attempt:
    world = make(chance, trace)
    error: BaseException | None = None
    try:
        world.run_guarded()
    except Exception as found:  # whatever goes wrong in a run is what we look for
        error = found
        if trace is not None and not isinstance(found, Violation):
            trace += traceback.format_exception(found)
        found.__traceback__ = None
    return Attempt(error, chance.record, world.main_step_count)


def run_seeds(
    machine: str, make: MakeWorld, seeds: range, plant: Plant = nullcontext, *, shortens: bool = True
) -> Result:
    """Run every seed until one fails; `shortens` says whether the failure is made shorter, which takes seconds."""
    began = time.perf_counter()
    steps = 0
    for count, seed in enumerate(seeds, 1):
        with plant():
            attempt = attempt_seed(make, seed)
        steps += attempt.main_step_count
        if attempt.error is None:
            continue
        with plant():
            failure = shrink(machine, make, seed, attempt, run_count_max=SHRINK_RUNS_MAX if shortens else 0)
        return Result(machine, count, steps, time.perf_counter() - began, failure)
    return Result(machine, len(seeds), steps, time.perf_counter() - began, None)


def trace_of(make: MakeWorld, seed: int, plant: Plant = nullcontext) -> tuple[list[str], BaseException | None]:
    """Everything that happens in one run, and what broke in the end."""
    trace: list[str] = []
    with plant():
        attempt = attempt_seed(make, seed, None, trace)
    return trace, attempt.error


def shrink(
    machine: str, make: MakeWorld, seed: int, attempt: Attempt, *, run_count_max: int = SHRINK_RUNS_MAX
) -> Failure:
    """Leave out steps, in halves, quarters, and so on down to single ones, as long as the same invariant breaks."""
    error = attempt.error
    if error is None:
        raise ValueError(f"there is nothing to shorten: seed {seed} of {machine} kept every invariant")
    kind = kind_of(error)
    script = attempt.record[: attempt.main_step_count + 2]
    if len(script) < attempt.main_step_count + 2:
        script.append([])  # it never came to rest
    runs_left = run_count_max
    if not runs_left or not _fails(make, seed, script, kind):
        trace: list[str] = []
        attempt_seed(make, seed, None, trace)
        return Failure(machine, seed, str(error), trace, attempt.main_step_count, attempt.main_step_count)
    size = len(script) // 2
    while size and runs_left > 0:
        at = len(script) - 1 - size
        while at >= 1 and runs_left > 0:  # the first step is setting up, the last coming to rest
            shorter = script[:at] + script[at + size :]
            runs_left -= 1
            if _fails(make, seed, shorter, kind):
                script = shorter
            at -= size
        size //= 2
    trace = []
    last = attempt_seed(make, seed, script, trace)
    return Failure(machine, seed, str(last.error or error), trace, attempt.main_step_count, len(script) - 2)


def _fails(make: MakeWorld, seed: int, script: Script, kind: str) -> bool:
    error = attempt_seed(make, seed, script).error
    return error is not None and kind_of(error) == kind


def report(failure: Failure, plant: str | None = None) -> str:
    """What to print of a failure: the invariant, the trace, and how to see it again."""
    command = f"python -m umbel.testing.simulation --machine {failure.machine} --seed {failure.seed} --trace"
    if plant is not None:
        command += f" --plant {plant}"
    return "\n".join(
        [
            f"{failure.machine}: seed {failure.seed} fails: {failure.error}",
            f"shortened from {failure.step_count} steps to {failure.shrunk_step_count}:",
            *(f"    {line}" for line in failure.trace),
            f"the whole run: {command}",
        ]
    )


def machines() -> Mapping[str, MakeWorld]:
    """The worlds by the name of the machine that each is about."""
    from umbel.testing.simulation import (
        actors,
        agent,
        autoscaling,
        borrows,
        cluster,
        collective,
        control,
        dispatch,
        entitled,
        forwarding,
        graphs,
        groups,
        history,
        leadership,
        mailbox,
        members,
        nodes,
        ownership,
        pulls,
        remote_drivers,
        shares,
        shortage,
        spilling,
    )

    return {
        "ownership": ownership.OwnershipWorld,
        "borrows": borrows.BorrowsWorld,
        "agent": agent.AgentWorld,
        "actors": actors.ActorsWorld,
        "dispatch": dispatch.DispatchWorld,
        "mailbox": mailbox.MailboxWorld,
        "collective": collective.CollectiveWorld,
        "spilling": spilling.SpillingWorld,
        "history": history.HistoryWorld,
        "graphs": graphs.GraphsWorld,
        "shortage": shortage.ShortageWorld,
        "groups": groups.GroupsWorld,
        "shares": shares.SharesWorld,
        "entitled": entitled.EntitledWorld,
        "forwarding": forwarding.ForwardingWorld,
        "leadership": leadership.LeadershipWorld,
        "nodes": nodes.NodesWorld,
        "pulls": pulls.PullsWorld,
        "control": control.ControlWorld,
        "autoscaling": autoscaling.AutoscalingWorld,
        "members": members.MembersWorld,
        "remote_drivers": remote_drivers.RemoteDriversWorld,
        "cluster": cluster.ClusterWorld,
    }
