"""What a user's error is turned into where it happened: it says in which operator and on what, and has only his frames."""

from __future__ import annotations

import opcode
import os
import types
from collections.abc import Sequence

import umbel
from umbel import exceptions

NAMED_FILES_MAX = 5
_RAISE = opcode.opmap["RAISE_VARARGS"]
_OURS = tuple(os.path.join(path, "") for path in umbel.__path__)  # sources of all distributions of Umbel


def failure(error: BaseException, *, stage: str, on: str, input_files: Sequence[str] = ()) -> exceptions.UmbelTaskError:
    """on: what the task had to do, in words. Call it where `error` was caught."""
    where = f"in {stage}, on {on}"
    if input_files:
        named = ", ".join(input_files[:NAMED_FILES_MAX])
        more = len(input_files) - NAMED_FILES_MAX
        where += f", from {named}{f' and {more} others' if more > 0 else ''}"
    made = exceptions.UmbelTaskError.from_exception(of_user(error), stage, pid=os.getpid())
    made.traceback_str = f"{made.traceback_str.rstrip()}\n({where})\n"
    return made


def of_user(error: BaseException) -> BaseException:
    """The error without frames of ours. If there are no others, without any where we have raised it, for then it says what is
    wrong, and with all of them else, for then it is ours."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if at.__traceback__ is not None:
            left = _trimmed(at.__traceback__)
            at.__traceback__ = at.__traceback__ if left is None and not _is_told(at, at.__traceback__) else left
        at = at.__cause__ or at.__context__
    return error


def _is_told(error: BaseException, traceback: types.TracebackType) -> bool:
    """It comes of a statement `raise`."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    instruction = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
    return instruction == _RAISE and not isinstance(error, AssertionError)


def _trimmed(traceback: types.TracebackType | None) -> types.TracebackType | None:
    kept = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_OURS):
            kept.append(traceback)
        traceback = traceback.tb_next
    following: types.TracebackType | None = None
    for one in reversed(kept):
        following = types.TracebackType(following, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return following
