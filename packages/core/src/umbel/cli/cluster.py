"""`umbel start`, `umbel stop` and `umbel status`: nodes that outlive the programs that use them."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import click

from umbel import exceptions
from umbel._base import config as configuration
from umbel._base import sessions, token_files, tokens
from umbel._client import attach, launch, own_node, running_nodes, start, tool
from umbel._model import resources as resource_model
from umbel._plugins import registry
from umbel._transport import addresses
from umbel.cli import node

STOP_S = 10.0  # for a node to end with all that runs on it


def make_start() -> click.Command:
    @click.command("start")
    @click.option("--head", is_flag=True, help="Start the first node of a cluster.")
    @click.option("--address", metavar="HOST:PORT", help="Join a cluster. Not there yet.")
    @click.option("--num-cpus", type=float, help="Default: the CPUs this process may use.")
    @click.option("--num-gpus", type=float, help="Default: what is detected.")
    @click.option("--resources", metavar="JSON", help="Others, as '{\"licence\": 2}'.")
    @click.option("--labels", metavar="KEY=VALUE,...", help="What label selectors see.")
    @click.option("--object-store-memory", type=int, help="Bytes; default 30 % of what is available.")
    @click.option("--scheduler", help="A scheduling policy; default hybrid.")
    @click.option(
        "--port", type=click.IntRange(0, 65_535), help="Let commands of other machines in there; 0: any free one."
    )
    @click.option("--host", default="127.0.0.1", show_default=True, help="At which of this machine's addresses.")
    @click.option(
        "--token-file", help="Of the node's token, made if it is not there; default one of its own in ~/.umbel."
    )
    @click.option(
        "--storage",
        metavar="URL",
        help="Keep actors, names, groups, jobs and keys there: sqlite:///FILE, redis://, etcd://.",
    )
    @click.option("--standby", is_flag=True, help="With --storage: wait while another head leads, and take over.")
    @click.option("--block", is_flag=True, help="Stay until the node ends; end it on Ctrl-C or SIGTERM.")
    def start_node(
        head: bool, address: str | None, num_cpus: float | None, num_gpus: float | None, resources: str | None,
        labels: str | None, object_store_memory: int | None, scheduler: str | None, port: int | None, host: str,
        token_file: str | None, storage: str | None, standby: bool, block: bool,
    ) -> None:  # fmt: skip
        """Start a node that runs until `umbel stop`; programs of this user on this machine connect by umbel.init()."""
        if address is not None:
            raise click.ClickException("joining a cluster of several nodes is not there yet; start a node by --head")
        if not head:
            raise click.ClickException("say --head for the first node of a cluster")
        stay = _Stay() if block else None  # from here on a signal ends the node, though it may not be there yet
        try:
            listening = {} if port is None else _listening(host, port, token_file)
            more = {**listening, **_keeping(storage, is_standby=standby)}
            launched, told = _start(
                num_cpus, num_gpus, _resources(resources), _labels(labels), object_store_memory, scheduler, more
            )
        except (exceptions.UmbelError, TypeError, ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error
        name = os.path.basename(launched.session_dir)
        click.echo(
            f"Umbel runs here with {told}, as {name}.\n"
            "Programs on this machine connect by umbel.init(); `umbel status` shows what it does, `umbel stop` ends it."
        )
        if listening:
            with tool.Tool(launched.session_dir) as asker:
                (found,) = asker.query("nodes")
            click.echo(
                f"It listens at {found['address']}: `umbel status --session {found['address']}` of another machine needs a token "
                f"of {listening['token_file']}, as `umbel token --file FILE --role read` prints one."
            )
        if stay is not None:
            stay.until_end_of(launched)

    return start_node


def _start(
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float] | None,
    labels: dict[str, str],
    object_store_memory: int | None,
    scheduler: str | None,
    more: dict[str, Any],
) -> tuple[launch.Launched, str]:
    config = configuration.Config.from_environment()
    policy = scheduler or config.scheduler
    registry.installed().schedulers.find(policy)
    store_bytes = own_node.store_bytes(object_store_memory)
    totals, ids, found_labels = own_node.totals(num_cpus, num_gpus, resources, store_bytes, config)
    launched = launch.launch(
        {
            **start.node_configuration(totals, ids, {**found_labels, **labels}, store_bytes, policy, config),
            "embedded": False,
            "has_jobs": True,
            "version": attach.version(),
            "worker_imports": [],
            **more,
        },
        ready_timeout_s=None if more.get("is_standby") else launch.READY_TIMEOUT_S,
    )
    return launched, own_node.in_words(totals)


def _listening(host: str, port: int, token_file: str | None) -> dict[str, str]:
    """What the daemon is told of it. The token is there from now on."""
    path = os.path.abspath(token_file) if token_file else token_files.default_path(os.urandom(8).hex())
    token_files.ensure(path)
    return {"listen": str(addresses.Address(host, port)), "token_file": path}


def _keeping(url: str | None, *, is_standby: bool) -> dict[str, Any]:
    """What the daemon is told of its control storage."""
    if url is None:
        if is_standby:
            raise click.ClickException("--standby is for a head with --storage, which another one may be using")
        return {}
    return {"storage": url, "is_standby": is_standby}


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
        launched.process.wait()
        launched.close()


def make_stop() -> click.Command:
    @click.command("stop")
    @click.option(
        "--all", "wants_all", is_flag=True, help="All nodes of this user that `umbel start` has started here."
    )
    @click.option("--force", is_flag=True, help="Kill what does not end in time.")
    @node.option
    def stop(wants_all: bool, force: bool, session: str | None) -> None:
        """End a node that `umbel start` has started, and all that runs on it."""
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
        elif len(running) > 1 and not wants_all:
            shown = "".join(f"\n  {path}" for path in running)
            raise click.ClickException(f"several nodes run here; say which with --session, or --all:{shown}")
        if not running:
            raise click.ClickException("no node runs here that `umbel start` has started")
        for path in running:
            _stop(path, force=force)
            click.echo(f"{os.path.basename(path)} has ended")

    return stop


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
        """What a node has, what of it is in use, whose jobs run, and what waits."""
        with node.connect(session) as asker:
            found = {
                what: _asked(functools.partial(asker.query, what)) for what in ("nodes", "jobs", "actors", "pending")
            }
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        click.echo("\n".join(_in_words(found)))

    return status


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error


def _in_words(found: dict[str, Any]) -> list[str]:
    lines = []
    for one in found["nodes"]:
        where = f", listens at {one['address']}" if one["address"] else ""
        lines.append(f"Node {one['node_id'][:8]} ({os.path.basename(one['session_dir'])}{where})")
        if one["control_waits_for"]:
            lines.append(f"  Its control service {one['control_waits_for']}")
        for name, amount in one["resources"].items():
            if not name.startswith(resource_model.NODE_PREFIX):
                lines.append(
                    f"  {_shown(name, amount - one['available'].get(name, 0))} of {_shown(name, amount)} {name} in use"
                )
    running = [job for job in found["jobs"] if job["ended_s"] is None]
    lines.append(f"Jobs: {len(running)} running, {len(found['jobs']) - len(running)} ended")
    lines += [f"  {job['job_id']} pid {job['pid']} {job['entrypoint']:.100}".rstrip() for job in running]
    live = [actor for actor in found["actors"] if actor["state"] != "DEAD"]
    lines.append(f"Actors: {len(live)} live, {sum(actor['is_detached'] for actor in live)} of them detached")
    lines.append("Waiting: " + ("nothing" if not found["pending"] else ""))
    for one in found["pending"]:
        what = "an actor" if one["actor"] else f"{one['count']} worker{'s' * (one['count'] != 1)}"
        lines.append(f"  {what} for {one['waiting_s']:.0f} s: {one['reason']}")
    return [line.rstrip() for line in lines]


def _shown(name: str, units: int) -> str:
    amount = units / resource_model.RESOURCE_UNIT
    if name in (resource_model.MEMORY, resource_model.OBJECT_STORE_MEMORY):
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount:g}"
