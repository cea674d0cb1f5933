"""A whole cluster: what must be so of all that runs in it together, whatever goes wrong.

`cluster_programs` has the programs and the books of what they asked and were told, `cluster_world` the machines and what
happens to them; here is what is looked at after steps, when a head comes back, and when all has come to rest.
"""

from __future__ import annotations

import collections
from typing import Any, Final

from umbel._agent.ledger import CPU, UNIT
from umbel._client import reasons
from umbel._model import reasons as model
from umbel._objects import ownership
from umbel.testing.simulation.cluster_meetings import MET_S
from umbel.testing.simulation.cluster_nodes import HEAD_LOST_S
from umbel.testing.simulation.cluster_programs import NotedActor, Programs
from umbel.testing.simulation.cluster_world import ClusterNode
from umbel.testing.simulation.runtime import Machine, WorkerProcess

REASONS_EVERY: Final = 8  # steps


class ClusterWorld(Programs):
    """See the module."""

    def set_up(self) -> None:
        self.unexplained: dict[Machine, None] = {}
        self.free_since_s: float | None = None  # since when some machine has had a CPU, and all that was said was heard
        super().set_up()

    # After steps

    def check_process(self, process: Any) -> None:
        super().check_process(process)
        self.unexplained[process] = None

    def check(self) -> None:
        super().check()
        self.look_at_meeting()
        if self.main_step_count % REASONS_EVERY:
            return
        for process in self.unexplained:
            if not process.is_dead:
                self._check_reasons(process)
        if self.unexplained:
            for machine in self.living_machines():
                self._check_pending(machine)
        self.unexplained.clear()

    def _check_reasons(self, process: Any) -> None:
        for record in process.engine.values.table.records.values():
            if record.kind == ownership.PENDING:
                reason = reasons.of_object(process.engine, record.object_id)
                is_told = reason.text and reason.code not in (model.READY, model.UNKNOWN)
                self.must(is_told, "B7", "%s waits for an object, and why: %s", process.name, reason)

    def _check_pending(self, machine: ClusterNode) -> None:
        """B7, of what waits for workers: by the machine's own books of what is in use."""
        daemon = machine.daemon
        for one in daemon.pending() if daemon.agent.demands or self._asks_others(machine) else ():
            why = one["why"]
            self.must(why["text"], "B7", "%s waits on %s for no reason", one["needs"], machine.name)
            if why["code"] == model.RESOURCES:
                used = self._in_use(machine)
                is_short = any(
                    used[name] + wanted > machine.resources.get(name, 0) for name, wanted in one["resources"].items()
                )
                self.must(
                    is_short or "in bundle" in why["text"],
                    "B7",
                    "%s waits on %s for what is free: %s",
                    one["needs"],
                    machine.name,
                    why,
                )
            elif why["code"] == model.STARTING:
                is_under_way = machine.starting or machine.exited or daemon.agent.worker_table.starts_at_s
                self.must(
                    is_under_way, "B7", "%s waits on %s for a process, and none is started", one["needs"], machine.name
                )
            elif why["code"] == model.ENVIRONMENT:
                # What is built elsewhere is known by what that node has said last.
                is_built = machine.building or "nodes" in why["facts"]
                self.must(is_built, "B7", "%s waits on %s for what is built", one["needs"], machine.name)
            elif why["code"] == model.NODE:
                known = {node.node_id for node in self.machines}
                self.must({*why["facts"].get("nodes", ())} <= known, "B7", "%s waits for %s", one["needs"], why)
            elif why["code"] == model.GROUP:
                groups = [group.id for group in self.groups]
                self.must(
                    why["facts"].get("group") in groups, "B7", "%s waits for a group that nobody made", one["needs"]
                )

    def _asks_others(self, machine: ClusterNode) -> bool:
        sharing = machine.daemon.others.sharing
        return not sharing.is_alone and bool(sharing.forwarding.wishes or sharing._groups.held)

    def _in_use(self, machine: ClusterNode) -> collections.Counter[str]:
        """By leases of living workers and by bundles."""
        used: collections.Counter[str] = collections.Counter()
        agent = machine.daemon.agent
        for worker in agent.workers.values():
            lease = worker.lease
            if lease is not None and lease.bundle is None:
                is_blocked = lease.is_blocked  # who waits has handed its CPUs back
                used.update(
                    {name: 0 if is_blocked and name == CPU else amount for name, amount in lease.resources.items()}
                )
        for held in agent.bundles.held.values():
            for bundle in held.values():
                used.update(bundle.ledger.total)
        return used

    # When a head comes back

    def _begin_head(self) -> None:
        super()._begin_head()
        if self.heads > 1:
            self._check_records()

    def _check_records(self) -> None:
        """B2: what anybody was told of is there."""
        control = self.head.daemon.actor_service
        for actor in self.actors:
            if actor.is_recorded and actor.actor_id:
                self.must(
                    control.table.record(actor.actor_id.hex()), "B2", "actor %d was made, and is missing", actor.number
                )
        for group in self.groups:
            self.must(control.listed_groups(group.id), "B2", "group %s was made, and is missing", group.id[-4:])
        for program in self.programs:
            found = int(control.kv.get(b"", program.driver.id) or b"0")
            self.must(
                found >= program.put, "B2", "%s has written %d, found %d", program.driver.name, program.put, found
            )

    # When nothing happens any more but by time

    def _settle_in_time(self) -> None:
        super()._settle_in_time()
        self.look_at_meeting()
        self._check_meeting()

    def _check_meeting(self) -> None:
        """B10."""
        meeting = self.meeting
        if meeting is None or meeting.is_over:
            return
        ledgers = [one.daemon.agent.ledger for one in self.living_machines() if not one.was_drained]
        if self.free_since_s is None or not any(one.free[CPU] >= UNIT for one in ledgers):
            self.free_since_s = self.now_s
        waited_s = self.now_s - self.free_since_s
        absent = [str(work) for work in meeting.works if not work.executions]
        self.must(waited_s <= MET_S, "B10", "for %.0f s %s wait for a CPU: %s", waited_s, absent, self.what_waits())

    # A machine that ends by itself

    def resigned(self, machine: ClusterNode) -> None:
        """B9: because the head has given it up, or was away for too long, or wanted it drained."""
        why = machine.daemon.others.link
        self.must(machine is not self.head, "B9", "the head has ended by itself")
        was_told = not self.is_alive_to_head(machine) or machine.was_drained
        was_alone = self.now_s - self.last_fault_s <= 4 * HEAD_LOST_S
        self.must(was_told or was_alone, "B9", "%s has ended: %s", machine.name, why._membership.trouble)

    # At rest

    def is_quiet(self) -> bool:
        """And whether what runs on behalf of nobody here any more has ended."""
        return super().is_quiet() and not any(works for one, works in self.running.items() if not one.is_dead)

    def check_rest(self) -> None:
        self._check_programs()
        head = self.head.daemon
        alive, there = {*head.others.link.table.alive}, {machine.node_id for machine in self.living_machines()}
        self.must(alive == there, "B9", "the head counts %s as alive, there are %s", alive, there)
        self._check_records()
        for machine in self.living_machines():
            self._check_machine(machine)
        self._check_actors()
        self._check_groups()
        self._check_said()

    def _check_programs(self) -> None:
        for driver in self.drivers:
            if not driver.is_dead:
                self.must(not driver.turns, "B4", "%s waits for ever", driver.name)
                self.must(not driver.engine.tasks.unfinished, "B8", "%s has unfinished work", driver.name)
        waiting = [works for process, works in self.running.items() if works and not process.is_dead]
        self.must(not waiting, "B4", "what runs never ends: %s", [str(work) for works in waiting for work in works])
        for process in self.node.living:
            kept = [*process.engine.values.table.records.values()]
            self.must(not kept, "B8", "%s keeps %s", process.name, kept)
            leases = [lease for one in process.engine.leases.classes.values() for lease in one.leases]
            self.must(not leases, "B8", "%s keeps leases", process.name)
        jobs = [driver.engine.welcome["job_id"] for driver in self.drivers]
        self.must(len(jobs) == len({*jobs}), "B2", "two programs have one job: %s", jobs)
        listed = {one["job_id"] for one in self.head.daemon.actor_service.jobs_listed()}
        for driver in self.drivers:
            job = driver.engine.welcome["job_id"]
            self.must(driver.is_dead or job in listed, "B2", "job %s of %s is missing", job, driver.name)

    def _check_machine(self, machine: ClusterNode) -> None:
        daemon, agent = machine.daemon, machine.daemon.agent
        self.must(not agent.demands, "B8", "on %s there are demands: %s", machine.name, daemon.pending())
        for worker in agent.workers.values():
            is_idle = worker.lease is None or worker.lease.actor
            self.must(is_idle, "B8", "%s has leased %s", machine.name, worker.id)
        used = self._in_use(machine)
        free = {name: amount - used[name] for name, amount in agent.ledger.total.items()}
        self.must(free == agent.ledger.free, "B3", "free on %s is %s, in use %s", machine.name, agent.ledger.free, used)
        sharing = daemon.others.sharing
        self.must(not sharing._leases and not self._asks_others(machine), "B8", "%s asks others", machine.name)
        known = {process.id.hex() for process in machine.living}
        self.must(
            {*daemon.hub.clients} == known,
            "B8",
            "%s knows %s, there are %s",
            machine.name,
            [*daemon.hub.clients],
            known,
        )

    def _check_actors(self) -> None:
        """B2, B6, B8: those that are to live do, each in one place, and no others."""
        table = self.head.daemon.actor_service.table
        hosts: collections.Counter[str] = collections.Counter()
        for machine in self.living_machines():
            for worker in machine.daemon.agent.workers.values():
                if worker.lease is not None and worker.lease.actor:
                    hosts[worker.lease.actor] += 1
        by_id = {actor.actor_id.hex(): actor for actor in self.actors if actor.actor_id}
        for actor_id, count in hosts.items():
            self.must(count == 1 and actor_id in table.actors, "B6", "actor %s is in %d workers", actor_id, count)
        for actor_id in table.actors:
            self.must(actor_id in hosts, "B4", "actor %s lives, and has no worker", actor_id)
            noted = by_id.get(actor_id)
            self.must(noted is None or self._may_live(noted), "B8", "actor %s lives, and nobody needs it", actor_id)
        for actor_id, noted in by_id.items():
            if noted.is_recorded and noted.is_detached and not noted.may_end:
                self.must(actor_id in table.actors, "B2", "actor %d is to live, and is dead", noted.number)

    def _may_live(self, noted: NotedActor) -> bool:
        """A detached one that was killed as well, if that was lost with a machine before anybody had heard it."""
        return noted.is_detached and (not noted.may_end or any(machine.is_dead for machine in self.machines))

    def _check_groups(self) -> None:
        """B3: each bundle lies where the head believes, and nowhere else."""
        control = self.head.daemon.actor_service
        placed: dict[tuple[str, int], list[str]] = {}
        for machine in self.living_machines():
            for group, held in machine.daemon.agent.bundles.held.items():
                for index in held:
                    placed.setdefault((group, index), []).append(machine.node_id)
        believed: dict[tuple[str, int], list[str]] = {}
        for one in control.listed_groups(""):
            if one["state"] != "REMOVED":
                known = next((group for group in self.groups if group.id == one["group"]), None)
                is_needed = known is None or (known.is_detached and not known.is_removed)
                self.must(is_needed, "B8", "group %s is there, and nobody needs it", one["group"])
                for index, node in enumerate(one["nodes"]):
                    if node:
                        believed[one["group"], index] = [node]
        self.must(placed == believed, "B3", "bundles lie at %s, the head believes %s", placed, believed)

    def _check_said(self) -> None:
        """B8: all that machines have said to each other was heard, and written."""
        head = self.head.daemon
        members = {member.node_id: member.channel for member in head.members._members.values()}
        for machine in self.living_machines():
            if machine is not self.head:
                proxy: Any = machine.daemon.control
                there = members[machine.node_id]
                is_heard = proxy.channel.said == there.counts and there.said == proxy.channel.heard
                self.must(is_heard, "B8", "the head and %s have not heard each other", machine.name)
                self.must(not proxy._unanswered, "B8", "%s waits for answers: %s", machine.name, proxy._unanswered)
        if self.disk is not None:
            waits_for = head.actor_service.waits_for()
            self.must(not self.disk.under_way and not waits_for, "B8", "the head still writes: %s", waits_for)


__all__ = ["ClusterWorld", "WorkerProcess"]
