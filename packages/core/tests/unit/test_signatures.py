"""Argument checks at the caller, and what of them travels."""

from __future__ import annotations

import functools
import inspect
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from umbel._client import signatures


def add(first: int, second: int = 2, *, third: int = 3) -> int:
    return first + second + third


@pytest.mark.parametrize("times_pickled", [0, 1, 2])
def test_signature_checks_alike_after_it_was_pickled(times_pickled: int) -> None:
    signature = signatures.Signature(add, "add")
    for _ in range(times_pickled):
        signature = pickle.loads(pickle.dumps(signature))
    signature.check((1,), {})
    signature.check((1, 2), {"third": 4})
    with pytest.raises(TypeError, match=r"^add\(first, second=\.\.\., \*, third=\.\.\.\): too many positional"):
        signature.check((1, 2, 3), {})
    with pytest.raises(TypeError, match="missing a required argument: 'first'"):
        signature.check((), {})


def test_error_of_a_call_says_what_was_got_and_makes_no_default_up() -> None:
    with pytest.raises(TypeError) as caught:
        signatures.Signature(add, "add").check((1, 2, 3), {"third": 4, "fourth": 5})
    assert str(caught.value) == (
        "add(first, second=..., *, third=...): too many positional arguments; got 3 by position, and by keyword 'third', "
        "'fourth'; call it as it is defined"
    )


def test_unpickled_signature_has_no_other_attributes() -> None:
    signature = pickle.loads(pickle.dumps(signatures.Signature(add, "add")))
    with pytest.raises(AttributeError, match="parameters"):
        _ = signature.parameters


def _plain(a, b=1): ...  # type: ignore[no-untyped-def]
def _positional_only(a, b=1, /, c=2): ...  # type: ignore[no-untyped-def]
def _keyword_only(a, *, b, c=1): ...  # type: ignore[no-untyped-def]
def _starred(a, *rest, b=1): ...  # type: ignore[no-untyped-def]
def _open(a, /, b=1, **rest): ...  # type: ignore[no-untyped-def]
def _nothing() -> None: ...
@functools.wraps(_plain)
def _wrapped(*args, **kwargs): ...  # type: ignore[no-untyped-def]


class _Callable:
    def __call__(self, a: int, *, b: int = 1) -> None: ...


NAMED = [_plain, _positional_only, _keyword_only, _starred, _open, _nothing, _wrapped]
SHAPES = [*NAMED, functools.partial(_plain, 1), _Callable()]


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_signature_accepts_what_python_accepts(function: Callable[..., Any]) -> None:
    signature = signatures.Signature(function, "f")
    python = inspect.signature(function)
    for count in range(5):
        for names in itertools.chain.from_iterable(itertools.combinations("abcz", n) for n in range(4)):
            args, kwargs = (0,) * count, dict.fromkeys(names, 0)
            try:
                python.bind(*args, **kwargs)
            except TypeError as error:
                with pytest.raises(TypeError) as caught:
                    signature.check(args, kwargs)
                assert f": {error}; got {count} by position" in str(caught.value)
            else:
                signature.check(args, kwargs)


def test_kinds_of_functions_are_told_apart() -> None:
    def generator() -> Any:
        yield

    async def coroutine() -> None: ...

    async def stream() -> Any:
        yield

    class Owner:
        def method(self) -> Any:
            yield

    found = {f: (signatures.is_generator(f), signatures.is_async(f)) for f in (add, generator, coroutine, stream)}
    assert found == {add: (False, False), generator: (True, False), coroutine: (False, True), stream: (True, True)}
    assert signatures.is_generator(functools.partial(generator))
    assert signatures.is_generator(Owner().method)
    assert not signatures.is_generator(len)
