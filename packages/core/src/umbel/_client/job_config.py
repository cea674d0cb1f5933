"""`JobConfig`: what a driver says of its job. Not loaded unless asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from umbel import exceptions
from umbel._client import absent

_ARGUMENTS: Final = (
    "jvm_options", "code_search_path", "runtime_env", "metadata", "ray_namespace", "default_actor_lifetime", "priority", "weight",
    "preempt",
)  # fmt: skip


class JobConfig:
    """For `umbel.init(job_config=...)`.

    priority: an integer. On a node that several jobs want more of than it has, those of higher priority go first. weight: of
    this job's share among those of its priority, a number > 0. preempt: whether tasks of jobs of lower priority that will be
    tried again are stopped for it, instead of waiting for their ends; such a stop is no retry of theirs. metadata: of strings,
    for listings. runtime_env and ray_namespace: as `runtime_env` and `namespace` of `init`, which go before them.
    default_actor_lifetime, jvm_options, code_search_path: as Ray has them, of which other values than the defaults mean nothing
    here. Raises TypeError and ValueError for wrong values.
    """

    def __init__(
        self,
        jvm_options: Sequence[str] | None = None,
        code_search_path: Sequence[str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        _client_job: bool = False,
        metadata: Mapping[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        *,
        priority: int = 0,
        weight: float = 1.0,
        preempt: bool = False,
    ) -> None:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(
                f"priority must be an integer, got {priority!r} of type {type(priority).__name__}; omit it for 0, higher "
                "ones go first"
            )
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(
                f"weight must be a number, got {weight!r} of type {type(weight).__name__}; omit it for 1, a job of weight 3 "
                "gets three times as much as one of weight 1"
            )
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight must be a finite number > 0, got {weight!r}; omit it for 1")
        if not isinstance(preempt, bool):
            raise TypeError(
                f"preempt must be True or False, got {preempt!r} of type {type(preempt).__name__}; omit it for False"
            )
        metadata = dict(metadata or {})
        for key, value in metadata.items():
            _check_metadata(key, value)
        if ray_namespace is not None and (not isinstance(ray_namespace, str) or not ray_namespace):
            raise TypeError(
                f"ray_namespace must be a non-empty string, got {ray_namespace!r}; omit it for one of its own"
            )
        self.priority = priority
        self.weight = float(weight)
        self.preempt = preempt
        self.metadata = metadata
        self.runtime_env = dict(runtime_env or {})
        self.ray_namespace = ray_namespace
        self.set_default_actor_lifetime(default_actor_lifetime)
        if jvm_options or code_search_path:
            given = [
                name for name, value in (("jvm_options", jvm_options), ("code_search_path", code_search_path)) if value
            ]
            warnings.warn(f"JobConfig() ignores {', '.join(given)}: Umbel runs Python only", stacklevel=2)

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> JobConfig:
        """Of a mapping with some of the arguments' names. Raises TypeError and ValueError."""
        unknown = sorted(map(str, job_config_json.keys() - set(_ARGUMENTS)))
        if unknown:
            raise ValueError(
                f"a JobConfig may have {', '.join(_ARGUMENTS)}, got {', '.join(unknown)}; remove what is not known"
            )
        return cls(**job_config_json)

    set_py_logging_config = absent.Absent("pass logging_config to init()")

    def set_metadata(self, key: str, value: str) -> None:
        _check_metadata(key, value)
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> None:
        self.runtime_env = dict(runtime_env or {})

    def set_ray_namespace(self, ray_namespace: str) -> None:
        self.ray_namespace = ray_namespace

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        if default_actor_lifetime == "detached":
            raise exceptions.UnsupportedFeature(
                "JobConfig(default_actor_lifetime='detached') is not there; give actors lifetime='detached' by options()"
            )
        if default_actor_lifetime != "non_detached":
            raise ValueError(f"default_actor_lifetime must be 'non_detached', got {default_actor_lifetime!r}; omit it")
        self.default_actor_lifetime = default_actor_lifetime

    def facts(self) -> dict[str, Any]:
        """For the daemon."""
        return {
            "priority": self.priority,
            "weight": self.weight,
            "preempt": self.preempt,
            "metadata": dict(self.metadata),
        }

    def __repr__(self) -> str:
        return f"JobConfig(priority={self.priority}, weight={self.weight:g}, preempt={self.preempt})"


def _check_metadata(key: object, value: object) -> None:
    if not (isinstance(key, str) and isinstance(value, str)):
        raise TypeError(
            f"metadata must be a dict of strings by strings, got {key!r}: {value!r}; write str(...) around it"
        )
