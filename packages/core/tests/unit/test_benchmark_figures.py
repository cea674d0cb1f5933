"""What the benchmarks make of their figures: which rows there are, what is timed, and what the report says of them.

Not here: the rows themselves (`tests/integration/test_benchmarks.py`).
"""

from __future__ import annotations

import pathlib
import types
from typing import Any

import pytest

pytest.importorskip("numpy")

ROOT = pathlib.Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `benchmarks` is no part of the wheel."""
    monkeypatch.syspath_prepend(str(ROOT))


def side(module: str, **samples: float) -> Any:
    from benchmarks.compare import Side

    rows = {key: [{"samples": [sample]}] for key, sample in samples.items()}
    return Side(module, pathlib.Path("python"), rows=rows)


def verdict(key: str, ours: dict[str, float], peers: dict[str, float]) -> Any:
    from benchmarks import bars, compare

    return compare.judge(bars.ROW_BY_KEY[key], side("umbel", **ours), side("ray", **peers))


def test_every_row_has_what_measures_it_and_one_group_is_one_shape_of_cluster() -> None:
    from benchmarks import bars, rows

    of_fresh_processes = {"start", "idle_memory", "idle_cpu"}
    assert bars.ROW_BY_KEY.keys() == rows.BUILDERS.keys() | of_fresh_processes
    assert {key: row.nodes for key, row in bars.ROW_BY_KEY.items() if row.nodes != 1} == dict.fromkeys(
        bars.keys_in("nodes"), 2
    )


def test_a_row_without_bars_is_shown_with_its_ratio_and_meets_nothing() -> None:
    one = verdict("transfer_256mib", {"transfer_256mib": 2.0}, {"transfer_256mib": 0.5})
    assert one.cells() == ["read a 256 MiB array of another node", "2 GB/s", "0.5 GB/s", "4x", "", "", ""]
    assert one.is_met


def test_a_row_without_bars_that_failed_is_not_met() -> None:
    one = verdict("transfer_256mib", {"transfer_256mib": 2.0}, {})
    assert one.cells() == ["read a 256 MiB array of another node", "2 GB/s", "failed", "", "", "", "**failed**"]
    assert not one.is_met


def test_rows_with_bars_are_judged_by_them() -> None:
    meets = [verdict("tasks_sync", {"tasks_sync": rate}, {"tasks_sync": 1.0}).meets for rate in (9.0, 10.0, 25.0)]
    assert meets == ["**no**", "bar", "goal"]
    groups = verdict("group_churn", {"group_churn": 100.0}, {"group_churn": 20.0})
    assert groups.cells() == [
        "placement group create + remove",
        "100 groups/s",
        "20 groups/s",
        "5x",
        "5x",
        "20x",
        "bar",
    ]


def test_the_report_counts_the_rows_that_have_bars() -> None:
    from benchmarks import compare

    found = {"tasks_sync": 30.0, "remote_tasks_sync": 30.0}
    verdicts = [verdict(key, found, {"tasks_sync": 1.0, "remote_tasks_sync": 1.0}) for key in found]
    text = compare.report(verdicts, [], side("umbel"), side("ray"))
    assert "First bars met: 1 of 1; goals: 1." in text
    assert "tasks on another node, one at a time" in text


def test_what_prepares_an_operation_comes_before_each_and_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import measure

    now_s = 0.0
    done: list[str] = []

    def takes(name: str, seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        done.append(name)

    monkeypatch.setattr(measure, "time", types.SimpleNamespace(perf_counter=lambda: now_s))
    effort = measure.Effort(warm_up_s=1.0, sample_s=4.0, samples=2, budget_s=1000.0, limit_s=1.0)
    workload = measure.Workload(lambda: takes("operation", 2.0), 6.0, prepare=lambda: takes("prepare", 16.0))
    assert measure.rate(workload, effort).samples == [3.0, 3.0]
    assert done == ["prepare", "operation"] * 5  # one to warm up, two samples of two


def test_what_other_programs_print_stands_on_the_page_with_what_it_is_and_how_to_get_it() -> None:
    from benchmarks import figures

    assert all((figures.FOLDER / f"{name}.py").is_file() for name in figures.PROGRAMS)
    text = figures.section("locality", ["--bytes", "8"], "8 MiB: 1 ms", is_good=False)
    assert text == (
        "## `benchmarks/locality.py --bytes 8`\n\nWhat it saves that tasks run where their large arguments are.\n\n"
        "```text\n8 MiB: 1 ms\n```\n\nIt has failed, or missed a bar of its own.\n"
    )


def test_a_program_that_fails_is_told_with_what_it_has_printed() -> None:
    from benchmarks import figures

    said, is_good = figures.run("locality", ["--bytes", "nonsense"])
    assert (said, is_good) == ("nothing", False)


def test_graphs_are_below_their_bar_where_a_call_of_a_number_is() -> None:
    from benchmarks import dag

    def columns(one: float, large: float) -> dag.Columns:
        theirs = {dag.ONE: 10.0, dag.SEVERAL: 10.0, dag.LARGE: 10.0}
        return {"umbel": [{dag.ONE: one, dag.SEVERAL: 50.0, dag.LARGE: large}], "ray": [theirs]}

    good, bad = columns(50.0, 10.0), columns(49.0, 10.0)
    assert [dag.is_below_bar(good, row) for row in (dag.ONE, dag.SEVERAL, dag.LARGE)] == [False, False, False]
    assert [dag.is_below_bar(bad, row) for row in (dag.ONE, dag.SEVERAL, dag.LARGE)] == [True, False, False]
    alone = {"umbel": bad["umbel"]}
    assert not dag.is_below_bar(alone, dag.ONE)
    assert [line.partition(" a second")[2] for line in dag.table(bad).splitlines()] == [
        ", 4.9 times  below the bar",
        ", 5.0 times",
        ", 1.0 times",
    ]
    assert dag.table(alone).splitlines()[0] == "a number, one at a time: umbel 49 (49 to 49) a second"


def test_the_history_is_above_its_bar_where_recording_or_a_question_is() -> None:
    from benchmarks import state

    def found(ratio: float, as_written_s: float, of_rows_s: float) -> dict[str, Any]:
        return {
            "cost": {"tasks_sync": {"ratio": 1.0}, "tasks_pipelined": {"ratio": ratio}},
            "questions_as_written": {"list 100": {"elapsed_s": as_written_s}},
            "questions_of_rows": {"list 100": {"elapsed_s": of_rows_s}},
        }

    assert not state.is_above_bar(found(1.05, 0.5, 0.5))
    assert not state.is_above_bar({})  # nothing was measured
    assert all(state.is_above_bar(one) for one in (found(1.06, 0, 0), found(1, 0.6, 0), found(1, 0, 0.6)))
