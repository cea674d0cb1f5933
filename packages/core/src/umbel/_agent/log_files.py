"""What workers print, in files. Loaded when one prints something.

`<directory>/worker-<worker id>-<pid>.out` and `.err` hold the lines as they were printed; `<file>.idx` says, as JSON
lines, from which byte on they are whose. A file that is full becomes `<file>.1`, and the one before goes. The directory
is in the session's own and ends with it, or, where logs are kept, in one for all sessions, of which a link in the
session's leads there; a file `keep_s` in it says for how many seconds after the last change.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator

from umbel._agent import log_retention, output

OPEN_MAX = 256  # descriptors held; a node has more workers than that rarely, and others are opened again
PRUNE_PERIOD_S = 30.0  # looking through a directory of thousands of files takes milliseconds
KEEP_FILE = "keep_s"
INDEX = ".idx"


class _File:
    """One that is written."""

    __slots__ = ("data", "index", "path", "size_bytes", "whose", "written_bytes")

    def __init__(self, path: str) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.data = os.open(path, flags, 0o600)
        self.index = os.open(path + INDEX, flags, 0o600)
        self.written_bytes = os.fstat(self.data).st_size
        self.size_bytes = self.written_bytes + os.fstat(self.index).st_size
        self.whose: tuple[str, str, str] | None = None

    def write(self, actor: str, groups: list[output.Group], at_s: float) -> None:
        """The index first: whoever reads the lines finds out whose they are."""
        entries, texts = [], []
        end = self.written_bytes
        for name, task, lines in groups:
            whose = (name, task, actor)
            if whose != self.whose:
                self.whose = whose
                entries.append(
                    f'{{"at": {end}, "time": {at_s:.3f}, "name": {json.dumps(name)}, "task": "{task}", "actor": "{actor}"}}\n'
                )
            texts.append(("\n".join(lines) + "\n").encode(errors="replace"))
            end += len(texts[-1])
        if entries:
            self.size_bytes += _write(self.index, "".join(entries).encode())
        self.size_bytes += _write(self.data, b"".join(texts))
        self.written_bytes = end

    def close(self) -> None:
        os.close(self.data)
        os.close(self.index)


def _write(descriptor: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


class LogFiles:
    """A session's. Times are seconds since the epoch. When the disk fails, that is told once and nothing written."""

    def __init__(
        self,
        session_dir: str,
        *,
        root: str,
        keep_s: float,
        file_bytes_max: int,
        bytes_max: int,
        report: Callable[[str], None],
    ) -> None:
        """root: where logs of all sessions are kept; used if `keep_s` is above zero. bytes_max: of all files there."""
        self._file_bytes_max = file_bytes_max
        self._bytes_max = bytes_max
        self._report = report
        self._open: dict[str, _File] = {}  # by name, the one written longest ago first
        self._pruned_s = float("-inf")
        self._is_broken = False
        self._root = os.path.join(session_dir, "logs")
        self._directory = self._root
        self._session_dir = session_dir
        self._keep_s = keep_s
        if keep_s > 0:
            self._root = root
            self._directory = os.path.join(root, os.path.basename(session_dir))
        try:
            self._make_directory()
        except OSError as error:
            self._break(error)

    def _make_directory(self) -> None:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        if self._keep_s > 0:
            with open(os.path.join(self._directory, KEEP_FILE), "w") as file:
                file.write(f"{self._keep_s}\n")
            os.symlink(self._directory, os.path.join(self._session_dir, "logs"))

    def write(
        self, worker: str, pid: int, *, is_error: bool, actor: str, groups: list[output.Group], at_s: float
    ) -> None:
        """actor: that the worker hosts, or ""."""
        if self._is_broken:
            return
        name = f"worker-{worker}-{pid}.{'err' if is_error else 'out'}"
        try:
            file = self._opened(name)
            if file.size_bytes >= self._file_bytes_max:
                self._rotate(name)
                file = self._opened(name)
            file.write(actor, groups, at_s)
            if at_s - self._pruned_s >= PRUNE_PERIOD_S:
                self._pruned_s = at_s
                self._prune(at_s)
        except OSError as error:
            self._break(error)

    def _opened(self, name: str) -> _File:
        file = self._open.pop(name, None)
        if file is None:
            if len(self._open) >= OPEN_MAX:
                self._open.pop(next(iter(self._open))).close()
            path = os.path.join(self._directory, name)
            try:
                file = _File(path)
            except FileNotFoundError:  # another session has removed a directory whose files were all too old
                os.makedirs(self._directory, 0o700, exist_ok=True)
                file = _File(path)
        self._open[name] = file
        return file

    def _rotate(self, name: str) -> None:
        file = self._open.pop(name)
        file.close()
        os.replace(file.path + INDEX, file.path + ".1" + INDEX)
        os.replace(file.path, file.path + ".1")

    def _break(self, error: OSError) -> None:
        self._is_broken = True
        self.close()
        self._report(
            f"what workers print is not written to log files any more, as that failed in {self._root}: {error}"
        )

    def ended(self, worker: str, pid: int) -> None:
        """The worker has: it prints no more."""
        for ending in ("out", "err"):
            file = self._open.pop(f"worker-{worker}-{pid}.{ending}", None)
            if file is not None:
                file.close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _prune(self, now_s: float) -> None:
        for path in log_retention.excess(self._files(), now_s=now_s, bytes_max=self._bytes_max):
            for one in (path + INDEX, path):
                with contextlib.suppress(OSError):
                    os.unlink(one)
        if self._keep_s > 0:
            for directory in _directories(self._root):
                if directory != self._directory:
                    _remove_if_empty(directory, now_s)

    def _files(self) -> Iterator[log_retention.LogFile]:
        written = {file.path for file in self._open.values()}
        if self._keep_s <= 0:
            yield from _files_in(self._directory, float("inf"), lambda path: path in written)
            return
        for directory in _directories(self._root):
            if directory == self._directory:
                yield from _files_in(directory, self._keep_s, lambda path: path in written)
            else:  # what a session writes that still runs is not ours to judge
                session = os.path.join(os.path.dirname(self._session_dir), os.path.basename(directory))
                is_open = _always if os.path.exists(session) else _never
                yield from _files_in(directory, _keep_s_of(directory), is_open)


def _always(_path: str) -> bool:
    return True


def _never(_path: str) -> bool:
    return False


def _directories(root: str) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _keep_s_of(directory: str) -> float:
    """How long its files are kept; 0 where that is not said."""
    try:
        with open(os.path.join(directory, KEEP_FILE)) as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


def _files_in(directory: str, keep_s: float, is_open: Callable[[str], bool]) -> Iterator[log_retention.LogFile]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("worker-") or entry.name.endswith(INDEX):
                continue
            with contextlib.suppress(OSError):
                found = entry.stat()
                index_bytes = _size_of(entry.path + INDEX)
                yield log_retention.LogFile(
                    entry.path,
                    found.st_size + index_bytes,
                    found.st_mtime,
                    found.st_mtime + keep_s,
                    is_open(entry.path),
                )


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _remove_if_empty(directory: str, now_s: float) -> None:
    """A session whose logs have all gone leaves nothing; one that has just begun has a moment to write its first."""
    with contextlib.suppress(OSError):
        if os.listdir(directory) == [KEEP_FILE] and os.stat(directory).st_mtime + PRUNE_PERIOD_S < now_s:
            os.unlink(os.path.join(directory, KEEP_FILE))
            os.rmdir(directory)
