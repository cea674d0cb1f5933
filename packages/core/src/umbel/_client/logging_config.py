"""`umbel.LoggingConfig`: how the driver and the workers of a job write what they log. Not loaded unless asked for."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from umbel._client import context, current

ENCODINGS = ("TEXT", "JSON")
_TEXT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
_RECORD = logging.makeLogRecord({})
STANDARD_ATTRS = frozenset((*vars(_RECORD), "asctime", "message", "taskName"))


@dataclasses.dataclass
class LoggingConfig:
    """For `umbel.init(logging_config=...)`: the root logger of the driver, of tasks and of actors writes to standard error.

    encoding: "TEXT" or "JSON", one object a line. log_level: from which level on, a name or number. Both have the ids and
    names of the job, node, worker, actor and task, and what was passed as `extra`. additional_log_standard_attrs: more
    attributes of log records, such as "name" or "funcName". Raises ValueError for others, TypeError for wrong types.
    """

    encoding: str = "TEXT"
    log_level: int | str = "INFO"
    additional_log_standard_attrs: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {self.encoding!r}; omit it for TEXT")
        level = self.log_level
        if isinstance(level, bool) or not isinstance(level, (int, str)):
            raise TypeError(
                f"log_level must be a number or a name such as 'INFO', got {level!r} of type {type(level).__name__}; omit "
                "it for INFO"
            )
        if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
            raise ValueError(
                f"log_level must be a number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got {level!r}; omit it for INFO"
            )
        for name in self.additional_log_standard_attrs:
            if name not in STANDARD_ATTRS:
                raise ValueError(
                    f"additional_log_standard_attrs must be attributes of log records, got {name!r}; there are "
                    f"{', '.join(sorted(STANDARD_ATTRS))}"
                )

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoggingConfig:
        """From what `to_dict` returned; other keys are left."""
        known = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in known if name in values})


class _Handler(logging.StreamHandler[Any]):
    """To whatever is standard error at the time: a worker's knows whose line it is."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _value: Any) -> None:
        """What `logging` sets is the standard error of that moment."""


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__(_TEXT)
        self._config = config

    def format(self, record: logging.LogRecord) -> str:
        more = {name: getattr(record, name, None) for name in self._config.additional_log_standard_attrs}
        more.update({name: value for name, value in vars(record).items() if name not in STANDARD_ATTRS})
        more.update(ids())
        more["timestamp_ns"] = int(record.created * 1e9)
        if self._config.encoding == "TEXT":
            return " ".join((super().format(record), *(f"{name}={value}" for name, value in more.items())))
        told: dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            told["exc_text"] = record.exc_text = record.exc_text or self.formatException(record.exc_info)
        return json.dumps({**told, **more}, default=str)


def ids() -> dict[str, str]:
    """What is running here, by id and name; without what there is none of."""
    engine = current.running_engine()
    if engine is None:
        return {}
    session, task = engine.session_context, context.current_task.get()
    found = {"job_id": session.job_id, "worker_id": session.worker_id, "node_id": session.node_id}
    if task is not None:
        found |= {"task_id": task.task_id, "task_name": task.name, "task_func_name": task.function_name}
        if task.actor is not None:
            found |= {"actor_id": task.actor.actor_id, "actor_name": task.actor.name}
    return {name: text for name, text in found.items() if text}


def apply(config: LoggingConfig) -> None:
    """Have this process's root logger, and Umbel's, write so. A second time, it takes the place of the first."""
    root, ours = logging.getLogger(), logging.getLogger("umbel")
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler()
    handler.setLevel(config.log_level)
    handler.setFormatter(_Formatter(config))
    root.addHandler(handler)
    root.setLevel(config.log_level)
    ours.setLevel(config.log_level)
