"""The autoscaler of a cluster, as its head sees it: a process of its own, which asks what waits and says what it does.

It is one of its own because launchers are plugins, which block for minutes, import large libraries and may crash: nothing of that
reaches the daemon. It asks as a tool does, once in a period, ends with the daemon by the end of a pipe, and is started again when
it has ended by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any, Protocol

from umbel import exceptions
from umbel._agent import load
from umbel._agent.hub import Client, Hub, Message
from umbel._base import sessions
from umbel._transport import connection as transport

SPACE, REQUESTS = b"umbel.autoscaler", b"resource_requests"  # where `request_resources` leaves what it was told
RESTART_AFTER_S = 5.0  # one that ends at once would do it again
EVENTS = "AUTOSCALER"  # the source of its events, see `umbel._control.cluster_events`
BARRED_MAX = 10_000  # names of nodes that are not let in any more; a launcher gives none twice
INSTANCE_ID = "umbel.io/instance-id"  # as `umbel._model.node_labels` has it, which is not quick to import
_BOOT = (
    "import sys, json; given = json.loads(sys.argv[1]); sys.path[:] = given['sys_path']; "
    "from umbel._client import autoscaler_process; autoscaler_process.main(given)"
)


class Daemon(Protocol):
    """What is asked of the daemon."""

    hub: Hub
    control: Any
    members: Any
    poller: transport.Poller
    node: Any  # a `node.Node`
    others: Any  # an `other_nodes.OtherNodes`

    def now_s(self) -> float: ...

    def log(self, line: str) -> None: ...


class Scaling:
    """`tick` at `next_tick_s`; `end` leaves no process."""

    def __init__(self, daemon: Daemon, config: Message) -> None:
        self._daemon = daemon
        self._config = config
        self.report: Message | None = None  # what the process has said last, with "at_s"
        self.pid = 0
        self._pid_fd = -1
        self._lifeline = -1
        self._trouble = "it has not started yet"
        self._start_s: float | None = daemon.now_s()  # when it is to be started; None while it runs
        self._barred: dict[str, None] = {}
        daemon.members.wants_load = True
        with open(os.path.join(config["session_dir"], sessions.CLUSTER_FILE), "w", encoding="utf-8") as file:
            json.dump(config["autoscaling"], file)

    # ---- what it asks and says ----

    def on_scale(self, client: Client, message: Message, _body: bytes) -> None:
        if not client.may_change:
            self._daemon.hub.refuse(client.id, message["rq"], "forbidden", "scaling needs a token of the role admin")
        elif message["report"] is not None:
            self.report = {**message["report"], "at_s": self._daemon.now_s()}
            for severity, text in self.report.pop("happened", ()):
                self._daemon.control.add_event(severity, EVENTS, text)
            self._daemon.hub.reply(client.id, message["rq"], {"result": {}})
        elif message["barred"]:
            self._daemon.hub.reply(client.id, message["rq"], {"result": {"is_barred": self._bar(message["barred"])}})
        else:
            self._daemon.hub.reply(client.id, message["rq"], {"result": self._observed()})

    def _observed(self) -> Message:
        """As `umbel._autoscaling.observing` reads it."""
        daemon = self._daemon
        seen, own, loads = daemon.node.as_seen(), daemon.others.own_load(), daemon.members.loads()
        head = {"node_id": seen["node_id"], "alive": True, "total": seen["total"], "available": seen["available"]}
        listed: list[Message] = [{**head, "labels": seen["labels"], "idle": own["idle"], "draining": ""}]
        tasks = list(own["tasks"])
        for node in daemon.others.listed():
            told = loads.get(node["node_id"], {}) if node["alive"] else {}
            if node["alive"] or INSTANCE_ID in node["labels"]:
                listed.append(_observed_node(node, told))
            tasks += told.get("tasks", ())
        standing = daemon.control.kv.get(SPACE, REQUESTS) or b""
        return {
            "nodes": listed,
            "tasks": load.merged(tasks, len(tasks)),
            "actors": daemon.members.waiting_actors(),
            "groups": daemon.control.waiting_groups(),
            "standing": standing.decode("utf-8", "replace"),
        }

    def _bar(self, instance: str) -> bool:
        """Not let in this node, which is to be ended before it joins; False when it has joined already."""
        if any(node["alive"] and node["labels"].get(INSTANCE_ID) == instance for node in self._daemon.others.listed()):
            return False
        self._barred[instance] = None
        if len(self._barred) > BARRED_MAX:
            del self._barred[next(iter(self._barred))]
        return True

    def refusal(self, labels: Message) -> str:
        """Why a node with these labels is not let in; "" if it is."""
        if labels.get(INSTANCE_ID) not in self._barred:
            return ""
        return "the autoscaler ends it, as nothing needs it any more; see `umbel status` at the head"

    def answer(self) -> Message:
        """For queries."""
        age_s = None if self.report is None else self._daemon.now_s() - self.report["at_s"]
        return {"trouble": self._trouble, "age_s": age_s, "report": self.report}

    def about(self, lacks: Message) -> str:
        """What it does about one kind of what waits, in words; "" for nothing. lacks: see `report.about`."""
        from umbel._autoscaling import report  # rarely asked for

        return report.about(self.answer(), lacks)

    def asked_about(self, text: str) -> str:
        """The same, of what some process has sent: JSON."""
        try:
            return self.about(json.loads(text))
        except (exceptions.UmbelError, AttributeError, KeyError, TypeError, ValueError) as error:
            return f"does not know what is meant by {text!r:.200} ({type(error).__name__}: {error})"

    # ---- its process ----

    def next_tick_s(self) -> float | None:
        return self._start_s

    def tick(self) -> None:
        self._start_s = None
        try:
            self._start()
        except OSError as error:
            self._failed(f"it could not be started: {error}")

    def _start(self) -> None:
        theirs, self._lifeline = os.pipe()
        os.set_inheritable(theirs, True)
        config = self._config
        given = {
            "sys_path": config["sys_path"],
            "session_dir": config["session_dir"],
            "address": self._daemon.others.address,
            "token_file": config["token_file"],
            "cluster_file": os.path.join(config["session_dir"], sessions.CLUSTER_FILE),
            "lifeline": theirs,
        }
        environment = dict(os.environ)
        if config["tls_directory"]:
            environment["UMBEL_TLS_DIRECTORY"] = config["tls_directory"]
        command = [sys.executable, *(["-B"] if sys.dont_write_bytecode else []), "-c", _BOOT, json.dumps(given)]
        try:
            # Signals that this process holds back are those of a terminal; it is to hear what its launchers' programs say.
            self.pid = os.posix_spawn(sys.executable, command, environment, setsigmask=())
        finally:
            os.close(theirs)
        self._trouble = ""
        if hasattr(os, "pidfd_open"):
            self._pid_fd = os.pidfd_open(self.pid)
            self._daemon.poller.register(self._pid_fd, transport.IN, lambda _events: self._on_ended())

    def _on_ended(self) -> None:
        code = self._reap()
        self._failed(f"its process has ended with the code {code}; the daemon's log may say why")

    def _failed(self, trouble: str) -> None:
        self._trouble = f"{trouble}; it is started again {RESTART_AFTER_S:g} s later"
        self._daemon.log(f"the autoscaler: {self._trouble}")
        self._start_s = self._daemon.now_s() + RESTART_AFTER_S

    def _reap(self) -> int:
        if self._pid_fd >= 0:
            self._daemon.poller.unregister(self._pid_fd)
            os.close(self._pid_fd)
        os.close(self._lifeline)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        code = 0
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid, self._pid_fd = 0, -1
        return code

    def end(self) -> None:
        """Its process is gone when this returns. Nodes that it has launched go on: they end without their head, or by `umbel
        down`."""
        self._start_s = None
        if self.pid:
            self._reap()


def _observed_node(node: Message, told: Message) -> Message:
    """node: as it is listed. told: its load as it has said last, empty before."""
    draining, available = node.get("draining"), node["available"]
    why = ""
    if draining:
        available = {}
        message = f": {draining['message']}" if draining["message"] else ""
        why = f"it is being drained ({draining['reason']}{message})"
    elif node.get("is_awaited"):  # nothing is launched for what it could serve, until it is back, or dead
        available = node["resources"]
    return {
        "node_id": node["node_id"], "alive": node["alive"], "total": node["resources"], "available": available,
        "labels": node["labels"], "idle": told.get("idle", 0), "draining": why,
    }  # fmt: skip
