"""Commands that Ray has and Umbel has not: each says so, and what to use instead."""

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


def make(name: str) -> click.Command:
    """The command, whatever follows it."""

    def refuse() -> None:
        raise click.ClickException(f"`umbel {name}` is not in this version of Umbel: {PLANNED[name]}")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, context_settings=settings, callback=refuse, add_help_option=False)
