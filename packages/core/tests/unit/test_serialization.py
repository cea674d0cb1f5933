"""What of a value survives being pickled by value, beyond what cloudpickle promises."""

from __future__ import annotations

from umbel._objects import serialization


def test_function_keeps_the_name_of_its_file() -> None:
    """cloudpickle 3.1.3 replaces it: remote tracebacks had no source and breakpoints did not hold."""

    def outer() -> object:
        return [lambda: None]

    copy = serialization.loads(serialization.dumps(outer))
    assert copy.__code__ is not outer.__code__
    assert copy.__code__.co_filename == __file__
    assert copy()[0].__code__.co_filename == __file__
