"""Workers of a job that their node had forgotten when they came, in the production daemon on simulated connections."""

from __future__ import annotations

import gc
from typing import Any

from umbel._agent.lease_jobs import GuestJob
from umbel._agent.ledger import CPU, UNIT
from umbel._wire import frames
from umbel.testing.simulation import daemon as simulated
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.world import Stream, World

FACTS = {"version": "1", "log_to_driver": False, "entrypoint": "program.py"}
DEMAND = {"t": "demand", "key": "f", "resources": {CPU: UNIT}, "count": 1, "depth": 1, "env": {}, "strategy": None}


class Node:
    """A daemon that outlives drivers, of which the first has ended while a worker for it was being started. It is there now."""

    def __init__(self) -> None:
        self.world = World(Chance(0))
        self.world.now_s = 1.0
        self.started: list[str] = []
        self.daemon = simulated.Daemon(
            self.world,
            {CPU: 2 * UNIT},
            on_start=lambda worker, _env: self.started.append(worker),
            on_kill=lambda _worker: None,
            settings={"has_jobs": True, "version": "1"},
        )
        driver = self.join("driver", "d1", FACTS)
        self.say(driver, DEMAND)
        (worker,) = self.started
        driver.close()
        driver.other.deliver()
        del driver
        self.world.streams.clear()
        gc.collect()
        self.worker = self.join("worker", worker, None)
        assert self.daemon.jobs.environment("01000000") is None

    def join(self, kind: str, name: str, job: Any) -> Stream:
        near, far = self.world.connect(name, f"{name}<")
        self.daemon.hub.accept(far)
        self.say(near, {"t": "hello", "kind": kind, "id": name, "pid": 1, "protocol": 1, "job": job})
        return near

    def say(self, stream: Stream, message: dict[str, Any]) -> None:
        stream.send(frames.encode_control(message))
        stream.other.deliver()
        self.daemon.check()

    def heard(self) -> list[dict[str, Any]]:
        """By the worker, since it was welcomed."""
        told = [frames.decode_control(frame[4:])[0] for frame in self.worker.inbox]
        return [message for message in told if message["t"] != "welcome"]


def test_a_worker_whose_job_is_known_again_gets_what_it_wants() -> None:
    """Another node has told of it: seed 1698 of the simulated cluster. Idle as it is, the worker gets itself."""
    node = Node()
    job = GuestJob("01000000", FACTS)
    node.daemon.jobs.began(job)
    node.say(node.worker, DEMAND)
    assert [(message["t"], message.get("key")) for message in node.heard()] == [("leased", None), ("grant", "f")]


def test_a_worker_whose_job_has_ended_is_told_so_when_it_wants_something() -> None:
    node = Node()
    node.say(node.worker, {**DEMAND, "count": 0})
    assert [message for message in node.heard() if message["t"] == "demand_failed"] == []
    node.say(node.worker, DEMAND)
    (told,) = [message for message in node.heard() if message["t"] == "demand_failed"]
    assert (told["key"], told["reason"]) == ("f", "its job has ended")
    assert not node.daemon.agent.demands
