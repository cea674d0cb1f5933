"""Nodes of a cluster on a list of machines, by the system's `ssh`, the built-in node launcher `ssh`.

Each machine has at most one node of a cluster, started there by `umbel start --address`, seen by `umbel sessions` and ended by
`umbel stop`. Nothing is kept but on those machines: which host a node is on, its name says. A host that does not answer counts as
it was last seen, so that one bad minute of it does not make its node vanish.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final, TypeVar

from umbel import exceptions, spi
from umbel._base import token_files, tokens
from umbel._client import cluster_files, cluster_node
from umbel._model import node_labels

T = TypeVar("T")

CONNECT_S: Final = 10  # for ssh to reach a host
LIST_S: Final = 60.0  # for what takes a second on a machine that is idle
START_S: Final = 180.0  # for a node to start and join, whose own limits are 90 s together
HOSTS_AT_ONCE: Final = 16
_CLUSTER: Final = "umbel.io/cluster-name"
_KEYS: Final = ("worker_ips", "head_ip", "ssh_user", "ssh_private_key", "ssh_port", "ssh_options", "command")
_TYPE_KEYS: Final = ("worker_ips", "object_store_memory")
_HOST = re.compile(r"[A-Za-z0-9_\[][-A-Za-z0-9_.:%\]]*")  # never one that ssh would take for an option
_NAME = re.compile(r"ssh-(.+)-[0-9a-f]{12}")
_NO_SSH: Final = "this machine has no `ssh` command; install OpenSSH's client"
_SLUG_CHARS_MAX = 40  # of a label's 63


class Shell:
    """Runs commands on other machines. config: see `docs/guide/autoscaling.md`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises InvalidOption."""
        unknown = sorted(config.keys() - set(_KEYS))
        if unknown:
            raise _wrong("the launcher 'ssh'", f"may have {', '.join(_KEYS)}", unknown)
        self.command = config.get("command", "umbel")
        user, key, port = (config.get(name) for name in ("ssh_user", "ssh_private_key", "ssh_port"))
        options = config.get("ssh_options", [])
        if not isinstance(self.command, str) or not self.command.strip():
            raise _wrong("command", "must be a command, as a shell reads it", self.command)
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise _wrong("ssh_options", "must be a list of options as ssh's -o takes them", options)
        self._ssh = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=15"]
        for one in options:
            self._ssh += ["-o", one]
        if port is not None:
            if type(port) is not int or not 0 < port < 65_536:
                raise _wrong("ssh_port", "must be a port", port)
            self._ssh += ["-p", str(port)]
        if key is not None:
            if not isinstance(key, str):
                raise _wrong("ssh_private_key", "must be the path of a key", key)
            self._ssh += ["-i", os.path.expanduser(key), "-o", "IdentitiesOnly=yes"]
        if user is not None:
            if not isinstance(user, str) or not _HOST.fullmatch(user):
                raise _wrong("ssh_user", "must be a user's name", user)
            self._ssh += ["-l", user]

    def run(self, host: str, script: str, *, given: str = "", timeout_s: float) -> str:
        """What the script, which `sh` reads, has printed. given: what it may read. Raises NodeLaunchError."""
        command = [*self._ssh, host, f"sh -c {shlex.quote(script)}"]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace"
            )
        except FileNotFoundError as error:
            raise exceptions.InvalidOption(_NO_SSH) from error
        except subprocess.TimeoutExpired as error:
            raise exceptions.NodeLaunchError(f"{host} has not answered within {timeout_s:g} s") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing was said")[-1000:]
            what = "ssh could not reach it" if done.returncode == 255 else f"the command ended with {done.returncode}"
            raise exceptions.NodeLaunchError(f"{host}: {what}: {said}")
        return done.stdout

    def hand_over(self, host: str, command: str) -> int:
        """Run it with this process's own input, output and terminal. Returns its exit code, 255 where ssh itself fails."""
        terminal = ["-t"] if sys.stdin.isatty() else []
        try:
            return subprocess.run([*self._ssh, *terminal, host, command], check=False).returncode
        except FileNotFoundError as error:
            raise exceptions.InvalidOption(_NO_SSH) from error


class SshLauncher:
    """See `spi.NodeLauncher`."""

    def __init__(self, cluster: str, *, address: str, token_file: str, config: Mapping[str, Any]) -> None:
        """Raises InvalidOption."""
        self._cluster = cluster
        self._address = address
        self._token_file = token_file
        self._shell = Shell(config)
        self._hosts = _hosts("worker_ips", config.get("worker_ips"))
        self._by_slug = {_slug(host): host for host in self._hosts}
        if len(self._by_slug) < len(self._hosts):
            raise _wrong("worker_ips", "must be different hosts, also in their first 40 characters", self._hosts)
        self._seen: dict[str, dict[str, str]] = {}  # by host, as it was listed last
        self._choice = threading.Lock()  # held while hosts are chosen
        self._taken: set[str] = set()  # hosts on which a node is being started

    def check(self, spec: spi.NodeSpec) -> None:
        unknown = sorted(spec.config.keys() - set(_TYPE_KEYS))
        if unknown:
            raise _wrong(
                f"the config of type {spec.type_name!r} of the launcher 'ssh'",
                f"may have {', '.join(_TYPE_KEYS)}",
                unknown,
            )
        store_bytes = spec.config.get("object_store_memory")
        if store_bytes is not None and (type(store_bytes) is not int or store_bytes <= 0):
            raise _wrong(f"object_store_memory of type {spec.type_name!r}", "must be a number of bytes", store_bytes)
        others = sorted(set(self._hosts_of(spec)) - set(self._hosts))
        if others:
            raise _wrong(f"worker_ips of type {spec.type_name!r}", "must be among those of the provider", others)

    def launch(self, spec: spi.NodeSpec, count: int) -> Sequence[str]:
        """On hosts that have none, all at once; each has joined."""
        if not count:
            return []
        troubles: list[str] = []
        listed = self._each(self._hosts_of(spec), self._listed, troubles)
        self._seen.update(listed)
        with self._choice:
            free = [host for host, nodes in listed.items() if not nodes and host not in self._taken]
            chosen = free[:count]
            self._taken.update(chosen)
        try:
            made = list(self._each(chosen, lambda host: self._start(host, spec), troubles).values())
        finally:
            self._taken.difference_update(chosen)
        if len(made) < count:
            busy = len(listed) - len(free)
            raise exceptions.NodeLaunchError(
                f"{len(made)} of {count} nodes of type {spec.type_name!r} were launched: of {len(self._hosts_of(spec))} hosts "
                f"{busy} have one already" + "".join(f"; {one}" for one in troubles),
                launched=made,
            )
        return made

    def terminate(self, instances: Sequence[str]) -> None:
        """All at once. `umbel stop` kills what does not end in time."""
        by_host: dict[str, list[str]] = {}
        troubles: list[str] = []
        for name in instances:
            found = _NAME.fullmatch(name)
            if found is not None and found[1] in self._by_slug:
                by_host.setdefault(self._by_slug[found[1]], []).append(name)
            elif found is not None:
                troubles.append(f"{name} is on a host that is none of worker_ips any more; put it back to end it")
        self._each(list(by_host), lambda host: self._stop(host, by_host[host]), troubles)
        if troubles:
            raise exceptions.NodeLaunchError(f"some nodes may be left: {'; '.join(troubles)}")

    def running(self) -> Mapping[str, str]:
        troubles: list[str] = []
        self._seen.update(self._each(self._hosts, self._listed, troubles))
        if len(troubles) == len(self._hosts):
            raise exceptions.NodeLaunchError(f"no host answers: {'; '.join(troubles)}")
        # Copies, while launches add to it and ends take from it.
        seen = [list(nodes.items()) for nodes in list(self._seen.values())]
        return {name: type_name for nodes in seen for name, type_name in nodes}

    def close(self) -> None:
        """There is nothing to close."""

    # ---- hosts ----

    def _hosts_of(self, spec: spi.NodeSpec) -> list[str]:
        own = spec.config.get("worker_ips")
        return self._hosts if own is None else _hosts(f"worker_ips of type {spec.type_name!r}", own)

    def _each(self, hosts: Sequence[str], do: Callable[[str], T], troubles: list[str]) -> dict[str, T]:
        """What comes of it on each host, at once; to troubles goes what does not."""
        if not hosts:
            return {}
        found = {}
        with futures.ThreadPoolExecutor(min(HOSTS_AT_ONCE, len(hosts))) as pool:
            waiting = {host: pool.submit(do, host) for host in hosts}
        for host, one in waiting.items():
            try:
                found[host] = one.result()
            except exceptions.NodeLaunchError as error:
                troubles.append(str(error))
        return found

    def _sessions(self, host: str) -> dict[str, tuple[str, str]]:
        """The name of the session and the type of each node of this cluster that is this host's, by what it is called."""
        told = self._shell.run(host, f"{self._shell.command} sessions --json", timeout_s=LIST_S)
        try:
            listed = json.loads(told)
            labelled = [(one["name"], one["labels"]) for one in listed]
        except (ValueError, TypeError, KeyError) as error:
            raise exceptions.NodeLaunchError(f"{host}: `umbel sessions --json` said {told[:200]!r}") from error
        return {
            labels[node_labels.INSTANCE_ID]: (session, labels.get(node_labels.NODE_GROUP, ""))
            for session, labels in labelled
            if labels.get(_CLUSTER) == self._cluster
            and labels.get(node_labels.INSTANCE_ID, "").startswith(f"ssh-{_slug(host)}-")
        }

    def _listed(self, host: str) -> dict[str, str]:
        return {name: type_name for name, (_, type_name) in self._sessions(host).items()}

    def _start(self, host: str, spec: spi.NodeSpec) -> str:
        name = f"ssh-{_slug(host)}-{os.urandom(6).hex()}"
        own = {node_labels.NODE_GROUP: spec.type_name, node_labels.INSTANCE_ID: name, _CLUSTER: self._cluster}
        wishes = cluster_node.wishes_of(spec, own, spec.config.get("object_store_memory"))
        start = [
            "start",
            "--address",
            self._address,
            "--num-cpus",
            f"{wishes.num_cpus}",
            "--num-gpus",
            f"{wishes.num_gpus}",
        ]
        start += ["--labels", ",".join(f"{key}={value}" for key, value in wishes.labels.items())]
        if wishes.resources:
            start += ["--resources", json.dumps(dict(wishes.resources))]
        if wishes.object_store_memory is not None:
            start += ["--object-store-memory", str(wishes.object_store_memory)]
        if wishes.memory is not None:
            start += ["--memory", str(wishes.memory)]
        token = token_files.read(self._token_file).lowered(tokens.Role.NODE).as_text()
        script = f"{self._shell.command} {shlex.join(start)} --token-file -"
        self._shell.run(host, script, given=f"{token}\n", timeout_s=START_S)
        self._seen.setdefault(host, {})[name] = spec.type_name
        return name

    def _stop(self, host: str, names: Sequence[str]) -> None:
        here = self._sessions(host)
        for name in names:
            if name in here:
                stop = f"{self._shell.command} stop --force --session {shlex.quote(here[name][0])}"
                try:
                    self._shell.run(host, stop, timeout_s=LIST_S)
                except exceptions.NodeLaunchError:
                    if name in self._sessions(host):  # else it has ended by itself meanwhile
                        raise
            self._seen.get(host, {}).pop(name, None)


# ---- a head on another machine ----


def head_of(file: cluster_files.ClusterFile) -> str:
    """The host on which the file wants the head to be started; "" for this machine. Raises InvalidOption."""
    head = file.launcher_config.get("head_ip") if file.launcher == "ssh" else None
    return _hosts("head_ip", [head])[0] if head else ""


def up_there(file: cluster_files.ClusterFile, host: str, options: Sequence[str]) -> str:
    """`umbel up` on the machine of the head, with what it has printed. Raises UmbelError."""
    shell = Shell(file.launcher_config)
    provider = {name: value for name, value in file.content["provider"].items() if name != "head_ip"}
    content = json.dumps({**file.content, "cluster_name": file.name, "provider": provider})
    directory = _head_directory(file)
    script = (
        f"umask 077 && mkdir -p {directory} && cat > {directory}/cluster.json && "
        f"{shell.command} up {directory}/cluster.json {shlex.join(options)} < /dev/null"
    )
    return shell.run(host, script, given=content, timeout_s=START_S)


def down_there(file: cluster_files.ClusterFile, host: str) -> str:
    """`umbel down` there. Raises UmbelError."""
    shell, directory = Shell(file.launcher_config), _head_directory(file)
    script = (
        f"test -e {directory}/cluster.json || {{ echo 'nothing of it runs there'; exit; }}; "
        f"{shell.command} down --yes {directory}/cluster.json < /dev/null && rm -rf {directory}"
    )
    return shell.run(host, script, timeout_s=START_S)


def asked_there(file: cluster_files.ClusterFile, host: str, command: str) -> str:
    """What this command of `umbel` says there of the cluster. Raises UmbelError."""
    shell, directory = Shell(file.launcher_config), _head_directory(file)
    script = (
        f"test -e {directory}/cluster.json || {{ echo 'nothing of it runs there' >&2; exit 1; }}; "
        f"{shell.command} {command} {directory}/cluster.json < /dev/null"
    )
    return shell.run(host, script, timeout_s=LIST_S)


def execute_there(file: cluster_files.ClusterFile, host: str, command: str) -> int:
    """Its exit code, see `Shell.hand_over`. Raises UmbelError."""
    return Shell(file.launcher_config).hand_over(host, command)


def _head_directory(file: cluster_files.ClusterFile) -> str:
    return f'"$HOME"/.umbel/clusters/{shlex.quote(f"file-{file.name}")}'


def _hosts(what: str, told: Any) -> list[str]:
    """Raises InvalidOption."""
    if not isinstance(told, list) or not told or not all(isinstance(one, str) and _HOST.fullmatch(one) for one in told):
        raise _wrong(what, "must be a list of hosts, by name or address", told)
    return told


def _slug(host: str) -> str:
    """As part of a label's value."""
    return re.sub(r"[^A-Za-z0-9]+", "-", host).strip("-")[:_SLUG_CHARS_MAX]


def _wrong(what: str, wanted: str, value: Any) -> exceptions.InvalidOption:
    got = "nothing" if value is None else repr(value)
    return exceptions.InvalidOption(f"{what} {wanted}, got {got}; correct it", option="config")
