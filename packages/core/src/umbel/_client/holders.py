"""Where in the program the references to an object are: in which variable, attribute or container.

Looks through everything that the garbage collector knows, which takes about 50 ms for a million objects, and goes up from
the reference until something has a name. What only native code holds, or a coroutine that waits, is not found.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
import time
import types
from collections import deque
from typing import Any

from umbel._base import frames
from umbel._client import refs

REFERENCES_MAX = 5  # for which it is said where they are
PLACES_MAX = 3  # told of one reference
STEPS_MAX = 12  # upwards, for one of them
SEARCH_S = 0.5  # for all of them: whoever asks waits a second
_UNSHARED = 3  # references to a copy of locals that nobody but its frame, and who looks, has
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def of(object_id: bytes) -> tuple[int, list[str]]:
    """(how many `ObjectRef` to it there are, where some of them are)."""
    found = [one for one in gc.get_objects() if type(one) is refs.ObjectRef and one._id == object_id]
    search = _Search(found)
    return len(found), [search.place_of(ref) for ref in found[:REFERENCES_MAX]]


def _is_traced(frame: types.FrameType | None) -> bool:
    """Whether a debugger follows the thread."""
    if threading.gettrace() is not None:
        return True
    while frame is not None and frame.f_trace is None:
        frame = frame.f_back
    return frame is not None


class _Search:
    def __init__(self, found: list[Any]) -> None:
        self._until_s = time.monotonic() + SEARCH_S
        self._ignored = {id(found), id(self), id(self.__dict__)}
        self._modules = {
            id(module.__dict__): name for name, module in list(sys.modules.items()) if hasattr(module, "__dict__")
        }
        self._locals: dict[int, str] = {}
        for frame in frames.of_threads().values():
            self._note_locals(frame)

    def _note_locals(self, frame: types.FrameType | None) -> None:
        # Before Python 3.13 a frame keeps what `f_locals` has copied, so that a reference which the program deletes would live
        # until its function returns. What the program has by `locals()`, and a debugger may write back, is not touched.
        is_left_behind = sys.version_info < (3, 13) and not _is_traced(frame)
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(_OURS) and code.co_name != "<module>":  # a module's are its variables
                snapshot = frame.f_locals
                for name, value in snapshot.items():
                    text = f"local variable {name} of {code.co_name} ({code.co_filename}:{frame.f_lineno})"
                    self._locals[id(value)] = text  # the outermost frame's, which keeps it longest
                if is_left_behind and code.co_flags & inspect.CO_OPTIMIZED and sys.getrefcount(snapshot) == _UNSHARED:
                    snapshot.clear()
            frame = frame.f_back

    def place_of(self, ref: Any) -> str:
        """In words: "list of 3 items, in variable cache of module __main__"; the nearest, if there are several."""
        waiting: deque[tuple[Any, str]] = deque([(ref, "")])
        self._ignored |= {id(waiting)}
        seen = {id(ref)}
        places: list[str] = []
        best = ""
        for _ in range(STEPS_MAX):
            if not waiting or len(places) >= PLACES_MAX or time.monotonic() > self._until_s:
                break
            thing, path = waiting.popleft()
            if id(thing) in self._locals:
                places.append(path + self._locals[id(thing)])
            above = gc.get_referrers(thing)
            self._ignored.add(id(above))
            for one in above:
                if id(one) in seen or id(one) in self._ignored or isinstance(one, types.FrameType):
                    continue
                seen.add(id(one))
                text, is_end = self._describe(one, thing)
                if is_end:
                    places.append(path + text)
                    continue
                best = best or path + text
                waiting.append((one, f"{path}{text}, in "))
                self._ignored.add(id(waiting[-1]))
        return ", and ".join(places[:PLACES_MAX]) or best or "where the garbage collector does not see it"

    def _describe(self, holder: Any, held: Any) -> tuple[str, bool]:
        """What `holder` is, and whether it says enough."""
        if isinstance(holder, dict):
            key = next((key for key, value in list(holder.items()) if value is held), None)
            module = self._modules.get(id(holder))
            if module is not None:
                return f"variable {key} of module {module}", True
            owner = next((one for one in gc.get_referrers(holder) if getattr(one, "__dict__", None) is holder), None)
            if owner is not None and not type(owner).__module__.startswith("umbel."):
                return f"attribute {key} of a {type(owner).__qualname__} object", True
            return f"dict of {len(holder)} items", False
        if isinstance(holder, (list, tuple, set, frozenset, deque)):
            return f"{type(holder).__name__} of {len(holder)} items", False
        if isinstance(holder, types.CellType):
            return "a variable that a function captured", False
        if isinstance(holder, types.FunctionType):
            return f"function {holder.__qualname__} of module {holder.__module__}", True
        cls = type(holder)
        if cls.__module__.startswith("umbel."):
            return f"{cls.__name__}", False
        names = [name for name in dir(cls) if name in getattr(cls, "__slots__", ())]
        names += list(getattr(holder, "__dict__", ()))
        name = next((name for name in names if getattr(holder, name, None) is held), "")
        return (f"attribute {name} of a {cls.__qualname__} object", True) if name else (cls.__qualname__, False)
