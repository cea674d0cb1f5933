"""What files are called that a write makes.

A name tells the write, the task and the number of the file within the task. It is the same whenever the task is tried again, so
that a file written twice is there once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa


class FilenameProvider:
    """Define `get_filename_for_task` for names of your own: with write_uuid in it, or a later write would meet the same names.

    dataset_uuid: in front of the name, if given. file_format: its ending, without the dot.
    """

    def __init__(self, dataset_uuid: str | None = None, file_format: str | None = None) -> None:
        self.dataset_uuid = dataset_uuid
        self.file_format = file_format

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Of the files of a task; the number of each further one, or of a row's file, is put in front of the ending."""
        front = "" if self.dataset_uuid is None else f"{self.dataset_uuid}_"
        ending = "" if self.file_format is None else f".{self.file_format}"
        return f"{front}{write_uuid}_{task_index:06}{ending}"

    def get_filename_for_block(self, block: pa.Table | None, write_uuid: str, task_index: int, block_index: int) -> str:
        """Of the file with this number among those of the task; the first one has the task's name itself. block: the first rows
        that go into it."""
        name = self.get_filename_for_task(write_uuid, task_index)
        return _numbered(name, f"{block_index:06}") if block_index else name

    def get_filename_for_row(
        self, row: Mapping[str, Any], write_uuid: str, task_index: int, block_index: int, row_index: int
    ) -> str:
        """Where each row is a file of its own."""
        return _numbered(self.get_filename_for_task(write_uuid, task_index), f"{block_index:06}_{row_index:06}")


def _numbered(filename: str, number: str) -> str:
    """`a.csv.gz` with 1 is `a_1.csv.gz`."""
    directory, slash, name = filename.rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{directory}{slash}{stem}_{number}{dot}{ending}"
