"""The fork server: one single-threaded process that has imported what workers need, and forks them.

It is forked from the daemon before that has opened anything. It is the workers' parent: it reaps them, tells the daemon
how they ended, and when the daemon is gone kills them and removes the session's files. It decides nothing and runs no
user code but imports; a worker's code runs in the child.

An environment that has to be built has a fork server of its own, a child of this one: see `environment_host`.

Messages are JSON datagrams on a socket pair. From the daemon: {"t": "fork", "id", "env"} with the writing ends of two
pipes for output and errors; {"t": "host", "id", "built", "job"} with the socket of another fork server; {"t": "kill", "id"}.
To it: {"t": "ready"} or {"t": "failed", "error"} once; {"t": "forked", "id", "pid"}; {"t": "exited", "id", "code",
"signal"}.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from umbel._base import sessions, variables

_GAP_SIZES = range(48, 513, 16)  # of the blocks that CPython's allocator keeps apart by size, but for the two smallest
_GAPS_MAX = 512  # of one size, several times what there are; more means an allocator of another kind
_FILLED_ROW = 12  # blocks one behind the other: from here on new objects of that size lie close together
MESSAGE_BYTES_MAX = 1 << 18  # an environment's variables must fit; Linux allows a program 128 KiB for one of them
SETTLE_AFTER_MS = 20.0  # from the last order on: a program that has just started is in a hurry
HOSTS_END_S = 2.0  # for fork servers of environments to end by themselves; less than the daemon waits for this process
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def run(control: socket.socket, config: dict[str, Any]) -> NoReturn:
    """Serve until the daemon is gone; never returns. In a forked worker it runs that and exits."""
    code = 1
    try:
        code = _ForkServer(control, config).serve()
    except BaseException:  # the last frame of this process: say what happened and leave through the one door
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


class _ForkServer:
    def __init__(
        self, control: socket.socket, config: dict[str, Any], main: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """main: what workers run, where it has been imported."""
        self._control = control
        self._config = config
        self._pid = os.getpid()
        self._workers: dict[int, str] = {}  # pid -> id
        self._hosts: set[int] = set()  # those of them that are fork servers, with a process group each
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._die_with_parent: Callable[[], None] = lambda: None
        self._main = main
        self._filling: list[bytes] = []
        self._is_calm = self._is_settled = False

    def serve(self) -> int:
        # Ctrl-C and a closing terminal reach the whole process group; when to end is the daemon's decision. Blocked
        # rather than ignored, since one call in the child undoes it for all of them.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP, signal.SIGTERM))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            if self._main is None:
                self._prepare()
            self._die_with_parent = _parent_death_signal()
            if self._config.get("is_environment"):
                self._die_with_parent()
            gc.freeze()  # a worker's first collection would look at, and so copy, all that there is
        except Exception:
            import traceback

            self._tell({"t": "failed", "error": traceback.format_exc()})
        else:
            self._tell({"t": "ready"})
        try:
            self._loop()
        finally:
            if os.getpid() == self._pid:
                self._end()
        return 0

    def _prepare(self) -> None:
        """Import what workers need."""
        config = self._config
        config["replaced_env"] = variables.put(config["worker_env"].items())
        with contextlib.suppress(OSError):
            os.chdir(config["cwd"])
        if not config.get("is_environment"):
            import site  # this interpreter was started without it; workers want sys.prefix, exit() and editable installs

            site.main()
            sys.path[:] = config["sys_path"]
            importlib.reload(sys.modules["umbel"])  # until here an empty stand-in, see umbel._client.launch
        module = importlib.import_module(config["worker_main"])
        self._main = module.main
        import_all(config["worker_imports"], self._tell)
        for name, fd in (("stdout", 1), ("stderr", 2)):  # of the workers, which put their pipes behind these numbers
            stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def _settle(self) -> None:
        """What makes workers cheaper, once the program's first ones are there: it costs as much memory as it saves in one
        of those that come after it, since they share less with this process that came before."""
        self._is_settled = True
        for name in self._config.get("later_imports", ()):
            with contextlib.suppress(Exception):  # who needs it will say so
                importlib.import_module(name)
        # Not collected before: that would copy what the first workers share with this process.
        self._filling = _fill_gaps()
        gc.freeze()  # collections in workers must not write to pages that are shared with this process

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = poll.poll(None if self._is_calm else SETTLE_AFTER_MS)
            if not ready:
                self._is_calm = True
                if not self._workers:
                    self._settle()
            for fd, _ in ready:
                if fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    self._reap()
                elif not self._receive():
                    return

    def _receive(self) -> bool:
        """Carry out one order; false when the daemon is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, 2)
        except InterruptedError:
            return True
        except OSError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if message["t"] == "kill":
            for pid, worker in self._workers.items():
                if worker == message["id"]:
                    self._kill(pid)
            return True
        try:
            self._fork(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _kill(self, pid: int) -> None:
        """One of our children, which it is until `_reap` says otherwise, so the pid cannot be another's."""
        if pid in self._hosts:
            with contextlib.suppress(OSError):  # it may not have made its group yet
                os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def _fork(self, message: dict[str, Any], fds: list[int]) -> None:
        worker = message["id"]
        if self._main is None:
            self._tell({"t": "exited", "id": worker, "code": 1, "signal": 0})
            return
        if message["t"] == "host":
            with contextlib.suppress(ImportError):  # the child will say so
                from umbel._agent import environment_host  # noqa: F401  # once, and not in each child anew
        if self._is_calm and not self._is_settled:
            self._settle()
        try:
            pid = os.fork()
        except OSError as error:
            if message["t"] == "fork":
                os.write(fds[1], f"cannot fork a worker: {error}\n".encode())
            self._tell({"t": "exited", "id": worker, "code": 1, "signal": 0})
            return
        if pid:
            self._workers[pid] = worker
            if message["t"] == "host":
                self._hosts.add(pid)
                with contextlib.suppress(OSError):  # it does the same; whoever comes first
                    os.setpgid(pid, pid)
            self._tell({"t": "forked", "id": worker, "pid": pid})
            return
        code = 1
        try:
            code = self._be_worker(message, fds) if message["t"] == "fork" else self._be_host(message, fds)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _leave_parent(self) -> bool:
        """Give up what a child has from its parent; false when that has died before we could ask to be told."""
        self._die_with_parent()
        if os.getppid() != self._pid:
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return True

    def _be_host(self, message: dict[str, Any], fds: list[int]) -> int:
        """Build an environment and become its fork server."""
        if not self._leave_parent():
            return 1
        os.setpgid(0, 0)
        from umbel._agent import environment_host

        control = socket.socket(fileno=fds[0])
        config = environment_host.prepare(control, self._config, message, self._die_with_parent)
        return _ForkServer(control, config, self._main).serve() if config is not None else 1

    def _be_worker(self, message: dict[str, Any], fds: list[int]) -> int:
        if not self._leave_parent():
            return 1
        signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which programs started by the worker would inherit
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        for fd in fds:
            os.close(fd)
        env = message["env"] or {}
        if env.get("env_vars"):  # merged with the job's, as in Ray, before any of them is expanded
            variables.put_back(self._config["replaced_env"])
            variables.put({**self._config["worker_env"], **env["env_vars"]}.items())
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # or all workers would draw the same numbers
        gc.enable()
        config = self._config  # not a copy, which would write to a page for each value
        config.update(id=message["id"], env=env, agent=f"{config['session_dir']}/agent.sock")
        config["address"] = f"{config['session_dir']}/{message['id']}.sock"
        return _run_worker(self._main, config)

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._hosts.discard(pid)
            worker = self._workers.pop(pid, None)
            if worker is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"t": "exited", "id": worker, "code": max(code, 0), "signal": max(-code, 0)})

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone: the loop will see it
            self._control.send(json.dumps(message).encode())

    def _end(self) -> None:
        """Kill and reap the workers, then remove the session's files, wherever they are."""
        for pid in self._workers.keys() - self._hosts:
            self._kill(pid)
        self._await_hosts()
        for pid in self._workers:
            self._kill(pid)
        for pid in self._workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if self._config.get("is_environment"):
            return
        url = sessions.spill_url(self._config["session_dir"])
        if url:  # only here, last of all, is the user's library for it at hand
            importlib.import_module("umbel._objects.spill_files").remove_all(url)
        sessions.remove_session(self._config["session_dir"], self._config["store_dir"])

    def _await_hosts(self) -> None:
        """The daemon's end has ended them too. What runs one for us, such as uv or podman, removes its files behind it."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        until_s = time.monotonic() + HOSTS_END_S
        while self._hosts and (left_s := until_s - time.monotonic()) > 0:
            poll.poll(left_s * 1e3)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._reap()


def import_all(names: list[str], tell: Callable[[dict[str, Any]], None]) -> None:
    """Import what the user wants workers to have imported."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a convenience of the user's; the worker's own import will say the same again
            tell({"t": "warn", "text": f"worker_imports: importing {name!r} failed: {type(error).__name__}: {error}"})


def _fill_gaps() -> list[bytes]:
    """What fills the gaps between the objects of this process, to be kept.

    A child that puts its objects into such gaps copies a page for almost each of them: a twentieth of its faults.
    """
    kept: list[bytes] = []
    empty = sys.getsizeof(b"")
    for size in _GAP_SIZES:
        before = row = 0
        for _ in range(_GAPS_MAX):
            kept.append(bytes(size - empty))
            address = id(kept[-1])
            row = row + 1 if address == before + size else 0
            if row == _FILLED_ROW:
                break
            before = address
        else:
            return []
    return kept


def _run_worker(main: Callable[[dict[str, Any]], None] | None, config: dict[str, Any]) -> int:
    """Run a worker to its end, and do what is otherwise left to the interpreter's exit: a fork must not return."""
    import atexit
    import threading

    assert main is not None  # checked before the fork
    code = 0
    try:
        main(config)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons, as at any exit
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def _parent_death_signal() -> Callable[[], None]:
    """What a child calls so that it is killed when this process dies; does nothing on systems without such a thing."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return lambda: None  # workers then end when their connection to the agent does
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
