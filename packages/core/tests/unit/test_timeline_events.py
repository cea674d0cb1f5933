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
    flows: dict[int, list[str]] = {}
    for event in events:
        assert event["ph"] in ("X", "s", "f", "M")
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["ts"], (int, float))
        assert isinstance(event["name"], str)
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["cat"]
        if event["ph"] in "sf":
            flows.setdefault(event["id"], []).append(event["ph"])
    assert all(ends == ["s", "f"] for ends in flows.values())


def test_task_is_a_span_in_its_worker() -> None:
    events = list(timeline.events([row(1, 1.0, 3.0)], PROCESSES, 9.0))
    check(events)
    span = events[0]
    assert {name: span[name] for name in ("cat", "name", "ph", "ts", "dur", "pid", "tid")} == {
        "cat": "task", "name": "f", "ph": "X", "ts": 1e6, "dur": 2e6, "pid": 2, "tid": 0,
    }  # fmt: skip
    assert span["args"]["task_id"] == f"{DRIVER}{1:016x}"
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {1: "driver", 2: "worker"}


def test_arrows_lead_from_the_submitter_to_where_it_runs() -> None:
    child = row(1, 2.0, 3.0, task_id=f"{WORKER}{1:016x}", parent_task_id=f"{DRIVER}{1:016x}", worker_id=HOST)
    events = list(timeline.events([row(1, 1.0, 5.0), child], PROCESSES, 9.0))
    check(events)
    arrows = [(event["ph"], event["pid"], event["ts"]) for event in events if event["ph"] in "sf"]
    assert arrows == [("s", 1, 0.5e6), ("f", 2, 1e6), ("s", 2, 0.5e6), ("f", 3, 2e6)]
    (span,) = [event for event in events if event["name"] == "driver"]
    assert (span["ts"], span["dur"]) == (0.5e6, 4.5e6)  # where arrows begin, there is something they begin at


def test_what_never_ran_is_left_out_and_what_runs_goes_on_until_now() -> None:
    never = row(1, 0.0, 3.0) | {"started_s": None, "worker_id": None}
    events = list(timeline.events([never, row(2, 4.0, None, state="RUNNING")], PROCESSES, 9.0))
    check(events)
    assert [(event["ts"], event["dur"]) for event in events if event.get("cat") == "task"] == [(4e6, 5e6)]


def test_process_of_an_actor_has_its_name() -> None:
    call = row(1, 1.0, 2.0, type="ACTOR_TASK", actor_id="c" * 48, func_or_class_name="Counter.add", worker_id=HOST)
    events = list(timeline.events([call], PROCESSES, 9.0))
    assert ("process_name", 3, {"name": "actor Counter"}) in [(e["name"], e["pid"], e.get("args")) for e in events]


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
    kinds = [event["ph"] for event in timeline.events(rows, PROCESSES, 0.0)]
    assert (kinds.count("X"), kinds.count("s"), kinds.count("f")) == (21, 10, 10)
