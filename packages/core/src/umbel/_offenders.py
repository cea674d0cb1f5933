"""Which part of a value cannot be pickled.

Walks attributes, items and closures, only after pickling failed, so its cost is on the error path alone. A part is at fault
when it fails with the very text that the whole fails with: what is inside of something that refuses to be pickled is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DEPTH_MAX = 8  # deeper nesting is reported by its container
VISITS_MAX = 500  # each visit pickles a part; an error message is not worth more


def find(value: Any, error: BaseException) -> str | None:
    """A path such as `.lock (_thread.lock)` to the innermost part that cannot be pickled, or None when unclear.

    error: what pickling `value` raised."""
    try:
        return _search(value, str(error), "", DEPTH_MAX, [VISITS_MAX], set())
    except Exception:  # a part's own code fails where it is only looked at; what is explained has failed anyhow
        return None


def is_refusal(error: BaseException) -> bool:
    """Whether something said of itself, in its `__reduce__`, that it cannot be pickled."""
    code = None
    trace = error.__traceback__
    while trace is not None:
        code, trace = trace.tb_frame.f_code, trace.tb_next
    return code is not None and code.co_name in ("__reduce__", "__reduce_ex__", "__getstate__")


def _fault(value: Any) -> str | None:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        return str(error)
    return None


def _search(value: Any, fault: str, path: str, depth: int, budget: list[int], seen: set[int]) -> str | None:
    if id(value) in seen:
        return None
    seen.add(id(value))
    for step, part in _parts(value):
        if budget[0] <= 0:
            break
        budget[0] -= 1
        if _fault(part) == fault:
            if depth > 0:
                deeper = _search(part, fault, path + step, depth - 1, budget, seen)
                if deeper:
                    return deeper
            return _name(path + step, part)
    return _name(path, value) if path else None


def _name(path: str, value: Any) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else kind.__module__ + "."
    return f"{path} ({module}{kind.__qualname__})"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"[{key!r}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False):
            try:
                yield f".{name} (captured by {function.__name__})", cell.cell_contents
            except ValueError:  # the variable is not bound yet
                continue
        names = getattr(function, "__globals__", {})
        for name in code.co_names:
            if name in names and function.__module__ == "__main__":
                yield f".{name} (global used by {function.__name__})", names[name]
        return
    if isinstance(value, BaseException):
        yield ".args", value.args
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        for name, item in list(attributes.items()):
            yield f".{name}", item
