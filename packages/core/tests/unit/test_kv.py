"""The internal key-value store's table, which answers as Ray's does."""

from __future__ import annotations

from umbel._control import kv


def test_put_tells_whether_there_was_a_value_and_replaces_it_if_it_shall() -> None:
    table = kv.KeyValues()
    assert not table.put(b"", b"a", b"1", overwrites=True)
    assert table.put(b"", b"a", b"2", overwrites=False)
    assert table.get(b"", b"a") == b"1"
    assert table.put(b"", b"a", b"3", overwrites=True)
    assert table.get(b"", b"a") == b"3"


def test_namespaces_are_apart_and_an_empty_value_is_one() -> None:
    table = kv.KeyValues()
    table.put(b"ns", b"a", b"", overwrites=True)
    assert (table.get(b"ns", b"a"), table.get(b"", b"a"), table.get(b"n", b"sa")) == (b"", None, None)


def test_keys_are_listed_and_deleted_by_prefix() -> None:
    table = kv.KeyValues()
    for key in (b"b", b"ab", b"a"):
        table.put(b"", key, b"x", overwrites=True)
    assert table.keys(b"", b"a") == [b"a", b"ab"]
    assert table.delete(b"", b"zz") == 0
    assert table.delete(b"", b"a") == 1
    assert table.delete(b"", b"", is_prefix=True) == 2
    assert table.keys(b"", b"") == []


def test_only_what_differs_counts_as_changed() -> None:
    table = kv.KeyValues()
    table.changed = {}
    table.put(b"", b"a", b"1", overwrites=True)
    table.changed.clear()
    table.put(b"", b"a", b"1", overwrites=True)
    table.put(b"", b"a", b"2", overwrites=False)
    table.delete(b"", b"b")
    assert table.changed == {}
    table.delete(b"", b"a")
    assert list(table.changed) == [(b"", b"a")]
