"""Custom serializers, and finding out why a value cannot be sent."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel.util import deregister_serializer, inspect_serializability, register_serializer


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param):
        yield request.param


class Connection:
    """Holds something that does not pickle."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.lock = threading.Lock()


class Service:
    def __init__(self) -> None:
        self.name = "service"
        self.parts = {"main": [Connection("a")]}


def inspected(value: Any, **options: Any) -> tuple[bool, set[Any], str]:
    output = io.StringIO()
    is_fine, failures = inspect_serializability(value, print_file=output, **options)
    return is_fine, failures, output.getvalue()


def test_a_registered_serializer_is_used_both_ways() -> None:
    @umbel.remote
    def address_of(connection: Connection) -> str:
        return connection.address

    @umbel.remote
    def connect(address: str) -> Any:
        register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
        return Connection(address)

    with pytest.raises(TypeError, match="lock"):
        umbel.put(Connection("x"))
    register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
    try:
        assert umbel.get(umbel.put(Connection("x"))).address == "x"
        assert umbel.get(address_of.remote(Connection("y"))) == "y"
        assert umbel.get(connect.remote("z")).address == "z"
        assert inspected(Service())[0]
    finally:
        deregister_serializer(Connection)
    with pytest.raises(TypeError, match="lock"):
        umbel.put(Connection("x"))
    deregister_serializer(Connection)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cls": 5, "serializer": str, "deserializer": str}, "cls must be a class"),
        ({"cls": Connection, "serializer": 5, "deserializer": str}, "serializer must be callable"),
        ({"cls": Connection, "serializer": str, "deserializer": None}, "deserializer must be callable"),
    ],
)
def test_bad_serializers_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        register_serializer(**arguments)


def test_what_can_be_sent_has_no_offenders() -> None:
    assert inspected([1, "two", {"three": 3}]) == (True, set(), "list can be serialized\n")
    assert inspected(lambda: 5)[0]


def test_a_captured_variable_is_found() -> None:
    lock = threading.Lock()
    is_fine, failures, text = inspected(lambda: lock)
    assert not is_fine
    [failure] = failures
    assert failure.obj is lock
    assert failure.name == "captured variable 'lock'"
    assert "captured variable 'lock'" in text
    assert "register_serializer" in text


def test_the_path_leads_through_attributes_and_items() -> None:
    service = Service()
    is_fine, failures, _ = inspected(service, depth=8)
    assert not is_fine
    [failure] = failures
    assert failure.path == ("Service", ".parts", "['main']", "[0]", ".lock")
    assert failure.parent is service.parts["main"][0]


def test_depth_bounds_the_search() -> None:
    _, failures, text = inspected(Service(), depth=1)
    assert [failure.path for failure in failures] == [("Service", ".parts")]
    assert "raise depth" in text


def test_every_offender_is_named() -> None:
    first, second = threading.Lock(), threading.Lock()
    _, failures, _ = inspected({"a": first, "b": [second], "c": 1}, name="settings")
    assert {failure.path for failure in failures} == {("settings", "['a']"), ("settings", "['b']", "[0]")}


def test_parts_of_functions_methods_and_classes_are_looked_at() -> None:
    def with_default(lock: Any = threading.Lock()) -> None: ...  # noqa: B008 - the point of this case

    class Local:
        shared = threading.Lock()

        def method(self) -> None: ...

    assert [failure.name for failure in inspected(with_default)[1]] == ["default of parameter 0"]
    assert [failure.name for failure in inspected(Local)[1]] == ["class attribute 'shared'"]
    assert [failure.path[-1] for failure in inspected(Local().method, depth=6)[1]] == ["class attribute 'shared'"]
    assert [failure.name for failure in inspected(Connection("a").__init__)[1]] == [".lock"]


def test_a_cycle_ends() -> None:
    items: list[Any] = [threading.Lock()]
    items.append(items)
    _, failures, _ = inspected(items, depth=20)
    assert [failure.path for failure in failures] == [("list", "[0]")]


def test_an_error_of_the_value_s_own_is_told() -> None:
    class Refusing:
        def __getstate__(self) -> object:
            raise RuntimeError("not me")

        def __repr__(self) -> str:
            raise RuntimeError("no text either")

    is_fine, failures, text = inspected(Refusing())
    assert not is_fine
    assert len(failures) == 1
    assert "not me" in text


def test_depth_must_be_positive() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1"):
        inspect_serializability(1, depth=0)
