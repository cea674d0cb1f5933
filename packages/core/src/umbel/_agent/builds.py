"""The environments that a node's demands and workers need built: `environments` decides, with what is wanted here now.

That machine is loaded, and made, when the first one has to be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from umbel._agent import events as ev
from umbel._agent.demand_table import DemandTable
from umbel._agent.records import Demand, Place, Worker
from umbel._agent.worker_table import WorkerTable
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import environments, packages

    Command = ev.AgentCommand | environments.Begin | environments.End | packages.Step

WARNING_CHARS_MAX = 4_000  # of what an installer has printed; an error has it all


class Builds:
    def __init__(
        self,
        wanted: DemandTable,
        table: WorkerTable,
        server_ids: Iterator[str],
        packages: Callable[[], packages.Packages] | None,
    ) -> None:
        """server_ids: fresh ones. packages: makes what says which packages of environments are here; all are unless it is
        given."""
        self.environments: environments.Environments | None = None  # made when the first one has to be built
        self._wanted = wanted
        self._table = table
        self._server_ids = server_ids
        self._packages = packages
        self._preparing: dict[Place, str] = {}  # what was said last that is done for demands; "" is not kept

    def _use(self) -> environments.Environments:
        if self.environments is None:
            from umbel._agent import environments

            known = self._packages() if self._packages is not None else None
            self.environments = environments.Environments(self._server_ids, known)
        return self.environments

    def on_event(self, event: environments.Event) -> list[Command]:
        return self._carry_out(self._use().apply(event))

    def server_of(self, demand: Demand, at_s: float) -> str | None:
        """The fork server of its environment: "" for the plain one, None if it has to be waited for."""
        if not demand.build_key:
            return ""
        return self._use().want(demand.build_key, demand.build_timeout_s, at_s, demand.source)

    def settle(self, at_s: float) -> list[Command]:
        """End servers that nobody wants, and say what is done for demands that wait for one."""
        if self.environments is None or not (self.environments.servers or self._preparing):
            return []
        demands = self._wanted.demands
        wanted = {demand.build_key for demand in demands.values() if self._wanted.is_feasible(demand)}
        wanted.update(worker.build_key for worker in self._table.workers.values())
        commands = self._carry_out(self.environments.settle(wanted, at_s))
        unready = self.environments.unready()
        waiting = [one for one in demands.values() if one.build_key in unready] if unready else ()
        doing = {one.place: unready[one.build_key] for one in waiting}
        told, self._preparing = self._preparing, doing
        if doing != told:
            changed = [place for place in {**told, **doing} if told.get(place) != doing.get(place)]
            commands += [ev.Preparing(*place, doing.get(place, "")) for place in changed]
        return commands

    def _carry_out(self, steps: list[environments.Step]) -> list[Command]:
        if not steps:
            return []
        from umbel._agent import environments

        commands: list[Command] = []
        for step in steps:
            if isinstance(step, environments.Fail):
                waiting = [demand for demand in self._wanted.demands.values() if demand.build_key == step.key]
                commands += self._wanted.fail(waiting, step.reason, step.log_of)
                if step.is_held and not waiting:
                    text = f"The runtime environment of the job could not be built: {step.reason:.{WARNING_CHARS_MAX}}"
                    commands.append(ev.Warn(f"{text}; tasks that need it will try again"))
            else:
                commands.append(step)
        return commands

    # ---- what becomes of others ----

    def worker_ready(self, worker: Worker) -> None:
        if self.environments is not None:
            self.environments.worker_ready(worker.build_key)

    def client_gone(self, client: str) -> None:
        if self.environments is not None:
            self.environments.client_gone(client)

    # ---- answers ----

    def reason(self, demand: Demand, at_s: float) -> reasons.Reason | None:
        """Why its environment is not there yet; None if it is, or is not what it waits for."""
        return self.environments.reason(demand.build_key, at_s) if self.environments is not None else None

    def next_tick_s(self) -> float | None:
        return self.environments.next_tick_s() if self.environments is not None else None

    def check(self) -> None:
        if self.environments is not None:
            self.environments.check()
