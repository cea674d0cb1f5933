"""Argument checks at the caller, and what of them travels."""

from __future__ import annotations

import pickle

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
    with pytest.raises(TypeError, match=r"^add\(first, second=None, \*, third=None\): too many positional arguments$"):
        signature.check((1, 2, 3), {})
    with pytest.raises(TypeError, match="missing a required argument: 'first'"):
        signature.check((), {})


def test_unpickled_signature_has_no_other_attributes() -> None:
    signature = pickle.loads(pickle.dumps(signatures.Signature(add, "add")))
    with pytest.raises(AttributeError, match="parameters"):
        _ = signature.parameters
