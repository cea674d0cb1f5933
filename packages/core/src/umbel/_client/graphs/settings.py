"""What graphs do when they are not told otherwise."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any


def _default(name: str, value: float) -> Any:
    """A field whose default is UMBEL_CGRAPH_<NAME>, or `value`."""

    def read() -> float:
        text = os.environ.get(f"UMBEL_CGRAPH_{name.upper()}")
        if text is None:
            return value
        try:
            return type(value)(float(text))
        except ValueError:
            raise ValueError(f"UMBEL_CGRAPH_{name.upper()} must be a number, got {text!r}") from None

    return field(default_factory=read)


@dataclass
class DAGContext:
    """Settings of compiled graphs in this process: `DAGContext.get_current().get_timeout = 60`. Times are in seconds; -1
    is for ever. Each starts as the variable UMBEL_CGRAPH_<NAME> of the environment says."""

    submit_timeout: float = _default("submit_timeout", 10.0)
    get_timeout: float = _default("get_timeout", 10.0)
    teardown_timeout: float = _default("teardown_timeout", 30.0)
    buffer_size_bytes: int = _default("buffer_size_bytes", 1_000_000)
    max_inflight_executions: int = _default("max_inflight_executions", 10)
    max_buffered_results: int = _default("max_buffered_results", 1000)

    @staticmethod
    def get_current() -> DAGContext:
        """This process's."""
        if _current.context is None:
            with _current.lock:
                if _current.context is None:
                    _current.context = DAGContext()
        return _current.context


class _Current:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.context: DAGContext | None = None


_current = _Current()
