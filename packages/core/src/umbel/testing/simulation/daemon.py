"""The node's daemon of a simulated node: the production service, with its machines, on simulated connections.

Only the system is replaced: sockets by `Stream`, the fork server by a list of processes to come, time by the world's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from umbel._agent import hub, service
from umbel._control import service as actor_shell
from umbel._transport import connection
from umbel._wire import frames
from umbel.testing.simulation.processes import attributes
from umbel.testing.simulation.world import Stream, World

NOWHERE = "/nonexistent/umbel-simulation"  # paths are made of it, and nothing is found there
INFEASIBLE_TIMEOUT_S = 5.0
FIRST_WORKER = 1_000  # worker ids are numbers from here on; drivers have smaller ones


class _Nothing:
    """Stands in for sockets and pollers that nobody uses here."""

    def fileno(self) -> int:
        return -1

    def register(self, *_arguments: object) -> None:
        """There is nothing to wait for."""

    unregister = modify = wake = close = register


class _Hub(hub.Hub):
    """The production hub, without a listener."""

    def __init__(self, poller: Any, _path: str, receiver: hub.Receiver, welcome: hub.Message) -> None:
        self.clients = {}
        self._strangers: set[Any] = set()
        self._visitors = {}
        self._poller = poller
        self._receiver = receiver
        self._welcome = welcome

    def accept(self, stream: Any) -> None:
        """A process has connected; `stream` is our end."""
        self._strangers.add(stream)
        stream.on_frame = lambda sender, frame: self._on_frame(sender, frame[4:])
        stream.on_close = self._on_close


class _Forks:
    """Starts no process: says which are wanted."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def start(self, worker: str, env: Any, _server: str = "") -> None:
        self._daemon.on_start(worker, env)

    def kill(self, worker: str) -> None:
        self._daemon.on_kill(worker)

    def pid_of(self, _worker: str) -> int:
        return 1

    def on_connected(self, _worker: str, _pid: int) -> None:
        """Its output is of no interest."""

    def build(self, server: str, _built: Any, _job: Any) -> None:
        self._daemon.on_build(server)

    def end_server(self, _server: str) -> None:
        """It is not there any more."""

    def is_idle(self) -> bool:
        return False


class Daemon(service.Service):
    """The production daemon of one node.

    on_start(worker, env), on_kill(worker): what the world does when a process is wanted, or wanted dead.
    progress_of(worker): the task that it started last. settings: of its configuration, in place of those here.
    """

    hub: _Hub

    def __init__(
        self,
        world: World,
        resources: Mapping[str, int],
        *,
        on_start: Callable[[str, Any], None],
        on_kill: Callable[[str], None],
        progress_of: Callable[[str], int] = lambda _worker: -1,
        starts_max: int = 2,
        recycle_s: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._world = world
        self.on_start = on_start
        self.on_kill = on_kill
        config = {
            "resources": dict(resources), "accelerator_ids": {}, "scheduler": "hybrid", "session_dir": NOWHERE,
            "store_dir": NOWHERE, "embedded": False, "has_jobs": False, "driver_pid": 0, "control": "umbel._control.service",
            "node_id": "node",
            "namespace": "ns", "labels": {}, "store_capacity_bytes": 1 << 30, "store_full_wait_s": 1.0,
            "log_to_driver": False, "job_id": "", "worker_recycle_s": recycle_s,
            "infeasible_timeout_s": INFEASIBLE_TIMEOUT_S,
            "spilling": {"directory": NOWHERE, "high_water": 0.8, "batch_bytes": 1, "is_enabled": True},
            **(settings or {}),
        }  # fmt: skip
        nothing: Any = _Nothing()
        with attributes(
            (connection, "Poller", _Nothing),
            (service, "ForkServers", lambda *_: _Forks(self)),
            (service, "Hub", _Hub),
            (service, "_fresh_ids", self.worker_ids),
        ):
            super().__init__(config, nothing, nothing, 0)
        self.leases._progress = progress_of  # type: ignore[assignment,method-assign]  # the production one reads a file
        self.agent.worker_table.starts_max = starts_max  # of the machine that simulates otherwise
        self._unchecked: dict[Any, None] = {}  # the machines that something has happened to since they were checked
        for machine in self.deciding():
            self._watch(machine)

    def deciding(self) -> tuple[Any, ...]:
        """The machines that are checked after whatever happens to them."""
        return (self.agent, self.actor_service.table)

    def _watch(self, machine: Any) -> None:
        apply = machine.apply

        def watched(*events: Any) -> Any:
            self._unchecked[machine] = None
            return apply(*events)

        machine.apply = watched

    def check(self) -> None:
        """The machines' own invariants."""
        while self._unchecked:
            self._unchecked.popitem()[0].check()

    @property
    def actor_service(self) -> actor_shell.ActorService:
        """The actors' part, which the production daemon knows by its protocol only."""
        made: Any = self.control
        return made  # type: ignore[no-any-return]  # it is what the configuration names

    def worker_ids(self, _node_id: str) -> Iterator[str]:
        return _ids()

    def on_build(self, server: str) -> None:
        """An environment's fork server is wanted: it is there at once."""
        self.environments.ready(server)

    def now_s(self) -> float:
        return self._world.now_s

    def join(self, stream: Stream, name: str, *, is_driver: bool) -> Stream:
        """A process connects and says hello. `stream`: its end of a connection whose other end is ours."""
        self.hub.accept(stream.other)
        kind = "driver" if is_driver else "worker"
        stream.send(frames.encode_control({"t": "hello", "kind": kind, "id": name, "pid": 1, "protocol": 1}))
        stream.other.deliver()
        return stream

    def pass_time(self, duration_s: float) -> None:
        self._world.now_s += duration_s
        self._tick()

    def due_s(self) -> float | None:
        return self._next_tick_s()


def _ids() -> Iterator[str]:
    return (number.to_bytes(16, "big").hex() for number in itertools.count(FIRST_WORKER))
