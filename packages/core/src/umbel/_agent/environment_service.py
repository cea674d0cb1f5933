"""Runtime environments in the daemon: as they are known here, the fork servers that have them, and the packages that they need.

The shell of `environments` and `packages`, which are loaded with the first environment that has to be built.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from umbel._agent import environments
    from umbel._agent.hub import Client, Message
    from umbel._agent.other_nodes import OtherNodes
    from umbel._agent.servers import ForkServers

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        forks: ForkServers
        others: OtherNodes
        jobs: Any  # a `jobs.NodeJobs`, or None

        def now_s(self) -> float: ...

        def decide(self, *events: Any) -> None: ...

        def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None: ...


ENV_BYTES_MAX = 100_000  # it goes to the fork server in one datagram, of which Linux takes 200 kB


def key_of(env: Any) -> str:
    """An environment as canonical text, so that equal ones are equal; "" for none."""
    return json.dumps(env, sort_keys=True, separators=(",", ":")) if env else ""


def trouble_of(env: Any) -> str:
    """Why an environment is not allowed; "" if it is."""
    size = len(key_of(env))
    if size <= ENV_BYTES_MAX:
        return ""
    return (
        f"its runtime environment takes {size} bytes as JSON, allowed are {ENV_BYTES_MAX}; "
        "pass large values by file or as arguments"
    )


class EnvironmentService:
    def __init__(self, daemon: Daemon, session_dir: str) -> None:
        self._daemon = daemon
        self._session_dir = session_dir
        self._has_commands = False  # whether the daemon knows what to do for the machines

    # ---- as they are known here ----

    def in_job(self, env: Any, job: Any) -> Any:
        """An environment that came from outside, as it is known here."""
        return env if job is None else {**(env or {}), "job": job.id}

    def terms_of(self, env: Any) -> ev.Job:
        """Of the job that an environment is of, as that is known here."""
        jobs = self._daemon.jobs
        terms: ev.Job = jobs.terms(env["job"]) if jobs is not None and env else ev.NO_JOB
        return terms

    # ---- fork servers ----

    def start(self, command: ev.StartWorker) -> None:
        env = json.loads(command.env) if command.env else None
        if self._daemon.jobs is not None:
            env = self._daemon.jobs.starts(command.worker, env)
        self._daemon.forks.start(command.worker, env, command.server)

    def on_hold(self, client: Client, message: Message, _body: bytes) -> None:
        self.hold(client, message["env"])

    def hold(self, client: Client, env: Any) -> None:
        """Have the fork server of an environment ready for as long as the client is here."""
        key, timeout_s = self.build_of(self.in_job(env, client.job))
        if key:
            from umbel._agent import environments

            self._daemon.decide(environments.Held(client.id, key, timeout_s, self._daemon.now_s()))

    def build_of(self, env: Any) -> tuple[str, float | None]:
        """What has to be built for an environment; "" for nothing."""
        if not env or not (env.get("built") or "job" in env):
            return "", None
        from umbel._agent import environments

        if not self._has_commands:
            self._has_commands = True
            self._add_commands()
        return environments.build_of(env)

    def _add_commands(self) -> None:
        from umbel._agent import environments, packages

        daemon = self._daemon
        daemon.add_commands(
            {
                environments.Begin: self._build,
                environments.End: lambda command: daemon.forks.end_server(command.server),
                packages.Fetch: lambda command: daemon.others.links_for_packages().fetch(command),
                packages.Abandon: lambda command: daemon.others.links_for_packages().abandon(command),
            }
        )

    def _build(self, command: environments.Begin) -> None:
        wanted = json.loads(command.key)
        job = self._daemon.jobs.configuration(wanted["job"]) if "job" in wanted else None
        self._daemon.forks.build(command.server, wanted["built"], job)

    def log_of(self, server: str) -> str:
        return f"{self._session_dir}/{server}.log"

    # ---- what fork servers report of themselves ----

    def building(self, server: str, text: str) -> None:
        from umbel._agent import environments

        self._daemon.decide(environments.Doing(server, text, self._daemon.now_s()))

    def ready(self, server: str) -> None:
        from umbel._agent import environments

        self._daemon.decide(environments.Ready(server, self._daemon.now_s()))

    def gone(self, server: str, reason: str, *, was_killed: bool) -> None:
        from umbel._agent import environments

        self._daemon.decide(environments.Gone(server, reason, self._daemon.now_s(), was_killed))

    # ---- packages ----

    def packages(self) -> Any:
        """What knows which packages are here, for the agent's machine."""
        from umbel._agent import packages
        from umbel._base import config

        return packages.Packages(
            self._has_package,
            lambda: [node["node_id"] for node in self._daemon.others.listed() if node["alive"]],
            lambda: config.Config.from_environment().runtime_env_package_bytes_max,
        )

    def _has_package(self, name: str) -> bool:
        from umbel._environments import packing  # rarely needed, and not quick to import

        return packing.Packages(packing.directory_of(self._session_dir), bytes_max=0).has(name)
