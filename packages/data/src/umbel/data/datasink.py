"""Sinks of rows: what to subclass for one of your own, and what writers take as options."""

from __future__ import annotations

from umbel.data._sinks.base import Datasink as Datasink
from umbel.data._sinks.base import DummyOutputDatasink as DummyOutputDatasink
from umbel.data._sinks.base import SaveMode as SaveMode
from umbel.data._sinks.base import WriteContext as WriteContext
from umbel.data._sinks.base import WriteResult as WriteResult
from umbel.data._sinks.filenames import FilenameProvider as FilenameProvider
from umbel.data._sinks.files import BlockBasedFileDatasink as BlockBasedFileDatasink
from umbel.data._sinks.files import RowBasedFileDatasink as RowBasedFileDatasink

__all__ = [
    "BlockBasedFileDatasink",
    "Datasink",
    "DummyOutputDatasink",
    "FilenameProvider",
    "RowBasedFileDatasink",
    "SaveMode",
    "WriteContext",
    "WriteResult",
]
