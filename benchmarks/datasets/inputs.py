"""What is read: made once in a folder, the same for every side, and kept for the next run.

Everything derives from fixed seeds. A folder is written under another name and renamed when it is whole, so that a run which was
broken off leaves nothing that the next one would take for an input.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datasets import tpch
from benchmarks.datasets.bars import Sizes

SCAN_FILES = 4
TINY_ROWS = 100  # of each tiny file
SCAN_VALUES = 10_000  # of the column that is filtered by; 1 % are below SCAN_BELOW
SCAN_BELOW = 100
IMAGE_SIZE = (400, 500)  # height, width
IMAGE_EDGE = 224  # of what each becomes
IMAGE_MEAN, IMAGE_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of each colour: those of ImageNet


def made(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The folder of that name, written now if it is not there."""
    whole = folder / name
    if not whole.exists():
        partial = folder / f".{name}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(whole)
    return whole


def scan(folder: Path, sizes: Sizes) -> Path:
    """Files of 8 columns; `kind` is what is filtered by, and rises within no file, so that statistics leave out no row group."""
    each = sizes.scan_rows // SCAN_FILES

    def write(to: Path) -> None:
        for number in range(SCAN_FILES):
            random = np.random.default_rng(number)
            columns: dict[str, Any] = {
                "kind": random.integers(0, SCAN_VALUES, each),
                "value": random.integers(0, 1_000, each),
            }
            columns.update({f"x{index}": random.random(each) for index in range(6)})
            pq.write_table(pa.table(columns), to / f"{number}.parquet", row_group_size=max(1, each // 4))

    return made(folder, f"scan-{sizes.scan_rows}", write)


def tiny(folder: Path, sizes: Sizes) -> Path:
    def write(to: Path) -> None:
        for number in range(sizes.tiny_files):
            ids = np.arange(number * TINY_ROWS, (number + 1) * TINY_ROWS)
            pq.write_table(pa.table({"id": ids, "value": ids * 2, "x": ids * 0.5}), to / f"{number:05}.parquet")

    return made(folder, f"tiny-{sizes.tiny_files}", write)


def images(folder: Path, sizes: Sizes) -> Path:
    """JPEGs in `jpeg`, of smooth colours with some noise: about as many bytes as photographs of that size have."""

    def write(to: Path) -> None:
        from PIL import Image

        height, width = IMAGE_SIZE
        first_values = 0
        (to / "jpeg").mkdir()
        down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
        for number in range(sizes.images):
            random = np.random.default_rng(number)
            smooth = 128 + 100 * np.sin(down * random.uniform(2, 20, 3) + across * random.uniform(2, 20, 3))
            pixels = np.clip(smooth + random.integers(-12, 13, (height, width, 1)), 0, 255).astype(np.uint8)
            path = to / "jpeg" / f"{number:05}.jpg"
            Image.fromarray(pixels).save(path, quality=85)
            first_values += int(scaled(path)[0, 0, 0])
        (to / "first_values").write_text(str(first_values))

    return made(folder, f"images-{sizes.images}", write)


def scaled(path: Path) -> np.ndarray:
    """The image as each side has to read it: [height, width, 3] uint8."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((IMAGE_EDGE, IMAGE_EDGE), resample=Image.Resampling.BILINEAR))


def images_answer(folder: Path) -> int:
    """The sum of the first values of all images, in a folder of `images`."""
    return int((folder / "first_values").read_text())


def tpch_tables(folder: Path, sizes: Sizes) -> Path:
    return made(folder, f"tpch-{sizes.scale_factor:g}", lambda to: tpch.write(to, sizes.scale_factor))


def group_table(sizes: Sizes) -> pa.Table:
    return pa.table({"k": np.zeros(sizes.group_rows, np.int64), "v": np.arange(sizes.group_rows)})


def batch_table(sizes: Sizes) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table({f"x{index}": random.random(sizes.batch_rows) for index in range(4)})


def join_tables(sizes: Sizes) -> tuple[pa.Table, pa.Table]:
    """Each row on the left has one on the right; those on the right come in another order, and may have any number."""
    random = np.random.default_rng(0)
    right_rows = max(1, sizes.join_rows // 2)
    left = pa.table({"key": random.integers(0, right_rows, sizes.join_rows), "a": random.random(sizes.join_rows)})
    keys = random.permutation(right_rows)
    return left, pa.table({"key": keys, "b": keys * 3})


BY_GROUP: dict[str, tuple[Callable[[Path, Sizes], Path], ...]] = {
    "parquet": (scan, tiny),
    "images": (images,),
    "tpch": (tpch_tables,),
}


def make(group: str, folder: Path, sizes: Sizes) -> None:
    """All that the rows of a group read."""
    for one in BY_GROUP.get(group, ()):
        one(folder, sizes)
