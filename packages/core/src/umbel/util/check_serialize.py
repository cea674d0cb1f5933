"""Finding out why a value cannot be sent to another process."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from umbel._client import serializers

PARTS_MAX = 1_000  # of one container that are tried; the first offender is what is wanted
TEXT_MAX = 80  # characters of a value that are printed


@dataclass(frozen=True, eq=False)
class FailureTuple:
    """A part that cannot be serialized: `parent` holds it, `path` leads to it from the inspected value.

    Compares and hashes by the identity of the part, which need not be hashable itself.
    """

    obj: Any
    path: tuple[str, ...]
    parent: Any

    @property
    def name(self) -> str:
        return self.path[-1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailureTuple) and other.obj is self.obj and other.path == self.path

    def __hash__(self) -> int:
        return hash((id(self.obj), self.path))

    def __repr__(self) -> str:
        return f"FailureTuple({' > '.join(self.path)}: {_text(self.obj)}, in {_text(self.parent)})"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether `base_obj` can be sent to another process, and the innermost parts that are to blame.

    Looks `depth` levels deep into attributes, items and what functions use. Prints a tree to `print_file` (default:
    standard output). Every failing branch is followed, so all offenders within reach are named.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth!r}")
    label = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__qualname__
    inspection = _Inspection(print_file or sys.stdout)
    is_fine = inspection.visit(base_obj, (label,), None, depth)
    inspection.conclude(label, is_fine)
    return is_fine, inspection.failures


@dataclass
class _Inspection:
    output: TextIO
    failures: set[FailureTuple] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)

    def visit(self, value: Any, path: tuple[str, ...], parent: Any, depth: int) -> bool:
        """Whether `value` can be serialized; prints it and follows it when not."""
        error = _error_of(value)
        if error is None:
            return True
        if id(value) in self.seen:
            return False
        self.seen.add(id(value))
        self._print(path, f"{path[-1]}: {_text(value)}: {type(error).__name__}: {_first_line(error)}")
        is_inner_found = False
        if depth > 0:
            for step, part in _parts(value):
                is_inner_found |= not self.visit(part, (*path, step), value, depth - 1)
        if not is_inner_found:
            self.failures.add(FailureTuple(value, path, parent))
            self._print((*path, ""), "^ this part is at fault" if depth > 0 else "^ raise depth to look inside")
        return False

    def conclude(self, label: str, is_fine: bool) -> None:
        if is_fine:
            self._print((label,), f"{label} can be serialized")
            return
        paths = ", ".join(sorted(" > ".join(failure.path) for failure in self.failures))
        self._print(
            (label,),
            f"{label} cannot be serialized because of: {paths}\nCreate such parts inside the task or actor that uses "
            "them, leave them out with __getstate__, or register a serializer (umbel.util.register_serializer).",
        )

    def _print(self, path: tuple[str, ...], text: str) -> None:
        print("  " * (len(path) - 1) + text, file=self.output)


def _error_of(value: Any) -> BaseException | None:
    try:
        serializers.serialize(value)
    except Exception as error:  # a user's __reduce__ or __getstate__ may raise anything
        return error.__cause__ or error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What `value` takes along when it is pickled, each with how to say where it is."""
    return itertools.islice(_all_parts(value), PARTS_MAX)


def _all_parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield "its function", value.__func__
        yield "self", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, type):
        yield from ((f"class attribute {name!r}", part) for name, part in _class_attributes(value))
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"key {key!r}", key
            yield f"[{key!r}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    else:
        yield from _instance_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"captured variable {name!r}", cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for name in sorted(_names_used(code)):
        if name in function.__globals__:
            yield f"global variable {name!r}", function.__globals__[name]
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"default of parameter {index}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default of parameter {name!r}", default
    yield from ((f".{name}", part) for name, part in vars(function).items())


def _names_used(code: types.CodeType) -> set[str]:
    """Global names that a function uses, also in the functions defined inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_used(constant)
    return names


def _class_attributes(cls: type) -> Iterator[tuple[str, Any]]:
    for name, part in list(vars(cls).items()):
        if name in ("__dict__", "__weakref__"):
            continue
        yield name, part.__func__ if isinstance(part, (staticmethod, classmethod)) else part


def _instance_parts(value: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield from ((f".{name}", part) for name, part in list(attributes.items()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                yield f".{name}", getattr(value, name)
    if _error_of(type(value)) is not None:
        yield "its class", type(value)


def _text(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a half-built object may raise anything
        text = f"<{type(value).__qualname__}, whose repr raised {error!r}>"
    text = " ".join(text.split())
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
