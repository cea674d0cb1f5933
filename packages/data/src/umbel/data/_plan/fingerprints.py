"""What a plan and its input are, in a form that another process can compare with its own.

Of a user's function that is its name and its code, not what its closure or the modules that it calls hold.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel import exceptions
from umbel.data._engine import blocks_out, stages
from umbel.data._expressions.expr import Expr
from umbel.data._plan import calls, logical

_APART: Final = frozenset({"input", "left", "right", "several", "means", "blocks", "source", "sink", "checkpoint"})
_SHOWN_CHARS: Final = 64  # of a digest: more than enough that two do not meet


def operators(last: logical.Node) -> list[list[str]]:
    """Of each node, from the source on, its name, its arguments and the digest of its function's code."""
    return [[node.name, _arguments(node), _code_of(node)] for node in logical.each(last)]


def parts(source: stages.Stage, read: logical.Node) -> list[str]:
    """Of each part of a read, or each block of an input, what is another if it has other rows.

    Raises InvalidOption for blocks in the object store, which end with the driver.
    """
    if isinstance(source, stages.Read):
        versions = read.source.input_versions() if isinstance(read, logical.Read) else {}
        return [_digest(repr(_part(one, versions))) for one in source.parts]
    assert isinstance(source, stages.Input)
    for block in source.blocks:
        if not isinstance(block.value, pa.Table):
            raise exceptions.InvalidOption(
                "a checkpoint goes by the input, which here is blocks in the object store, and these end with the driver; write "
                "them to files, and read these",
                option="checkpoint",
            )
    return [hashlib.sha256(blocks_out.to_bytes(block.value)).hexdigest() for block in source.blocks]


def _part(part: stages.ReadPart, versions: Mapping[str, str]) -> tuple[Any, ...]:
    return part.row_count, [(path, versions.get(path)) for path in part.input_files]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SHOWN_CHARS]


def _arguments(node: logical.Node) -> str:
    if isinstance(node, logical.Read):
        wanted = f", in {node.parallelism} parts" if node.parallelism else ""
        return f"{node.source.checkpoint_identity()}{wanted}"
    fields = [one.name for one in dataclasses.fields(node) if one.name not in _APART]
    return ", ".join(f"{name}={_shown(getattr(node, name))}" for name in fields)


def _shown(value: Any) -> str:
    """Where `repr` would tell of places in memory, the name of its type."""
    if isinstance(value, calls.Function):
        given = [one for one in (value.args, value.kwargs, value.constructor_args, value.constructor_kwargs) if one]
        return f"{value.name}{f' with {_shown(given)}' if given else ''}"
    if isinstance(value, str | int | float | bytes | Expr | None):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, frozenset | set):
        return "{" + ", ".join(sorted(map(_shown, value))) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return type(value).__qualname__


def _code_of(node: logical.Node) -> str:
    function = getattr(node, "function", None)
    return _digest(_code(function.call)) if isinstance(function, calls.Function) else ""


def _code(call: Callable[..., Any]) -> str:
    if isinstance(call, functools.partial):
        return f"{_code(call.func)} {_shown(call.args)} {_shown(call.keywords)}"
    if isinstance(call, types.MethodType):
        return _code(call.__func__)
    if isinstance(call, types.FunctionType):
        return _of_code(call.__code__)
    if isinstance(call, type):
        found = {name: one for kind in reversed(call.__mro__) for name, one in vars(kind).items()}
        methods = [one for _, one in sorted(found.items()) if isinstance(one, types.FunctionType)]
        return " ".join([call.__qualname__, *(_of_code(one.__code__) for one in methods)])
    return getattr(call, "__qualname__", None) or _code(type(call))


def _of_code(code: types.CodeType) -> str:
    return f"{code.co_code.hex()} {code.co_names} {' '.join(map(_constant, code.co_consts))}"


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _of_code(value)
    if isinstance(value, frozenset):  # whose order is another in each process
        return str(sorted(map(repr, value)))
    return repr(value)
