"""Which files there are to read: of directories all that they hold, but for what is hidden.

Hidden is what has a name that begins with `.` or `_`, or lies in a directory below the one given that has: these are what
writers leave for themselves. A file that is named itself is read whatever its name is.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from pyarrow import fs

from umbel import exceptions

_HIDDEN: Final = (".", "_")
_THREADS: Final = 16  # requests at once: they hide the 50 ms of an object store, and are no burden to a disk
_ASKED_AT_ONCE: Final = 64  # paths in one request for their sizes

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ListedFile(NamedTuple):
    """size_bytes: -1 where the file system does not say."""

    path: str
    size_bytes: int


def list_files(
    paths: Sequence[str],
    filesystem: fs.FileSystem,
    *,
    ignore_missing_paths: bool = False,
    skip_paths: Collection[str] = (),
    file_extensions: Collection[str] | None = None,
) -> list[ListedFile]:
    """In the order of `paths`, those of a directory by name. file_extensions: what a file in a directory must end with, without
    the dot, in capitals or not. Raises FileNotFoundError for a path that is not there."""
    infos = _infos(paths, filesystem)
    found: list[ListedFile] = []
    missing = []
    directories = []
    skipped = frozenset(skip_paths)
    for path, info in zip(paths, infos, strict=True):
        if info.type == fs.FileType.NotFound:
            missing.append(path)
        elif info.type == fs.FileType.Directory:
            directories.append(path)
            found += _in_directory(path, filesystem, file_extensions)
        else:
            found.append(_listed(info))
    if missing and not ignore_missing_paths:
        raise FileNotFoundError(_missing(missing))
    found = [file for file in found if file.path not in skipped]
    if not found:
        raise exceptions.InvalidOption(_nothing(paths, directories, missing, file_extensions), option="paths")
    return found


def versions(paths: Sequence[str], filesystem: fs.FileSystem) -> dict[str, str]:
    """Of each file, its size and the time of its latest change, where the file system says it."""
    return {info.path: f"{info.size} {info.mtime_ns}" for info in _infos(paths, filesystem)}


def visible_files(directory: str, filesystem: fs.FileSystem) -> list[ListedFile]:
    """All below the directory that are not hidden, by name; none where there is no such directory."""
    selector = fs.FileSelector(directory, recursive=True, allow_not_found=True)
    base = directory.rstrip("/") + "/"
    files = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    return sorted(_listed(info) for info in files if not is_hidden(info.path.removeprefix(base)))


def files_named(directory: str, filesystem: fs.FileSystem, beginnings: tuple[str, ...]) -> list[str]:
    """Paths of those in the directory itself, hidden or not, whose names begin so. None where there is no such directory."""
    infos = filesystem.get_file_info(fs.FileSelector(directory, allow_not_found=True))
    return sorted(info.path for info in infos if info.base_name.startswith(beginnings))


def is_hidden(relative: str) -> bool:
    """Whether a name, or one of the directories on the way to it, is hidden. A partition `_key=value` is not."""
    *directories, name = relative.lstrip("/").split("/")
    return name.startswith(_HIDDEN) or any(part.startswith(_HIDDEN) and "=" not in part for part in directories)


def in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """In the order of the items. The first error is raised, after those that had begun."""
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(min(_THREADS, len(items)), thread_name_prefix="umbel-data-io") as pool:
        return list(pool.map(work, items))


def _infos(paths: Sequence[str], filesystem: fs.FileSystem) -> list[fs.FileInfo]:
    groups = [list(paths[start : start + _ASKED_AT_ONCE]) for start in range(0, len(paths), _ASKED_AT_ONCE)]
    return [info for infos in in_threads(filesystem.get_file_info, groups) for info in infos]


def _in_directory(path: str, filesystem: fs.FileSystem, file_extensions: Collection[str] | None) -> list[ListedFile]:
    files = visible_files(path, filesystem)
    if file_extensions is None:
        return files
    suffixes = tuple(f".{extension.lower().lstrip('.')}" for extension in file_extensions)
    return [file for file in files if file.path.lower().endswith(suffixes)]


def _listed(info: fs.FileInfo) -> ListedFile:
    return ListedFile(info.path, -1 if info.size is None else info.size)


def _missing(paths: Sequence[str]) -> str:
    named = ", ".join(map(repr, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    advice = "check the path and that this machine sees it, or pass ignore_missing_paths=True"
    if any(character in path for path in paths for character in "*?["):
        advice = "paths are no patterns: name the directory, with file_extensions= or partition_filter= to choose among its files"
    return f"there is no file or directory {named}; {advice}"


def _nothing(
    paths: Sequence[str], directories: Sequence[str], missing: Sequence[str], file_extensions: Collection[str] | None
) -> str:
    if missing and not directories:
        return f"none of the paths is there: {_missing(missing)}"
    where = ", ".join(map(repr, (directories or paths)[:3]))
    ending = f" that end with {', '.join('.' + one for one in file_extensions)}" if file_extensions else ""
    hint = (
        "pass file_extensions=None to read whatever is there"
        if file_extensions
        else "names that begin with . or _ are skipped"
    )
    return f"there are no files{ending} in {where}; {hint}"
