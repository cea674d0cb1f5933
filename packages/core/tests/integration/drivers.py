"""Driver programs as processes of their own, for tests in which a driver, or something below it, must die.

Every process of such a driver carries a mark in its environment, by which all that is left of it is found.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

PATIENCE_S = 30.0  # for what must happen; it takes milliseconds unless the machine is overloaded
POLL_S = 0.005
MARK = "UMBEL_TEST_MARK"
T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_s: float = PATIENCE_S, what: str = "") -> T:
    """The first true value of `condition()`. Fails the test after `timeout_s`."""
    until_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until_s:
            raise AssertionError(
                f"{what or 'the condition'} did not come true within {timeout_s} s; last value: {value!r}"
            )
        time.sleep(POLL_S)


def thread_states(pid: int) -> set[str]:
    """The states of a process's threads as the kernel's letters: R for one that runs or could, S asleep, T stopped."""
    return {path.read_text().rpartition(")")[2].split()[0] for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")}


def freeze(pid: int) -> None:
    """Stop a process, and wait until each of its threads has: one that runs elsewhere goes on for a moment."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: thread_states(pid) == {"T"}, what=f"process {pid} to stop")


def is_idle(pid: int) -> bool:
    """Whether all of a process's threads slept whenever looked at in 0.1 s; one that waits for a CPU does not."""
    for _ in range(20):
        if thread_states(pid) != {"S"}:
            return False
        time.sleep(POLL_S)
    return True


def pause(seconds: float) -> None:
    """Let time pass where the moment itself is what a test varies; never to wait for something."""
    time.sleep(seconds)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def marked_processes(mark: str) -> dict[int, str]:
    """pid -> command line of every process that was started with this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace")
            if is_running(int(name)):
                found[int(name)] = command
    return found


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


class Driver:
    """A running driver program. Its output is read with `line`."""

    def __init__(
        self,
        source: str,
        directory: str,
        *,
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """directory: short; everything the driver puts on disk goes there. prefix: of its command, for what is to run it.
        arguments: of the program."""
        self.mark = uuid.uuid4().hex
        self.directory = directory
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": directory, MARK: self.mark, **environment},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line of its standard output; fails when it ends instead."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            raise AssertionError(
                f"the driver ended (code {self.process.wait()}) instead of writing a line:\n{self.errors()}"
            )
        return text.rstrip("\n")

    def has_line(self) -> bool:
        """Whether `line` would not wait long; waits a moment itself. Only for programs that write one line at a
        time."""
        return bool(select.select([self.process.stdout], [], [], POLL_S)[0])

    def tell(self, text: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def finish(self, timeout_s: float = PATIENCE_S) -> tuple[str, str]:
        """(output, errors) once it has ended; fails unless its exit code is 0, with its stacks if it does not end."""
        try:
            output, errors = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes where each thread is
            output, errors = self.process.communicate()
            raise AssertionError(f"the driver did not end in {timeout_s} s:\n{output}\n{errors}") from None
        assert self.process.returncode == 0, (
            f"the driver ended with code {self.process.returncode}:\n{output}\n{errors}"
        )
        return output, errors

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def session_dir(self) -> str:
        """The session directory; there is one while a runtime is up."""
        (base,) = [name for name in os.listdir(self.directory) if name.startswith("umbel-")]
        (session,) = os.listdir(os.path.join(self.directory, base))
        return os.path.join(self.directory, base, session)

    def daemon_pids(self) -> tuple[int, int]:
        """(daemon, fork server)."""
        try:
            with open(os.path.join(self.session_dir(), "processes")) as file:
                daemon, fork_server = (int(line.split()[0]) for line in file)
        except (OSError, ValueError):
            self.process.wait(PATIENCE_S)
            raise AssertionError(f"the driver has no session:\n{self.errors()}") from None
        return daemon, fork_server

    def worker_pids(self) -> list[int]:
        return children_of(self.daemon_pids()[1])

    def shared_bytes(self) -> int:
        """The bytes of this driver's files in shared memory."""
        directory = f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(self.session_dir())}"
        size_bytes = 0
        with contextlib.suppress(FileNotFoundError):  # files go while they are counted
            for entry in os.scandir(directory):
                size_bytes += entry.stat().st_blocks * 512
        return size_bytes

    def left_behind(self) -> list[str]:
        """Processes, shared memory and files of this driver that are still there."""
        found = [f"process {pid}: {command}" for pid, command in marked_processes(self.mark).items()]
        own = f"umbel-{os.getuid()}-{self.pid}-"
        found += [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if name.startswith(own)]
        for path, _, files in os.walk(self.directory):
            if os.path.basename(path).startswith(f"{self.pid}-"):
                found += [path, *(os.path.join(path, name) for name in files)]
        return found

    def expect_nothing_left(self) -> None:
        """Wait until no process, no shared memory and no file of this driver exists."""
        until_s = time.monotonic() + PATIENCE_S
        while self.left_behind():
            assert time.monotonic() < until_s, f"left behind: {self.left_behind()}"
            time.sleep(POLL_S)

    def end(self) -> None:
        """Kill whatever is left; for fixtures."""
        for pid in marked_processes(self.mark):
            kill(pid)
        self.process.kill()
        self.process.communicate()


class Session(Protocol):
    """A node, which programs can be drivers of."""

    @property
    def session_dir(self) -> str: ...


class Programs:
    """Drivers of nodes, that begin alike. They are killed in the end."""

    def __init__(self, directory: str, begin: str) -> None:
        self.directory = directory
        self._begin = begin
        self._started: list[Driver] = []

    def start(self, node: Session, source: str) -> Driver:
        program = textwrap.dedent(self._begin) + textwrap.dedent(source)
        made = Driver(program, self.directory, SESSION=node.session_dir)
        self._started.append(made)
        return made

    def end(self) -> None:
        for one in self._started:
            one.process.kill()
            one.process.communicate()


@contextlib.contextmanager
def driver(source: str, **environment: str) -> Iterator[Driver]:
    """A driver that is gone, with all its processes and files, when the block ends."""
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")  # pytest's own are too long for socket paths
    running = Driver(source, directory, **environment)
    try:
        yield running
    finally:
        running.end()
        shutil.rmtree(directory, ignore_errors=True)


def run(source: str, *, timeout_s: float = PATIENCE_S, **environment: str) -> tuple[str, str]:
    """(output, errors) of a driver program that must succeed and leave nothing behind."""
    with driver(source, **environment) as running:
        result = running.finish(timeout_s)
        running.expect_nothing_left()
        return result
