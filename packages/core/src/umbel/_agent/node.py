"""A node, as the control service has it: what that may ask of the daemon that it runs in, or of that at the other end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import environment_service
from umbel._agent import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from umbel._agent.control import ActorWish, Control
    from umbel._agent.environment_service import EnvironmentService
    from umbel._agent.feasibility import Feasibility
    from umbel._agent.history import History
    from umbel._agent.hub import Hub, Message
    from umbel._agent.other_nodes import OtherNodes
    from umbel._agent.queries import Queries
    from umbel._agent.servers import ForkServers
    from umbel._agent.state import AgentState

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        hub: Hub
        agent: AgentState
        forks: ForkServers
        control: Control
        history: History
        others: OtherNodes
        environments: EnvironmentService
        feasibility: Feasibility
        jobs: Any  # a `jobs.NodeJobs`, or None
        scaling: Any  # a `scaling.Scaling`; None where no autoscaler runs

        @property
        def queries(self) -> Queries: ...

        def now_s(self) -> float: ...

        def time_s(self) -> float: ...

        def decide(self, *events: Any) -> None: ...


class Node:
    """Of this daemon. Where a method has a node among its arguments, that is this one."""

    def __init__(self, daemon: Daemon, config: Message) -> None:
        self._daemon = daemon
        self._config = config
        self._seen: tuple[Message, Any] | None = (
            None  # itself, as it was asked for last, and that as a `placement.NodeView`
        )
        self.now_s, self.time_s = daemon.now_s, daemon.time_s

    # ---- processes ----

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        if message["t"] == "actor_state" and message["state"] == "ALIVE":
            self._daemon.others.worker_elsewhere(message["worker"], message.get("pid", 0))
        self._daemon.hub.send(client, message, body)

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        self._daemon.hub.reply(client, request, message, body)

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        self._daemon.hub.refuse(client, request, kind, text)

    def warn(self, text: str) -> None:
        self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    def is_here(self, _client: str) -> bool:
        return True

    def ends_of(self, _workers: Iterable[str]) -> Mapping[str, Any]:
        return {}

    def pid_of(self, worker: str) -> int:
        return self._daemon.forks.pid_of(worker)

    # ---- jobs ----

    def job_of(self, client: str) -> tuple[str, Any]:
        """As all nodes of the cluster know the job. A job of another node's is one of its own here, see `lease_sharing`."""
        known = self._daemon.hub.clients[client]
        job_id = known.job_id.partition("@")[0]
        return job_id, known.job if job_id == known.job_id else self._daemon.jobs.environment(job_id)

    def job_environment(self, job_id: str) -> Any:
        return self._daemon.jobs.environment(job_id)

    def knows_job(self, environment: Any) -> None:
        self._daemon.jobs.knows(environment)

    def jobs_of_processes(self) -> Mapping[str, str]:
        """Of all processes here that take part, with the id of each one's job as all nodes of the cluster know it."""
        clients = self._daemon.hub.clients.values()
        return {one.id: one.job_id.partition("@")[0] for one in clients if not one.is_tool}

    def driver_of(self, client: str) -> str:
        job_id = self._daemon.hub.clients[client].job_id
        return next((one.id for one in self._daemon.hub.drivers() if one.job_id == job_id), "")

    # ---- actors ----

    def place_actor(self, spec: ActorWish, source: str = "") -> None:
        """source: another node that has the packages of its environment; "" for none."""
        daemon = self._daemon
        env = daemon.environments.in_job(spec.env, spec.job)
        impossible, is_unschedulable = daemon.feasibility.impossible(spec.strategy, env)
        if impossible:
            daemon.control.unplaceable(spec.actor, impossible, is_unschedulable=is_unschedulable)
            return
        daemon.decide(
            ev.ActorWanted(
                spec.actor,
                spec.placement,
                spec.running,
                spec.depth,
                environment_service.key_of(env),
                daemon.feasibility.refusal(spec.label_selectors),
                self.now_s(),
                spec.strategy,
                *daemon.environments.build_of(env),
                source,
                daemon.environments.terms_of(env),
                spec.label_selectors,
            )
        )

    def release_actor(self, actor: str, grace_s: float | None) -> None:
        self._daemon.decide(ev.ActorReleased(actor, grace_s, self.now_s()))

    def kill_actor(self, actor: str, reason: str, worker: str = "") -> None:
        self._daemon.decide(ev.ActorUnwanted(actor, reason, self.now_s(), worker))

    def actor_dead(self, actor: str, facts: Message) -> None:
        self._daemon.history.add_actor(actor, {"node_id": self._config["node_id"], **facts})

    def note_last(self) -> None:
        """Tell the history of the actors that end with the session."""
        for one in self._daemon.control.listed():
            if one["state"] != "DEAD":
                was = "" if one["state"] == "ALIVE" else f" while it was {one['state']}"
                reason = f"its session ended{was}"
                self.actor_dead(one["actor"], {**one, "state": "DEAD", "cause": "intended", "reason": reason})

    def late_s(self, _actor: str) -> float:
        return 0.0

    # ---- placement groups ----

    @property
    def infeasible_timeout_s(self) -> float | None:
        found: float | None = self._config.get("infeasible_timeout_s")
        return found

    def nodes_seen(self) -> list[Any]:
        return [self.node_seen("")]

    def node_seen(self, _node: str) -> Any:
        from umbel._model import placement, resources

        seen = self.as_seen()
        if self._seen is None or self._seen[0] != seen:
            total, free = resources.ResourceSet(seen["total"]), resources.ResourceSet(seen["available"])
            self._seen = seen, placement.NodeView(seen["node_id"], total, free, seen["labels"], is_local=True)
        return self._seen[1]

    def as_seen(self) -> Message:
        ledger, config = self._daemon.agent.ledger, self._config
        available = {name: max(0, free) for name, free in ledger.free.items()}
        return {
            "node_id": config["node_id"], "total": ledger.total, "available": available, "labels": config["labels"],
        }  # fmt: skip

    def reserve_bundles(
        self, _node: str, group: str, attempt: int, wanted: Mapping[int, Mapping[str, int]], depth: int, job: list[Any]
    ) -> None:
        self._daemon.decide(ev.BundlesWanted(group, attempt, wanted, depth, self.now_s(), ev.Job(*job)))

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        self._daemon.decide(ev.BundlesCommitted(group, attempt, self.now_s()))

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        self._daemon.decide(ev.BundlesUnwanted(group, attempt, self.now_s()))

    def drop_group(self, _node: str, group: str, reason: str) -> None:
        self._daemon.decide(ev.GroupDropped(group, reason, self.now_s()))

    def held_bundles(self) -> list[tuple[str, int, list[int], bool]]:
        return self._daemon.agent.bundles.by_attempt()

    def tell_places(self, _node: str, message: Message) -> None:
        sharing = self._daemon.others.sharing
        if sharing is not None:
            sharing.on_group(message)

    # ---- the cluster ----

    def answer(self, what: str, about: str) -> Any:
        """To a query, about all of what this node knows."""
        return self._daemon.queries.answer(what, about)

    def launches_for(self, lacks: Mapping[str, Any]) -> str:
        """What the autoscaler does about what no node has, as the end of a reason; "" where there is none."""
        scaling = self._daemon.scaling
        if scaling is None:
            return ""
        from umbel._agent import launches

        return launches.in_words(scaling.about(lacks))

    def answer_query(self, client: str, message: Message) -> None:
        self._daemon.queries.on_query(self._daemon.hub.clients[client], message, b"")

    def other_nodes(self) -> list[Message]:
        return self._daemon.others.listed()

    def own_load(self) -> Message:
        return self._daemon.others.own_load()

    def placement_policy(self) -> Any:
        """A `spi.SchedulingPolicy`: the chosen one."""
        return self._daemon.others.placement_policy()

    def drain_node(self, message: Message, tell: Callable[[bool, str], None]) -> None:
        self._daemon.others.drain_service().drain(message, tell)
