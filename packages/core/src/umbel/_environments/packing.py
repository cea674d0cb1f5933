"""Packages: copies of local directories and archives, named by their contents, that workers run in or import from.

A package is a directory of the session, made once by whoever is the first to need it and shared by all workers; it goes
with the session. What workers write into it is seen by others of the same session, and by no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from umbel import exceptions
from umbel._environments import ignoring

if TYPE_CHECKING:
    import zipfile

SCHEME = "umbel-package://"  # what a package is called where it travels: this, and its digest
DEFAULT_EXCLUDES = (".git", ".venv", "venv", "__pycache__")  # Ray's
IGNORE_FILES = (".gitignore", ".umbelignore")
SHOWN_MAX = 10  # of the biggest files, in the error about a package that is too large
_COPY_BYTES = 1 << 20


class Entry(NamedTuple):
    """Something in a package. path: relative, with "/". kind: "d", "f" or "l". target: of a link. source: of a file."""

    path: str
    kind: str
    size_bytes: int = 0
    is_executable: bool = False
    target: str = ""
    source: str = ""


def scan(root: str, excludes: Sequence[str] = ()) -> list[Entry]:
    """What of a directory belongs into its package, sorted by path.

    excludes: patterns as in `.gitignore`, which go before those of files. Links that lead out of the directory are
    followed; sockets and the like are left out. Raises OSError for what cannot be read.
    """
    found: list[Entry] = []
    rules = [ignoring.rules(DEFAULT_EXCLUDES)]
    _scan(root, os.path.realpath(root), "", rules, ignoring.rules(excludes), found, [os.path.realpath(root)])
    found.sort()
    return found


def _scan(
    directory: str,
    root: str,
    below: str,
    rules: list[ignoring.Rules],
    last: ignoring.Rules,
    found: list[Entry],
    above: list[str],
) -> None:
    """below: the directory's path in the package, "" or ending with "/". above: real paths of it and its parents."""
    own = list(rules)
    for name in IGNORE_FILES:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as lines:
                own.append(ignoring.rules(lines, below))
    with os.scandir(directory) as entries:
        for entry in entries:
            path = below + entry.name
            if entry.is_symlink():
                target = os.readlink(entry.path)
                real = os.path.realpath(entry.path)
                is_inside = not os.path.isabs(target) and (real + os.sep).startswith(root + os.sep)
                if is_inside or not os.path.exists(real):
                    if not ignoring.is_left_out(path, False, [*own, last]):
                        found.append(Entry(path, "l", target=target))
                    continue
            is_directory = entry.is_dir()
            if ignoring.is_left_out(path, is_directory, [*own, last]):
                continue
            if is_directory:
                real = os.path.realpath(entry.path)
                if real in above:
                    continue  # a link to a directory that it is in
                found.append(Entry(path, "d"))
                _scan(entry.path, root, path + "/", own, last, found, [*above, real])
            elif entry.is_file():
                status = entry.stat()
                is_executable = bool(status.st_mode & stat.S_IXUSR)
                found.append(Entry(path, "f", status.st_size, is_executable, source=entry.path))


def check_size(what: str, entries: Sequence[Entry], bytes_max: int) -> None:
    """Raises InvalidOption, naming the biggest files, when the entries have more than `bytes_max` bytes."""
    total = sum(entry.size_bytes for entry in entries)
    if total <= bytes_max:
        return
    biggest = sorted(entries, key=lambda entry: -entry.size_bytes)[:SHOWN_MAX]
    shown = "".join(f"\n  {_mebibytes(entry.size_bytes):>10}  {entry.path}" for entry in biggest if entry.size_bytes)
    raise exceptions.InvalidOption(
        f"{what} has {_mebibytes(total)}, allowed are {_mebibytes(bytes_max)}; leave files out by "
        "runtime_env['excludes'] (patterns as in .gitignore), .gitignore or .umbelignore, or raise "
        f"UMBEL_RUNTIME_ENV_PACKAGE_BYTES_MAX. Its biggest files:{shown}",
        option="runtime_env",
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


def digest(entries: Sequence[Entry]) -> str:
    """Of names, kinds, executable bits and contents, in hexadecimal."""
    from hashlib import blake2b

    total = blake2b(digest_size=16)
    for entry in entries:
        head = f"{entry.kind}\0{entry.path}\0{int(entry.is_executable)}\0{entry.target}\0"
        total.update(head.encode("utf-8", "surrogateescape"))
        if entry.kind == "f":
            total.update(bytes.fromhex(file_digest(entry.source)))
    return total.hexdigest()


def file_digest(path: str) -> str:
    from hashlib import blake2b

    total = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while data := file.read(_COPY_BYTES):
            total.update(data)
    return total.hexdigest()


def directory_of(session_dir: str) -> str:
    """Where a session's packages are."""
    return os.path.join(session_dir, "packages")


class Packages:
    """The packages of one session. Several processes may use the same directory."""

    def __init__(self, directory: str, *, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max

    def path_of(self, uri: str) -> str:
        """Where the package is, whether it exists or not."""
        return os.path.join(self._directory, uri.removeprefix(SCHEME))

    def add_directory(self, what: str, source: str, excludes: Sequence[str] = (), *, into: str = "") -> str:
        """The uri of the package of a directory. what: whose it is, for errors. into: a directory in the package that
        takes the contents; "" for the package itself. Raises InvalidOption, OSError."""
        entries = scan(source, excludes)
        check_size(what, entries, self._bytes_max)
        if into:
            entries = [Entry(into, "d"), *(entry._replace(path=f"{into}/{entry.path}") for entry in entries)]
        return self._add(entries)

    def add_file(self, what: str, source: str) -> str:
        """The uri of a package with just this file."""
        entries = [Entry(os.path.basename(source), "f", os.path.getsize(source), source=source)]
        check_size(what, entries, self._bytes_max)
        return self._add(entries)

    def _add(self, entries: Sequence[Entry]) -> str:
        uri = SCHEME + digest(entries)
        if os.path.isdir(self.path_of(uri)):
            return uri
        with self._new_directory() as made:
            copied = _copy(entries, made)
            return self._keep(made, SCHEME + digest(copied))  # of the copy: a file may have changed meanwhile

    def add_archive(self, what: str, source: str) -> str:
        """The uri of the package of a zip file's contents. Raises InvalidOption for a bad one."""
        uri = SCHEME + file_digest(source)
        if os.path.isdir(self.path_of(uri)):
            return uri
        import zipfile  # not quick to import, and seldom needed

        with self._new_directory() as made:
            try:
                with zipfile.ZipFile(source) as archive:
                    check_size(what, [Entry(one.filename, "f", one.file_size) for one in archive.infolist()],
                               self._bytes_max)  # fmt: skip
                    _unpack(what, archive, made)
            except zipfile.BadZipFile as error:
                raise exceptions.InvalidOption(f"{what} must be a zip file, got {source!r}: {error}",
                                               option="runtime_env") from error  # fmt: skip
            return self._keep(made, uri)

    @contextlib.contextmanager
    def _new_directory(self) -> Iterator[str]:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        path = os.path.join(self._directory, f".new-{os.getpid()}-{os.urandom(4).hex()}")
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _keep(self, made: str, uri: str) -> str:
        """Give a finished directory its name, unless somebody else was quicker."""
        try:
            os.rename(made, self.path_of(uri))
        except OSError:
            if not os.path.isdir(self.path_of(uri)):
                raise
        return uri


def _copy(entries: Sequence[Entry], to: str) -> list[Entry]:
    """Write the entries below `to`; returns those of the copy. A file that has gone meanwhile is left out."""
    copied = []
    for entry in entries:
        path = os.path.join(to, entry.path)
        if entry.kind == "d":
            os.mkdir(path)
        elif entry.kind == "l":
            os.symlink(entry.target, path)
        else:
            try:
                shutil.copyfile(entry.source, path)
            except FileNotFoundError:
                continue
            os.chmod(path, 0o755 if entry.is_executable else 0o644)
        copied.append(entry._replace(source=path))
    return copied


def _unpack(what: str, archive: zipfile.ZipFile, to: str) -> None:
    for member in archive.infolist():
        parts = member.filename.split("/")
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
            raise exceptions.InvalidOption(
                f"{what} must hold relative paths without '..', got {member.filename!r} in {archive.filename!r}; "
                "pack it anew",
                option="runtime_env",
            )
        path = archive.extract(member, to)
        mode = member.external_attr >> 16
        if not member.is_dir() and mode & stat.S_IXUSR:
            os.chmod(path, 0o755)
