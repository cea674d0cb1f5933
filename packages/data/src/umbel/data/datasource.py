"""Sources of rows: what to subclass for one of your own, and what readers take as options. The names of sinks are here too, where
Ray has them; their home is `umbel.data.datasink`."""

from __future__ import annotations

from umbel.data._sinks.base import Datasink as Datasink
from umbel.data._sinks.base import DummyOutputDatasink as DummyOutputDatasink
from umbel.data._sinks.base import SaveMode as SaveMode
from umbel.data._sinks.base import WriteResult as WriteResult
from umbel.data._sinks.filenames import FilenameProvider as FilenameProvider
from umbel.data._sinks.files import BlockBasedFileDatasink as BlockBasedFileDatasink
from umbel.data._sinks.files import RowBasedFileDatasink as RowBasedFileDatasink
from umbel.data._sources.base import Datasource as Datasource
from umbel.data._sources.base import ReadTask as ReadTask
from umbel.data._sources.errors import FileReadError as FileReadError
from umbel.data._sources.files import FileBasedDatasource as FileBasedDatasource
from umbel.data._sources.files import FileShuffleConfig as FileShuffleConfig
from umbel.data._sources.partitioning import Partitioning as Partitioning
from umbel.data._sources.partitioning import PartitionStyle as PartitionStyle
from umbel.data._sources.partitioning import PathPartitionFilter as PathPartitionFilter
from umbel.data._sources.partitioning import PathPartitionParser as PathPartitionParser
from umbel.data._sources.ranges import RandomIntRowDatasource as RandomIntRowDatasource
from umbel.data._sources.ranges import RangeDatasource as RangeDatasource
from umbel.data.block import BlockMetadata as BlockMetadata

__all__ = [
    "BlockBasedFileDatasink",
    "BlockMetadata",
    "Datasink",
    "Datasource",
    "DummyOutputDatasink",
    "FileBasedDatasource",
    "FileReadError",
    "FileShuffleConfig",
    "FilenameProvider",
    "PartitionStyle",
    "Partitioning",
    "PathPartitionFilter",
    "PathPartitionParser",
    "RandomIntRowDatasource",
    "RangeDatasource",
    "ReadTask",
    "RowBasedFileDatasink",
    "SaveMode",
    "WriteResult",
]
