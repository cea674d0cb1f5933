"""`ray.util.multiprocessing`: a parameter's name has Ray in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from umbel.util.multiprocessing import pool as pools


class Pool(pools.Pool):
    """`umbel.util.multiprocessing.Pool` with Ray's names for its last two parameters."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(processes, initializer, initargs, maxtasksperchild, context, ray_address, ray_remote_args)


__all__ = ["Pool"]
