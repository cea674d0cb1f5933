"""Starts a node daemon as a child of this process.

The daemon runs in a fresh interpreter without `site` and without the `umbel` package's own `__init__`: an empty
stand-in with the package's path lets it import the few modules it needs. That, and not asking for anything twice, is
what makes `init()` quick. Nor is garbage collected while it starts. What the daemon does is not known here; it is named
as text because this layer may not import it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

from umbel import exceptions
from umbel._base import children, nodes, sessions

READY_TIMEOUT_S = 60.0  # a machine that is busy or out of memory may take long; more is a hang

_BOOT = (
    "import gc, sys; gc.disable(); sys.path[:] = [path for path in sys.path if path]; package = type(sys)('umbel'); "
    "package.__path__ = [sys.argv[1]]; sys.modules['umbel'] = package; "
    "from umbel._agent import daemon; daemon.main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Launched:
    """A running daemon. It ends by `close`, when its driver's connection ends, or when this process dies; unless it is
    not "embedded", when it goes on until it is told to stop."""

    is_private = True  # to the driver

    def __init__(self, config: dict[str, Any], process: children.Child, lifeline: io.FileIO) -> None:
        """lifeline: its end tells the daemon, until a driver has connected, that this process is gone."""
        self.config = config
        self.pid = process.pid
        self.node_id: str = config["node_id"]
        self.session_dir: str = config["session_dir"]
        self.store_dir: str = config["store_dir"]
        self.process = process
        self.lifeline = lifeline

    @property
    def address(self) -> str:
        """The path of the agent's socket."""
        return f"{self.session_dir}/agent.sock"

    def close(self, timeout_s: float = 10.0) -> None:
        """Wait until the daemon has ended and nothing of it is left; after `timeout_s` kill it. Idempotent.

        Whoever has connected should send `shutdown`, or close the connection, first.
        """
        self.lifeline.close()
        try:
            self.process.wait(timeout_s)
        except TimeoutError:
            self.process.kill()
            self.process.wait()
        _remove(self.session_dir, self.store_dir)


class Launching:
    """A daemon whose process has been started, and waits to be told what it is for."""

    def __init__(self, process: children.Child, lifeline: io.FileIO, answers: io.FileIO) -> None:
        """lifeline, answers: a pipe's writing end and another's reading end."""
        self._process = process
        self._lifeline = lifeline
        self._answers = answers
        self._config: dict[str, Any] = {}

    def configure(self, config: Mapping[str, Any]) -> None:
        """Tell it, and return at once. config: as for `launch`."""
        import json  # the daemon's interpreter starts sooner if this is not among what `begin` loads

        base = sessions.base_dir()
        sessions.sweep_stale_sessions(base, _remove_url)
        full = {**_defaults(base), **config}
        spilling = {**_SPILLING, **full["spilling"]}
        spilling["directory"] = sessions.spill_dir_for(full["session_dir"], spilling["directory"])
        full["spilling"] = spilling
        if os.path.exists(full["session_dir"]):
            raise FileExistsError(f"there is a session in {full['session_dir']} already; name another directory")
        self._config = full
        with contextlib.suppress(OSError):  # it has died already, which `finish` will see
            line = json.dumps(full).encode() + b"\n"
            while line:
                line = line[self._lifeline.write(line) :]

    def finish(self, timeout_s: float | None = READY_TIMEOUT_S) -> Launched:
        """Wait until the daemon listens, and is a member of the cluster that it joins; timeout_s: None for ever. Raises
        UmbelSystemError when it does not start, or is not let in."""
        try:
            answer = _answer(self._answers, timeout_s)
        except BaseException:
            self._process.kill()
            self.abandon()
            raise
        self._answers.close()
        if answer is not None and answer["ok"]:
            return Launched(self._config, self._process, self._lifeline)
        self._process.kill()
        self.abandon()
        if answer and answer.get("refusal"):
            raise exceptions.UmbelSystemError(f"this node cannot join the cluster: {answer['refusal']}")
        code = self._process.returncode
        reason = (
            answer["error"]
            if answer
            else f"it did not answer within {timeout_s or 0:g} s or died (code {code}); its output is on standard error"
        )
        raise exceptions.UmbelSystemError(f"the Umbel daemon did not start: {reason}")

    def abandon(self) -> None:
        """There will be no session after all: the daemon ends and nothing of it is left. Idempotent."""
        self._lifeline.close()
        self._answers.close()
        self._process.wait()
        if self._config:
            _remove(self._config["session_dir"], self._config["store_dir"])


def launch(config: Mapping[str, Any], timeout_s: float | None = READY_TIMEOUT_S) -> Launched:
    """Start a daemon and wait until it serves; takes about as long as starting Python four times.

    config: `resources` in units of 1/10,000, and any of the keys of `_defaults`. Raises UmbelSystemError with the
    reason when the daemon does not start.
    """
    launching = begin()
    try:
        launching.configure(config)
    except BaseException:
        launching.abandon()
        raise
    return launching.finish(timeout_s)


def begin() -> Launching:
    """Start a daemon's process and return at once, so that the caller can find out meanwhile what to ask of it."""
    package_dir = os.path.dirname(os.path.dirname(__file__))
    ends: list[int] = []
    try:
        for _ in range(2):
            ends += _pipe()
        orders, tell, answers, answer = ends
        command = [python(), *_interpreter_flags(), "-S", "-c", _BOOT, package_dir]
        process = children.start(command, [orders, answer])
    except BaseException as error:
        for end in ends:
            os.close(end)
        if isinstance(error, OSError):
            raise exceptions.UmbelSystemError(
                f"cannot start the Umbel daemon with {sys.executable!r}: {error}"
            ) from error
        raise
    os.close(orders)
    os.close(answer)
    return Launching(process, io.FileIO(tell, "w"), io.FileIO(answers))


def _pipe() -> list[int]:
    """A reading and a writing end, above the numbers of the standard streams, which a new process has others behind."""
    import fcntl

    ends = list(os.pipe())
    for index, end in enumerate(ends):
        if end <= 2:  # this process has closed its own
            ends[index] = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(end)
    return ends


def surroundings() -> dict[str, Any]:
    """Of this process, what its workers are to share."""
    try:
        cwd = os.getcwd()
    except OSError:  # it was removed under this process
        cwd = "/"
    return {
        "sys_path": [path or cwd for path in sys.path if isinstance(path, str)],  # the import system skips others too
        "cwd": cwd,
        "interpreter_flags": _interpreter_flags(),
    }


def _defaults(base: str) -> dict[str, Any]:
    session_dir = os.path.join(base, sessions.new_name())
    return {
        "session_dir": session_dir,
        "store_dir": sessions.store_dir_for(session_dir),
        "embedded": True,
        "driver_pid": os.getpid(),
        "resources": {},
        "labels": {},
        "node_id": nodes.new_node_id(),
        "namespace": "",
        **surroundings(),
        "log_to_driver": True,
        "store_capacity_bytes": 1 << 30,
        "store_full_wait_s": 5.0,
        "spilling": {},
        "scheduler": "hybrid",
        "has_jobs": False,
        "control": "umbel._control.service",
        "members": "umbel._control.members",
        "node_service": "umbel._control.node_service",
        "health": {},
        "worker_main": "umbel._worker.main",
        "worker_imports": [],
        "later_imports": [],  # of our own, which the first worker's first task does without
        "worker_env": {},
        "accelerator_ids": {},
    }


_SPILLING = {"directory": "", "high_water": 0.8, "batch_bytes": 100_000_000, "is_enabled": True}


def _remove(session_dir: str, store_dir: str) -> None:
    """What is left of a session whose processes have ended, in case they could not do it themselves."""
    url = sessions.spill_url(session_dir)
    if url:
        _remove_url(url)
    sessions.remove_session(session_dir, store_dir)


def _remove_url(url: str) -> None:
    from umbel._objects import spill_files

    spill_files.remove_all(url)


def python() -> str:
    """This process's interpreter. Raises UmbelSystemError."""
    if not sys.executable:
        raise exceptions.UmbelSystemError(
            "this Python does not know its own executable (sys.executable is empty), so no daemon can be started; "
            "set sys.executable, or use umbel.init(engine='inline')"
        )
    return sys.executable


def _interpreter_flags() -> list[str]:
    """The options of this interpreter that change how programs run, so that workers run them alike."""
    flags = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    if sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.dont_write_bytecode:
        flags.append("-B")
    if sys.flags.dev_mode:
        flags += ["-X", "dev"]
    if sys.flags.utf8_mode:
        flags += ["-X", "utf8"]
    for option in sys.warnoptions:
        flags.append(f"-W{option}")
    return flags


def _answer(pipe: io.FileIO, timeout_s: float | None) -> dict[str, Any] | None:
    """What the daemon says when it serves, or why it does not; None when there is no answer."""
    import json
    import select

    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            return None
        more = pipe.read(65_536)
        if not more:
            return None
        data += more
    answer: dict[str, Any] = json.loads(data)
    return answer
