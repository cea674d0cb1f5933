"""The internal key-value store: what each call answers, as Ray 2.60 was seen to."""

from __future__ import annotations

from typing import Any

import pytest

import umbel
from umbel.experimental import internal_kv as kv

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def empty() -> None:
    for space in (b"", b"ns"):
        kv._internal_kv_del(b"", del_by_prefix=True, namespace=space)


def test_put_tells_whether_there_was_a_value_and_replaces_it_unless_told_not_to() -> None:
    assert kv._internal_kv_initialized()
    assert not kv._internal_kv_put(b"a", b"1")
    assert kv._internal_kv_put(b"a", b"2", False)
    assert kv._internal_kv_get(b"a") == b"1"
    assert kv._internal_kv_put("a", "3")
    assert kv._internal_kv_get("a") == b"3"


def test_namespaces_are_apart_and_none_is_the_empty_one() -> None:
    assert not kv._internal_kv_put(b"a", b"1")
    assert not kv._internal_kv_put(b"a", b"n", namespace="ns")
    assert kv._internal_kv_get(b"a", namespace=b"ns") == b"n"
    assert kv._internal_kv_get(b"a", namespace=b"") == b"1"


def test_missing_and_empty_values_differ() -> None:
    kv._internal_kv_put(b"a", b"")
    assert (kv._internal_kv_get(b"a"), kv._internal_kv_exists(b"a")) == (b"", True)
    assert (kv._internal_kv_get(b"b"), kv._internal_kv_exists(b"b")) == (None, False)


def test_keys_are_listed_and_deleted_by_prefix() -> None:
    for key in (b"a", b"ab", b"b", b"\xff#\n"):
        kv._internal_kv_put(key, b"x")
    assert kv._internal_kv_list("a") == [b"a", b"ab"]
    assert kv._internal_kv_list(b"\xff") == [b"\xff#\n"]
    assert (kv._internal_kv_del(b"zz"), kv._internal_kv_del(b"b")) == (0, 1)
    assert kv._internal_kv_del(b"a", del_by_prefix=True) == 2
    assert kv._internal_kv_list(b"") == [b"\xff#\n"]


def test_tasks_see_what_the_program_has_put() -> None:
    @umbel.remote
    def read() -> Any:
        kv._internal_kv_put(b"from task", b"2")
        return kv._internal_kv_get(b"from driver")

    kv._internal_kv_put(b"from driver", b"1")
    assert umbel.get(read.remote()) == b"1"
    assert kv._internal_kv_get(b"from task") == b"2"


@pytest.mark.parametrize("key", [None, 3, ["a"]])
def test_key_of_another_type_is_an_error(key: Any) -> None:
    with pytest.raises(TypeError, match="key must be bytes or a string, got"):
        kv._internal_kv_get(key)
