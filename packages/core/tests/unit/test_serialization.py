"""What of a value survives being pickled, beyond what cloudpickle promises."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from umbel._objects import serialization


def test_function_keeps_the_name_of_its_file() -> None:
    """cloudpickle 3.1.3 replaces it: remote tracebacks had no source and breakpoints did not hold."""

    def outer() -> object:
        return [lambda: None]

    copy = serialization.loads(serialization.dumps(outer))
    assert copy.__code__ is not outer.__code__
    assert copy.__code__.co_filename == __file__
    assert copy()[0].__code__.co_filename == __file__


def _there_and_back(value: Any) -> tuple[Any, bool]:
    """(the value from its parts, whether an array was left out of the pickle)."""
    made = serialization.serialize(value)
    return serialization.decode_inline(*made.inline()), bool(made.buffers)


def test_arrays_are_left_out_of_the_pickle_wherever_they_are() -> None:
    np = pytest.importorskip("numpy")
    base = np.arange(24.0).reshape(4, 6)
    plain = [base, np.asfortranarray(base), np.array(3), np.array([], "f2"), base > 3]
    others = [base[::2, ::3], np.array(["2026-11-29"], "M8[s]"), np.array([{"a": 1}, None], object), np.array(["a"])]
    for array in (*plain, *others, np.ma.masked_array([1, 2], [0, 1])):
        for inside in (array, ((array, 1), {"key": [array]}), [[[[array]]]]):
            back, has_buffers = _there_and_back(inside)
            assert repr(back) == repr(inside)
            assert has_buffers or not any(array is one for one in plain)


def test_what_only_looks_like_the_arguments_of_a_call() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(3)
    for value in (
        ((1, 2), array),
        ((array,), np.array([])),
        ((array,), collections.OrderedDict()),
        ((array,), {"a": 1}),
    ):
        back, _ = _there_and_back(value)
        assert type(back[1]) is type(value[1])
        assert repr(back) == repr(value)


def test_array_that_is_passed_twice_arrives_as_one() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(3)
    (first, second), _ = _there_and_back(((array, array), {}))[0]
    assert first is second


def test_array_read_is_read_only_and_of_the_same_type() -> None:
    np = pytest.importorskip("numpy")
    for dtype in ("u1", ">i4", "f2", "c16", "?"):
        for inside in (np.ones((2, 0, 3), dtype), np.ones((2, 3), dtype)):
            (back, number), _ = _there_and_back(((inside, 1), {}))[0]
            assert (back.dtype, back.shape, back.flags.writeable, number) == (inside.dtype, inside.shape, False, 1)
            assert type(back) is np.ndarray and (back == inside).all()


def test_serializer_of_arrays_is_used_for_them() -> None:
    np = pytest.importorskip("numpy")
    serialization.register(np.ndarray, lambda array: array.tolist(), tuple)
    try:
        assert _there_and_back([np.array([1, 2])]) == ([(1, 2)], False)
    finally:
        serialization.unregister(np.ndarray)
