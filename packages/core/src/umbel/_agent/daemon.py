"""The node daemon's process: reads its configuration, forks the fork server, serves.

Started by `umbel._client.launch` in a fresh interpreter without `site`, in which `umbel` is an empty stand-in for the
package, so that nothing is imported that the daemon does not need. Through one pipe comes the configuration as a JSON line,
through the other one JSON line goes back; the end of the first means that the process which started this one is gone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from typing import Any

from umbel._base import sessions

EXPELLED = 3  # the exit code of a node that its cluster does not have any more


def main(orders: int, answers: int) -> None:
    """orders, answers: a reading and a writing end."""
    _close_all_but(orders, answers)
    # They reach the whole terminal; the driver decides when to end.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    # What both sides of the fork need is imported before it, once, while the starter finds out what it wants.
    from umbel import exceptions  # noqa: F401
    from umbel._transport import connection  # noqa: F401

    with open(orders, "rb", closefd=False) as lines:
        config = _config_of(lines.readline())
    if config is None:
        return
    try:
        sessions.make_directories(config["session_dir"], config["store_dir"], config["spilling"]["directory"])
    except OSError as error:
        _answer(answers, {"ok": False, "error": f"{type(error).__name__}: {error}"})
        return
    os.environ.update(config.get("env_vars", {}))  # of all processes of the node
    token = config.pop("token", "")  # nobody else is to have it
    if token:
        from umbel._base import token_files, tokens

        config["token_file"] = os.path.join(config["session_dir"], "token")
        token_files.ensure(config["token_file"], tokens.parse(token, source="the starter"))
    if not config["embedded"]:
        _leave_terminal(os.path.join(config["session_dir"], "daemon.log"))
    kind = socket.SOCK_SEQPACKET if sys.platform.startswith("linux") else socket.SOCK_DGRAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    fork_server_pid = os.fork()
    if not fork_server_pid:
        ours.close()
        os.close(orders)
        os.close(answers)
        from umbel._agent import forkserver

        forkserver.run(theirs, config)
    theirs.close()
    try:
        for pid in (os.getpid(), fork_server_pid):
            sessions.record_process(pid, config["session_dir"], config["store_dir"])
        from umbel._agent import service

        daemon = service.Service(config, orders, ours, fork_server_pid)
    except Exception as error:
        _answer(answers, {"ok": False, "error": f"{type(error).__name__}: {error}"})
        ours.close()
        os.waitpid(fork_server_pid, 0)
        raise
    if not config["embedded"]:
        daemon.others.note_outliving()

    def answer(trouble: str) -> None:
        _answer(answers, {"ok": not trouble, "pid": os.getpid(), "refusal": trouble})

    daemon.others.when_joined(answer)
    gc.freeze()
    gc.enable()
    try:
        daemon.run()
    finally:
        daemon.end()
    if daemon.was_expelled:
        sys.exit(EXPELLED)


def _leave_terminal(log_path: str) -> None:
    """This process outlives the one that has started it, and whatever that belongs to."""
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _close_all_but(*descriptors: int) -> None:
    """Of what was inherited, but for the standard streams: a socket of the starter's would stay open as long as this runs."""
    first = 3
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(first, os.sysconf("SC_OPEN_MAX")))


def _config_of(line: bytes) -> dict[str, Any] | None:
    """None when the starter went away in the middle of it."""
    if not line.endswith(b"\n"):
        return None
    config: dict[str, Any] = json.loads(line)
    return config


def _answer(descriptor: int, answer: dict[str, Any]) -> None:
    """The one there is."""
    with contextlib.suppress(OSError):  # the starter is gone; the loop will see that
        os.write(descriptor, json.dumps(answer).encode() + b"\n")
    os.close(descriptor)
