"""Sinks that are files: what is the same whatever the format, and how files appear all at once or not at all.

Where files can be renamed, tasks write into a hidden directory within the one that is written to; once all tasks are done, the
driver renames what they report, and removes the hidden directory with whatever tries that failed have left in it. In
object stores, where a file appears when it is whole but renaming copies it, tasks write under the final name, which is
the same when they are tried again; what is not reported is removed (design/0046).
"""

from __future__ import annotations

import contextlib
import posixpath
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

import pyarrow as pa
from pyarrow import fs

from umbel import exceptions
from umbel.data._blocks import rows as block_rows
from umbel.data._blocks import schemas, sizes
from umbel.data._sinks import base, filenames, partitions
from umbel.data._sources import filesystems, listing

_STAGING: Final = ".umbel-"  # begins the name of the directory in which a write is made; readers pass over it
_OPEN_FILES_MAX: Final = 64  # of one task, among partitions: each holds a buffer
_COLLECTED_BYTES: Final = 512 << 20  # of a file that cannot be written piece by piece, unless more rows are asked for


@dataclass(frozen=True)
class WrittenFile:
    """staged: where a task has written it; final: where it belongs."""

    staged: str
    final: str
    num_rows: int


class FileDatasink(base.Datasink[list[WrittenFile]]):
    """path: a directory, or what is to become one. mode: what becomes of the files that it has already.

    try_create_dir: make it if it is not there. open_stream_args: for `pyarrow.fs.FileSystem.open_output_stream`;
    `compression` is told by the file's ending otherwise.
    """

    def __init__(
        self,
        path: str,
        *,
        file_format: str | None = None,
        filesystem: Any = None,
        try_create_dir: bool = True,
        open_stream_args: Mapping[str, Any] | None = None,
        filename_provider: filenames.FilenameProvider | None = None,
        dataset_uuid: str | None = None,
        mode: base.SaveMode | str = base.SaveMode.APPEND,
    ) -> None:
        self._filesystem, (self.path,) = filesystems.resolve(path, filesystem)
        self.path = self.path.rstrip("/") or "/"
        self.file_format = file_format
        self.filename_provider = filename_provider or filenames.FilenameProvider(dataset_uuid, file_format)
        self.mode = _mode(mode)
        self.write_uuid = ""
        self._is_local_only = filesystems.is_local_only(path)
        self._try_create_dir = try_create_dir
        self._open_stream_args = dict(open_stream_args or {})
        self._has_directories = filesystems.has_rename(self._filesystem)
        self._stages = self._has_directories  # whether files get their names at the end only
        self._replaced: list[str] = []
        self._is_resumed = False
        self._is_ending = False  # from here on files may be in place, or take the place of others
        self._schema: pa.Schema | None = None

    @property
    def supports_distributed_writes(self) -> bool:
        return not self._is_local_only

    # -----------------------------------------------------------------------------------------------------------------
    # On the driver.

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Raises InvalidOption, a ValueError, where there are files and the mode forbids it."""
        if self.mode is base.SaveMode.UPSERT:
            raise exceptions.UnsupportedFeature(base.unsupported_mode(self, self.mode))
        self.write_uuid = uuid.uuid4().hex
        self.should_write, self._schema, self._replaced = True, schema, []
        self._is_resumed = self._is_ending = False
        if self._filesystem.get_file_info(self.path).type == fs.FileType.File:
            raise NotADirectoryError(f"a dataset is written as a directory of files, but {self.path!r} is a file")
        existing = [] if self.mode is base.SaveMode.APPEND else listing.visible_files(self.path, self._filesystem)
        if existing and self.mode in (base.SaveMode.CREATE, base.SaveMode.ERROR):
            raise exceptions.InvalidOption(
                f"{self.path!r} has {len(existing)} files already, the first of them {existing[0].path!r}; write elsewhere, or "
                "say by mode= what becomes of them: append, overwrite or ignore",
                option="mode",
            )
        if existing and self.mode is base.SaveMode.IGNORE:
            self.should_write = False
            return
        self._replaced = [file.path for file in existing]
        if self._try_create_dir and self._has_directories:
            self._filesystem.create_dir(self.path, recursive=True)

    @property
    def supports_checkpoints(self) -> bool:
        return True

    def checkpoint_identity(self) -> Mapping[str, Any]:
        names = ("path", "file_format", "min_rows_per_file", "max_rows_per_file", "partition_cols")
        known = {name: getattr(self, name) for name in names if getattr(self, name, None)}
        return {"sink": self.get_name(), "mode": self.mode.value, **known}

    def checkpoint_state(self) -> Mapping[str, Any]:
        return {"write_uuid": self.write_uuid, "replaced": self._replaced}

    def resume_write(self, state: Mapping[str, Any], schema: pa.Schema | None = None) -> None:
        self.write_uuid, self._replaced = str(state["write_uuid"]), [*state["replaced"]]
        self.should_write, self._schema, self._is_resumed = True, schema, True

    def pack_returned(self, returned: list[WrittenFile]) -> Any:
        return [[file.staged, file.final, file.num_rows] for file in returned]

    def unpack_returned(self, packed: Any) -> list[WrittenFile] | None:
        files = [WrittenFile(*one) for one in packed]
        is_there = self._are_there([file.staged for file in files])
        if not all(is_there):  # the driver may have been killed when it had renamed some
            renamed = [file.final for file, found in zip(files, is_there, strict=True) if not found]
            if not all(self._are_there(renamed)):
                return None
        return files

    def _are_there(self, paths: Sequence[str]) -> list[bool]:
        infos = self._filesystem.get_file_info(list(paths)) if paths else []
        return [info.type != fs.FileType.NotFound for info in infos]

    def on_write_complete(self, write_result: base.WriteResult[list[WrittenFile]]) -> None:
        """Raises FileExistsError, and puts nothing in place, where files would replace each other or what is to stay."""
        if not self.should_write:
            return
        files = [file for written in write_result.write_returns for file in written]
        files = files or self._write_empty()
        finals = [file.final for file in files]
        self._refuse_clashes(files)
        self._is_ending = True
        if self._stages:
            self._rename(files)
        else:
            self._remove(set(self._own_files()) - set(finals))
        self._remove(set(self._replaced) - set(finals))

    def on_write_failed(self, error: Exception) -> None:
        if not self.write_uuid:
            return
        if self._stages:
            self._remove_staging()
        elif not self._is_ending:
            self._remove(self._own_files())

    def _write_empty(self) -> list[WrittenFile]:
        """What says that there are no rows, and which columns they would have, where a file can say so."""
        return []

    def _refuse_clashes(self, files: Sequence[WrittenFile]) -> None:
        finals = [file.final for file in files]
        advice = "a filename_provider must have write_uuid and task_index in each name"
        twice = [path for path, count in Counter(finals).items() if count > 1]
        if twice:
            self.on_write_failed(FileExistsError(twice[0]))
            raise FileExistsError(f"two tasks have written {twice[0]!r}; {advice}")
        if self._stages and self.mode is not base.SaveMode.OVERWRITE and finals:
            taken = [file for file, is_there in zip(files, self._are_there(finals), strict=True) if is_there]
            if self._is_resumed:  # by which its own files may have been renamed before
                taken = [file for file in taken if self.write_uuid not in posixpath.basename(file.final)]
            there = [file.final for file in taken]
            if there:
                self.on_write_failed(FileExistsError(there[0]))
                raise FileExistsError(f"{there[0]!r} is there already and would be replaced; {advice}")

    def _rename(self, files: Sequence[WrittenFile]) -> None:
        directories = {posixpath.dirname(file.final) for file in files} - {self.path}
        for directory in sorted(directories):
            self._filesystem.create_dir(directory, recursive=True)
        if self._is_resumed:  # after some were renamed, perhaps
            waiting = self._are_there([file.staged for file in files])
            files = [file for file, is_waiting in zip(files, waiting, strict=True) if is_waiting]
        listing.in_threads(lambda file: self._filesystem.move(file.staged, file.final), files)
        self._remove_staging()

    def _remove_staging(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(self._staging())

    def _own_files(self) -> list[str]:
        """What this write has put under final names so far, as far as the names tell."""
        files = listing.visible_files(self.path, self._filesystem)
        return [file.path for file in files if self.write_uuid in posixpath.basename(file.path)]

    def _remove(self, paths: Iterable[str]) -> None:
        listing.in_threads(self._remove_file, sorted(paths))

    def _remove_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    # -----------------------------------------------------------------------------------------------------------------
    # In a task.

    def _staging(self) -> str:
        return posixpath.join(self.path, _STAGING + self.write_uuid)

    def _new_try(self) -> str:
        """Where a try to run a task writes. Another try of the same task, at the same time perhaps, writes elsewhere."""
        if not self.write_uuid:
            raise RuntimeError("on_write_start() must be called before write(), on the sink that goes to the tasks")
        return posixpath.join(self._staging(), uuid.uuid4().hex) if self._stages else self.path

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[pa.NativeFile]:
        """A file that is there only if no error came. An object store makes a file of whatever was written when it is closed."""
        if self._has_directories:
            self._filesystem.create_dir(posixpath.dirname(path), recursive=True)
        stream = self._filesystem.open_output_stream(path, **self._open_stream_args)
        try:
            yield stream
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one that says what happened
                stream.close()
                self._remove_file(path)
            raise
        stream.close()


class RowBasedFileDatasink(FileDatasink):
    """A file for each row. Define `write_row_to_file(row, file)`: row is a dict, file an open pyarrow.NativeFile."""

    def write_row_to_file(self, row: dict[str, Any], file: pa.NativeFile) -> None:
        """Write one row to its file. For subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must define write_row_to_file(row, file)")

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[WrittenFile]:
        if not self.should_write:
            return []
        directory = self._new_try()
        written = []
        for block_index, table in enumerate(blocks):
            for row_index, row in enumerate(block_rows.iter_rows(table)):
                name = self.filename_provider.get_filename_for_row(
                    row, self.write_uuid, ctx.task_index, block_index, row_index
                )
                staged = posixpath.join(directory, name)
                with self._writing(staged) as file:
                    self.write_row_to_file(row, file)
                written.append(WrittenFile(staged, posixpath.join(self.path, name), 1))
        return written


class TableWriter(Protocol):
    """Writes the tables of one file, which all have the schema that it was made for."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None:
        """Write what is left. The file stays open."""


class BlockBasedFileDatasink(FileDatasink):
    """A file for many rows. Define `write_block_to_file(block, file)`: block is a table, file an open pyarrow.NativeFile.

    A task makes one file, or one for each partition, and others where max_rows_per_file wants it or the schema changes.
    min_rows_per_file, min_bytes_per_file (of blocks): how much each task gets at least. partition_cols: columns whose
    values become directories `name=value`, and are left out of the files.
    """

    _KEEPS_SCHEMA = False  # whether a file without rows says which columns there would be
    _MAY_BE_EMPTY = False  # whether one that says nothing can be read all the same, as no rows
    _collected_bytes: int | None = (
        _COLLECTED_BYTES  # after which a file is ended; None where it is written as rows come
    )

    def __init__(
        self,
        path: str,
        *,
        min_rows_per_file: int | None = None,
        max_rows_per_file: int | None = None,
        min_bytes_per_file: int | None = None,
        partition_cols: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        bounds = {
            "min_rows_per_file": min_rows_per_file,
            "max_rows_per_file": max_rows_per_file,
            "min_bytes_per_file": min_bytes_per_file,
        }
        for name, count in bounds.items():
            if count is not None and count <= 0:
                raise exceptions.InvalidOption(f"{name} must be above 0, got {count}", option=name)
        if min_rows_per_file and max_rows_per_file and min_rows_per_file > max_rows_per_file:
            raise exceptions.InvalidOption(
                f"min_rows_per_file must not be above max_rows_per_file, got {min_rows_per_file} and {max_rows_per_file}",
                option="min_rows_per_file",
            )
        self.min_rows_per_file = min_rows_per_file
        self.max_rows_per_file = max_rows_per_file
        self.min_bytes_per_file = min_bytes_per_file
        self.partition_cols = list(partition_cols or ())

    @property
    def min_rows_per_write(self) -> int | None:
        return self.min_rows_per_file

    @property
    def min_bytes_per_write(self) -> int | None:
        return self.min_bytes_per_file

    def write_block_to_file(self, block: pa.Table, file: pa.NativeFile) -> None:
        """Write the rows of a file to it. For subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must define write_block_to_file(block, file)")

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> TableWriter:
        return _Collected(self, file)

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[WrittenFile]:
        if not self.should_write:
            return []
        output = _Output(self, ctx)
        with contextlib.ExitStack() as stack:
            stack.push(output.ended)
            for table in blocks:
                for partition, rows in partitions.divided(table, self.partition_cols):
                    output.add(partition, rows)
        return output.written

    def _write_empty(self) -> list[WrittenFile]:
        if self.partition_cols or not (self._MAY_BE_EMPTY or (self._KEEPS_SCHEMA and self._schema)):
            return []
        output = _Output(self, base.WriteContext(0))
        with contextlib.ExitStack() as stack:
            stack.push(output.ended)
            output.add_empty(pa.Table.from_batches([], self._schema or pa.schema([])))
        return output.written


class _Collected:
    def __init__(self, sink: BlockBasedFileDatasink, file: pa.NativeFile) -> None:
        self._sink, self._file = sink, file
        self._tables: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        self._tables.append(table)

    def close(self) -> None:
        self._sink.write_block_to_file(schemas.concat(self._tables), self._file)


class _Output:
    """The files of one try to run one task. At most `_OPEN_FILES_MAX` are open; the one used longest ago is ended first."""

    def __init__(self, sink: BlockBasedFileDatasink, ctx: base.WriteContext) -> None:
        self.written: list[WrittenFile] = []
        self._sink, self._task_index = sink, ctx.task_index
        self._directory = sink._new_try()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        self._count = 0

    def add(self, partition: str, table: pa.Table) -> None:
        limit = self._sink.max_rows_per_file
        while table.num_rows > 0:
            file = self._file(partition, table)
            room = table.num_rows if limit is None else limit - file.num_rows
            file.write(table.slice(0, room))
            table = table.slice(min(room, table.num_rows))
            if file.num_rows == limit or self._is_full(file):
                self._end(partition)

    def add_empty(self, table: pa.Table) -> None:
        self._file("", table).write(table)

    def ended(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends all files, or leaves nothing of them."""
        try:
            while kind is None and self._open:
                self._end(next(iter(self._open)))
        except BaseException as failed:
            self._abandon(failed)
            raise
        if error is not None:
            self._abandon(error)

    def _file(self, partition: str, table: pa.Table) -> _OpenFile:
        file = self._open.get(partition)
        if file is not None and not file.takes(table.schema):
            self._end(partition)
            file = None
        if file is None:
            if len(self._open) >= _OPEN_FILES_MAX:
                self._end(next(iter(self._open)))
            file = self._open[partition] = self._begun(partition, table)
        self._open.move_to_end(partition)
        return file

    def _begun(self, partition: str, table: pa.Table) -> _OpenFile:
        sink = self._sink
        name = sink.filename_provider.get_filename_for_block(table, sink.write_uuid, self._task_index, self._count)
        relative = posixpath.join(partition, name)
        self._count += 1
        final = posixpath.join(sink.path, relative)
        return _OpenFile(sink, posixpath.join(self._directory, relative), final, table.schema)

    def _is_full(self, file: _OpenFile) -> bool:
        bound = self._sink._collected_bytes
        return bound is not None and file.size_bytes >= bound and file.num_rows >= (self._sink.min_rows_per_file or 0)

    def _end(self, partition: str) -> None:
        file = self._open.pop(partition)
        file.end()
        self.written.append(WrittenFile(file.staged, file.final, file.num_rows))

    def _abandon(self, error: BaseException) -> None:
        for file in self._open.values():
            file.abandon(error)
        self._sink._remove(file.staged for file in self.written)


class _OpenFile:
    def __init__(self, sink: BlockBasedFileDatasink, staged: str, final: str, schema: pa.Schema) -> None:
        self.staged, self.final, self._schema = staged, final, schema
        self.num_rows = self.size_bytes = 0
        self._context = sink._writing(staged)
        stream = self._context.__enter__()
        try:
            self._writer = sink._writer(stream, schema)
        except BaseException as error:
            self.abandon(error)
            raise

    def takes(self, schema: pa.Schema) -> bool:
        """Whether tables of the schema can be written as they are, or as what was written before."""
        if schema.equals(self._schema):
            return True
        try:
            return bool(schemas.unify([(self._schema, "one"), (schema, "other")]).equals(self._schema))
        except ValueError:
            return False

    def write(self, table: pa.Table) -> None:
        try:
            self._writer.write(schemas.conform(table, self._schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ValueError(f"cannot write {posixpath.basename(self.final)!r}: {error}") from error
        self.num_rows += table.num_rows
        self.size_bytes += sizes.size_bytes(table)

    def end(self) -> None:
        try:
            self._writer.close()
        except BaseException as error:
            self.abandon(error)
            raise
        self._context.__exit__(None, None, None)

    def abandon(self, error: BaseException) -> None:
        self._context.__exit__(type(error), error, error.__traceback__)


def _mode(mode: base.SaveMode | str) -> base.SaveMode:
    try:
        return base.SaveMode(mode)
    except ValueError:
        allowed = ", ".join(repr(known.value) for known in base.SaveMode)
        raise exceptions.InvalidOption(f"mode must be one of {allowed}, got {mode!r}", option="mode") from None
