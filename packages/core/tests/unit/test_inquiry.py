"""Stories told by made-up processes: how far they are followed, and what is called a deadlock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from umbel import exceptions
from umbel._client import inquiry
from umbel._model import reasons
from umbel._model.reasons import Reason


class _Alone:
    """Of one node."""

    process = "p"
    is_here = True

    def gather(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, dict[str, Any]]:
        raise AssertionError("no story here asks several nodes")


class Told(_Alone):
    """Processes that know of objects which task makes them, and of tasks what they wait for."""

    def __init__(self, tasks_of: Callable[[str], list[dict[str, Any]]]) -> None:
        self._tasks_of = tasks_of
        self.questions = 0

    def ask(self, process: str, what: str, about: str) -> dict[str, Any]:
        self.questions += 1
        if what == "explain":
            facts = {"worker": process, "task": f"t{about}"}
            return {"reason": Reason(reasons.QUEUED, f"object {about}", "was sent", facts=facts).as_json()}
        return {"pid": 1, "queued": 1, "running": self._tasks_of(about), "beside": [], "waiting": []}

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        raise AssertionError("no story here ends at the agent")


class Waiting(_Alone):
    """A process whose object waits for a placement group, at a node without a connection to its head."""

    def ask(self, _process: str, _what: str, _about: str) -> dict[str, Any]:
        facts = {"group": "g"}
        return {"reason": Reason(reasons.GROUP, "it", "is there once g is placed", facts=facts).as_json()}

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        raise exceptions.UmbelSystemError(f"{what} {about} are known to the head")


def test_a_group_that_cannot_be_looked_at_says_why() -> None:
    found = [one.text for one in inquiry.story(Waiting(), "p", "0").chain()]
    assert found == ["is there once g is placed", "cannot be looked at: placement_groups g are known to the head"]


class Small(_Alone):
    """An agent of a cluster with an autoscaler, where a task waits that no node can run."""

    said: str | None = "launches nothing for it (small: is too small)"

    def ask(self, _process: str, _what: str, _about: str) -> dict[str, Any]:
        facts = {"key": "k"}
        return {"reason": Reason(reasons.QUEUED, "it", "waits for a worker", facts=facts).as_json()}

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        if what == "pending":
            facts = {"lacks": {"needs": {"CPU": 90_000}, "labels": []}}
            why = Reason(reasons.INFEASIBLE, "it", "needs {CPU: 9}", "ask for less", facts).as_json()
            return [{"client": "p", "actor": "", "key": "k", "why": why}]
        assert (what, json.loads(about)) == ("launches", {"needs": {"CPU": 90_000}, "labels": []})
        return self.said


def test_what_no_node_can_run_is_followed_to_the_autoscaler() -> None:
    told = inquiry.story(Small(), "p", "0")
    assert str(told.last()) == "the autoscaler launches nothing for it (small: is too small)"
    assert told.last().code == reasons.INFEASIBLE


@pytest.mark.parametrize(
    ("said", "last"),
    [("", "the autoscaler has not decided about it yet"), (None, "it needs {CPU: 9}; ask for less")],
    ids=["before it looked", "no autoscaler"],
)
def test_what_no_node_can_run_and_the_autoscaler_says_nothing_of(said: str | None, last: str) -> None:
    asker = Small()
    asker.said = said
    assert str(inquiry.story(asker, "p", "0").last()) == last


def running(task: str, *waits: str, needs_all: bool = True) -> dict[str, Any]:
    return {
        "task": task, "name": task, "for_s": 1.0, "at": "a.py:1 in f", "waits": list(waits), "needs_all": needs_all,
        "why": None, "is_ahead": True,
    }  # fmt: skip


def test_story_without_an_end_is_cut_and_no_deadlock() -> None:
    told = Told(lambda task: [running(task, str(int(task[1:]) + 1))])
    story = inquiry.story(told, "p", "0")
    assert reasons.DEADLOCK not in [one.code for one in story.chain()]
    assert told.questions == 2 * inquiry.HOPS_MAX


def test_story_without_an_end_on_any_way_is_cut_too() -> None:
    told = Told(lambda task: [running(task, task[1:] + "0", task[1:] + "1", needs_all=False)])
    story = inquiry.story(told, "p", "0")
    assert reasons.DEADLOCK not in [one.code for one in story.chain()]
    assert told.questions == 2 * inquiry.HOPS_MAX


def test_call_behind_others_is_stuck_if_all_of_them_wait_for_it() -> None:
    def ahead(count: int, *, is_one_busy: bool) -> list[dict[str, Any]]:
        return [running(f"c{index}", "0") for index in range(count)] + ([running("busy")] if is_one_busy else [])

    for count, is_one_busy, code in (
        (1, False, reasons.DEADLOCK),
        (5, False, reasons.DEADLOCK),
        (5, True, reasons.QUEUED),
        (inquiry.WAYS_MAX, False, reasons.DEADLOCK),
        (inquiry.WAYS_MAX + 1, False, reasons.QUEUED),  # one of those that were not followed may end
    ):
        told = Told(lambda _task, count=count, is_one_busy=is_one_busy: ahead(count, is_one_busy=is_one_busy))
        assert inquiry.story(told, "p", "0").last().code == code


def test_one_that_needs_any_of_several_is_stuck_if_none_can_come() -> None:
    def tasks_of(task: str) -> list[dict[str, Any]]:
        if task == "t0":
            return [running("t0", "1", "2", needs_all=False)]
        return [running(task, "0")] if task in stuck else [running(task)]

    stuck = {"t1"}
    assert inquiry.story(Told(tasks_of), "p", "0").last().facts["task"] == "t2"
    stuck = {"t1", "t2"}
    assert inquiry.story(Told(tasks_of), "p", "0").last().code == reasons.DEADLOCK
