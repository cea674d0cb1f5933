"""What goes wrong in reading, and an error that says in which file it did."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import naming


class FileReadError(exceptions.UmbelError, ValueError):
    """A file could not be read. path: which; the cause has what its reader said."""

    def __init__(self, message: str | None = None, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


def in_file(error: Exception, path: str, *, reader: str) -> Exception:
    """What to raise in place of an error that came while `path` was read. It keeps being a FileNotFoundError, an ImportError
    and so on, by which callers tell what to do."""
    if isinstance(error, (FileReadError, ImportError)):
        return error
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{path!r} was listed, but it is not there any more ({said})")
    if isinstance(error, PermissionError):
        return PermissionError(f"{path!r} may not be read ({said})")
    return FileReadError(f"{reader} cannot read {path!r}: {said}", path=path)


def missing_library(library: str, *, what: str, extra: str) -> ImportError:
    return ImportError(f"{what} needs {library}, which is not installed; pip install {extra}", name=library)


def no_column(name: str, known: Sequence[str], *, purpose: str = "write") -> str:
    return f"there is no column {name!r} to {purpose}; {naming.hint(name, known)}"


def shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
