"""Paths and URIs: on which file system each is, and what it is called there.

File systems are pyarrow's. One of fsspec is wrapped, whether it is given or a URI has a scheme that pyarrow does not know.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pyarrow import fs

from umbel import exceptions
from umbel.data._sources import errors

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_LOCAL_SCHEME: Final = "local://"  # on the driver's machine, and to be read there
_ARROW_SCHEMES: Final = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "mock")
_OBJECT_STORES: Final = ("s3", "s3a", "gs", "gcs", "gcsfs", "abfs", "abfss", "adl", "az", "oss", "http", "https")


def path_list(paths: Paths) -> list[str]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(given, Sequence) or not all(isinstance(path, (str, os.PathLike)) for path in given):
        raise exceptions.InvalidOptionType(
            f"paths must be a path or a list of paths, got {paths!r}; a path is a str or a pathlib.Path", option="paths"
        )
    if not given:
        raise exceptions.InvalidOption("paths must have at least one path, got an empty list", option="paths")
    return [str(path) if isinstance(path, Path) else os.fspath(path) for path in given]


def resolve(paths: Paths, filesystem: Any = None) -> tuple[fs.FileSystem, list[str]]:
    """The one file system of all the paths, and their names there."""
    named = path_list(paths)
    if filesystem is not None:
        wrapped = wrap(filesystem)
        return wrapped, [_without_scheme(path, wrapped) for path in named]
    found: fs.FileSystem | None = None
    names = []
    for path in named:
        one, name = _from_uri(path, found)
        if found is None:
            found = one
        elif not one.equals(found):
            raise exceptions.InvalidOption(
                f"all paths of one reading must be on one file system, got {named[0]!r} and {path!r}; read them apart and union",
                option="paths",
            )
        names.append(name)
    return found if found is not None else fs.LocalFileSystem(), names


def wrap(filesystem: Any) -> fs.FileSystem:
    """A file system of pyarrow's as it is, one of fsspec's as pyarrow sees it."""
    if isinstance(filesystem, fs.FileSystem):
        return filesystem
    if hasattr(filesystem, "open") and hasattr(filesystem, "protocol"):  # fsspec's, which need not be imported for this
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem))
    raise exceptions.InvalidOptionType(
        f"filesystem must be one of pyarrow.fs or of fsspec, got {type(filesystem).__name__}", option="filesystem"
    )


def is_local_only(paths: Paths) -> bool:
    """Whether some path is said to be on the driver's machine only."""
    return any(path.startswith(_LOCAL_SCHEME) for path in path_list(paths))


def check_shared(filesystem: Any, what: str) -> None:
    """Raises InvalidOption for one that is in the memory of this process, which no worker sees."""
    while isinstance(filesystem, fs.SubTreeFileSystem):
        filesystem = filesystem.base_fs
    if isinstance(filesystem, fs.FileSystem) and filesystem.type_name == "py::fsspec+memory":
        raise exceptions.InvalidOption(
            f"{what} is to run on workers, but memory:// is fsspec's memory of this process, which they do not see; use a path "
            "that all machines have, or a plan of built-in operators alone, which runs in this process while it is small",
            option="filesystem",
        )


def has_rename(filesystem: fs.FileSystem) -> bool:
    """Whether a file gets another name at once and at no cost. In object stores it is copied; but there it appears only
    when it is whole."""
    while isinstance(filesystem, fs.SubTreeFileSystem):
        filesystem = filesystem.base_fs
    name = filesystem.type_name
    if name.startswith("py::fsspec+"):
        protocols = name[len("py::fsspec+") :]
        return not any(protocol in protocols for protocol in _OBJECT_STORES)
    return name not in _OBJECT_STORES


def _from_uri(path: str, known: fs.FileSystem | None) -> tuple[fs.FileSystem, str]:
    if path.startswith(_LOCAL_SCHEME):
        path = path[len(_LOCAL_SCHEME) :]
        return fs.LocalFileSystem(), os.path.abspath(path)
    scheme, separator, rest = path.partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))
    if scheme == "file":
        return fs.LocalFileSystem(), urllib.parse.unquote(rest)
    if scheme in _ARROW_SCHEMES:
        try:
            found, name = fs.FileSystem.from_uri(_quoted(path))
        except ImportError as error:
            raise errors.missing_library("a pyarrow with this file system", what=path, extra="pyarrow") from error
        return found, name
    try:
        import fsspec
    except ImportError as error:
        raise errors.missing_library("fsspec", what=f"reading {scheme}:// ({path!r})", extra="fsspec") from error
    try:
        made, name = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise exceptions.InvalidOption(f"no file system is known for {path!r}: {error}", option="paths") from error
    return wrap(made), name


def _quoted(uri: str) -> str:
    """Spaces and the like are no part of a URI, but people write them."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{urllib.parse.quote(rest, safe='/:@?&=%+,;!$()*~#[]')}"


def _without_scheme(path: str, filesystem: fs.FileSystem) -> str:
    """As the file system given calls it: s3://bucket/key is bucket/key there."""
    if path.startswith(_LOCAL_SCHEME):
        path = path[len(_LOCAL_SCHEME) :]
    if isinstance(filesystem, fs.LocalFileSystem):
        return os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    if filesystem.type_name.startswith("py::fsspec+"):
        stripped: str = filesystem.handler.fs._strip_protocol(path)
        return stripped
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return rest
    return rest.partition("?")[0] if scheme in _ARROW_SCHEMES else rest
