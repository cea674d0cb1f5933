"""The end of a node's daemon: what is due for parts of it that nobody looks at any more keeps it busy no longer."""

from __future__ import annotations

from umbel._agent import events as ev
from umbel._agent.ledger import CPU, UNIT
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.daemon import Daemon
from umbel.testing.simulation.world import World

GRACE_S = 10_000.0
NEEDS = {CPU: UNIT}


def test_daemon_that_ends_sleeps_until_its_end() -> None:
    """A worker does not start in time, which nobody cares for by then. Found by the simulated cluster: the loop spun."""
    world = World(Chance(0))
    daemon = Daemon(world, NEEDS, on_start=lambda _worker, _env: None, on_kill=lambda _worker: None)
    daemon.decide(ev.ClientJoined("c", 0.0), ev.DemandChanged("c", "k", NEEDS, 1, 0, "", "", 0.0))
    start_due_s = daemon.due_s()
    assert start_due_s is not None
    daemon._begin_end(grace_s=GRACE_S)
    daemon.pass_time(start_due_s + 1.0)
    due_s = daemon.due_s()
    assert due_s is not None
    assert due_s > world.now_s
