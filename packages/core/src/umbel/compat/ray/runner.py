"""Runs a program as the interpreter itself would, in a process that knows Ray's names.

The program gets a `__main__` of its own: what it defines is pickled by value only if it belongs to `__main__`.
Arguments, search path, exit status and tracebacks are those of `python script.py`.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Sequence
from typing import Any

USAGE = """\
usage: python -m umbel.compat.ray [-c command | -m module | file | directory | zip file | -] [arguments]

Runs a program written for Ray: 'import ray' and the like give Umbel's.
"""
COMMAND_NAME = "<string>"  # where the interpreter says that code given by -c is
USAGE_STATUS = 2  # the interpreter's own, also for a file that it cannot open

# What the interpreter itself calls for `-m` and for directories; the public functions put the old `__main__` back.
_run_as_main = runpy._run_module_as_main  # type: ignore[attr-defined]  # not in typeshed


def main(arguments: Sequence[str]) -> None:
    """Run what `arguments` (without the program name) ask for."""
    if not arguments:
        sys.stderr.write(USAGE)
        raise SystemExit(USAGE_STATUS)
    first, rest = arguments[0], list(arguments[1:])
    if first in ("-h", "--help"):
        sys.stdout.write(USAGE)
    elif first in ("-c", "-m"):
        if not rest:
            sys.stderr.write(f"argument expected for the {first} option\n{USAGE}")
            raise SystemExit(USAGE_STATUS)
        (_run_command if first == "-c" else _run_module)(rest[0], rest[1:])
    elif first == "-":
        _run_text(sys.stdin.read(), "<stdin>", ["-", *rest], path_entry="")
    elif first.startswith("-"):
        sys.stderr.write(f"unknown option {first}\n{USAGE}")
        raise SystemExit(USAGE_STATUS)
    else:
        _run_path(first, rest)


def _run_command(command: str, arguments: list[str]) -> None:
    _run_text(command, COMMAND_NAME, ["-c", *arguments], path_entry="")


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv[:] = ["-m", *arguments]
    _set_path_entry(os.getcwd())
    _fresh_main()
    _guarded(_run_as_main, name, True)


def _run_path(path: str, arguments: list[str]) -> None:
    sys.argv[:] = [path, *arguments]
    importer = pkgutil.get_importer(path)
    if importer is not None:  # a directory or a zip file, with a __main__ in it
        _set_path_entry(os.path.abspath(path))
        _fresh_main()
        _guarded(_run_as_main, "__main__", False)
        return
    full = os.path.abspath(path)
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(USAGE_STATUS) from None
    loader = importlib.machinery.SourceFileLoader("__main__", full)
    _run_text(source, full, sys.argv[:], path_entry=os.path.dirname(os.path.realpath(full)), loader=loader)


def _run_text(
    source: str | bytes,
    name: str,
    arguments: list[str],
    *,
    path_entry: str,
    loader: importlib.machinery.SourceFileLoader | None = None,
) -> None:
    sys.argv[:] = arguments
    _set_path_entry(path_entry)
    main_module = _fresh_main()
    if name != COMMAND_NAME:
        main_module.__file__ = name
    if loader is not None:
        main_module.__loader__ = loader
        main_module.__dict__["__cached__"] = None
    _guarded(_compile_and_run, source, name, main_module.__dict__)


def _compile_and_run(source: str | bytes, name: str, namespace: dict[str, Any]) -> None:
    exec(compile(source, name, "exec", dont_inherit=True), namespace)


def _set_path_entry(entry: str) -> None:
    """Replace the entry that the interpreter made for our own start. In safe-path mode it made none, and wants none."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = entry


def _fresh_main() -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    if sys.version_info < (3, 14):  # from then on a module has its annotations evaluated when they are asked for
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    return module


def _guarded(run: Any, *arguments: Any) -> None:
    """Let the program's error end the process as it would otherwise, but without our frames in its traceback."""
    try:
        run(*arguments)
    except SystemExit:
        raise
    except BaseException as error:
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals is globals():
            traceback = traceback.tb_next
        report = sys.excepthook

        def hook(kind: type[BaseException], value: BaseException, _traceback: types.TracebackType | None) -> None:
            report(kind, value.with_traceback(traceback), traceback)

        sys.excepthook = hook
        raise
