"""The reference of umbel.data: each public name with its signature, its defaults and what its docstring says.

`python tools/reference.py` writes docs/data/reference.md; a test compares that page with what the code says. umbel.data must be
installed, or be on PYTHONPATH with core.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data" / "reference.md"
MODULES = (  # in the order of the page; a name that several have is said at the last of them
    "umbel.data",
    "umbel.data.context",
    "umbel.data.checkpoint",
    "umbel.data.datatype",
    "umbel.data.exceptions",
    "umbel.data.expressions",
    "umbel.data.aggregate",
    "umbel.data.window",
    "umbel.data.preprocessors",
    "umbel.data.preprocessor",
    "umbel.data.collate_fn",
    "umbel.data.block",
    "umbel.data.datasource",
    "umbel.data.datasink",
    "umbel.data.checkpoint",
)
INNER_BASES = {"Columnwise", "Vectorized"}  # whose methods are for classes of ours
WIDTH = 110
_UNPACKED = re.compile(r"Unpack\[(\w+)\]")


@dataclass(frozen=True)
class Entry:
    """One public name. kind: "function", "class", "method", "property", "options" or "constant". path: as it is imported."""

    path: str
    kind: str
    signature: str
    doc: str


def entries(module: str) -> list[Entry]:
    """Of all names that are at home in the module, with the methods of its classes, in the order of `__all__`."""
    loaded = importlib.import_module(module)
    found: list[Entry] = []
    for name in sorted(_names(module), key=lambda one: (inspect.isclass(getattr(loaded, one)), one.lower())):
        if home(name, module) == module:
            found += _of(f"{module}.{name}", getattr(loaded, name))
    return [*found, *_options(module)]


def every() -> list[Entry]:
    return [entry for module in MODULES for entry in entries(module)]


def home(name: str, module: str) -> str:
    """Where a name of this module is said: the last of the modules that have it, as the same thing."""
    value = getattr(importlib.import_module(module), name)
    have = [one for one in MODULES if name in _names(one) and getattr(importlib.import_module(one), name) is value]
    return have[-1]


def _names(module: str) -> list[str]:
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return list(loaded.__all__)
    return [name for name, one in vars(loaded).items() if getattr(one, "__module__", "") == module and name[0] != "_"]


# ---------------------------------------------------------------------------------------------------------------------
# What is there.


def _of(path: str, value: Any) -> Iterator[Entry]:
    if not inspect.isclass(value):
        kind = "function" if callable(value) and inspect.isfunction(value) else "constant"
        yield Entry(path, kind, _signature(path, value) if kind == "function" else "", _doc(path, value))
        return
    yield Entry(path, "class", _constructor(path, value), _doc(path, value))
    if not issubclass(value, BaseException):  # those of core have methods that say how they travel
        for name, member in _members(value):
            yield from _member(f"{path}.{name}", value, member)


def _member(path: str, owner: type, member: Any) -> Iterator[Entry]:
    if isinstance(member, property):
        namespace = _namespace(member)
        yield Entry(path, "property", "", _doc(path, member))
        if namespace is not None:
            for name, one in _members(namespace):
                yield Entry(f"{path}.{name}", "method", _signature(f"{path}.{name}", one), _doc(path, one))
    elif isinstance(member, staticmethod | classmethod) or inspect.isfunction(member):
        function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        is_bound = not isinstance(member, staticmethod)
        yield Entry(path, "method", _signature(path, function, is_bound=is_bound), _doc(path, function))


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Its public methods and properties, but for those that a documented class has that it is derived from."""
    said = {name for base in cls.__mro__[1:] if _is_said(base) for name in dir(base)}
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "umbel" and base.__name__ not in INNER_BASES:
            found.update(vars(base))
    for name, member in found.items():
        if name[0] != "_" and name not in said and not inspect.isclass(member):
            yield name, member


def _is_said(cls: type) -> bool:
    if cls.__name__ in INNER_BASES or cls in (object, str, enum.Enum):
        return True
    return any(getattr(importlib.import_module(one), cls.__name__, None) is cls for one in MODULES)


def _namespace(member: property) -> type | None:
    """The class of what a property gives, where that has methods that are named through it."""
    annotation = str(inspect.get_annotations(member.fget).get("return", ""))  # type: ignore[arg-type]
    found = re.fullmatch(r"namespaces\.(\w+)\[Expr\]", annotation)
    if found is None:
        return None
    kind: type = getattr(importlib.import_module("umbel.data._expressions.namespaces"), found[1])
    return kind


def _options(module: str) -> list[Entry]:
    """Of the dictionaries of options that `**options` of functions in the module are, each with those that take it."""
    takers: dict[Any, list[str]] = {}
    for path, function in _every_function(module):
        unpacked = _UNPACKED.fullmatch(str(getattr(function, "__annotations__", {}).get("options", "")))
        if unpacked is not None:
            takers.setdefault(function.__globals__[unpacked[1]], []).append(path)
    found = []
    for kind, paths in takers.items():
        taken = textwrap.fill(f"Taken by {', '.join(f'`{one}`' for one in sorted(paths))}.", 120)
        lines = [f"{name}: {annotation}" for name, annotation in _annotations(kind).items()]
        doc = f"{taken}\n\n{inspect.cleandoc(kind.__doc__ or '')}"
        title = f"`{kind.__name__}` of `{min(paths)}` and others"
        found.append(Entry(f"{module}: {title}", "options", "\n".join(lines), doc))
    return found


def _annotations(kind: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed([kind, *getattr(kind, "__orig_bases__", ())]):
        found |= {name: _plain(one) for name, one in getattr(base, "__annotations__", {}).items()}
    return found


def _every_function(module: str) -> Iterator[tuple[str, Any]]:
    for name in _names(module):
        value = getattr(importlib.import_module(module), name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield from ((f"{name}.{one}", member) for one, member in _members(value) if inspect.isfunction(member))


# ---------------------------------------------------------------------------------------------------------------------
# How it is written. Not as `inspect` does it, which changes with Python's version.


def _constructor(path: str, cls: type) -> str:
    if issubclass(cls, enum.Enum):
        return "\n".join(f"{cls.__name__}.{one.name} = {one.value!r}" for one in cls)
    if issubclass(cls, BaseException) or getattr(cls, "_is_protocol", False):
        return ""
    if dataclasses.is_dataclass(cls):
        told = [f"{one.name}: {_plain(one.type)}{_default(one)}" for one in dataclasses.fields(cls) if one.init]
        return _wrapped(path, told)
    return _signature(path, cls.__init__) if inspect.isfunction(cls.__init__) else ""


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {_shown(field.default)}"
    if field.default_factory is dataclasses.MISSING:
        return ""
    return f" = {getattr(field.default_factory, '__name__', '...')}()"


def _signature(path: str, function: Any, *, is_bound: bool = True) -> str:
    parameters = [*inspect.signature(function).parameters.values()]
    if is_bound and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    told, is_starred = [], False
    for one in parameters:
        if one.name[0] == "_" and one.kind is one.KEYWORD_ONLY:
            continue
        if one.kind is one.KEYWORD_ONLY and not is_starred:
            told.append("*")
        is_starred = is_starred or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        annotation = "" if one.annotation is one.empty else f": {_plain(one.annotation)}"
        default = "" if one.default is one.empty else f" = {_shown(one.default)}" if annotation else f"={one.default!r}"
        told.append(f"{stars}{one.name}{annotation}{default}")
    returned = inspect.signature(function).return_annotation
    result = "" if returned in (inspect.Signature.empty, "None", None) else f" -> {_plain(returned)}"
    return _wrapped(path, told, result)


def _wrapped(path: str, told: list[str], result: str = "") -> str:
    """On one line, or one line for each argument."""
    name = ".".join(path.split(".")[_depth(path) :])
    line = f"{name}({', '.join(told)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in told), f"){result}"])


def _depth(path: str) -> int:
    """How many parts of a path are its module."""
    return max(one.count(".") + 1 for one in MODULES if path.startswith((f"{one}.", f"{one}:")))


def _plain(annotation: Any) -> str:
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    text = re.sub(
        r"\b(builtins|expressions|filenames|files|logical|options|partitioning|sources|sinks|contexts|window_functions|reducing|_base)\.",
        "",
        text,
    )
    return _UNPACKED.sub(r"\1", text).replace("np.ndarray[Any, Any]", "np.ndarray")


def _shown(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MiB"
    return repr(value)


def _doc(path: str, value: Any) -> str:
    """What its own docstring says. A subclass that says nothing has none, though Python would give it that of its base."""
    if inspect.isclass(value) or inspect.isfunction(value) or isinstance(value, property):
        return inspect.cleandoc(value.__doc__ or "")
    return _of_constant(path)


def _of_constant(path: str) -> str:
    """The string below the assignment."""
    module, _, name = path.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    found = re.search(rf'^{name}\b.*? = (?:.|\n)*?\n"""(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return "" if found is None else inspect.cleandoc(found[1])


# ---------------------------------------------------------------------------------------------------------------------
# The page.


def page() -> str:
    parts = [
        "# Reference of umbel.data",
        "Every public name with its signature and what its docstring says. The page is made by `python tools/reference.py`; to "
        "change what is said here, change the docstring and make it again.",
        "\n".join(f"- [`{one}`](#{_anchor(one)})" for one in MODULES),
    ]
    for module in MODULES:
        parts += _section(module)
    return "\n\n".join(parts) + "\n"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def _section(module: str) -> list[str]:
    loaded = importlib.import_module(module)
    parts = [f"## {module}", _prose(inspect.getdoc(loaded) or "")]
    elsewhere: dict[str, list[str]] = {}
    for name in _names(module):
        where = home(name, module)
        if where != module:
            elsewhere.setdefault(where, []).append(name)
    for where, names in elsewhere.items():
        parts.append(f"Also here, from `{where}`: {', '.join(f'`{one}`' for one in sorted(names))}.")
    return [*parts, *(_written(one) for one in entries(module))]


def _written(entry: Entry) -> str:
    name = ".".join(entry.path.split(".")[_depth(entry.path) :])
    level = "####" if entry.kind in ("method", "property") else "###"
    title = f"Options {entry.path.partition(': ')[2]}" if entry.kind == "options" else f"`{name}`"
    fence = f"```\n{entry.signature}\n```" if entry.signature else ""
    return "\n\n".join(part for part in (f"{level} {title}", fence, _prose(entry.doc)) if part)


def _prose(doc: str) -> str:
    """A docstring as Markdown: what is indented, or looks like a program, stays as it is."""
    parts: list[tuple[bool, str]] = []
    for paragraph in re.split(r"\n\s*\n", doc):
        is_code = (
            paragraph.startswith("    ") or re.match(r"(from|class|for|\w+ =|\w+\.\w+\() ?", paragraph) is not None
        )
        if is_code and parts and parts[-1][0]:
            parts[-1] = (True, f"{parts[-1][1]}\n\n{textwrap.dedent(paragraph)}")
        else:
            parts.append((is_code, textwrap.dedent(paragraph)))
    return "\n\n".join(f"```python\n{text}\n```" if is_code else text for is_code, text in parts)


def main() -> None:
    PAGE.write_text(page())
    print(f"{PAGE}: {len(every())} names")


if __name__ == "__main__":
    main()
