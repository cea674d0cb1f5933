"""`umbel start`, `umbel stop` and `umbel status`: nodes that outlive the programs that use them."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from umbel import exceptions
from umbel._autoscaling import report
from umbel._base import nodes, sessions, token_files, tokens
from umbel._client import cluster_files, cluster_node, cluster_view, launch, running_nodes, scaled_clusters, tool
from umbel._model import reasons
from umbel._model import resources as resource_model
from umbel.cli import explain, node, planned

STOP_S = 10.0  # for a node to end with all that runs on it
DEAD_SHOWN_MAX = 10  # the latest; `umbel list nodes` has all


def make_start() -> click.Command:
    @click.command("start", cls=planned.StartCommand)
    @click.option("--head", is_flag=True, help="Start the first node of a cluster.")
    @click.option(
        "--address",
        metavar="HOST:PORT,...",
        help="Join the cluster whose head listens there; name those of standbys as well, to follow whichever leads.",
    )
    @click.option("--num-cpus", type=float, help="Default: the CPUs this process may use.")
    @click.option("--num-gpus", type=float, help="Default: what is detected.")
    @click.option("--resources", metavar="JSON", help="Others, as '{\"licence\": 2}'.")
    @click.option("--labels", metavar="KEY=VALUE,...", help="What label selectors see.")
    @click.option("--object-store-memory", type=int, help="Bytes; default 30 % of what is available.")
    @click.option("--memory", type=int, help="Bytes for what asks for memory=; default what is available.")
    @click.option("--object-spilling-directory", metavar="PATH", help="A path or URL; default the session's directory.")
    @click.option("--metrics-export-port", type=int, help="Serve metrics to Prometheus there; 0 for any free port.")
    @click.option("--node-name", default="", help="What lists call the node; default its address.")
    @click.option("--scheduler", help="A scheduling policy; default hybrid.")
    @click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        help="Where it listens: a head only if told to, for other nodes and for commands of other machines. 0, and the "
        "default of a node that joins: any free one.",
    )
    @click.option(
        "--host",
        help="At which of this machine's addresses it listens; default 127.0.0.1 for a head, and that by which others reach "
        "it for a node that joins.",
    )
    @click.option(
        "--no-listen",
        is_flag=True,
        help="Listen nowhere: other nodes reach it by connections that it makes itself. For a node that joins.",
    )
    @click.option(
        "--node-ip-address",
        help="At which address others reach it; default the one it listens at, or from which it reaches the head.",
    )
    @click.option(
        "--token-file",
        help="Of the cluster's token. A head makes it if it is not there, by default one that ends with the head; with "
        "--storage, for the next head, one in ~/.umbel. A node that "
        "joins looks by default into UMBEL_TOKEN and UMBEL_TOKEN_FILE; - is its standard input, and a file of its own.",
    )
    @click.option(
        "--tls",
        metavar="DIRECTORY",
        help="Of the node's certificates, as `umbel tls` makes them; default UMBEL_TLS_DIRECTORY. All nodes of a cluster have "
        "TLS, or none.",
    )
    @click.option(
        "--storage",
        metavar="URL",
        help="Keep actors, names, groups, jobs and keys there: sqlite:///FILE, redis://, etcd://.",
    )
    @click.option("--standby", is_flag=True, help="With --storage: wait while another head leads, and take over.")
    @click.option(
        "--autoscaling-config",
        metavar="FILE",
        help="Of a cluster: the head launches its nodes. `umbel up FILE` does more; this is for a head of your own.",
    )
    @click.option("--block", is_flag=True, help="Stay until the node ends; end it on Ctrl-C or SIGTERM.")
    def start_node(
        head: bool, address: str | None, num_cpus: float | None, num_gpus: float | None, resources: str | None,
        labels: str | None, object_store_memory: int | None, memory: int | None, object_spilling_directory: str | None,
        metrics_export_port: int | None, node_name: str, scheduler: str | None, port: int | None, host: str | None,
        no_listen: bool,
        node_ip_address: str | None, token_file: str | None, tls: str | None, storage: str | None, standby: bool,
        autoscaling_config: str | None, block: bool,
    ) -> None:  # fmt: skip
        """Start a node that runs until `umbel stop`; programs of this user on this machine connect by umbel.init()."""
        if head == (address is not None):
            raise click.ClickException("say --head for the first node of a cluster, or --address to join one")
        if no_listen and (head or host is not None or port is not None):
            raise click.ClickException(
                "--no-listen is for a node that joins, by --address, and has neither --host nor --port: leave out the one or "
                "the others"
            )
        stay = _Stay() if block else None  # from here on a signal ends the node, though it may not be there yet
        try:
            keeping = _keeping(storage, is_standby=standby, is_head=head)
            scaled = _scaled(autoscaling_config, is_head=head)
            if scaled is not None and port is None:
                port = 0  # nodes are to join
            place = _place(address or "", host or "", port, node_ip_address or "", token_file, tls or "", keeping)
            place = place._replace(listens=not no_listen)
            wishes = cluster_node.Wishes(
                num_cpus, num_gpus, _resources(resources), _labels(labels), object_store_memory, scheduler, memory, node_name,
                object_spilling_directory=object_spilling_directory, metrics_export_port=metrics_export_port,
            )  # fmt: skip
            started = cluster_node.start_node(
                wishes, place, keeping, autoscaling=None if scaled is None else scaled.content
            )
        except (exceptions.UmbelError, ImportError, OSError, TypeError, ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error
        click.echo("\n".join(_told(started, place)))
        if stay is not None:
            stay.until_end_of(started.launched)

    return start_node


def _place(
    head: str, host: str, port: int | None, node_host: str, token_file: str | None, tls: str,
    keeping: cluster_node.Keeping | None,
) -> cluster_node.Place:  # fmt: skip
    if token_file == "-":
        if not head:
            raise click.ClickException("--token-file - is for a node that joins; a head keeps its token in a file")
        text = sys.stdin.readline().strip()
        tokens.parse(text, source="standard input")
        return cluster_node.Place(head, host, port, node_host, "", tls, text)
    if head:
        return cluster_node.Place(head, host, port, node_host, os.path.abspath(token_file) if token_file else "", tls)
    if port is None:
        if tls:
            raise click.ClickException("--tls is for a node that listens; give the head a --port, or leave --tls out")
        return cluster_node.Place()
    here = host or "127.0.0.1"
    if token_file:
        return cluster_node.Place("", here, port, node_host, os.path.abspath(token_file), tls)
    if keeping is not None:  # the next head of these records needs it, too
        return cluster_node.Place("", here, port, node_host, token_files.default_path(os.urandom(8).hex()), tls)
    return cluster_node.Place("", here, port, node_host, "", tls, tokens.new_secret().as_text())


def _told(started: cluster_node.Started, place: cluster_node.Place) -> list[str]:
    name = os.path.basename(started.launched.session_dir)
    lines = [f"Umbel runs here with {started.told}, as {name}."]
    if place.head:
        where = f" at {started.address}" if place.listens else ", which listens nowhere"
        lines.append(f"It is node {started.launched.node_id[:8]}{where}, a member of the cluster at {place.head}.")
    lines.append(
        "Programs on this machine connect by umbel.init(); `umbel status` shows what it does, `umbel stop` ends it."
    )
    if place.port is not None and not place.head:
        lines += [
            f"It listens at {started.address}. Other nodes join, with a copy of its token, by",
            f"  umbel start --address {started.address} --token-file {started.token_file}",
            f"`umbel status --session {started.address}` of another machine needs a token, as "
            f"`umbel token --file {started.token_file} --role read` prints one.",
        ]
    return lines


def _keeping(url: str | None, *, is_standby: bool, is_head: bool) -> cluster_node.Keeping | None:
    if url is None:
        if is_standby:
            raise click.ClickException("--standby is for a head with --storage, which another one may be using")
        return None
    if not is_head:
        raise click.ClickException("--storage is the head's; a node that joins keeps no records of its own")
    return cluster_node.Keeping(url, is_standby)


def _scaled(path: str | None, *, is_head: bool) -> cluster_files.ClusterFile | None:
    if path is None:
        return None
    if not is_head:
        raise click.ClickException("--autoscaling-config is the head's; a node that joins launches none")
    file = cluster_files.read(path)
    scaled_clusters.check(file)
    return file


def _resources(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.ClickException(f"--resources must be a JSON object, got {text!r}: {error}") from error
    return found  # type: ignore[no-any-return]  # checked with the others


def _labels(text: str | None) -> dict[str, str]:
    if not text:
        return {}
    pairs = [one.partition("=") for one in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise click.ClickException(f"--labels must be KEY=VALUE,..., got {text!r}")
    return {key.strip(): value.strip() for key, _, value in pairs}


class _Stay:
    """Waits for a node to end, and ends it on SIGINT and SIGTERM, from the moment on that this object is made."""

    def __init__(self) -> None:
        self._is_over = False
        self._launched: launch.Launched | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._is_over = True
        if self._launched is not None:
            self._launched.process.terminate()

    def until_end_of(self, launched: launch.Launched) -> None:
        self._launched = launched
        if self._is_over:
            launched.process.terminate()
        code = launched.process.wait()
        launched.close()
        if code and not self._is_over:
            raise click.ClickException(
                f"the node has ended by itself, with the exit code {code}; if the head of its cluster runs, `umbel status` there "
                "says why"
            )


def make_stop() -> click.Command:
    @click.command("stop")
    @click.option(
        "--all", "wants_all", is_flag=True, help="All nodes of this user that `umbel start` has started here."
    )
    @click.option("--force", is_flag=True, help="Kill what does not end in time.")
    @node.option
    def stop(wants_all: bool, force: bool, session: str | None) -> None:
        """End a node that `umbel start` has started, and all that runs on it; or all nodes here, if they are of one cluster."""
        if session and tool.is_remote(session):
            with node.connect(session) as asker:
                _asked(asker.stop)
            click.echo(f"the node at {session} ends")
            return
        running = sessions.outliving_sessions(sessions.base_dir())
        if session:
            try:
                running = [running_nodes.named(session, running)]
            except ConnectionError as error:
                raise click.ClickException(str(error)) from error
        elif len(running) > 1 and not wants_all and not running_nodes.of_one_cluster(running):
            raise click.ClickException(
                f"several nodes run here; say which with --session, or --all:{running_nodes.listed(running)}"
            )
        if not running:
            raise click.ClickException("no node runs here that `umbel start` has started")
        for path in sorted(running, key=_is_head):  # others would end with their head, and say that instead
            _stop(path, force=force)
            click.echo(f"{os.path.basename(path)} has ended")

    return stop


def _is_head(path: str) -> bool:
    try:
        found = sessions.outliving(path)
    except OSError:  # it has just ended
        return False
    return bool(found.cluster) and found.head == found.address


def _stop(path: str, *, force: bool) -> None:
    pid = 0
    try:
        with tool.Tool(path) as asker:
            pid = asker.stop()
    except exceptions.UmbelError as error:
        pid = sessions.daemon_of(path)
        if not (force and pid):
            raise click.ClickException(f"{error}; --force kills it") from error
        os.kill(pid, signal.SIGKILL)
    until_s = time.monotonic() + STOP_S
    while os.path.exists(path):
        if time.monotonic() > until_s:
            if not force:
                raise click.ClickException(f"{path} has not ended within {STOP_S:g} s; --force kills it")
            os.kill(pid, signal.SIGKILL)
            until_s, force = time.monotonic() + STOP_S, False
        select.select([], [], [], 0.01)


def make_token() -> click.Command:
    @click.command("token")
    @click.option("--file", "path", required=True, help="Of a node's token, or of one of its roles.")
    @click.option("--role", type=click.Choice([role.text for role in tokens.Role]), default="read", show_default=True)
    def token(path: str, role: str) -> None:
        """Print the token of a role, to be given to whoever shall have it, in UMBEL_TOKEN or a file."""
        try:
            click.echo(token_files.read(path).lowered(tokens.Role[role.upper()]).as_text())
        except exceptions.UmbelError as error:
            raise click.ClickException(str(error)) from error

    return token


def make_status() -> click.Command:
    @click.command("status")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @node.option
    def status(as_json: bool, session: str | None) -> None:
        """What the nodes of a cluster have, what of it is in use, whose jobs run, and what waits."""
        with node.connect(session) as asker:
            found = _asked(functools.partial(_of_nodes, asker))
            found |= _of_cluster(asker)
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        click.echo("\n".join(_in_words(found)))

    return status


def make_health_check() -> click.Command:
    @click.command("health-check")
    @node.option
    def health_check(session: str | None) -> None:
        """End with 0 if the node answers, and has a connection to the head of its cluster; else with 1, and say why."""
        with node.connect(session) as asker:
            own = _asked(lambda: asker.query("nodes"))[0]
        trouble = own.get("suspicion") or own.get("control_waits_for")
        if trouble:
            raise click.ClickException(f"node {own['node_id'][:8]}: {trouble}")

    return health_check


def _of_nodes(asker: tool.Tool) -> dict[str, Any]:
    """The nodes, what waits on them, and which do not say."""
    cluster = cluster_view.Cluster(asker, explain.LOOK_S)
    pending = [{**entry, "node_id": node_id} for node_id, entry in cluster.pending()]
    return {"nodes": cluster.facts, "pending": pending, "silent": cluster.node.missing}


def _of_cluster(asker: tool.Tool) -> dict[str, Any]:
    """What its head knows, which may be out of reach: each None then, and why under "unknown"."""
    found: dict[str, Any] = {"jobs": None, "actors": None, "autoscaler": None, "unplaceable": None, "unknown": ""}
    try:
        for what in ("jobs", "actors", "autoscaler"):
            found[what] = asker.query(what)
        found["unplaceable"] = explain.unplaceable(asker)
    except exceptions.UmbelError as error:
        found["unknown"] = str(error)
    return found


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error


def _in_words(found: dict[str, Any]) -> list[str]:
    lines = []
    dead = [one for one in found["nodes"] if not one["alive"]]
    living = [one for one in found["nodes"] if one["alive"]]
    if len(found["nodes"]) > 1:
        lines.append(f"Nodes: {len(living)} alive, {len(dead)} dead")
    for number, one in enumerate(living):
        where = ""
        if one["address"]:
            where = f", listens at {one['address']}" if nodes.listens(one["address"]) else ", listens nowhere"
        what = f"{os.path.basename(one['session_dir'])}{where}" if number == 0 else _at(one)
        head = ", the head" if one["is_head"] and len(found["nodes"]) > 1 else ""
        lines.append(f"Node {one['node_id'][:8]} ({what}{head})")
        if one.get("suspicion"):
            lines.append(f"  suspected: {one['suspicion']}")
        if one.get("draining"):
            lines.append(f"  {_draining(one['draining'])}")
        if one.get("control_waits_for"):
            lines.append(f"  Its control service {one['control_waits_for']}")
        for name, amount in one["resources"].items():
            if not name.startswith(resource_model.NODE_PREFIX):
                lines.append(
                    f"  {_shown(name, amount - one['available'].get(name, 0))} of {_shown(name, amount)} {name} in use"
                )
        if number and one["waiting"]:
            lines.append(f"  {one['waiting']} worker{'s' * (one['waiting'] != 1)} waited for there")
    for one in dead[-DEAD_SHOWN_MAX:]:
        lines.append(
            f"Node {one['node_id'][:8]} (at {nodes.address_in_words(one['address'])}) is dead: {one['reason']}"
        )
    lines += [f"Not known: {found['unknown']}"] if found["unknown"] else _jobs_and_actors(found)
    unplaceable = found["unplaceable"] or []
    lines.append("Waiting: " + ("nothing" if not found["pending"] and not unplaceable else ""))
    for one in found["pending"]:
        what = "an actor" if one["actor"] else f"{one['count']} worker{'s' * (one['count'] != 1)}"
        if one["group"]:
            what = f"placement group {one['group']}"
        where = f", on node {one['node_id'][:8]}" if one["node_id"] != found["nodes"][0]["node_id"] else ""
        lines.append(f"  {what} for {one['waiting_s']:.0f} s{where}: {one['reason']}")
    lines += [f"  {reasons.Reason.from_json(one['why'])}" for one in unplaceable]
    lines += [f"Not known: {text}" for text in found["silent"]]
    if found["autoscaler"] is not None:
        lines += ["Autoscaler:", *(f"  {line}" for line in report.answer_in_words(found["autoscaler"]))]
    return [line.rstrip() for line in lines]


def _at(node: dict[str, Any]) -> str:
    """Where another node is, and how it is reached, if not by dialling it."""
    return f"at {nodes.address_in_words(node['address'])}" + (
        f", reached {node['reached']}" if node.get("reached") else ""
    )


def _draining(facts: dict[str, Any]) -> str:
    why = f"{facts['reason']}: {facts['message']}" if facts["message"] else facts["reason"]
    deadline_s = facts["deadline_s"]
    left = "" if deadline_s is None else f", in {max(0.0, deadline_s - time.time()):.0f} s at the latest"
    still = facts["waits_for"] or "idle workers"
    return f"is being drained ({why}): it ends when it has nothing left{left}; it still has {still}"


def _jobs_and_actors(found: dict[str, Any]) -> list[str]:
    running = [job for job in found["jobs"] if job["ended_s"] is None]
    lines = [f"Jobs: {len(running)} running, {len(found['jobs']) - len(running)} ended"]
    lines += [f"  {job['job_id']} pid {job['pid']}{_terms(job)} {job['entrypoint']:.100}".rstrip() for job in running]
    live = [actor for actor in found["actors"] if actor["state"] != "DEAD"]
    lines.append(f"Actors: {len(live)} live, {sum(actor['is_detached'] for actor in live)} of them detached")
    return lines


def _terms(job: dict[str, Any]) -> str:
    """What it is scheduled by, where that is not as ever."""
    shown = [f"priority {job['priority']}"] if job["priority"] else []
    shown += [f"weight {job['weight']:g}"] if job["weight"] != 1 else []
    return f" ({', '.join(shown)})" if shown else ""


def _shown(name: str, units: int) -> str:
    amount = units / resource_model.RESOURCE_UNIT
    if name in (resource_model.MEMORY, resource_model.OBJECT_STORE_MEMORY):
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount:g}"
