"""Packages: copies of local directories and archives, named by their contents, that workers run in or import from.

A package is a zip file of the session, whose name is the digest of its bytes, made once by whoever is the first to need it.
Nobody changes it, so other nodes can get it from here, and see that they have got it. Beside it, once workers here need it, is
what was in it, as a directory that they share: what they write into that is seen by others on the same node, and by no other.
Both go with the session.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from umbel import exceptions
from umbel._environments import ignoring

if TYPE_CHECKING:
    import zipfile

SCHEME = "umbel-package://"  # what a package is called where it travels: this, and its name, which is a digest
_URI = re.compile(re.escape(SCHEME) + "([0-9a-f]{32})(?![0-9a-f])")
_NAME = re.compile("[0-9a-f]{32}")
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
    """Of the package that they would be: of names, kinds, executable bits and contents, in hexadecimal."""
    return _write(entries, None)


def file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return _copied(file, None)


def names_in(text: str) -> list[str]:
    """Of the packages whose uris are in it, each once."""
    return list(dict.fromkeys(_URI.findall(text)))


def with_paths(text: str, path_of: Callable[[str], str]) -> str:
    """The text with a path for each uri in it."""
    return _URI.sub(lambda found: path_of(found.group()), text)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


class Summed:
    """What is written through it has a digest. file: where to; None for nowhere."""

    def __init__(self, file: BinaryIO | None) -> None:
        from hashlib import blake2b

        self._total = blake2b(digest_size=16)
        self._file = file

    def write(self, data: Any) -> int:
        self._total.update(data)
        return len(data) if self._file is None else self._file.write(data)

    def flush(self) -> None:
        """As zip files want it; what is written is so at once, or when its file is closed."""

    def hexdigest(self) -> str:
        return self._total.hexdigest()


def _copied(source: BinaryIO, to: BinaryIO | None) -> str:
    """The digest of a file's bytes."""
    summed = Summed(to)
    while data := source.read(_COPY_BYTES):
        summed.write(data)
    return summed.hexdigest()


def _write(entries: Sequence[Entry], to: BinaryIO | None) -> str:
    """Make a zip file of them, always the same of the same; returns its digest. A file that has gone is left out. Raises
    InvalidOption for a name that cannot be written, OSError."""
    import zipfile  # not quick to import, and seldom needed

    summed = Summed(to)
    with zipfile.ZipFile(cast(Any, summed), "w") as archive:  # it needs no more than `Summed` has
        for entry in entries:
            try:
                entry.path.encode()
            except UnicodeEncodeError:
                raise exceptions.InvalidOption(
                    f"runtime_env cannot take the file {entry.path!r}, whose name is not UTF-8; rename it, or leave it out by "
                    "runtime_env['excludes']",
                    option="runtime_env",
                ) from None
            member = zipfile.ZipInfo(entry.path + ("/" if entry.kind == "d" else ""))
            mode = {"d": stat.S_IFDIR | 0o755, "l": stat.S_IFLNK | 0o777}.get(entry.kind, stat.S_IFREG | 0o644)
            member.external_attr = (mode | (0o111 if entry.is_executable else 0)) << 16
            if entry.kind != "f":
                archive.writestr(member, os.fsencode(entry.target))
                continue
            with contextlib.suppress(FileNotFoundError), open(entry.source, "rb") as source:
                member.file_size = entry.size_bytes  # as far as it is known; beyond 2 GiB it is noted in another way
                with archive.open(member, "w") as written:
                    shutil.copyfileobj(source, written, _COPY_BYTES)
    return summed.hexdigest()


def directory_of(session_dir: str) -> str:
    """Where a session's packages are."""
    return os.path.join(session_dir, "packages")


class Packages:
    """The packages of one session. Several processes may use the same directory."""

    def __init__(self, directory: str, *, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max

    def archive_of(self, name: str) -> str:
        """Where the package of this name is, whether it exists or not."""
        return os.path.join(self._directory, f"{name}.zip")

    def has(self, name: str) -> bool:
        return os.path.exists(self.archive_of(name))

    def unpacked(self, uri: str) -> str:
        """The directory with what is in the package. Raises FileNotFoundError when that is not here, OSError."""
        name = uri.removeprefix(SCHEME)
        path = os.path.join(self._directory, name)
        if not is_name(name):
            raise FileNotFoundError(f"no package is called {uri!r}")
        if os.path.isdir(path):
            return path
        import zipfile

        with zipfile.ZipFile(self.archive_of(name)) as archive, self._draft() as draft:
            os.mkdir(draft, 0o700)
            _unpack(archive, draft)
            try:
                os.rename(draft, path)
            except OSError:
                if not os.path.isdir(path):  # somebody else was quicker
                    raise
        return path

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
        name = digest(entries)
        if not self.has(name):
            name = self.keep(lambda file: _write(entries, file))  # of the copy: a file may have changed meanwhile
        return SCHEME + name

    def add_archive(self, what: str, source: str) -> str:
        """The uri of the package of a zip file's contents. Raises InvalidOption for a bad one."""
        name = file_digest(source)
        if not self.has(name):
            name = self.keep(lambda file: self._checked_copy(what, source, file))
        return SCHEME + name

    def _checked_copy(self, what: str, source: str, to: BinaryIO) -> str:
        import zipfile

        with open(source, "rb") as file:
            name = _copied(file, to)
        try:
            with zipfile.ZipFile(to) as archive:
                members = archive.infolist()
        except zipfile.BadZipFile as error:
            raise exceptions.InvalidOption(f"{what} must be a zip file, got {source!r}: {error}",
                                           option="runtime_env") from error  # fmt: skip
        check_size(what, [Entry(one.filename, "f", one.file_size) for one in members], self._bytes_max)
        for member in members:
            if member.filename.startswith("/") or ".." in member.filename.split("/") or "\\" in member.filename:
                raise exceptions.InvalidOption(
                    f"{what} must hold relative paths without '..', got {member.filename!r} in {source!r}; pack it anew",
                    option="runtime_env",
                )
        return name

    @contextlib.contextmanager
    def _draft(self) -> Iterator[str]:
        """A path for what is being made, which is gone afterwards if it is there still."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        path = os.path.join(self._directory, f".new-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                os.unlink(path)
            shutil.rmtree(path, ignore_errors=True)

    def keep(self, write: Callable[[BinaryIO], str]) -> str:
        """Have a package written, by a function that returns its name, which is the package's from then on."""
        with self._draft() as draft:
            with open(draft, "w+b") as file:
                name = write(file)
            os.rename(draft, self.archive_of(name))
        return name


def _unpack(archive: zipfile.ZipFile, to: str) -> None:
    for member in archive.infolist():
        mode = member.external_attr >> 16
        if stat.S_ISLNK(mode):
            path = os.path.join(to, member.filename)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(os.fsdecode(archive.read(member)), path)
            continue
        path = archive.extract(member, to)
        if not member.is_dir() and mode & stat.S_IXUSR:
            os.chmod(path, 0o755)
