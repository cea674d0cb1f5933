"""A sampling profiler that starts by itself in every interpreter that has this folder on its PYTHONPATH.

Python imports `sitecustomize` at start, so a runtime's daemon, its fork server and its workers are all sampled without
knowing it; a forked worker re-arms the timer with empty counts. The timer counts CPU time, so waiting costs no samples.
Each sample asks every thread's own CPU clock what it has used since the last one and books that on the thread's stack,
whichever thread the signal found.

Samples are kept while the file FOLDER/recording exists, and written to FOLDER/PID.json now and then and on SIGPROF
after the recording has ended.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NoReturn

FOLDER = "UMBEL_BENCHMARK_SAMPLES"
INTERVAL_S = 0.002  # of CPU; the kernel's tick may make it 4 ms
SAMPLES_PER_WRITE = 500  # later on; a young process writes after 2, 4, 8 ... samples, because it may be killed soon
DEPTH_MAX = 80  # frames kept of a stack, the innermost ones

Stack = tuple[str, ...]


def _frames() -> dict[int, FrameType]:
    """Of each thread. A collection in the middle would make older interpreters stand still, see `umbel._base.frames`."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if was_on:
            gc.enable()


class Sampler:
    """CPU seconds of this process by stack, outermost frame first."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.seconds: dict[Stack, float] = {}
        self.used_s: dict[int, float] = {}  # by thread, at the last sample
        self.taken = self.written = 0  # samples
        self.next_write = 2  # once so many are taken
        self.is_sampling = False
        self.names: dict[CodeType, str] = {}

    def start(self) -> None:
        for thread in _frames():
            self.used_s[thread] = time.clock_gettime(time.pthread_getcpuclockid(thread))
        signal.signal(signal.SIGPROF, self.sample)
        self.write()  # the file tells that this process may be sent SIGPROF
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> None:
        """Before the interpreter ends and gives SIGPROF its default action, which is death."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def restart_in_child(self) -> None:
        """A fork takes the counts along but not the timer."""
        self.seconds, self.used_s = {}, {}
        self.taken, self.written, self.next_write, self.is_sampling = 0, 0, 2, False
        self.start()

    def sample(self, _signal: int, frame: FrameType | None) -> None:
        if self.is_sampling:
            return  # the sampler's own work is nobody's
        self.is_sampling = True
        self._take(frame)
        here = threading.get_ident()
        self.used_s[here] = time.clock_gettime(time.pthread_getcpuclockid(here))
        self.is_sampling = False

    def _take(self, frame: FrameType | None) -> None:
        is_recording = os.path.exists(os.path.join(self.folder, "recording"))
        for thread, innermost in _frames().items():
            used_s = time.clock_gettime(time.pthread_getcpuclockid(thread))
            spent_s = used_s - self.used_s.get(thread, 0.0)
            self.used_s[thread] = used_s
            if is_recording and spent_s > 0:
                stack = self._stack(frame if thread == threading.main_thread().ident else innermost)
                self.seconds[stack] = self.seconds.get(stack, 0.0) + spent_s
                self.taken += 1
        innermost = None  # may be this frame, which would keep all of the stack until the next garbage collection
        if self.taken >= self.next_write or (self.taken > self.written and not is_recording):
            self.next_write = self.taken + min(self.taken, SAMPLES_PER_WRITE)
            self.write()

    def write(self) -> None:
        self.written = self.taken
        path = os.path.join(self.folder, f"{os.getpid()}.json")
        try:
            with open(path + ".part", "w") as file:
                json.dump([[stack, seconds] for stack, seconds in self.seconds.items()], file)
            os.replace(path + ".part", path)
        except FileNotFoundError:  # the folder went with the program that asked for the samples
            self.stop()

    def _stack(self, frame: FrameType | None) -> Stack:
        frames: list[str] = []
        while frame is not None and len(frames) < DEPTH_MAX:
            frames.append(self._name(frame.f_code))
            frame = frame.f_back
        return tuple(reversed(frames))

    def _name(self, code: CodeType) -> str:
        name = self.names.get(code)
        if name is None:
            qualified = getattr(code, "co_qualname", code.co_name)  # qualified since Python 3.11
            name = self.names[code] = f"{code.co_filename}:{code.co_firstlineno}:{qualified}"
        return name

    def stopping(self, execute: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
        """An exec keeps the timer and not the handler: the new program would die of its first signal."""

        def run(*arguments: Any) -> NoReturn:
            self.stop()
            try:
                execute(*arguments)
            finally:
                self.start()  # there was nothing to execute

        return run


def install(folder: str) -> Sampler:
    sampler = Sampler(folder)
    os.register_at_fork(after_in_child=sampler.restart_in_child)
    os.execv, os.execve = sampler.stopping(os.execv), sampler.stopping(os.execve)  # those that the others call
    atexit.register(sampler.stop)
    sampler.start()
    return sampler


if os.environ.get(FOLDER) and __name__ == "sitecustomize":
    install(os.environ[FOLDER])
