"""The native engine in the user's program: shows workers' output, and ends its private node, or leaves a running one."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

from umbel import exceptions
from umbel._base import config as configuration
from umbel._base import nodes
from umbel._client import context, interrupts, native, output


class Node(Protocol):
    """The running node of a driver."""

    is_private: bool
    node_id: str

    @property
    def session_dir(self) -> str: ...

    @property
    def address(self) -> str: ...

    def close(self, timeout_s: float) -> None:
        """The driver has left it; of a private one nothing is left when this returns."""


class DriverEngine(native.NativeEngine):
    """See `start` and `attach`, which make it."""

    def __init__(
        self,
        node: Node,
        *,
        namespace: str,
        labels: Mapping[str, str],
        env_vars: Mapping[str, str],
        environment: str,
        config: configuration.Config,
        job: dict[str, Any] | None = None,
    ) -> None:
        """job: what workers are to be like, told to a node that is not private."""
        self._output = output.DriverOutput(fold_s=config.log_fold_s, use_color=config.log_prefix_color)
        self._node = node
        try:
            super().__init__(
                kind="driver",
                process_id=nodes.new_process_id(node.node_id),
                session_dir=node.session_dir,
                namespace=namespace,
                config=config,
                job=job,
                has_door=job is not None,
                on_notice=self._on_driver_notice,
            )
        except BaseException:
            node.close(config.stop_timeout_s)
            raise
        self._interrupts = interrupts.DriverInterrupts(self)
        self.extra_housekeeping = self._driver_housekeeping
        self.session_context = context.SessionContext(
            kind="driver",
            worker_id=self.process_id.hex(),
            node_id=self.welcome["node_id"],
            job_id=self.welcome["job_id"],
            namespace=namespace,
            session_dir=node.session_dir,
            labels=labels or self.welcome["labels"],
            env_vars=env_vars,
        )
        self.address_info = {
            "node_id": self.welcome["node_id"],
            "session_dir": node.session_dir,
            "address": node.address,
            "node_ip_address": "127.0.0.1",
            "namespace": namespace,
            "metrics_export_port": self.welcome["metrics_port"],
        }
        self.start()
        self._interrupts.install()
        if environment:
            self._adopt(env_vars, environment)

    def _adopt(self, env_vars: Mapping[str, str], fields: str) -> None:
        """The job's environment: all tasks and actors inherit it, and it is built now unless it says otherwise."""
        try:
            found = dict(self.own_environment.inherited(tuple(sorted(env_vars.items())), fields))
        except BaseException:
            self.shutdown()
            raise
        found.pop("env_vars", None)  # which all workers of the node have
        self.own_environment.fields = self.session_context.environment = found
        if found.get("config", {}).get("eager_install", True):
            self.agent.notify({"t": "hold_environment", "env": found})

    def _on_driver_notice(self, message: dict[str, Any], _body: bytes) -> bool:
        kind = message["t"]
        if kind == "log":
            self._output.show(message)
        elif kind == "warn":
            sys.stderr.write(f"umbel: {message['text']}\n")
        elif kind == "fatal":
            warnings.warn(f"umbel: the node is ending: {message['text']}", stacklevel=2)
        else:
            return False
        return True

    def _driver_housekeeping(self, now_s: float) -> float | None:
        due = self._interrupts.housekeep(now_s)
        if self._output.has_folded:
            self._output.flush_folded()
            due = due or 1.0
        return due

    def shutdown(self) -> None:
        """End a private node and everything on it; leave another one."""
        if not self.leave():
            return
        if self.values.spilling is not None:  # before the directory that it writes to goes
            self.values.spilling.stop()
        self.reports.send_metrics()
        if not self.agent_is_gone:
            self.reports.send_tasks()
            if self._node.is_private:
                self.agent.notify({"t": "shutdown"})
                if not self.reactor.on_thread():  # until then, show what workers have printed
                    self.reactor.wait(self.agent_ended, time.monotonic() + self.config.stop_timeout_s)
            elif self.reactor.on_thread():
                self.agent.notify({"t": "leave"})
            else:
                with contextlib.suppress(exceptions.UmbelError):  # the node ends at the same time
                    self.agent.request({"t": "leave"}, timeout_s=self.config.stop_timeout_s)
        self.close()
        self._interrupts.uninstall()
        self._node.close(self.config.stop_timeout_s)
        self._output.flush_folded(everything=True)
