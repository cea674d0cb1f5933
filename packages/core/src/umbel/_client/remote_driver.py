"""The native engine in a program on a machine without a node (`umbel.init("umbel://host:port")`).

It is a driver of the node at that address like any other, and owns its objects itself; only its sockets are elsewhere: a
`relay` on the node has them, and what goes through them comes here by a tunnel (`remote_tunnel`). The node's shared memory is
read and written through it too (`remote_store`). See docs/design/0033-remote-drivers.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import attach as local_attach
from umbel._client import (
    driver,
    links,
    native,
    own_environment,
    remote_links,
    remote_peers,
    remote_store,
    remote_tunnel,
    start,
    store_quota,
)
from umbel._environments import packing
from umbel._model import package_names, reasons
from umbel._transport import connection

PACKAGE_PIECE_BYTES = 256 << 10


class RemoteNode:
    """The node at the other end."""

    is_private = False

    def __init__(self, tunnel: remote_tunnel.RemoteTunnel) -> None:
        self._tunnel = tunnel
        self.node_id: str = tunnel.node["node_id"]

    @property
    def session_dir(self) -> str:
        """There, not here."""
        return str(self._tunnel.node["session_dir"])

    @property
    def address(self) -> str:
        return self._tunnel.address

    def close(self, _timeout_s: float) -> None:
        """It goes on; what stands there for this program ends."""
        self._tunnel.close()


class RemoteDriverEngine(driver.DriverEngine):
    """See `attach`, which makes it."""

    is_remote = True

    def __init__(self, tunnel: remote_tunnel.RemoteTunnel, **options: Any) -> None:
        self._tunnel = tunnel
        tunnel.on_lost = self._on_lost
        super().__init__(RemoteNode(tunnel), **options)
        self.address_info["node_ip_address"] = tunnel.node["address"].rpartition(":")[0].strip("[]")

    # What is elsewhere

    def _make_links(self) -> links.Links:
        self.own_environment = RemoteEnvironment(self.session_dir, self)
        return _Links(self, self._tunnel)

    def _connect_agent(self) -> links.AgentLink:
        found = _AgentLink(self._tunnel.open({"to": "agent"}), self.reactor, self.arrivals.on_notice, self._agent_gone)
        found.tunnel = self._tunnel
        return found

    def _pid(self) -> int:
        return self._tunnel.pid

    def _make_store(self) -> Any:
        if self.config.store != "shm":
            raise exceptions.UnsupportedFeature(
                f"a program that is connected by umbel:// reads and writes the object store 'shm' only, got UMBEL_STORE="
                f"{self.config.store!r}; unset it, or run the program on a machine with a node"
            )
        grants = store_quota.Grants(self)
        self.files = remote_store.open_files(self, self._tunnel.open({"to": "files"}))
        made = remote_store.RemoteStore(
            self.files, self.process_id.hex(), reserve=grants.reserve, release=grants.release
        )
        made.on_orphans = self._on_orphans
        return made

    def _on_orphans(self, names: list[str]) -> None:
        with self.lock:
            self.values.orphans_found(names)

    def make_spilling(self) -> remote_store.RemoteSpilling:
        return remote_store.RemoteSpilling(self)

    def _make_door(self) -> Any:
        return self._tunnel

    def _open_door(self, _door: Any, token: str) -> None:
        """Connections of other nodes' processes are proved by the relay, which has the node's token."""
        if not token:
            return
        self.links.remote = _RemoteLinks(
            self.links, self.process_id, token, None, self.reactor, self.lock, self.agent.notify, self._tunnel
        )

    def incoming(self, sock: connection.Stream, to: Mapping[str, Any]) -> None:
        """A process of the cluster has connected to this one. On the tunnel's thread."""
        with self.lock:
            if self.is_closed:
                sock.close()
            elif to.get("from") == "elsewhere" and isinstance(self.links.remote, _RemoteLinks):
                self.links.remote.accept(sock)
            else:
                self.links.accept(sock)

    # What is told

    def explain(self, target: Any) -> reasons.Reason:
        broken = self._tunnel.waits_for()
        record = self.values.table.records.get(getattr(target, "_id", b""))
        if not broken or (record is not None and record.kind != native.PENDING):
            return super().explain(target)
        return reasons.Reason(reasons.NODE, "it", f"waits: {broken}")

    def _not_ready(self, wanted: Any, found: Any, timeout_s: Any) -> str:
        broken = self._tunnel.waits_for()
        if not broken:
            return super()._not_ready(wanted, found, timeout_s)
        return f"some of {len(found)} objects were not ready within {timeout_s} s: {broken}"

    # The end

    def _on_lost(self) -> None:
        """On the tunnel's thread, before the sockets close: who waits is told this rather than what follows from it."""
        if hasattr(self, "agent"):
            self.agent.close()


class _AgentLink(links.AgentLink):
    tunnel: remote_tunnel.RemoteTunnel

    def died(self) -> BaseException:
        if not self.tunnel.lost:
            return super().died()
        return exceptions.ConnectionLostError(
            f"the connection to {self.tunnel.address} is lost: {self.tunnel.lost}. What this program had there is gone, its "
            "objects and its actors, but for detached ones. Call umbel.shutdown() and umbel.init() to connect again"
        )


class _Links(links.Links):
    """Through the tunnel."""

    def __init__(self, engine: RemoteDriverEngine, tunnel: remote_tunnel.RemoteTunnel) -> None:
        self._tunnel = tunnel
        tunnel.on_incoming = engine.incoming
        super().__init__(
            engine.process_id, "", engine.reactor.poller, engine.arrivals.on_messages, engine.arrivals.on_link_gone
        )

    def _listen(self) -> None:
        self._listener = None
        self._serving = self._tunnel.open({"to": "serve", "process": self._process_id.hex()})

    def _connect(self, peer: bytes) -> connection.Stream:
        return self._tunnel.open({"to": "process", "process": peer.hex()})

    def close(self) -> None:
        super().close()
        self._serving.close()


class _RemoteLinks(remote_links.RemoteLinks):
    """To processes of nodes other than the one of the relay, which dials them."""

    def __init__(self, *given: Any) -> None:
        *others, self._tunnel = given
        super().__init__(*others)

    def _dial(self, wanted: remote_peers.Dial) -> None:
        def on_answer(is_taken: bool, reason: str, is_final: bool) -> None:
            with self._lock:
                if is_taken:
                    self._connected(wanted, sock)
                    return
                sock.close()
                self._failed(wanted, exceptions.AuthenticationError(reason) if is_final else ConnectionError(reason))

        to = {"to": "elsewhere", "address": wanted.address, "process": wanted.peer.hex()}
        sock = self._tunnel.open(to, on_answer)


class RemoteEnvironment(own_environment.OwnEnvironment):
    """Files and directories that are asked for are packed here, and go to the node."""

    def __init__(self, session_dir: str, engine: RemoteDriverEngine) -> None:
        super().__init__(session_dir)
        self._engine = engine

    def _packed(self, env_vars: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, Any]:
        from umbel._client import environments

        directory = tempfile.mkdtemp(prefix="umbel-packages-")
        try:
            found = environments.packed(env_vars, fields, self.fields, directory)
            packages = packing.Packages(packing.directory_of(directory), bytes_max=0)
            for name in package_names.names_in(json.dumps(found)):
                if packages.has(name):
                    self._send(name, packages.archive_of(name))
            return found
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _send(self, name: str, path: str) -> None:
        """One package, unless the node has it. Raises UmbelSystemError."""
        answer, _ = self._engine.files.ask({"t": "has_package", "name": name})
        if answer.get("is_here"):
            return
        size_bytes = os.path.getsize(path)
        pipeline = remote_store.Pipeline(self._engine.files, self._check)
        with open(path, "rb") as file:
            for offset in range(0, size_bytes, PACKAGE_PIECE_BYTES):
                is_last = offset + PACKAGE_PIECE_BYTES >= size_bytes
                question = {"t": "put_package", "name": name, "offset": offset, "is_last": is_last}
                pipeline.add(question, file.read(PACKAGE_PIECE_BYTES))
        pipeline.finish()

    def _check(self, message: Mapping[str, Any], _body: bytes) -> None:
        error = message.get("error")
        if error is not None:
            raise exceptions.UmbelSystemError(f"the node did not take a package of the runtime_env: {error['text']}")


def attach(
    address: str,
    *,
    namespace: str,
    env_vars: Mapping[str, str],
    log_to_driver: bool,
    logging_config: Mapping[str, object] | None = None,
    tracing_startup_hook: str | None = None,
    config: configuration.Config,
    environment: str = "",
    job_facts: Mapping[str, Any],
) -> native.NativeEngine:
    """environment: as for `start.start`. job_facts: see `JobConfig.facts`. Raises what `RemoteTunnel` does."""
    version = local_attach.version()
    tunnel = remote_tunnel.RemoteTunnel(address, version=version, patience_s=config.remote_reconnect_s)
    # Of interpreter, paths and directory, workers have the node's.
    job = {
        "version": version,
        "entrypoint": " ".join(sys.orig_argv),
        "namespace": namespace,
        "worker_env": dict(env_vars),
        "worker_imports": start.worker_imports(config, tracing_startup_hook),
        "logging_config": logging_config,
        "tracing_startup_hook": tracing_startup_hook,
        "log_to_driver": log_to_driver,
        **job_facts,
    }
    try:
        return RemoteDriverEngine(
            tunnel, namespace=namespace, labels={}, env_vars=env_vars, environment=environment, config=config, job=job
        )
    except BaseException:
        tunnel.close()
        raise
