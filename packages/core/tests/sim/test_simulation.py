"""The simulator: its runs keep every invariant, its checks find what was planted, and a seed tells all there is to tell."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from umbel import exceptions
from umbel.testing import simulation
from umbel.testing.simulation import __main__ as command
from umbel.testing.simulation import planted, runner
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.invariants import INVARIANTS
from umbel.testing.simulation.world import World

MACHINES = sorted(runner.machines())
SEEDS = range(100)
PAGE = Path(__file__).resolve().parents[4] / "docs" / "invariants.md"
SOURCES = Path(str(simulation.__file__)).parent
# The rarest is found in one of 80 runs on average, most in one of ten or fewer.
SEEDS_TO_FIND_MAX = 1_000


class Counting(World):
    """A world that breaks an invariant in the first step in which chance says 3."""

    steps_min = steps_max = 30

    def set_up(self) -> None:
        self.note("begins")

    def act(self) -> None:
        number = self.chance.below(40)
        self.note("drew %d", number)
        self.must(number != 3, "R2", "drew %d", number)

    def settle(self) -> None:
        self.note("rests")


class Raising(Counting):
    """A world with an error in the step in which chance says 3."""

    def must(self, condition: object, rule: str, text: str, *values: object) -> None:
        if not condition:
            raise exceptions.InternalError("drew three")


def run_command(*arguments: str, hash_seed: str = "random") -> str:
    """What the command prints, without the times that it took. It must succeed."""
    call = [sys.executable, "-m", "umbel.testing.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=25, env=environment)
    return re.sub(r"in [\d.]+ s \(\d+ runs/s in a process\)", "in a while", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("machine", MACHINES)
def test_runs_keep_every_invariant_and_leave_no_thread(machine: str) -> None:
    """A thread would hide deadlocks from the inline engine, which other tests of this process wait for."""
    before = threading.enumerate()
    result = runner.run_seeds(machine, runner.machines()[machine], SEEDS)
    assert result.failure is None, runner.report(result.failure)
    assert result.run_count == len(SEEDS)
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []


@pytest.mark.parametrize("machine", ["borrows", "ownership"])
def test_errors_that_nobody_reads_are_not_logged_by_a_thread(machine: str) -> None:
    """It would run beside the simulation, and perhaps still after it."""
    is_over = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread() is not threading.main_thread():
                is_over.wait()

    before = threading.enumerate()
    handler, logger = Slow(), logging.getLogger("umbel")
    logger.addHandler(handler)
    try:
        assert runner.run_seeds(machine, runner.machines()[machine], range(10)).failure is None
        assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    finally:
        is_over.set()
        logger.removeHandler(handler)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("machine", MACHINES)
def test_seed_does_the_same_every_time(machine: str) -> None:
    make = runner.machines()[machine]
    traces = [runner.trace_of(make, seed) for seed in (7, 8, 7)]
    assert traces[0] == traces[2]
    assert traces[0] != traces[1]


@pytest.mark.slow
def test_seed_does_the_same_in_every_process() -> None:
    """In whichever order sets are iterated there."""
    told = [run_command("--seed", "11", "--trace", hash_seed=seed) for seed in ("1", "2")]
    assert told[0] == told[1]
    assert re.findall(r"^(\w+): seed 11: ok$", told[0], re.MULTILINE) == [*runner.machines()]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(planted.PLANTS))
def test_planted_defect_is_found(name: str) -> None:
    plant = planted.PLANTS[name]
    make = runner.machines()[plant.machine]
    result = runner.run_seeds(plant.machine, make, range(SEEDS_TO_FIND_MAX), plant.apply, shortens=False)
    assert result.failure is not None
    assert result.failure.error.startswith(plant.signs)


def test_planted_defect_is_gone_afterwards() -> None:
    plant = planted.PLANTS["plain-only"]
    make = runner.machines()[plant.machine]
    failure = runner.run_seeds(plant.machine, make, range(100), plant.apply, shortens=False).failure
    assert failure is not None
    assert runner.attempt_seed(make, failure.seed).error is None


def test_failure_is_shortened_to_the_step_that_matters() -> None:
    failure = runner.run_seeds("counting", Counting, SEEDS).failure
    assert failure is not None
    assert failure.error == "R2 (everything comes to rest): drew 3"
    assert failure.trace == ["begins", "drew 3"]
    assert failure.shrunk_step_count == 1


def test_error_of_the_runtime_is_a_failure() -> None:
    failure = runner.run_seeds("raising", Raising, SEEDS).failure
    assert failure is not None
    assert failure.error.startswith("drew three")
    assert failure.trace[:2] == ["begins", "drew 3"]
    assert "Traceback" in failure.trace[2]


def test_run_that_keeps_every_invariant_cannot_be_shortened() -> None:
    attempt = runner.Attempt(None, Chance(0).record, 0)
    with pytest.raises(ValueError, match="nothing to shorten: seed 5 of counting"):
        runner.shrink("counting", Counting, 5, attempt)


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_report_says_the_seed_and_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--plant", "plain-only", "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    found = re.search(r"^agent: seed (\d+) fails: (A\d+) .*\nshortened from \d+ steps to \d+:\n    agent: ", told)
    assert found is not None
    (again,) = re.findall(r"^the whole run: python -m umbel\.testing\.simulation (.*)$", told, re.MULTILINE)
    assert again == f"--machine agent --seed {found[1]} --trace --plant plain-only"
    assert command.main(again.split()) == 0
    assert f"agent: seed {found[1]}: {found[2]} (" in capsys.readouterr().out


@pytest.mark.timeout(20)
def test_command_fails_where_nothing_is_found_of_what_was_planted(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--machine", "agent", "--seed", "1240"]) == 0
    assert command.main(["--plant", "unprotected-borrow", "--seed", "0"]) == 1
    assert re.findall(r"^(\w+): 1 runs of .*: ok$", capsys.readouterr().out, re.MULTILINE) == ["agent", "ownership"]


@pytest.mark.slow
def test_processes_find_what_one_would() -> None:
    """The first failing seed of all, though others fail as well, and the counts up to it."""
    arguments = ["--plant", "stayed-unheard", "--seeds", "600"]
    told = run_command(*arguments, "--jobs", "2")
    assert told == run_command(*arguments, "--jobs", "1")
    assert told.startswith("agent: seed ")


@pytest.mark.slow
def test_processes_answer_in_the_order_of_the_machines() -> None:
    told = run_command("--seeds", "10", "--jobs", "2")
    fewer = {"dispatch": 5, "shares": 2, "entitled": 2, "borrows": 2}  # of which every second or fifth seed is run
    counts = {machine: fewer.get(machine, 10) for machine in runner.machines()}
    assert re.sub(r"\d+ steps", "steps", told).splitlines() == [
        f"{machine}: {count} runs of steps in a while: ok" for machine, count in counts.items()
    ]


def test_invariants_that_are_checked_are_those_that_the_page_marks() -> None:
    listed = re.findall(r"^- \*\*([A-Z]\d+)\*\*( °)?", PAGE.read_text(), re.MULTILINE)
    assert [name for name, count in Counter(name for name, _ in listed).items() if count > 1] == []
    assert [name for name, mark in listed if mark] == sorted(INVARIANTS, key=[name for name, _ in listed].index)


def test_every_invariant_listed_is_checked_somewhere() -> None:
    worlds = [path for path in SOURCES.glob("*.py") if path.stem not in ("invariants", "planted")]
    checked = {name for path in worlds for name in re.findall(r'"([A-Z]\d+)"', path.read_text())}
    assert checked == set(INVARIANTS)


def test_page_names_a_defect_that_can_be_planted() -> None:
    named = re.findall(r"--plant ([\w-]+)$", PAGE.read_text(), re.MULTILINE)
    assert named
    assert set(named) <= set(planted.PLANTS)
