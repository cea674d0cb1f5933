"""Reasons as data: their story, their form on the wire."""

from __future__ import annotations

import functools
import json
import sys

from umbel._model import reasons
from umbel._model.reasons import Reason

TASK = Reason(reasons.RUNNING, "f", "runs", facts={"for_s": 1.5})
WAIT = Reason(reasons.WORKER, "g", "waits for 4 CPU", "lower num_cpus")


def test_story_is_told_to_its_end() -> None:
    assert str(TASK) == "f runs"
    assert str(TASK.followed_by(WAIT)) == "f runs: g waits for 4 CPU; lower num_cpus"
    assert str(Reason(reasons.LIMIT, "", "32 run already")) == "32 run already"


def test_more_comes_after_what_was_told() -> None:
    last = Reason(reasons.READY, "x", "is ready")
    story = TASK.followed_by(WAIT).followed_by(last)
    assert [one.code for one in story.chain()] == ["running", "worker", "ready"]
    assert story.last() == last
    assert TASK.because is None


def test_reason_survives_json() -> None:
    story = TASK.followed_by(WAIT)
    assert Reason.from_json(json.loads(json.dumps(story.as_json()))) == story


def test_story_may_be_longer_than_the_stack_is_deep() -> None:
    count = 2 * sys.getrecursionlimit()
    story = functools.reduce(lambda told, _: WAIT._replace(because=told), range(count), TASK)
    assert str(story).endswith("g waits for 4 CPU; lower num_cpus: f runs")
    assert [one.code for one in story.followed_by(WAIT).chain()] == ["worker"] * count + ["running", "worker"]
    assert Reason.from_json(story.as_json()).chain()[-2:] == story.chain()[-2:]
