"""WebDataset: tar files in which the files of one sample follow each other and share their name up to its first dot.

A row for each sample: a column for each ending (`jpg`, `seg.png`), `__key__` with the name, `__url__` with the tar file.
"""

from __future__ import annotations

import fnmatch
import io
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import rows as block_rows
from umbel.data._sources import errors, files, filesystems

Sample = dict[str, Any]
Patterns = Sequence[str] | Callable[[str], bool] | None
Decoder = bool | str | Callable[[Sample], Sample] | Sequence[Any] | None

IMAGES: Final = ("jpg", "jpeg", "png", "ppm", "pgm", "pbm", "pnm", "webp", "bmp", "gif", "tif", "tiff")
UNSAFE: Final = ("pkl", "pickle", "pt", "pth")


class WebDatasetDatasource(files.FileBasedDatasource):
    """decoder: True for text, numbers, images, JSON and arrays by their endings; a mode of Pillow's, such as "RGB", for images in
    that mode too; False or None for bytes; a function of the sample; a list of these, one after the other.

    fileselect: patterns of the names in the tar that are read, or a function. filerename: pairs of what in a name is replaced by
    what, or a function. suffixes: patterns of the endings that are kept, or a function. expand_json: each name within a
    sample's `json` is a column.
    """

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("tar", "tar.gz", "tgz")

    def __init__(
        self,
        paths: filesystems.Paths,
        *,
        decoder: Decoder = True,
        fileselect: Patterns = None,
        filerename: Sequence[tuple[str, str]] | Callable[[str], str] | None = None,
        suffixes: Patterns = None,
        expand_json: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(paths, **options)
        self._decoder = decoder
        self._fileselect, self._filerename, self._suffixes = fileselect, filerename, suffixes
        self._expand_json = expand_json

    def get_name(self) -> str:
        return "WebDataset"

    def _open_input_source(self, path: str) -> pa.NativeFile:
        if path.endswith(".tgz") and "compression" not in self._open_stream_args:
            return self._filesystem.open_input_stream(path, **{**self._open_stream_args, "compression": "gzip"})
        return super()._open_input_source(path)

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        rows: list[Sample] = []
        size_bytes = 0
        for sample in self._samples(f):
            size_bytes += sum(len(value) for value in sample.values())
            rows.append(self._decoded({**sample, "__url__": path}))
            if size_bytes >= files.PIECE_BYTES:
                yield block_rows.from_rows(rows)
                rows, size_bytes = [], 0
        if rows:
            yield block_rows.from_rows(rows)

    def _samples(self, stream: Any) -> Iterator[Sample]:
        sample: Sample = {}
        finished: set[str] = set()
        for name, data in self._members(stream):
            key, ending = split_name(name)
            if key is None:
                continue
            if key != sample.get("__key__"):
                if len(sample) > 1:
                    yield sample
                if sample:
                    finished.add(sample["__key__"])
                if key in finished:
                    raise ValueError(
                        f"the files of sample {key!r} do not follow each other; make the tar anew with its files sorted by name"
                    )
                sample = {"__key__": key}
            if ending in sample:
                raise ValueError(f"sample {key!r} has two files that end with {ending!r}")
            if _matches(ending, self._suffixes) or _matches(f".{ending}", self._suffixes):
                sample[ending] = data
        if len(sample) > 1:
            yield sample

    def _members(self, stream: Any) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = self._renamed(member.name)
                if member.isfile() and _matches(name, self._fileselect):
                    opened = archive.extractfile(member)
                    if opened is not None:
                        yield name, opened.read()

    def _renamed(self, name: str) -> str:
        if callable(self._filerename):
            return self._filerename(name)
        for old, new in self._filerename or ():
            name = name.replace(old, new)
        return name

    def _decoded(self, sample: Sample) -> Sample:
        steps = list(self._decoder) if isinstance(self._decoder, (list, tuple)) else [self._decoder]
        for step in steps:
            if callable(step):
                sample = step(sample)
            elif isinstance(step, str):
                sample = decode(sample, image_mode=step)
            elif step:
                sample = decode(sample)
        if not self._expand_json:
            return sample
        nested = sample.pop("json")
        return {**(json.loads(nested) if isinstance(nested, (str, bytes)) else nested), **sample}


def split_name(name: str) -> tuple[str | None, str]:
    """`train/1.seg.png` is `train/1` and `seg.png`. A hidden file, or one without an ending, belongs to no sample."""
    directory, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    if not stem or not dot or not ending:
        return None, ""
    return posixpath.join(directory, stem), ending


def decode(sample: Mapping[str, Any], *, image_mode: str | None = None) -> Sample:
    """Values by the last of their endings; those that are no bytes any more as they are."""
    return {
        name: _value(name, value, image_mode) if isinstance(value, bytes) and not name.startswith("__") else value
        for name, value in sample.items()
    }


def _value(name: str, data: bytes, image_mode: str | None) -> Any:
    ending = name.rpartition(".")[2].lower()
    if ending in ("txt", "text", "transcript"):
        return data.decode()
    if ending in ("cls", "cls2", "index", "inx", "id"):
        return int(data)
    if ending in IMAGES:
        return _image(data, image_mode)
    if ending in ("json", "jsn"):
        return json.loads(data)
    if ending == "npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    if ending in UNSAFE:
        raise ValueError(
            f"{name!r} is a pickle, which runs what it says when it is read; pass decoder= with a function you trust"
        )
    return data


def _image(data: bytes, mode: str | None) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise errors.missing_library("Pillow", what="reading images", extra="umbel-data[images]") from error
    with Image.open(io.BytesIO(data)) as image:
        if mode is not None and mode.upper() != "PIL":
            image = image.convert(mode.upper() if mode.islower() else mode)
        pixels: np.ndarray = np.asarray(image)
        return pixels


def _matches(name: str, patterns: Patterns) -> bool:
    if patterns is None:
        return True
    if callable(patterns):
        return bool(patterns(name))
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
