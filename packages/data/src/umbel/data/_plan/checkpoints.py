"""Writes that go on in another process: which parts of the input are done is noted in a directory (docs/design/0047).

A part is what one task of the read gives, or a block of an input in memory. Its rows go through the maps and into files by
themselves, and once they are there, the part is noted. What is noted is not read again; the sink puts all in place at the end.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import os
import platform
import posixpath
import socket
import uuid
from collections.abc import Callable
from typing import Any, Final

from pyarrow import fs

from umbel import exceptions
from umbel.data import checkpoint as configs
from umbel.data._engine import stages
from umbel.data._plan import fingerprints, logical, repeating, schemas
from umbel.data._sinks import base as sinks
from umbel.data._sources import filesystems, listing

logger = logging.getLogger("umbel.data")

FORMAT: Final = 1
# Readers pass over what begins with an underscore, so that a checkpoint may lie beside what is written.
_MANIFEST: Final = "_checkpoint.json"
_OWNER: Final = "_owner.json"
_DONE: Final = "_done.json"
_PART: Final = "_part-"
_UNFINISHED: Final = "._"
_THREADS: Final = 4  # that note parts: an object store takes some tens of milliseconds for each

PARTS_PER_CPU: Final = 16  # where nobody says how many: a sixteenth of a CPU's work is done again at most

Runner = Callable[[stages.Write, Callable[[int, Any], None]], None]
"""Runs a plan; what it gets as well is to be called with the number of each part that is written, and what came of it."""


class Checkpoint:
    """Of one write."""

    def __init__(self, config: configs.CheckpointConfig, last: logical.Write) -> None:
        self._config = config
        self._last = last
        self._sink: sinks.Datasink[Any] = last.sink
        self._check()
        self._filesystem, (self._path,) = filesystems.resolve(config.checkpoint_path, config.override_filesystem)
        self._manifest = self._read(_MANIFEST)
        self._token = uuid.uuid4().hex
        self._results: dict[int, sinks.WriteResult[Any]] = {}
        self._part_count = self._done_before = 0
        self._input_files: list[tuple[str, ...]] = []
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._notes: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    @property
    def parallelism(self) -> int | None:
        """Into how many tasks the read was divided; None if nothing was done yet."""
        return None if self._manifest is None else int(self._manifest["parallelism"])

    @property
    def done_before(self) -> int:
        """Parts that were written before this run."""
        return self._done_before

    def _check(self) -> None:
        """Raises InvalidOption where the plan cannot go on in another process."""
        for node in logical.each(self._last)[:-1]:
            if not _is_by_part(node):
                raise exceptions.InvalidOption(
                    "a write with a checkpoint has one read, and behind it operators that look at some rows at a time; there is "
                    f"{node.name}, too. Write what it gives to files, read these, and write the rest with a checkpoint",
                    option="checkpoint",
                )
        obstacle = repeating.obstacle(self._last)
        if obstacle is not None:
            raise exceptions.InvalidOption(
                f"a write with a checkpoint must be repeatable: {obstacle}", option="checkpoint"
            )
        if not self._sink.supports_checkpoints:
            raise exceptions.InvalidOption(
                f"{self._sink.get_name()} cannot go on with a write of another process, as what it has written is seen at once; "
                "write files with the checkpoint, and these to it",
                option="checkpoint",
            )
        if self._sink.min_rows_per_write or self._sink.min_bytes_per_write:
            raise exceptions.InvalidOption(
                "min_rows_per_file and min_bytes_per_file cannot be had with a checkpoint, for which no file has rows of two "
                "parts of the input; for larger files, read fewer parts by override_num_blocks",
                option="min_rows_per_file",
            )

    def write(self, plan: stages.Write, run: Runner, *, parallelism: int) -> None:
        """All that is not written yet. run: see `Runner`."""
        if self._read(_DONE) is not None:
            logger.info("all was written before, says the checkpoint %r", self._path)
            self._succeeded()
            return
        source = _source(plan)
        told = self._told(source, parallelism)
        self._part_count = len(told["parts"])
        if not self._begin(told):
            return
        try:
            if len(self._results) < self._part_count:
                run(self._rest(plan), self._note)
            else:
                self._commit([])
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _told(self, source: stages.Read | stages.Input, parallelism: int) -> dict[str, Any]:
        if isinstance(source, stages.Read):
            self._input_files = [part.input_files for part in source.parts]
        return {
            "format": FORMAT,
            "python": platform.python_version(),
            "parallelism": parallelism,
            "operators": fingerprints.operators(self._last),
            "parts": fingerprints.parts(source, logical.each(self._last)[0]),
            "sink": dict(self._sink.checkpoint_identity()),
        }

    def _begin(self, told: dict[str, Any]) -> bool:
        """Whether there is anything to be written."""
        schema = schemas.of(self._last.input)
        if self._manifest is None:
            self._sink.on_write_start(schema)
            if not self._sink.should_write:
                return False
            if filesystems.has_rename(self._filesystem):
                self._filesystem.create_dir(self._path, recursive=True)
            self._write(_OWNER, self._owner())
            self._write(_MANIFEST, {**told, "sink_state": dict(self._sink.checkpoint_state())})
            return True
        self._compare(self._manifest, json.loads(json.dumps(told)))
        self._write(_OWNER, self._owner())
        self._sink.resume_write(self._manifest["sink_state"], schema)
        self._results = self._noted()
        self._done_before = len(self._results)
        logger.info(
            "%d of %d parts were written before, says the checkpoint %r",
            self._done_before,
            self._part_count,
            self._path,
        )
        return True

    def _owner(self) -> dict[str, Any]:
        return {"token": self._token, "host": socket.gethostname(), "process": os.getpid()}

    # -----------------------------------------------------------------------------------------------------------------
    # Whether it is the same write.

    def _compare(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        if was.get("format") != FORMAT:
            raise self._another(f"it has format {was.get('format')!r}, and this version of umbel.data reads {FORMAT}")
        compares_code = self._config.compares_functions and _minor(was["python"]) == _minor(now["python"])
        for number, (before, after) in enumerate(zip(was["operators"], now["operators"], strict=False), 1):
            if before[:2] != after[:2]:
                changed = f"its operator {number} was {before[0]} ({before[1]}), and is {after[0]} ({after[1]}) now"
                raise self._another(changed)
            if compares_code and before[2] != after[2]:
                raise self._another(
                    f"the code of its operator {number}, {after[0]}, has changed since; compares_functions=False of "
                    "CheckpointConfig goes on nevertheless, with what was written by the old code"
                )
        if len(was["operators"]) != len(now["operators"]):
            raise self._another(f"it had {len(was['operators'])} operators, and has {len(now['operators'])} now")
        if was["sink"] != now["sink"]:
            raise self._another(f"it was written as {was['sink']}, and is now as {now['sink']}")
        if len(was["parts"]) != len(now["parts"]):
            raise self._another(f"its input had {len(was['parts'])} parts, and has {len(now['parts'])} now")
        pairs = enumerate(zip(was["parts"], now["parts"], strict=True))
        changed_parts = [number for number, (before, after) in pairs if before != after]
        if changed_parts:
            raise self._another(
                f"its input has changed: {len(changed_parts)} of its {len(now['parts'])} parts are not what they were, the "
                f"first is part {changed_parts[0]}{self._files_of(changed_parts[0])}"
            )

    def _another(self, what: str) -> exceptions.InvalidOption:
        return exceptions.InvalidOption(
            f"the checkpoint {self._path!r} is of another write: {what}. Give each write a path of its own, or delete this "
            "one to begin anew",
            option="checkpoint",
        )

    def _files_of(self, number: int) -> str:
        files = self._input_files[number] if number < len(self._input_files) else ()
        if not files:
            return ""
        return f", of {files[0]!r}" + (f" and {len(files) - 1} more files" if len(files) > 1 else "")

    # -----------------------------------------------------------------------------------------------------------------
    # What is noted.

    def _noted(self) -> dict[int, sinks.WriteResult[Any]]:
        """Of each part that is done, what its task returned. One whose files are gone is not done."""
        files = listing.files_named(self._path, self._filesystem, (_PART,))
        found: dict[int, sinks.WriteResult[Any]] = {}
        for told in listing.in_threads(lambda path: self._read(posixpath.basename(path)), files):
            assert told is not None
            returned = [self._sink.unpack_returned(one) for one in told["returned"]]
            if None not in returned:
                found[told["part"]] = sinks.WriteResult(told["rows"], told["bytes"], returned)
        return found

    def _note(self, number: int, result: sinks.WriteResult[Any]) -> None:
        """Called by the thread that drives the run, which does not wait for it. Raises what noting another part has raised."""
        self._results[number] = result
        told = {
            "part": number,
            "rows": result.num_rows,
            "bytes": result.size_bytes,
            "returned": [self._sink.pack_returned(one) for one in result.write_returns],
        }
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="umbel-data-checkpoint")
        self._notes.append(self._pool.submit(self._note_part, number, told))
        while self._notes and self._notes[0].done():
            self._notes.popleft().result()

    def _note_part(self, number: int, told: dict[str, Any]) -> None:
        self._check_owner()
        self._write(f"{_PART}{number:06}.json", told)

    def _check_owner(self) -> None:
        owner = self._read(_OWNER) or {}
        if owner.get("token") != self._token:
            raise exceptions.InvalidOption(
                f"another run goes on with the checkpoint {self._path!r} since, of process {owner.get('process')} on "
                f"{owner.get('host')!r}, so that this one is given up; run a write only once at a time",
                option="checkpoint",
            )

    # -----------------------------------------------------------------------------------------------------------------
    # Running the rest.

    def _rest(self, plan: stages.Write) -> stages.Write:
        skipped = frozenset(self._results)
        return dataclasses.replace(
            plan, input=_by_part(plan.input, skipped), by_part=True, begin=None, commit=self._commit, abort=self._abort
        )

    def _commit(self, _results: list[Any]) -> None:
        """All parts are written, in this run or before."""
        for note in self._notes:
            note.result()
        self._check_owner()
        ordered = [self._results[number] for number in sorted(self._results)]
        self._sink.on_write_complete(sinks.WriteResult.combine(*ordered))
        self._write(_DONE, {})
        self._succeeded()

    def _abort(self, _error: BaseException) -> None:
        logger.warning(
            "the write was not finished; %d of its %d parts are, and noted in %r: run it again to go on",
            len(self._results), self._part_count, self._path,
        )  # fmt: skip

    def _succeeded(self) -> None:
        if not self._config.delete_checkpoint_on_success:
            return
        parts = listing.files_named(self._path, self._filesystem, (_PART, _UNFINISHED))
        names = [
            posixpath.join(self._path, name) for name in (_MANIFEST, _OWNER, _DONE)
        ]  # the end is noted to the last
        for paths in (parts, names[:2], names[2:]):
            listing.in_threads(self._delete, paths)
        if filesystems.has_rename(self._filesystem):
            selector = fs.FileSelector(self._path, allow_not_found=True)
            if not self._filesystem.get_file_info(selector):
                with contextlib.suppress(FileNotFoundError):
                    self._filesystem.delete_dir(self._path)

    # -----------------------------------------------------------------------------------------------------------------
    # Files.

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with self._filesystem.open_input_stream(posixpath.join(self._path, name), compression=None) as stream:
                data = stream.readall()
        except FileNotFoundError:
            return None
        found: dict[str, Any] = json.loads(data)
        return found

    def _write(self, name: str, told: dict[str, Any]) -> None:
        """Whole or not at all."""
        path = posixpath.join(self._path, name)
        is_renamed = filesystems.has_rename(self._filesystem)
        written = posixpath.join(self._path, f"{_UNFINISHED}{name}.{uuid.uuid4().hex}") if is_renamed else path
        with self._filesystem.open_output_stream(written, compression=None) as stream:
            stream.write(json.dumps(told).encode())
        if is_renamed:
            self._filesystem.move(written, path)


_BY_PART: Final = (
    logical.Read,
    logical.FromBlocks,
    logical.MapRows,
    logical.MapBatches,
    logical.Filter,
    logical.Project,
    logical.Rename,
    logical.Sample,
)


def _is_by_part(node: logical.Node) -> bool:
    """What it gives of a part of the input depends on nothing else."""
    if isinstance(node, logical.Repartition):
        return node.block_rows is not None and not node.is_strict
    return isinstance(node, _BY_PART)


def opened(last: logical.Write, config: configs.CheckpointConfig | None) -> Checkpoint | None:
    """That of a write, if it is to have one. config: of the context."""
    config = last.checkpoint or config
    return None if config is None else Checkpoint(config, last)


def _source(stage: stages.Stage) -> stages.Read | stages.Input:
    while isinstance(stage, stages.Write | stages.Map):
        stage = stage.input
    assert isinstance(stage, stages.Read | stages.Input)
    return stage


def _by_part(stage: stages.Stage, skipped: frozenset[int]) -> stages.Stage:
    if isinstance(stage, stages.Map):
        return dataclasses.replace(stage, input=_by_part(stage.input, skipped), by_part=True)
    assert isinstance(stage, stages.Read | stages.Input)
    return dataclasses.replace(stage, skipped=skipped)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
