"""Commands, and options of `start`, that Ray has and Umbel has not: each says so, and what to use instead."""

from __future__ import annotations

from typing import Final

import click

_COPY: Final = (
    "copy by scp or rsync with the host that `umbel get-head-ip FILE` prints; a program's files go by runtime_env"
)
_USAGE: Final = "Umbel tells nobody of its use, so there is nothing to switch"
_LOGS: Final = "`umbel logs`, `umbel list` and `umbel status --json` print what there is of all nodes"

PLANNED: Final = {
    "attach": "run `ssh` with the host that `umbel get-head-ip FILE` prints, or one command by `umbel exec FILE COMMAND`",
    "check-open-ports": "docs/security.md says what listens, and for whom",
    "cluster-dump": _LOGS,
    "cpp": "there is Python only",
    "dashboard": "`umbel status`, `umbel list` and `umbel timeline` tell, `umbel metrics dashboard` prints a board for Grafana",
    "debug": "there is no debugger of workers; `umbel stack` shows where they stand",
    "disable-usage-stats": _USAGE,
    "enable-usage-stats": _USAGE,
    "get-auth-token": "`umbel token --file FILE` prints a role's token",
    "global-gc": "processes give up what nothing refers to by themselves; `umbel memory` says who holds what",
    "job": "run the program itself, on a machine of the cluster or from anywhere by umbel.init('umbel://HOST:PORT'), or by "
    "`umbel exec FILE COMMAND`; `umbel list jobs` shows those that run, `umbel logs` what they have printed",
    "kuberay-autoscaler": "there is no launcher for Kubernetes",
    "local-dump": _LOGS,
    "microbenchmark": "`nox -s bench` in a clone of Umbel's repository measures",
    "monitor": "`umbel status` says what the autoscaler does, and why",
    "rsync-down": _COPY,
    "rsync-up": _COPY,
    "sanity-check": "`umbel health-check` says whether a cluster is alive",
    "serve": "the library is not released yet, so there is nothing to install",
    "submit": "copy the program to the host that `umbel get-head-ip FILE` prints, and run it by `umbel exec FILE COMMAND`",
    "symmetric-run": "run `umbel start --head` on one machine, `umbel start --address` on the others, and the program on any",
}

_PORT: Final = "a node has one port, --port, and its workers dial out"
_DASHBOARD: Final = PLANNED["dashboard"]
_REDIS: Final = "name the server, and who may use it, by --storage redis://USER:PASSWORD@HOST:PORT"
_OUTPUT: Final = "`umbel logs` prints what daemons and workers write"
_RESERVED: Final = (
    "say by --num-cpus and --memory what is left for work, and UMBEL_MEMORY_ISOLATION=1 for limits of each worker"
)

PLANNED_OF_START: Final = {
    "--cgroup-path": _RESERVED,
    "--dashboard-agent-grpc-port": _PORT,
    "--dashboard-agent-listen-port": _PORT,
    "--dashboard-host": _DASHBOARD,
    "--dashboard-port": _DASHBOARD,
    "--disable-usage-stats": _USAGE,
    "--enable-object-reconstruction": "lost objects are computed again without being asked to",
    "--enable-resource-isolation": _RESERVED,
    "--include-dashboard": _DASHBOARD,
    "--include-log-monitor": "log_to_driver of umbel.init() says whether a program prints what its workers print",
    "--labels-file": "give the labels by --labels KEY=VALUE,...",
    "--log-color": _OUTPUT,
    "--log-style": _OUTPUT,
    "--max-worker-port": _PORT,
    "--min-worker-port": _PORT,
    "--no-monitor": "there is an autoscaler only where --autoscaling-config names its file",
    "--no-redirect-output": _OUTPUT,
    "--node-manager-port": _PORT,
    "--object-manager-port": _PORT,
    "--plasma-directory": "objects are in /dev/shm, and what does not fit there in --object-spilling-directory",
    "--proxy-server-url": PLANNED["dashboard"],
    "--ray-client-server-port": "programs connect to --port as well, by umbel.init('umbel://HOST:PORT')",
    "--ray-debugger-external": PLANNED["debug"],
    "--redis-password": _REDIS,
    "--redis-shard-ports": _REDIS,
    "--redis-username": _REDIS,
    "--runtime-env-agent-port": _PORT,
    "--system-config": "settings are environment variables, UMBEL_..., see docs/settings.md",
    "--system-reserved-cpu": _RESERVED,
    "--system-reserved-memory": _RESERVED,
    "--temp-dir": "set TMPDIR: what a node writes is below it",
    "--tracing-startup-hook": "pass _tracing_startup_hook to umbel.init()",
    "--worker-port-list": _PORT,
}


class StartCommand(click.Command):
    """An option of Ray's `start` that is missing is no spelling mistake."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            instead = PLANNED_OF_START.get(error.option_name)
            if instead is None:
                raise
            raise click.UsageError(
                f"`umbel start {error.option_name}` is not in this version of Umbel: {instead}", ctx
            ) from None


def make(name: str) -> click.Command:
    """The command, whatever follows it."""

    def refuse() -> None:
        raise click.ClickException(f"`umbel {name}` is not in this version of Umbel: {PLANNED[name]}")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, context_settings=settings, callback=refuse, add_help_option=False)
