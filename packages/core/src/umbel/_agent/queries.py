"""Answers about the node's state, and questions to its processes, for the public inspection functions and commands."""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import asks, ledger, state
from umbel._agent.history import History
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.servers import ForkServers
from umbel._agent.store_service import StoreService
from umbel._base import nodes

if TYPE_CHECKING:
    from umbel._agent import inquiries
    from umbel._agent.other_nodes import OtherNodes

Done = Callable[[Message], None]  # told {"result": ...} or {"error": {"kind", "text"}}

_ABOUT = ("placement_groups", "launches")  # what is asked with one thing that it is about
GATHER_S = 5.0  # where whoever asks several nodes does not say how long


class Daemon(Protocol):
    """What a query may look at."""

    hub: Hub
    agent: state.AgentState
    control: Any
    store: StoreService
    forks: ForkServers
    metrics_port: int
    history: History
    started_s: float
    members: Any  # a `_control.members.Members`, or None
    others: OtherNodes

    def now_s(self) -> float: ...

    def metrics_service(self) -> Any: ...

    def processes(self) -> list[tuple[str, str, int]]: ...

    @property
    def scaling(self) -> Any:
        """A `scaling.Scaling`, or None."""


class Queries:
    def __init__(self, daemon: Daemon, config: Message) -> None:
        self._daemon = daemon
        self._config = config
        self._own_tag = nodes.tag_text(config["node_id"])
        self._asks = asks.Asks()
        self._inquiries: inquiries.Inquiries | None = None  # once anybody asks about other nodes
        self._answers: dict[str, Callable[[], Any]] = {
            "alive": lambda: True,
            "nodes": self._nodes,
            "cluster_resources": self._total,
            "available_resources": self._free,
            "bundles": self._bundles,
            "bundle_nodes": self._bundle_nodes,
            "actors": self._actors,
            "environments": self._environments,
            "pending": self._pending,
            "workers": self._workers,
            "owners": self._owners,
            "jobs": self._jobs,
            "cluster_events": self._cluster_events,
            "store": self._store,
            "metrics": self._metrics,
            "processes": self._processes,
            "autoscaler": lambda: daemon.scaling.answer() if daemon.scaling is not None else None,
        }

        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "query": self.on_query,
            "gather": self._on_gather,
            "ask": self._on_ask,
            "answer": self._on_answer,
        }

    def answer(self, what: str, about: str = "") -> Any:
        """To a question about all of what this node knows."""
        if what == "placement_groups":
            return self._daemon.control.listed_groups(about)
        if what == "launches":
            return self._daemon.scaling.asked_about(about) if self._daemon.scaling is not None else None
        return self._answers[what]()

    def pass_on(self, tag: str, message: Message, done: Done) -> None:
        """A "query" or an "ask" of this daemon, to another node."""
        self._inquire().pass_on(tag, message, done)

    def on_query(self, client: Client, message: Message, _body: bytes) -> None:
        done = functools.partial(self._daemon.hub.reply, client.id, message["rq"])
        node, what, about = message["node"], message["what"], message["about"]
        if node not in ("", self._own_tag) and self._inquire().is_elsewhere(node):
            self._inquire().pass_on(node, {"t": "query", "what": what, "about": about}, done)
        else:
            self._look(what, about, done)

    def _on_gather(self, client: Client, message: Message, _body: bytes) -> None:
        limit_s = message["limit_s"] or GATHER_S
        self._inquire().gather(client.id, message["rq"], message["what"], message["abouts"], limit_s)

    def _look(self, what: str, about: str, done: Done) -> None:
        """About this node."""
        if what in self._answers or what in _ABOUT:
            done({"result": self.answer(what, about)})
        elif what == "history":
            self._on_history(done)
        elif what == "where":
            done({"result": self._daemon.store.where(about)})
        elif what == "transfer":
            reason = self._daemon.others.value_reason(about)
            done({"result": None if reason is None else reason.as_json()})
        elif what == "survey":
            self._inquire().survey(about, done)
        else:
            known = ", ".join((*self._answers, *_ABOUT, "history", "where", "transfer", "survey"))
            done({"error": {"kind": "invalid", "text": f"query.what must be one of {known}, got {what!r}"}})

    def _on_history(self, done: Done) -> None:
        """Where the history is, once all that this node was told before is in it."""
        history = self._daemon.history
        history.sync(
            lambda trouble: done({"result": {"path": history.path, "is_on": history.is_on, "trouble": trouble}})
        )

    def _inquire(self) -> inquiries.Inquiries:
        if self._inquiries is None:
            from umbel._agent import inquiries

            daemon: Any = self._daemon
            self._inquiries = inquiries.Inquiries(daemon, self._config, daemon.others.node_token(), self._look)
        return self._inquiries

    # ---- for the daemon ----

    def surveyor_pids(self) -> list[int]:
        return self._inquiries.pids() if self._inquiries is not None else []

    def node_died(self, node: str) -> None:
        if self._inquiries is not None:
            self._inquiries.node_died(node)

    def next_tick_s(self) -> float | None:
        return self._inquiries.next_tick_s() if self._inquiries is not None else None

    def tick(self) -> None:
        if self._inquiries is not None:
            self._inquiries.tick()

    def close(self) -> None:
        if self._inquiries is not None:
            self._inquiries.close()

    def _on_ask(self, client: Client, message: Message, _body: bytes) -> None:
        """Pass a question on to another process."""
        hub = self._daemon.hub
        whom = message["whom"]
        if whom not in hub.clients or hub.clients[whom].is_tool:
            tag = nodes.tag_in(whom)
            if self._inquire().is_elsewhere(tag):
                done = functools.partial(hub.reply, client.id, message["rq"])
                passed_on = {"t": "ask", "whom": whom, "what": message["what"], "about": message["about"]}
                self._inquire().pass_on(tag, passed_on, done)
            else:
                text = f"there is no process {whom!r:.100} on its node (any more)"
                hub.refuse(client.id, message["rq"], "gone", text)
        elif self._asks.is_full(client.id):
            text = f"{asks.PER_ASKER_MAX} questions of this process wait for answers; wait for some of them"
            hub.refuse(client.id, message["rq"], "busy", text)
        elif text := self._daemon.others.does_not_answer(hub.clients[whom].pid):
            hub.refuse(client.id, message["rq"], "late", text)
        else:
            number = self._asks.passed_on(client.id, message["rq"], whom)
            hub.send(whom, {"t": "asked", "ask": number, "what": message["what"], "about": message["about"]})

    def _on_answer(self, client: Client, message: Message, _body: bytes) -> None:
        ask = self._asks.answered(message["ask"], client.id)
        if ask is not None:
            self._daemon.hub.reply(ask.asker, ask.request, {"result": message["answer"]})

    def on_gone(self, client: Client) -> None:
        if self._inquiries is not None:
            self._inquiries.client_gone(client.id)
        for ask in self._asks.gone(client.id):
            self._daemon.hub.refuse(ask.asker, ask.request, "gone", f"process {client.id} ended before it answered")

    def _total(self) -> dict[str, int]:
        agent = self._daemon.agent
        own = {**agent.ledger.total, **agent.bundles.as_resources(free=False)}
        return ledger.added([own, *(node["resources"] for node in self._daemon.others.listed() if node["alive"])])

    def _free(self) -> dict[str, int]:
        agent = self._daemon.agent
        own = {**agent.ledger.free, **agent.bundles.as_resources(free=True)}
        others = [node for node in self._daemon.others.listed() if node["alive"] and not node.get("draining")]
        free = ledger.added([own, *(node["available"] for node in others)])
        return {name: amount for name, amount in free.items() if amount > 0}

    def _bundles(self) -> dict[str, dict[str, int]]:
        """What they have here, by the question about resources to which it belongs."""
        held = self._daemon.agent.bundles
        return {
            "cluster_resources": held.as_resources(free=False), "available_resources": held.as_resources(free=True),
        }  # fmt: skip

    def _bundle_nodes(self) -> list[str]:
        found: list[str] = self._daemon.control.bundle_nodes()  # only the head is asked
        return found

    def _nodes(self) -> list[Message]:
        """This one first, then the others of the cluster, the dead last."""
        cluster = self._daemon.others.link
        state = {"alive": True, "reason": "", "is_expected": False, "suspicion": ""}
        if cluster is not None and not cluster.is_head:
            state["suspicion"] = cluster.waits_for()
        known = self._daemon.others
        others = [{**node, "reached": known.reached(node["node_id"])} for node in known.listed()]
        others.sort(key=lambda node: not node["alive"])
        state["control_waits_for"] = self._daemon.control.waits_for()
        return [{**self.own_facts(), **self._daemon.others.own_state(), **state}, *others]

    def own_facts(self) -> Message:
        """Of this node, what does not change."""
        config = self._config
        return {
            "node_id": config["node_id"],
            "node_name": config.get("node_name", ""),
            "version": config.get("version", ""),
            "is_head": not config.get("head"),
            "pid": os.getpid(),
            "started_s": self._daemon.started_s,
            "resources": dict(self._daemon.agent.ledger.total),
            "labels": config["labels"],
            "address": self._daemon.others.address,
            "host_name": socket.gethostname(),
            "session_dir": config["session_dir"],
            "socket": f"{config['session_dir']}/agent.sock",
            "store_dir": config["store_dir"],
            "metrics_port": self._daemon.metrics_port,
            "store_capacity_bytes": config["store_capacity_bytes"],
        }

    def _metrics(self) -> Message:
        snapshot: Message = self._daemon.metrics_service().snapshot()
        return snapshot

    def _actors(self) -> list[Message]:
        return [self._with_place(one) for one in self._daemon.control.listed()]

    def _with_place(self, listed: Message) -> Message:
        """An actor as the control service lists it, with its host's "node_id" and "pid"."""
        members = self._daemon.members
        place = {"node_id": self._config["node_id"], "pid": self._daemon.forks.pid_of(listed["worker"])}
        return {**listed, **place, **(members.place_of(listed) if members is not None else {})}

    def _jobs(self) -> list[Message]:
        return [{**one, "node_id": self._node_of(one["driver"])} for one in self._daemon.control.jobs_listed()]

    def _node_of(self, process: str) -> str:
        """The id of the node that it is on."""
        members = self._daemon.members
        elsewhere = members.where(process) if members is not None else ""
        return elsewhere or str(self._config["node_id"])

    def _cluster_events(self) -> list[Message]:
        listed: list[Message] = self._daemon.control.events_listed()
        return listed

    def _environments(self) -> list[Message]:
        now_s = self._daemon.now_s()
        known = self._daemon.agent.environments
        return [
            {
                "server": one.id,
                "built": _built(one.key),
                "state": one.state.value,
                "for_s": now_s - one.since_s,
                "doing": one.doing,
            }
            for one in (known.servers.values() if known is not None else ())
        ]

    def _pending(self) -> list[Message]:
        now_s = self._daemon.now_s()
        sharing = self._daemon.others.sharing
        found = []
        for one in self._daemon.agent.pending(now_s):
            why = one.why
            found.append(
                {
                    "client": one.client,
                    "actor": one.actor,
                    "key": one.key,
                    "count": one.lease_count,
                    "depth": one.depth,
                    "resources": dict(one.resources),
                    "needs": ledger.describe(one.resources),
                    "env": _shown(one.env),
                    "group": one.group,
                    "waiting_s": now_s - one.since_s,
                    "reason": str(why),
                    "why": why.as_json(),
                }
            )
        for asked in sharing.pending() if sharing is not None else ():
            found.append(
                {
                    "client": asked.client,
                    "actor": "",
                    "key": asked.key,
                    "count": asked.lease_count,
                    "depth": asked.depth,
                    "resources": asked.resources,
                    "needs": ledger.describe(asked.resources),
                    "env": "",
                    "group": "",
                    "waiting_s": asked.waiting_s,
                    "reason": str(asked.why),
                    "why": asked.why.as_json(),
                }
            )
        return found

    def _workers(self) -> list[Message]:
        found = []
        for worker in self._daemon.agent.workers.values():
            lease = worker.lease
            found.append(
                {
                    "worker": worker.id,
                    "pid": self._daemon.forks.pid_of(worker.id),
                    "state": worker.state.value,
                    "env": _shown(worker.env),
                    "client": lease.client if lease else "",
                    "actor": lease.actor if lease else "",
                    "key": lease.key if lease else "",
                    "resources": dict(lease.resources) if lease else {},
                    "accelerators": dict(lease.accelerators) if lease else {},
                    "blocked": lease.is_blocked if lease else False,
                }
            )
        return found

    def _processes(self) -> list[Message]:
        """Every process of the session, with what it holds beside shared memory. is_connected: whether it can be
        asked, by its id."""
        from umbel._agent import memory_watch  # rarely asked for

        classes = {one["actor"]: one["class_name"] for one in self._daemon.control.listed()}
        workers = self._daemon.agent.workers
        found = []
        for component, known, pid in self._daemon.processes():
            lease = workers[known].lease if known in workers else None
            actor = lease.actor if lease is not None else ""
            found.append(
                {
                    "id": known,
                    "component": component,
                    "pid": pid,
                    "is_connected": known in self._daemon.hub.clients,
                    "actor": actor,
                    "class_name": classes.get(actor, ""),
                    "private_bytes": memory_watch.private_bytes(pid),
                }
            )
        return found

    def _owners(self) -> list[Message]:
        """Those that own objects: drivers and workers."""
        clients = [client for client in self._daemon.hub.clients.values() if not client.is_tool]
        return [{"id": one.id, "pid": one.pid, "is_driver": one.is_driver, "job_id": one.job_id} for one in clients]

    def _store(self) -> Message:
        store, spilling = self._daemon.store.ledger, self._daemon.store.spilling
        spilled = None if spilling is None else spilling.ledger
        holders = sorted([*store.held.items(), *store.left_behind.items()], key=lambda pair: -pair[1])
        return {
            "capacity_bytes": store.capacity_bytes,
            "free_bytes": max(0, store.free_bytes),
            "wanting_bytes": store.wanting_bytes,
            "holders": [{"id": client, "bytes": size, **self._daemon.store.own(client)} for client, size in holders],
            "spilled_bytes": spilled.spilled_bytes if spilled else 0,
            "spilled_files": spilled.file_count if spilled else 0,
            "spilled_in_all_bytes": spilled.written_bytes if spilled else 0,
        }


def _built(key: str) -> str:
    """Of what has to be built, what the user has asked for."""
    return json.dumps(json.loads(key)["built"], sort_keys=True, separators=(",", ":"))


def _shown(env: str) -> str:
    """An environment as its user knows it."""
    if not env:
        return ""
    found = json.loads(env)
    found.pop("job", None)
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""
