"""Which jobs there are, how they are numbered and remembered, and which drivers a node takes."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

from umbel._agent import events as ev
from umbel._agent import jobs as node_jobs
from umbel._control import jobs

FACTS = {"version": "1.2", "entrypoint": "python program.py", "sys_path": ["/here"]}


def test_jobs_are_numbered_as_rays_are_and_listed_with_how_they_ended() -> None:
    book = jobs.Jobs()
    first = book.begin("a", 11, FACTS, 1.0)
    second = book.begin("b", 12, FACTS, 2.0)
    assert (first.id, second.id) == ("01000000", "02000000")
    book.leaves("a")
    book.gone("a", 3.0)
    book.gone("b", 4.0)
    book.gone("b", 5.0)
    book.leaves("nobody")
    listed = [(one.id, one.status, one.ended_s, one.entrypoint) for one in book.listed()]
    assert listed == [
        ("01000000", jobs.SUCCEEDED, 3.0, "python program.py"),
        ("02000000", jobs.FAILED, 4.0, "python program.py"),
    ]
    assert "without umbel.shutdown()" in second.message
    assert not first.message


def test_of_the_ended_only_so_many_are_remembered_and_none_of_what_their_workers_needed() -> None:
    book = jobs.Jobs()
    for number in range(jobs.ENDED_KEPT_MAX + 2):
        job = book.begin("a", number, FACTS, 0.0)
        book.gone("a", 1.0)
        assert job.environment is None
    listed = book.listed()
    assert len(listed) == jobs.ENDED_KEPT_MAX
    assert (listed[0].pid, listed[-1].pid) == (2, jobs.ENDED_KEPT_MAX + 1)


def _env(job_id: str) -> str:
    return json.dumps({"job": job_id})


def test_a_node_knows_what_a_jobs_workers_need_as_long_as_somebody_may_start_one() -> None:
    node = node_jobs.NodeJobs("1.2")
    environment: Any = jobs.JobEnvironment("01", FACTS)
    node.began(environment)
    assert node.is_running(_env("01"))
    assert node.configuration("01") == {**FACTS, "job_id": "01"}
    node.ended("01")
    assert not node.is_running(_env("01"))
    assert node.environment("01") is environment  # a detached actor may have it still
    del environment
    gc.collect()
    assert node.environment("01") is None


def test_what_workers_of_another_nodes_job_need_is_known_by_the_name_that_all_nodes_have_for_it() -> None:
    node = node_jobs.NodeJobs("1.2")
    guest: Any = jobs.JobEnvironment("01@0a0b0c0d", FACTS)
    node.began(guest)
    assert node.configuration("01") == {**FACTS, "job_id": "01"}
    assert node.configuration("02") == {"job_id": "02"}


def test_what_a_job_is_scheduled_by_is_what_its_driver_says_wherever_it_is_known_from() -> None:
    node = node_jobs.NodeJobs("1.2")
    environment: Any = jobs.JobEnvironment("02@ab", {**FACTS, "priority": 3, "weight": 2.0, "preempt": True})
    node.began(environment)
    assert node.terms("02@ab") == ev.Job("02", 3, 2.0, preempts=True)
    assert node.terms("07") == ev.Job("07"), "it has ended"


def test_of_a_job_is_listed_and_told_what_it_is_scheduled_by() -> None:
    book = jobs.Jobs()
    said = book.begin("a", 11, {**FACTS, "priority": 3, "weight": 2.0, "preempt": True, "metadata": {"x": "y"}}, 1.0)
    unsaid = book.begin("b", 12, None, 1.0)
    assert said.terms == {"priority": 3, "weight": 2.0, "preempt": True, "metadata": {"x": "y"}}
    assert unsaid.terms == jobs.TERMS
    assert book.scheduling_of(said.id) == ["01000000", 3, 2.0, True]
    book.gone("a", 2.0)
    assert book.scheduling_of(said.id) == ["01000000", 3, 2.0, True]
    assert book.scheduling_of("09") == ["09", 0, 1.0, False]


def test_a_node_knows_whose_its_workers_are() -> None:
    node = node_jobs.NodeJobs("1.2")
    assert node.starts("w", {"job": "01"}) is None
    assert node.starts("x", {"job": "02", "env_vars": {"A": "1"}}) == {"env_vars": {"A": "1"}}
    assert (node.job_of("w"), node.job_of("x")) == ("01", "02")
    node.exited("w")
    assert node.job_of("w") == ""


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (None, "a driver must say"),
        ({**FACTS, "version": "1.3"}, "this node runs Umbel 1.2, the driver '1.3'; install the same version"),
        ({**FACTS, "worker_env": {"BIG": "x" * node_jobs.FACTS_BYTES_MAX}}, "bytes as JSON, allowed are"),
        ({**FACTS, "priority": "high"}, "the driver's priority must be an integer, got 'high'"),
        ({**FACTS, "weight": 0}, "the driver's weight must be a finite number > 0, got 0"),
        ({**FACTS, "preempt": None}, "the driver's preempt must be true or false, got None"),
        ({**FACTS, "metadata": []}, "the driver's metadata must be an object, got []"),
        ({**FACTS, "priority": -2, "weight": 0.5, "preempt": True, "metadata": {}}, ""),
        (FACTS, ""),
    ],
)
def test_drivers_that_a_node_refuses(facts: dict[str, Any] | None, told: str) -> None:
    refusal = node_jobs.NodeJobs("1.2").refusal(facts)
    assert told in refusal
    assert bool(refusal) == bool(told)


def test_a_job_that_is_told_again_is_the_same() -> None:
    made = jobs.Jobs()
    made.reserve(3)
    first = made.begin("driver", 1, None, 1.0, "02000000")
    assert made.begin("driver", 1, None, 5.0, "02000000") is first
    made.gone("driver", 6.0)
    assert made.begin("driver", 1, None, 7.0, "02000000") is first
    assert [(one.id, one.ended_s) for one in made.listed()] == [("02000000", 6.0)]
