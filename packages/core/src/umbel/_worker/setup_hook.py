"""Calls the user's `worker_process_setup_hook` in a worker that has just been started."""

from __future__ import annotations

import sys
from typing import Any, NoReturn


def call(hook: Any, failure_path: str) -> None:
    """hook: as it travels. If it fails, this process ends, and the reason is in `failure_path` for the agent."""
    try:
        _resolved(hook)()
    except BaseException as error:
        _fail(error, failure_path)


def _resolved(hook: Any) -> Any:
    if isinstance(hook, str):
        import importlib

        module, _, name = hook.rpartition(".")
        return getattr(importlib.import_module(module), name)
    import base64

    import cloudpickle

    return cloudpickle.loads(base64.b64decode(hook["pickled"]))


def _fail(error: BaseException, failure_path: str) -> NoReturn:
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with open(failure_path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"worker_process_setup_hook failed:\n{text}")
    sys.exit(1)
