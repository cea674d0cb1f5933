"""Cancellation on the inline engine: of what waits, of what runs, of coroutines; forced and recursive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    with umbel.init(engine="inline", num_cpus=4):
        yield


@umbel.remote
class Gate:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.words: list[str] = []

    async def wait(self) -> str:
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.words.append("cancelled")
            raise
        return "open"

    async def open(self) -> None:
        self.event.set()

    async def add(self, word: str) -> None:
        self.words.append(word)

    async def read(self) -> list[str]:
        return self.words


@pytest.fixture
def gate() -> Any:
    return Gate.remote()


@umbel.remote
def hold(box: Any) -> Any:
    try:
        return umbel.get(box[0].wait.remote())
    except KeyboardInterrupt:
        umbel.get(box[0].add.remote("interrupted"))
        raise


def assert_cancelled(*refs: Any) -> None:
    for ref in refs:
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(ref)


def test_task_that_waits_for_its_arguments_never_starts(gate: Any) -> None:
    @umbel.remote
    def add(box: Any, _opened: str) -> None:
        umbel.get(box[0].add.remote("ran"))

    ref = add.remote([gate], gate.wait.remote())
    umbel.cancel(ref)
    assert_cancelled(ref)
    gate.open.remote()
    assert umbel.get(gate.read.remote()) == []


def test_running_task_is_interrupted_where_it_waits_and_may_clean_up(gate: Any) -> None:
    ref = hold.options(max_retries=5, retry_exceptions=True).remote([gate])
    umbel.cancel(ref)
    assert_cancelled(ref)
    assert "interrupted" in umbel.get(gate.read.remote())


def test_task_that_survives_its_interruption_keeps_its_result(gate: Any) -> None:
    @umbel.remote
    def stubborn(box: Any) -> str:
        try:
            umbel.get(box[0].wait.remote())
        except KeyboardInterrupt:
            return "survived"
        return "not reached"

    ref = stubborn.remote([gate])
    umbel.cancel(ref)
    assert umbel.get(ref) == "survived"


def test_finished_task_is_left_alone() -> None:
    ref = umbel.remote(lambda: 7).remote()
    for target in (ref, umbel.put(1)):
        umbel.cancel(target)
    assert umbel.get(ref) == 7


def test_force_stops_code_that_would_not_stop(gate: Any) -> None:
    @umbel.remote
    def stubborn(box: Any) -> str:
        while True:
            try:
                return str(umbel.get(box[0].wait.remote()))
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote([gate])
    umbel.cancel(ref)
    assert umbel.wait([ref], timeout=0)[0] == []
    umbel.cancel(ref, force=True)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref)


def test_cancellation_reaches_children_unless_told_not_to(gate: Any) -> None:
    @umbel.remote
    def parent(box: Any, register: Any) -> None:
        child = hold.remote(box)
        umbel.get(register.keep.remote([child]))
        umbel.get(child)

    @umbel.remote
    class Register:
        def keep(self, refs: Any) -> None:
            self.refs = refs

        def read(self) -> Any:
            return self.refs

    for is_recursive in (True, False):
        register = Register.remote()
        ref = parent.remote([gate], register)
        (child,) = umbel.get(register.read.remote())
        umbel.cancel(ref, recursive=is_recursive)
        assert_cancelled(ref)
        if is_recursive:
            assert_cancelled(child)
        else:
            gate.open.remote()
            assert umbel.get(child) == "open"


def test_consumers_of_a_cancelled_task_fail_with_it(gate: Any) -> None:
    ref = hold.remote([gate])
    consumer = umbel.remote(lambda x: x).remote(ref)
    umbel.cancel(ref)
    assert_cancelled(consumer)


def test_coroutine_is_cancelled_and_may_clean_up(gate: Any) -> None:
    ref = gate.wait.remote()
    umbel.cancel(ref)
    assert_cancelled(ref)
    assert umbel.get(gate.read.remote()) == ["cancelled"]


def test_queued_call_of_an_actor_is_removed(gate: Any) -> None:
    @umbel.remote
    class Plain:
        def hold(self, box: Any) -> Any:
            return umbel.get(box[0].wait.remote())

    plain = Plain.remote()
    running, queued = plain.hold.remote([gate]), plain.hold.remote([gate])
    umbel.cancel(queued)
    assert_cancelled(queued)
    gate.open.remote()
    assert umbel.get(running) == "open"


def test_running_method_is_only_told(gate: Any) -> None:
    @umbel.remote
    class Plain:
        def hold(self, box: Any) -> None:
            before = umbel.get_runtime_context().is_canceled()
            umbel.get(box[0].wait.remote())
            after = umbel.get_runtime_context().is_canceled()
            umbel.get(box[0].add.remote(f"{before}, then {after}"))

    ref = Plain.remote().hold.remote([gate])
    umbel.cancel(ref, recursive=False)
    gate.open.remote()
    assert_cancelled(ref)
    assert umbel.get(gate.read.remote()) == ["False, then True"]


def test_force_is_refused_for_methods(gate: Any) -> None:
    ref = gate.wait.remote()
    with pytest.raises(ValueError, match=r"use umbel\.kill"):
        umbel.cancel(ref, force=True)
    gate.open.remote()
    assert umbel.get(ref) == "open"


def test_task_may_cancel_itself() -> None:
    @umbel.remote
    class Box:
        def put(self, refs: Any) -> None:
            self.refs = refs

        def get(self) -> Any:
            return self.refs

    @umbel.remote
    def own(box: Any, started: Any) -> str:
        (me,) = umbel.get(box.get.remote())
        umbel.cancel(me)
        return "not reached"

    gate, box = Gate.remote(), Box.remote()
    ref = own.remote(box, gate.wait.remote())
    umbel.get(box.put.remote([ref]))
    gate.open.remote()
    assert_cancelled(ref)


def test_generator_is_interrupted_between_items(gate: Any) -> None:
    @umbel.remote(_generator_backpressure_num_objects=1)
    def items(box: Any) -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            umbel.get(box[0].add.remote("closed"))

    stream = items.remote([gate])
    umbel.cancel(stream)
    first, last = list(stream)
    assert umbel.get(first) == 1
    assert_cancelled(last)
    assert umbel.get(gate.read.remote()) == ["closed"]
