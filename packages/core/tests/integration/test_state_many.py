"""Listings and summaries of more than one answer holds, and while what they count comes to its end."""

from __future__ import annotations

import collections
import os
import pathlib
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel._client import current, own_state
from umbel.util import state

MANY = 10_500
assert MANY > own_state.PAGE  # so that one answer is not enough


@pytest.fixture
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


@umbel.remote(num_cpus=0)
def one(_value: Any = None) -> None:
    pass


@umbel.remote(num_cpus=0)
def other(_value: Any = None) -> None:
    pass


@umbel.remote(num_cpus=0)
def hold(path: str) -> None:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)


@umbel.remote(num_cpus=0, max_retries=1, retry_exceptions=True)
def second_time(path: str) -> None:
    if not pathlib.Path(path).exists():
        pathlib.Path(path).touch()
        raise ValueError("once")


@umbel.remote(num_cpus=0)
class Gate:
    def wait(self, path: str) -> None:
        while not pathlib.Path(path).exists():
            time.sleep(0.005)

    def pass_by(self) -> None:
        pass


@pytest.mark.usefixtures("session")
class TestTasks:
    def test_all_that_wait_are_counted_listed_and_paged(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        first = hold.remote(str(gate))
        refs = [(one, other)[number % 2].remote(first) for number in range(MANY)]
        summary = state.summarize_tasks()["cluster"]
        counts = {name: entry["state_counts"] for name, entry in summary["summary"].items()}
        half = {"PENDING_ARGS_AVAIL": MANY // 2}
        assert (counts["one"], counts["other"], summary["total_tasks"]) == (half, half, MANY + 1)
        ids = [ref.task_id().hex() for ref in [first, *refs]]
        assert [task.task_id for task in state.list_tasks(limit=2 * MANY)] == ids
        assert [task.task_id for task in state.list_tasks(limit=10, offset=10_200)] == ids[10_200:10_210]
        last = state.list_tasks(limit=3, offset=10_200, order_by="-task_id")
        assert [task.task_id for task in last] == ids[::-1][10_200:10_203]
        newest = state.list_tasks(limit=3, order_by="-creation_time_ms")
        assert [task.task_id for task in newest] == ids[: -3 - 1 : -1]
        (started,) = state.list_tasks(limit=1, order_by="-start_time_ms")
        assert started.task_id == ids[0]
        middle = state.list_tasks(filters=[("task_id", "=", ids[10_100])], detail=True)[0].creation_time_ms
        later = state.list_tasks(filters=[("creation_time_ms", ">", middle)], limit=MANY)
        assert [task.task_id for task in later] == ids[MANY + 1 - len(later) :]
        assert 0 < len(later) <= MANY - 10_100
        others = state.list_tasks(filters=[("name", "=", "other")], limit=2, offset=MANY // 2 - 2)
        assert [task.task_id for task in others] == [ids[-3], ids[-1]]
        assert [task.state for task in state.list_tasks(filters=[("task_id", "=", ids[-1])])] == ["PENDING_ARGS_AVAIL"]
        gate.touch()
        umbel.get(refs, timeout=60)
        assert state.summarize_tasks()["cluster"]["total_tasks"] == MANY + 1

    def test_all_calls_that_an_actor_has_received_are_listed(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        actor = Gate.remote()
        calls = [actor.wait.remote(str(gate)), *[actor.pass_by.remote() for _ in range(MANY)]]
        drivers.wait_until(lambda: state.list_tasks(filters=[("state", "=", "RUNNING"), ("name", "=", "Gate.wait")]))
        counts = state.summarize_tasks()["cluster"]["summary"]
        assert counts["Gate.wait"]["state_counts"] == {"RUNNING": 1}
        assert sum(counts["Gate.pass_by"]["state_counts"].values()) == MANY
        found = state.list_tasks(filters=[("type", "=", "ACTOR_TASK")], limit=2 * MANY)
        assert [task.task_id for task in found] == [call.task_id().hex() for call in calls]
        assert len(state.list_tasks(filters=[("name", "=", "Gate.pass_by")], limit=10)) == 10
        gate.touch()
        umbel.get(calls, timeout=60)

    def test_tasks_that_end_meanwhile_are_counted_and_listed_once(self) -> None:
        """Each is alive when its owner tells of it, or in the history by the time that is read, or both."""
        count = 6_000
        refs = [(one, other)[number % 2].remote() for number in range(count)]
        totals: collections.Counter[int] = collections.Counter()
        listed: collections.Counter[tuple[int, int]] = collections.Counter()
        has_ended = False
        while not has_ended:
            has_ended = len(umbel.wait(refs, num_returns=count, timeout=0)[0]) == count
            totals[state.summarize_tasks()["cluster"]["total_tasks"]] += 1
            found = [task.task_id for task in state.list_tasks(limit=2 * count)]
            listed[len(found), len(set(found))] += 1
        assert (dict(totals), dict(listed)) == ({count: totals.total()}, {(count, count): listed.total()})

    def test_task_that_ends_just_after_its_owner_has_reported_is_told(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        refs = [hold.remote(str(gate)) for _ in range(3)]
        drivers.wait_until(lambda: len(state.list_tasks(filters=[("state", "=", "RUNNING")])) == len(refs))
        engine = current.engine()

        def open_gate(frame: types.FrameType, event: str, _argument: Any) -> None:
            """Once the report is made: now they end, unless something keeps that from being noticed for a while."""
            if event == "return" and frame.f_code.co_name == "send_tasks" and not gate.exists():
                gate.touch()
                until_s = time.monotonic() + 0.5
                while engine.tasks.unfinished and time.monotonic() < until_s:
                    time.sleep(0.005)

        sys.setprofile(open_gate)
        try:
            found = state.list_tasks()
        finally:
            sys.setprofile(None)
        assert [task.task_id for task in found] == [ref.task_id().hex() for ref in refs]
        umbel.get(refs, timeout=60)

    def test_attempts_that_end_meanwhile_are_counted_once(self, tmp_path: pathlib.Path) -> None:
        refs = [second_time.remote(str(tmp_path / str(number))) for number in range(300)]
        has_ended = False
        while not has_ended:
            has_ended = len(umbel.wait(refs, num_returns=len(refs), timeout=0)[0]) == len(refs)
            found = [(task.task_id, task.attempt_number) for task in state.list_tasks(limit=10_000)]
            first = [task for task, attempt in found if not attempt]
            assert (len(found), len(first)) == (len(set(found)), len(refs))
            second = {task for task, attempt in found if attempt}
            assert second <= set(first)
        assert state.summarize_tasks()["cluster"]["total_tasks"] == 2 * len(refs)

    def test_pages_of_what_is_alive_and_what_has_ended_fit_together(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"

        @umbel.remote(num_cpus=0)
        def owner(path: str) -> None:
            umbel.get([one.remote() for _ in range(10)])
            refs = [hold.remote(path), *[one.remote() for _ in range(10)]]
            umbel.get(refs)

        owners = [owner.remote(str(gate)) for _ in range(3)]
        whole = drivers.wait_until(
            lambda: len(found := [task.task_id for task in state.list_tasks(limit=1_000)]) == 3 * 22 and found
        )
        pages = [task.task_id for offset in range(0, 70, 7) for task in state.list_tasks(limit=7, offset=offset)]
        assert pages == whole
        gate.touch()
        umbel.get(owners, timeout=60)


@pytest.mark.usefixtures("session")
class TestObjects:
    def test_all_are_counted_listed_and_sorted(self) -> None:
        small = [umbel.put(number) for number in range(MANY)]
        large = [umbel.put(bytes(300_000 + number)) for number in (0, 2_000, 1_000)]
        summary = state.summarize_objects()["cluster"]
        assert summary["total_objects"] == MANY + 3
        assert summary["total_size_mb"] > 0.85
        entry = summary["summary"]["disabled"]
        assert (entry["total_num_workers"], entry["ref_type_counts"]) == (1, {"LOCAL_REFERENCE": MANY + 3})
        biggest = state.list_objects(order_by="-object_size", limit=3)
        assert [told.object_id for told in biggest] == [large[1].hex(), large[2].hex(), large[0].hex()]
        assert len(state.list_objects(order_by="-object_size")) == 100
        found = state.list_objects(limit=2 * MANY)
        assert {told.object_id for told in found} == {ref.hex() for ref in (*small, *large)}
        assert (len(found), {told.pid for told in found}) == (MANY + 3, {os.getpid()})
        assert len(state.list_objects(filters=[("object_size", ">", 250_000)])) == 3
        assert len(state.list_objects(limit=10, offset=MANY)) == 3

    def test_what_needs_them_is_told_on_every_page(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        first = umbel.put(0)
        rest = [umbel.put(number) for number in range(MANY)]
        holder = umbel.put([rest[-1]])
        pending = one.remote([first, hold.remote(str(gate))])
        told = {
            kind: state.list_objects(filters=[("reference_type", "=", kind)])
            for kind in ("USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT")
        }
        assert first.hex() in {one.object_id for one in told["USED_BY_PENDING_TASK"]}
        assert [one.object_id for one in told["CAPTURED_IN_OBJECT"]] == [rest[-1].hex()]
        gate.touch()
        umbel.get(pending, timeout=60)
        del holder
