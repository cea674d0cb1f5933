"""Runs of datasets by chance keep every invariant, and what is planted is found."""

from __future__ import annotations

import re
from pathlib import Path

import dataset_defects
import dataset_world
import pytest

from umbel.testing.simulation import runner

SEEDS = range(300)
SEEDS_TO_FIND_MAX = 1_500  # the rarest is found in one of 200 runs
PAGE = Path(__file__).resolve().parents[4] / "docs" / "invariants.md"


@pytest.mark.slow
def test_runs_keep_every_invariant() -> None:
    result = runner.run_seeds("datasets", dataset_world.make, SEEDS)
    assert result.failure is None, runner.report(result.failure)


def test_seed_does_the_same_every_time() -> None:
    traces = [runner.trace_of(dataset_world.make, seed) for seed in (7, 8, 7)]
    assert traces[0] == traces[2]
    assert traces[0] != traces[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(dataset_defects.DEFECTS))
def test_planted_defect_is_found(name: str) -> None:
    defect = dataset_defects.DEFECTS[name]
    result = runner.run_seeds("datasets", dataset_world.make, range(SEEDS_TO_FIND_MAX), defect.apply, shortens=False)
    assert result.failure is not None
    assert result.failure.error.startswith(defect.signs)


def test_page_lists_the_invariants() -> None:
    listed = re.findall(r"^\| \*\*(F\d+)\*\* \|", PAGE.read_text(), re.MULTILINE)
    assert listed == list(dataset_world.INVARIANTS)


def test_every_invariant_is_checked() -> None:
    source = Path(str(dataset_world.__file__)).read_text()
    assert set(re.findall(r'"(F\d+)", "', source)) == set(dataset_world.INVARIANTS)
