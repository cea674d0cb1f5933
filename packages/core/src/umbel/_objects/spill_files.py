"""Files of values that were moved out of shared memory: on a local path, or by URL through fsspec or pyarrow.

A file is written once, from beginning to end, and read in parts. The libraries for URLs are the user's, and imported at
their first use here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from umbel import exceptions
from umbel._base import sessions

READ_BYTES = 8 << 20  # at once: a signal or another thread waits for no more
# What a URL needs beside fsspec itself; for others fsspec says it.
_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


class Damaged(Exception):
    """The file is not what was written. The text says how, as the end of a sentence."""


class File(Protocol):
    """One file. What its methods raise is OSError on a path, and what the library likes behind a URL."""

    def write(self, parts: Iterable[Any]) -> None:
        """Make the file. Leaves nothing when it fails."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Returns the bytes read: fewer than asked for where the file ends."""

    def remove(self) -> None: ...

    def remove_tree(self) -> None:
        """It is a directory."""


class LocalFile:
    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, parts: Iterable[Any]) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(self._path), 0o700)  # not its parents: a session that is over has none
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for part in parts:
                rest = memoryview(part)
                while rest.nbytes:
                    rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            os.unlink(self._path)
            raise
        finally:
            os.close(descriptor)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        descriptor = os.open(self._path, os.O_RDONLY)
        done = 0
        try:
            while done < buffer.nbytes:
                count = os.preadv(descriptor, [buffer[done : done + READ_BYTES]], offset + done)
                if not count:
                    break
                done += count
        finally:
            os.close(descriptor)
        return done

    def remove(self) -> None:
        os.unlink(self._path)

    def remove_tree(self) -> None:
        sessions.remove_tree(self._path)


class FsspecFile:
    def __init__(self, url: str) -> None:
        self._fs, self._path = importlib.import_module("fsspec.core").url_to_fs(url)

    def write(self, parts: Iterable[Any]) -> None:
        self._fs.makedirs(os.path.dirname(self._path), exist_ok=True)
        try:
            with self._fs.open(self._path, "wb") as file:
                for part in parts:
                    file.write(part)
        except BaseException:
            with contextlib.suppress(Exception):  # it may not exist; the error that matters is on its way
                self._fs.rm_file(self._path)
            raise

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._fs.open(self._path, "rb") as file:
            file.seek(offset)
            return _read_all(file, buffer)

    def remove(self) -> None:
        self._fs.rm_file(self._path)

    def remove_tree(self) -> None:
        self._fs.rm(self._path, recursive=True)


class ArrowFile:
    def __init__(self, url: str) -> None:
        self._fs, self._path = importlib.import_module("pyarrow.fs").FileSystem.from_uri(url)

    def write(self, parts: Iterable[Any]) -> None:
        self._fs.create_dir(os.path.dirname(self._path), recursive=True)
        try:
            with self._fs.open_output_stream(self._path) as file:
                for part in parts:
                    file.write(part)
        except BaseException:
            with contextlib.suppress(Exception):  # as above
                self._fs.delete_file(self._path)
            raise

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._fs.open_input_file(self._path) as file:
            file.seek(offset)
            return _read_all(file, buffer)

    def remove(self) -> None:
        self._fs.delete_file(self._path)

    def remove_tree(self) -> None:
        self._fs.delete_dir(self._path)


def _read_all(file: Any, buffer: memoryview) -> int:
    done = 0
    while done < buffer.nbytes:
        data = file.read(min(READ_BYTES, buffer.nbytes - done))
        if not data:
            break
        buffer[done : done + len(data)] = data
        done += len(data)
    return done


def open_file(place: str) -> File:
    """place: a path or a URL. Raises ImportError that names what to install."""
    if "://" not in place:
        return LocalFile(place)
    problem = ""
    makers: tuple[tuple[str, Callable[[str], File]], ...] = (("fsspec", FsspecFile), ("pyarrow", ArrowFile))
    for library, make in makers:
        try:
            return make(place)
        except ImportError as error:
            problem = problem or str(error)
        except Exception as error:
            if library == "pyarrow" or isinstance(error, ValueError):  # for a scheme that they do not know
                problem = problem or str(error)
            else:
                raise OSError(f"{place}: {type(error).__name__}: {error}") from error
    scheme = place.partition("://")[0]
    needed = " ".join(filter(None, ("fsspec", _LIBRARIES.get(scheme))))
    raise ImportError(
        f"objects cannot be spilled to {place!r} with what is installed ({problem}); pip install {needed}, or name a "
        "local directory"
    )


def local_path(place: str) -> str:
    """`place` without `file://`, absolute if it is a path."""
    if place.startswith("file://"):
        place = place[len("file://") :]
        place = place[len("localhost") :] if place.startswith("localhost/") else place
    return place if "://" in place or not place else os.path.abspath(place)


def check(directory: str) -> None:
    """Make sure that files can be written below `directory`, a path or a URL. Raises InvalidOption."""
    probe = f"{directory.rstrip('/')}/umbel-probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        if "://" not in directory:
            os.makedirs(directory, exist_ok=True)
        file = open_file(probe)
        file.write([b"probe"])
        file.remove()
    except ImportError as error:
        raise exceptions.InvalidOption(str(error), option="object_spilling_directory") from None
    except Exception as error:  # a file system of the user's raises what it likes
        raise exceptions.InvalidOption(
            f"object_spilling_directory={directory!r} cannot be written to ({type(error).__name__}: {error}); name a "
            "directory in which this user may make files, or omit it for the session's own",
            option="object_spilling_directory",
        ) from error


def read(place: str, offset: int, buffer: memoryview, checksum: int) -> None:
    """Fill `buffer`. Raises Damaged or OSError."""
    count = open_file(place).read_into(offset, buffer)
    if count < buffer.nbytes:
        raise Damaged(f"ends after {offset + count} bytes, but {offset + buffer.nbytes} had been written")
    if zlib.crc32(buffer) != checksum:
        raise Damaged(f"has other contents than were written (checksum {zlib.crc32(buffer):08x}, not {checksum:08x})")


def remove_all(url: str) -> None:
    """Remove a session's directory on another file system. What cannot be removed is left."""
    with contextlib.suppress(Exception):  # it may be gone already, or the user's library; nobody is there to be told
        open_file(url).remove_tree()
