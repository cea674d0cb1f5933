"""`ray.util.joblib`: the backend is called "ray" there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joblib import parallel

from umbel.util import joblib


class RayBackend(joblib.UmbelBackend):
    """`UmbelBackend` with Ray's name for its option."""

    def __init__(self, *args: Any, ray_remote_args: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, umbel_remote_args=ray_remote_args, **options)

    def configure(self, *args: Any, **options: Any) -> int:
        if "ray_remote_args" in options:
            options["umbel_remote_args"] = options.pop("ray_remote_args")
        return super().configure(*args, **options)


def register_ray() -> None:
    """Make `backend="ray"` known to joblib."""
    parallel.register_parallel_backend("ray", RayBackend)


__all__ = ["register_ray"]
