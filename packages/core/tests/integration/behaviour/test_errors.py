"""How errors travel. Numbers are those of the list of semantics."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")


class Trouble(Exception):
    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text, code)
        self.code = code


@umbel.remote
def trouble(text: str, code: int = 0) -> None:
    raise Trouble(text, code)


@umbel.remote
def consume(*values: Any, mark: Any = None) -> Any:
    if mark is not None:
        mark.add()
    return values


def test_an_error_is_of_the_users_class_and_of_ours() -> None:
    """1"""
    with pytest.raises(Trouble) as caught:
        umbel.get(trouble.remote("both", 7))
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert isinstance(caught.value, exceptions.UmbelError)
    assert caught.value.code == 7
    assert type(caught.value.cause).__name__ == "Trouble"  # type: ignore[attr-defined]
    assert not isinstance(caught.value.cause, exceptions.UmbelTaskError)  # type: ignore[attr-defined]


def test_the_text_is_the_remote_traceback_without_our_frames() -> None:
    with pytest.raises(Trouble) as caught:
        umbel.get(trouble.remote("needle"))
    text = str(caught.value)
    assert "needle" in text
    assert "in trouble" in text
    assert "_worker" not in text
    assert "call_user" not in text


def test_every_get_raises_anew() -> None:
    ref = trouble.remote("again")
    raised = []
    for _ in range(2):
        with pytest.raises(Trouble) as caught:
            umbel.get(ref)
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_a_failed_input_fails_the_consumer_without_running_it(marks: Any) -> None:
    """5"""
    with pytest.raises(Trouble, match="source"):
        umbel.get(consume.remote(consume.remote(trouble.remote("source"), mark=marks), mark=marks))
    assert marks.all() == []


def test_all_returns_of_a_failed_task_fail() -> None:
    """6"""
    for ref in trouble.options(num_returns=3).remote("all"):
        with pytest.raises(Trouble, match="all"):
            umbel.get(ref)


def test_a_nested_error_keeps_its_class() -> None:
    @umbel.remote
    def outer() -> Any:
        return umbel.get(trouble.remote("inner"))

    with pytest.raises(Trouble, match="inner"):
        umbel.get(outer.remote())


def test_an_exception_group_is_one() -> None:
    """3"""
    group = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        pytest.skip("exception groups came with Python 3.11")

    @umbel.remote
    def several() -> None:
        raise group("several", [ValueError("one"), KeyError("two")])

    with pytest.raises(group) as caught:
        umbel.get(several.remote())
    assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]


def test_returning_an_exception_is_not_raising_it() -> None:
    @umbel.remote
    def give() -> Exception:
        return ValueError("a value")

    assert umbel.get(give.remote()).args == ("a value",)


def test_an_unpicklable_result_is_a_type_error() -> None:
    @umbel.remote
    def lock() -> Any:
        import threading

        return {"it": threading.Lock()}

    with pytest.raises(TypeError, match="lock") as caught:
        umbel.get(lock.remote())
    assert isinstance(caught.value, exceptions.UmbelTaskError)


def test_an_unpicklable_error_keeps_its_text() -> None:
    """4"""

    @umbel.remote
    def stubborn() -> None:
        import threading

        class Stubborn(Exception):
            def __init__(self) -> None:
                super().__init__("stubborn thing")
                self.lock = threading.Lock()

        raise Stubborn

    with pytest.raises(exceptions.UmbelError, match="stubborn thing"):
        umbel.get(stubborn.remote())


def test_a_wrong_number_of_values_fails_every_return() -> None:
    @umbel.remote(num_returns=3)
    def two() -> tuple[int, int]:
        return 1, 2

    for ref in two.remote():
        with pytest.raises(ValueError, match="got 2"):
            umbel.get(ref)


def test_retry_exceptions_tries_again(marks: Any) -> None:
    """46"""

    @umbel.remote(max_retries=3, retry_exceptions=[Trouble])
    def flaky() -> int:
        if marks.add() < 3:
            raise Trouble("not yet")
        return 1

    assert umbel.get(flaky.remote()) == 1
    assert len(marks.all()) == 3


def test_retry_exceptions_is_an_allow_list(marks: Any) -> None:
    """46"""

    @umbel.remote(max_retries=3, retry_exceptions=[KeyError])
    def flaky() -> None:
        marks.add()
        raise Trouble("another kind")

    with pytest.raises(Trouble):
        umbel.get(flaky.remote())
    assert len(marks.all()) == 1


def test_the_last_attempts_error_is_what_get_raises(marks: Any) -> None:
    @umbel.remote(max_retries=2, retry_exceptions=True)
    def flaky() -> None:
        raise Trouble(f"attempt {marks.add()}")

    with pytest.raises(Trouble, match="attempt 3"):
        umbel.get(flaky.remote())


def test_errors_are_not_retried_by_default(marks: Any) -> None:
    @umbel.remote
    def once() -> None:
        marks.add()
        raise Trouble("once")

    with pytest.raises(Trouble):
        umbel.get(once.remote())
    assert len(marks.all()) == 1
