"""Values that files carry in their paths: `year=2026/month=7/x.csv` (HIVE), or `2026/7/x.csv` with names given (DIRECTORY)."""

from __future__ import annotations

import enum
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyarrow import fs

from umbel import exceptions
from umbel.data._sources import filesystems

NULL_DIRECTORY: Final = "__HIVE_DEFAULT_PARTITION__"  # what Hive, Spark and Arrow write for null

_ARROW_TYPES: Final[Mapping[type, pa.DataType]] = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
}


class PartitionStyle(str, enum.Enum):
    """HIVE: directories are called `key=value`. DIRECTORY: they are called by their values, and the keys are given."""

    HIVE = "hive"
    DIRECTORY = "dir"


@dataclass(frozen=True)
class Partitioning:
    """How values are read off paths.

    base_dir: only what is below it counts; "" for all of the path. field_names: the keys, in order; DIRECTORY needs them.
    field_types: int, float, bool or str by key; str where it has none. filesystem: where base_dir is.
    """

    style: PartitionStyle | str
    base_dir: str | None = None
    field_names: Sequence[str] | None = None
    field_types: Mapping[str, type] | None = field(default=None, hash=False)
    filesystem: Any = field(default=None, hash=False)

    def __post_init__(self) -> None:
        try:
            style = PartitionStyle(self.style)
        except ValueError:
            raise exceptions.InvalidOption(
                f"style must be 'hive' or 'dir', got {self.style!r}", option="style"
            ) from None
        object.__setattr__(self, "style", style)
        object.__setattr__(self, "base_dir", self.base_dir or "")
        object.__setattr__(self, "field_types", dict(self.field_types or {}))
        if style is PartitionStyle.DIRECTORY and not self.field_names:
            raise exceptions.InvalidOption(
                "partitioning by directories needs field_names: the keys whose values the directories are called by",
                option="field_names",
            )
        for name, kind in self.types.items():
            if kind not in _ARROW_TYPES:
                raise exceptions.InvalidOptionType(
                    f"the type of partition {name!r} must be int, float, bool or str, got {kind!r}",
                    option="field_types",
                )

    @property
    def types(self) -> Mapping[str, type]:
        """The types of keys that are not str."""
        return self.field_types or {}

    def arrow_type(self, name: str) -> pa.DataType:
        """The type of the column of this key."""
        return _ARROW_TYPES[self.types.get(name, str)]

    @property
    def normalized_base_dir(self) -> str:
        """As the file system calls it, with a slash behind."""
        if not self.base_dir:
            return ""
        _, (path,) = filesystems.resolve(self.base_dir, self.filesystem)
        return path.rstrip("/") + "/"

    @property
    def resolved_filesystem(self) -> fs.FileSystem:
        """Where base_dir is, of pyarrow."""
        return filesystems.resolve(self.base_dir or ".", self.filesystem)[0]


HIVE: Final = Partitioning(PartitionStyle.HIVE)


class PathPartitionParser:
    """Called with a path, gives the values that it carries, by key; nothing for a path without any."""

    def __init__(self, partitioning: Partitioning) -> None:
        self._scheme = partitioning
        self._base = partitioning.normalized_base_dir

    @staticmethod
    def of(
        style: PartitionStyle = PartitionStyle.HIVE,
        base_dir: str | None = None,
        field_names: Sequence[str] | None = None,
        field_types: Mapping[str, type] | None = None,
        filesystem: Any = None,
    ) -> PathPartitionParser:
        """See `Partitioning`, whose arguments these are."""
        return PathPartitionParser(Partitioning(style, base_dir, field_names, field_types, filesystem))

    @property
    def scheme(self) -> Partitioning:
        """How it reads paths."""
        return self._scheme

    def __call__(self, path: str) -> dict[str, Any]:
        """Values are str, or of the type given; None for Hive's name of null. Raises ValueError where the directories are not
        those of `field_names`, or a value is not of its type."""
        if not path.startswith(self._base):
            return {}
        directories = [part for part in path[len(self._base) :].split("/")[:-1] if part]
        found = (
            self._hive(path, directories)
            if self._scheme.style is PartitionStyle.HIVE
            else self._named(path, directories)
        )
        return {name: self._typed(path, name, value) for name, value in found.items()}

    def _hive(self, path: str, directories: Sequence[str]) -> dict[str, str]:
        pairs = [part.split("=") for part in directories if part.count("=") == 1]
        names = self._scheme.field_names
        if names and pairs and [key for key, _ in pairs] != list(names):
            raise ValueError(f"{path!r} must have the partitions {list(names)}, got {[key for key, _ in pairs]}")
        return {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, value in pairs}

    def _named(self, path: str, directories: Sequence[str]) -> dict[str, str]:
        names = self._scheme.field_names or ()
        if directories and len(directories) != len(names):
            raise ValueError(
                f"{path!r} must have {len(names)} partition value(s), for {list(names)}, got {list(directories)}; "
                "set base_dir to the directory above the first"
            )
        pairs = zip(names, directories, strict=False)
        return {name: urllib.parse.unquote(value) for name, value in pairs if name is not None}

    def _typed(self, path: str, name: str, value: str) -> Any:
        if value == NULL_DIRECTORY:
            return None
        kind = self._scheme.types.get(name, str)
        if kind is bool:
            return value.lower() == "true"
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"partition {name!r} of {path!r} must be {kind.__name__}, got {value!r}") from None


class PathPartitionFilter:
    """Chooses files by the values that their paths carry."""

    def __init__(self, path_partition_parser: PathPartitionParser, filter_fn: Callable[[dict[str, Any]], bool]) -> None:
        self._parser = path_partition_parser
        self._filter_fn = filter_fn

    @staticmethod
    def of(
        filter_fn: Callable[[dict[str, Any]], bool],
        style: PartitionStyle = PartitionStyle.HIVE,
        base_dir: str | None = None,
        field_names: Sequence[str] | None = None,
        field_types: Mapping[str, type] | None = None,
        filesystem: Any = None,
    ) -> PathPartitionFilter:
        """filter_fn: gets the values by key, nothing for a path without any; true to read the file."""
        return PathPartitionFilter(
            PathPartitionParser.of(style, base_dir, field_names, field_types, filesystem), filter_fn
        )

    @property
    def parser(self) -> PathPartitionParser:
        """What reads the values off the paths."""
        return self._parser

    def apply(self, path: str) -> bool:
        """Whether the file is read."""
        return bool(self._filter_fn(self._parser(path)))

    def __call__(self, paths: Sequence[str]) -> list[str]:
        return [path for path in paths if self.apply(path)]
