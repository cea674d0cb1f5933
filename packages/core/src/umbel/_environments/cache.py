"""Environments that are kept between sessions: directories named by what they are made from, with locks.

An entry is a directory, the file `<name>.lock` beside it and the file READY in it, written last: without it, the entry is
what a killed build has left. Who builds or removes an entry has its lock exclusively, who uses it shares it; the system
gives a lock back when the last process that holds it ends, however it ends. So several sessions can use one cache, and
nothing is removed while it is in use. Which entries go is decided by `evictions`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from umbel._base import sessions

READY = ".umbel-ready"
RETRY_S = 0.05  # between looks at a lock that another process holds; builds take seconds


class Held(NamedTuple):
    """An entry in use, as long as `lock`, a file descriptor, is open in some process."""

    path: str
    lock: int
    is_new: bool


class Kept(NamedTuple):
    """What an entry is to the one who decides which stay. age_s: since its last use."""

    name: str
    size_bytes: int
    age_s: float
    is_ready: bool


def evictions(kept: Iterable[Kept], *, bytes_max: int, age_max_s: float) -> list[str]:
    """What to remove, if it is not in use: what is broken, what is too old, and then the longest unused until the rest
    fits in `bytes_max`."""
    usable = sorted((entry for entry in kept if entry.is_ready), key=lambda entry: -entry.age_s)
    gone = [entry.name for entry in kept if not entry.is_ready]
    total = sum(entry.size_bytes for entry in usable)
    for entry in usable:
        if entry.age_s > age_max_s or total > bytes_max:
            gone.append(entry.name)
            total -= entry.size_bytes
    return gone


def default_directory() -> str:
    """Of this user: `$XDG_CACHE_HOME/umbel/environments`, or beside the sessions where there is no home to write to."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(home, "umbel", "environments")
    with contextlib.suppress(OSError):
        os.makedirs(path, 0o700, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            return path
    return os.path.join(sessions.base_dir(), "environments")


class Cache:
    """The entries in one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        os.makedirs(directory, 0o700, exist_ok=True)

    def hold(self, name: str, make: Callable[[str], None], *, wait: Callable[[float], None] = time.sleep) -> Held:
        """The entry of that name, made by `make(path)` if it is not there. Waits, by `wait`, while another process makes
        it. What `make` raises passes through, and nothing is left of the entry."""
        path = os.path.join(self.directory, name)
        while True:
            lock = self._open_lock(name)
            try:
                if self._share(lock, name) and self._is_ready(path):
                    os.utime(lock)
                    return Held(path, lock, is_new=False)
                if self._own(lock, name):
                    if not self._is_ready(path):
                        self._make(path, make)
                        if self._share(lock, name) and self._is_ready(path):
                            return Held(path, lock, is_new=True)
                        # Between the two kinds of lock somebody removed it: once more.
                else:
                    wait(RETRY_S)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _make(self, path: str, make: Callable[[str], None]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        os.mkdir(path, 0o700)
        try:
            make(path)
            with open(os.path.join(path, READY), "w") as file:
                json.dump({"bytes": size_of(path)}, file)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def collect(self, *, bytes_max: int, age_max_s: float) -> list[str]:
        """Remove what `evictions` says and nobody uses. Returns the names of what was removed."""
        removed = []
        for name in evictions(self.entries(), bytes_max=bytes_max, age_max_s=age_max_s):
            lock = self._open_lock(name)
            try:
                if self._own(lock, name):
                    shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._lock_path(name))
                    removed.append(name)
            finally:
                os.close(lock)
        return removed

    def entries(self) -> list[Kept]:
        now_s = time.time()
        found = []
        for name in sorted({name.removesuffix(".lock") for name in os.listdir(self.directory)}):
            size_bytes, is_ready = 0, False
            ready = os.path.join(self.directory, name, READY)
            with contextlib.suppress(OSError, ValueError, KeyError), open(ready) as file:
                size_bytes, is_ready = int(json.load(file)["bytes"]), True
            used_s = now_s
            with contextlib.suppress(OSError):
                used_s = os.stat(self._lock_path(name)).st_mtime
            found.append(Kept(name, size_bytes, now_s - used_s, is_ready))
        return found

    def _lock_path(self, name: str) -> str:
        return os.path.join(self.directory, f"{name}.lock")

    def _open_lock(self, name: str) -> int:
        return os.open(self._lock_path(name), os.O_RDWR | os.O_CREAT, 0o600)

    def _own(self, lock: int, name: str) -> bool:
        return self._take(lock, name, fcntl.LOCK_EX)

    def _share(self, lock: int, name: str) -> bool:
        return self._take(lock, name, fcntl.LOCK_SH)

    def _take(self, lock: int, name: str, kind: int) -> bool:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
                return False
            raise
        try:
            return os.path.samestat(os.fstat(lock), os.stat(self._lock_path(name)))
        except FileNotFoundError:
            return False  # its entry was removed while we waited, and the lock with it

    def _is_ready(self, path: str) -> bool:
        return os.path.exists(os.path.join(path, READY))


def size_of(path: str) -> int:
    """Bytes on disk of a directory's files. One that is linked from elsewhere too counts as much as any other."""
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += size_of(entry.path)
            else:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
