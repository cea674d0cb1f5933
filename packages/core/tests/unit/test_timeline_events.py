"""Events of the timeline: valid by Chrome's trace format, nothing lies on anything else, arrows lead where they should."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._client import timeline
from umbel._client.timeline import Lanes, Process

DRIVER, WORKER, HOST = "d" * 32, "a" * 32, "b" * 32
PROCESSES = {DRIVER: Process(1, True), WORKER: Process(2, False), HOST: Process(3, False)}


def row(number: int, started_s: float, ended_s: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"{DRIVER}{number:016x}", "attempt_number": 0, "name": "f", "func_or_class_name": "f",
        "type": "NORMAL_TASK", "state": "FINISHED", "actor_id": None, "parent_task_id": None, "worker_id": WORKER,
        "worker_pid": 2, "submitted_s": 0.5, "started_s": started_s, "ended_s": ended_s,
    } | changes  # fmt: skip


def check(events: list[dict[str, Any]]) -> None:
    """What the format asks for of the kinds of events that we use, and that flows have two ends."""
    flows: dict[str, list[str]] = {}
    for event in events:
        assert event["ph"] in ("X", "M")
        assert type(event["pid"]) is type(event["tid"]) is int
        assert type(event["ts"]) is int
        assert isinstance(event["name"], str)
        if event["ph"] == "X":
            assert type(event["dur"]) is int
            assert event["dur"] >= 0
            assert event["cat"]
        if "bind_id" in event:
            flows.setdefault(event["bind_id"], []).extend(end for end in ("flow_out", "flow_in") if event.get(end))
    assert all(ends == ["flow_out", "flow_in"] for ends in flows.values())


def tasks_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event.get("cat") in timeline.CATEGORIES.values()]


def test_task_is_a_span_in_its_worker() -> None:
    events = list(timeline.events([row(1, 1.0, 3.0)], PROCESSES, 9.0))
    check(events)
    (span,) = tasks_of(events)
    assert {name: span[name] for name in ("cat", "name", "ph", "ts", "dur", "pid", "tid")} == {
        "cat": "task", "name": "f", "ph": "X", "ts": 1e6, "dur": 2e6, "pid": 2, "tid": 0,
    }  # fmt: skip
    assert span["args"]["task_id"] == f"{DRIVER}{1:016x}"
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {1: "driver", 2: "worker"}
    lanes = [(e["pid"], e["tid"], e["args"]["name"]) for e in events if e["name"] == "thread_name"]
    assert sorted(lanes) == [(1, 0, "driver"), (2, 0, "tasks")]


def test_arrows_lead_from_the_submitter_to_where_it_runs() -> None:
    child = row(1, 2.0, 3.0, task_id=f"{WORKER}{1:016x}", parent_task_id=f"{DRIVER}{1:016x}", worker_id=HOST)
    events = list(timeline.events([row(1, 1.0, 5.0), child], PROCESSES, 9.0))
    check(events)
    arrows = [
        (event["name"], event["pid"], event["ts"], event["dur"], "flow_in" in event)
        for event in events
        if "bind_id" in event
    ]
    assert arrows == [
        ("submit f", 1, 0.5e6, 0.0, False), ("f", 2, 1e6, 4e6, True),
        ("submit f", 2, 0.5e6, 0.0, False), ("f", 3, 2e6, 1e6, True),
    ]  # fmt: skip
    (span,) = [event for event in events if event["name"] == "driver"]
    assert (span["ts"], span["dur"]) == (0.5e6, 4.5e6)  # where arrows begin, there is something they begin at


def test_what_never_ran_is_left_out_and_what_runs_goes_on_until_now() -> None:
    never = row(1, 0.0, 3.0) | {"started_s": None, "worker_id": None}
    events = list(timeline.events([never, row(2, 4.0, None, state="RUNNING")], PROCESSES, 9.0))
    check(events)
    assert [(event["ts"], event["dur"], event["name"]) for event in tasks_of(events)] == [(4e6, 5e6, "f (running)")]


@pytest.mark.parametrize(
    ("changes", "title", "color"),
    [
        ({"state": "FAILED", "error_type": "TASK_EXECUTION_EXCEPTION"}, "f (failed)", "terrible"),
        ({"state": "FAILED", "error_type": "TASK_CANCELLED"}, "f (cancelled)", "grey"),
        ({}, "f", None),
    ],
)
def test_title_and_color_tell_what_went_wrong(changes: dict[str, Any], title: str, color: str | None) -> None:
    """Perfetto colors spans by their titles only, chrome://tracing by "cname"; the plain name is in the arguments."""
    (span,) = tasks_of(list(timeline.events([row(1, 1.0, 3.0, **changes)], PROCESSES, 9.0)))
    assert (span["name"], span.get("cname"), span["args"]["name"]) == (title, color, "f")


def test_error_is_told_by_its_last_line_with_a_bound() -> None:
    failed = {"state": "FAILED", "error_type": "TASK_EXECUTION_EXCEPTION"}
    rows = [
        row(1, 1.0, 2.0, **failed, error_message="Traceback:\n  in f\nValueError: 1 is odd\n"),
        row(2, 2.0, 3.0, **failed, error_message="x" * 10_000),
        row(3, 3.0, 4.0),
    ]
    told = [span["args"].get("error_message") for span in tasks_of(list(timeline.events(rows, PROCESSES, 9.0)))]
    assert told == ["ValueError: 1 is odd", "x" * timeline.ERROR_CHARS_MAX, None]


def test_attempt_lost_with_its_worker_is_a_mark_where_that_died() -> None:
    """Nobody knows when it started: it comes last, and the arrow leads to the attempt that is known better."""
    lost = row(1, 0.0, 2.0, state="FAILED", error_type="WORKER_DIED") | {"started_s": None}
    events = list(timeline.events([row(1, 3.0, 4.0, attempt_number=1, worker_id=HOST), lost], PROCESSES, 9.0))
    check(events)
    assert [(e["name"], e["pid"], e["tid"], e["ts"], e["dur"], "flow_in" in e) for e in tasks_of(events)] == [
        ("f", 3, 0, 3e6, 1e6, True),
        ("f (failed)", 2, 0, 2e6, 0.0, False),
    ]


def test_arrows_of_what_a_retry_submits_begin_at_the_retry() -> None:
    parent = f"{DRIVER}{1:016x}"
    rows = [
        row(1, 1.0, 2.0, state="FAILED"),
        row(1, 3.0, 5.0, attempt_number=1, worker_id=HOST),
        row(1, 4.0, 4.5, task_id=f"{HOST}{1:016x}", parent_task_id=parent, submitted_s=3.5),
    ]
    events = list(timeline.events(rows, PROCESSES, 9.0))
    check(events)
    assert [(e["pid"], e["ts"]) for e in events if e.get("cat") == "submit"] == [(1, 0.5e6), (3, 3.5e6)]


def test_rounding_lets_no_span_reach_into_the_next() -> None:
    """Perfetto drops what overlaps, and reads as floats what is not whole."""
    chance = random.Random(0)
    at_s, rows = 1.8e9, []
    for number in range(1_000):
        ended_s = at_s + chance.random() * 1e-4
        rows.append(row(number, at_s, ended_s))
        at_s = ended_s
    events = list(timeline.events(rows, PROCESSES, 2e9))
    check(events)
    spans = tasks_of(events)
    ends = [span["ts"] + span["dur"] for span in spans]
    assert {span["tid"] for span in spans} == {0}
    assert all(end <= later["ts"] for end, later in zip(ends, spans[1:], strict=False))


def test_process_of_an_actor_has_its_name() -> None:
    call = row(1, 1.0, 2.0, type="ACTOR_TASK", actor_id="c" * 48, func_or_class_name="Counter.add", worker_id=HOST)
    events = list(timeline.events([call], PROCESSES, 9.0))
    assert ("process_name", 3, {"name": "actor Counter"}) in [(e["name"], e["pid"], e.get("args")) for e in events]


def test_each_lane_of_an_actor_has_a_name() -> None:
    call = {"type": "ACTOR_TASK", "actor_id": "c" * 48, "func_or_class_name": "Counter.add", "worker_id": HOST}
    events = list(timeline.events([row(1, 1.0, 4.0, **call), row(2, 2.0, 3.0, **call)], PROCESSES, 9.0))
    assert [event["tid"] for event in tasks_of(events)] == [0, 1]
    names = [(e["tid"], e["args"]["name"]) for e in events if (e["name"], e["pid"]) == ("thread_name", 3)]
    assert names == [(0, "calls"), (1, "calls")]


def test_spans_in_a_lane_do_not_overlap_and_lanes_are_few() -> None:
    for seed in range(50):
        chance = random.Random(seed)
        lanes = Lanes()
        spans = sorted((chance.random(), chance.random()) for _ in range(100))
        placed: dict[int, float] = {}
        running: list[float] = []
        most = 0
        for started_s, length_s in spans:
            ended_s = started_s + length_s * 0.1
            lane = lanes.place(started_s, ended_s)
            assert placed.get(lane, 0.0) <= started_s
            placed[lane] = ended_s
            running = [end_s for end_s in running if end_s > started_s] + [ended_s]
            most = max(most, len(running))
        assert len(placed) == most


def test_without_room_for_arrows_there_are_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "ARROWS_MAX", 10)
    rows = (row(number, float(number), number + 0.5) for number in range(20))
    events = list(timeline.events(rows, PROCESSES, 0.0))
    check(events)
    kinds = [event.get("cat") for event in events]
    assert (kinds.count("task"), kinds.count("submit"), kinds.count("driver")) == (20, 10, 1)
    assert sum("flow_in" in event for event in events) == 10
