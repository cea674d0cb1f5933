"""Images: a row for each file, in the column `image`: height, width and, but for one-channel modes, channels, of uint8."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import tensors
from umbel.data._sources import errors, files, filesystems

_COLUMN: Final = "image"
_CHANNELS: Final[Mapping[str, tuple[int, ...]]] = {
    "L": (),
    "P": (),
    "LA": (2,),
    "RGB": (3,),
    "YCbCr": (3,),
    "HSV": (3,),
    "LAB": (3,),
    "RGBA": (4,),
    "CMYK": (4,),
}


class ImageDatasource(files.FileBasedDatasource):
    """size: (height, width) that all are scaled to. mode: of Pillow's, that all are brought to, "RGB" for one."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp")
    _VALUE_COLUMN = _COLUMN
    _INMEMORY_RATIO = 10.0  # of JPEG; less of others

    def __init__(
        self, paths: filesystems.Paths, *, size: tuple[int, int] | None = None, mode: str | None = None, **options: Any
    ) -> None:
        _pillow()  # where it is missing, that is better said here than in each task
        if size is not None and (len(size) != 2 or min(size) <= 0):
            raise exceptions.InvalidOption(f"size must be (height, width), both above 0, got {size!r}", option="size")
        super().__init__(paths, **options)
        self._size, self._mode = size, mode

    def get_name(self) -> str:
        return "Image"

    def _file_schema(self) -> pa.Schema | None:
        channels = None if self._mode is None else _CHANNELS.get(self._mode)
        if self._size is None or channels is None:
            return None
        return pa.schema([(_COLUMN, pa.fixed_shape_tensor(pa.uint8(), (*self._size, *channels)))])

    def estimate_inmemory_data_size(self) -> int | None:
        schema = self._file_schema()
        if schema is None:
            return super().estimate_inmemory_data_size()
        return len(self._files) * int(np.prod(schema.field(0).type.shape))

    def _value(self, f: pa.NativeFile, path: str) -> np.ndarray:
        with _pillow().open(io.BytesIO(f.read())) as image:
            if self._mode is not None and image.mode != self._mode:
                image = image.convert(self._mode)
            if self._size is not None:
                height, width = self._size
                image = image.resize((width, height), resample=_pillow().Resampling.BILINEAR)
            pixels: np.ndarray = np.asarray(image)
            return pixels

    def _value_array(self, values: Sequence[np.ndarray], paths: Sequence[str]) -> pa.Array:
        first = values[0]
        for pixels, path in zip(values, paths, strict=True):
            if (pixels.ndim, pixels.dtype) != (first.ndim, first.dtype):
                raise ValueError(
                    f"{paths[0]!r} is an image of {_shown(first)}, and {path!r} one of {_shown(pixels)}; bring them to one mode, "
                    'by mode="RGB" for one'
                )
        return tensors.from_arrays(values)


def _shown(pixels: np.ndarray) -> str:
    return f"{' x '.join(map(str, pixels.shape))} {pixels.dtype}"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise errors.missing_library("Pillow", what="reading images", extra="umbel-data[images]") from error
    return Image
