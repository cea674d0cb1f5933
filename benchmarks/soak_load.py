"""The soak's load: calls of every kind, each with the one right result it may have and the errors that are right too.

A scene submits some calls and returns them; nothing is awaited there. The values are functions of the arguments alone,
so that the driver can tell a right result from a wrong one whatever was killed meanwhile. What retries for ever must
give its result; what may not be retried may also end in the error that says its process died, if one was killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import umbel
from umbel import exceptions

CRASHES: tuple[type[Exception], ...] = (
    exceptions.WorkerCrashedError,
    exceptions.ObjectLostError,  # and its kinds, among them OwnerDiedError
    exceptions.ActorDiedError,
    exceptions.ActorUnavailableError,
)
CANCELLED: tuple[type[Exception], ...] = (exceptions.TaskCancelledError, exceptions.WorkerCrashedError)
FOREVER = -1  # the number of retries of what must never be lost
NEVER_S = 600.0  # how long a call runs that is there to be cancelled


@dataclass(frozen=True)
class Call:
    """A submitted call. `is_right` judges its result; a result of None means that no result is right."""

    kind: str
    result: Callable[[float], Any]  # waits at most so many seconds
    is_right: Callable[[Any], bool] | None
    crashes: tuple[type[Exception], ...] = ()  # right if a process was killed since the call
    errors: tuple[type[Exception], ...] = ()  # right always
    message: str = ""  # what a right error's text holds
    keep: object = None  # a handle that has to outlive the call
    ref: object = None  # what is waited for, if that is one thing
    submitted_s: float = field(default_factory=time.monotonic)


def pattern(seed: int, size_bytes: int) -> bytes:
    """The same bytes for the same arguments, in every process."""
    return random.Random(seed).randbytes(1024) * (size_bytes // 1024)


@umbel.remote(max_retries=FOREVER)
def square(number: int) -> tuple[int, int]:
    return os.getpid(), number * number


@umbel.remote(max_retries=0)
def fragile_square(number: int, pause_s: float) -> tuple[int, int]:
    time.sleep(pause_s)
    return os.getpid(), number * number


@umbel.remote(max_retries=FOREVER)
def successor(before: tuple[int, int]) -> tuple[int, int]:
    return os.getpid(), before[1] + 1


@umbel.remote(max_retries=FOREVER)
def make(seed: int, size_bytes: int) -> bytes:
    return pattern(seed, size_bytes)


@umbel.remote(max_retries=FOREVER)
def checksum(payload: bytes) -> tuple[int, int]:
    return os.getpid(), zlib.crc32(payload)


@umbel.remote(max_retries=FOREVER)
def sum_of_squares(count: int) -> tuple[int, int]:
    return os.getpid(), sum(value for _pid, value in umbel.get([square.remote(number) for number in range(count)]))


@umbel.remote(max_retries=0)
def refuse(number: int) -> None:
    raise ValueError(f"{number} is refused")


@umbel.remote(max_retries=0)
def sleep_until_cancelled() -> str:
    end = time.monotonic() + NEVER_S
    while time.monotonic() < end:
        time.sleep(0.05)  # an interrupt arrives between two of them
    return "not cancelled"


@umbel.remote(num_returns="streaming", max_retries=FOREVER)
def squares_up_to(stop: int) -> Iterator[tuple[int, int]]:
    number = 0
    while number < stop:
        yield os.getpid(), number * number
        number += 1


@umbel.remote(max_retries=FOREVER)
def own_refs(seed: int, count: int) -> list[Any]:
    return [umbel.put(pattern(seed + index, 1024)) for index in range(count)]


@umbel.remote(num_cpus=0)
class Account:
    """Keeps a sum, so that a lost or repeated call shows in every later result."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, amount: int) -> tuple[int, int]:
        self.total += amount
        return os.getpid(), self.total

    def square(self, number: int) -> tuple[int, int]:
        return os.getpid(), number * number


@umbel.remote(max_retries=FOREVER)
def ask(account: Any, number: int) -> tuple[int, int]:
    return os.getpid(), umbel.get(account.square.remote(number))[1]


@umbel.remote(num_cpus=0)
class Waiter:
    async def square(self, number: int, pause_s: float) -> tuple[int, int]:
        await asyncio.sleep(pause_s)
        return os.getpid(), number * number


class Load:
    """Submits scenes drawn by chance. One for each thread: a random generator is not shared.

    with_force: some cancellations are forced. That ends a worker like a kill, so what it owned may be lost with it.
    """

    def __init__(self, seed: int, *, with_force: bool) -> None:
        self.random = random.Random(seed)
        self.with_force = with_force
        self.scenes: tuple[Callable[[], list[Call]], ...] = (
            self.tasks,
            self.fragile_tasks,
            self.chain,
            self.large_results,
            self.puts,
            self.nested,
            self.waited,
            self.refused,
            self.cancelled,
            self.generators,
            self.abandoned_generator,
            self.borrowed,
            self.sturdy_actor,
            self.fragile_actor,
            self.restarted_actor,
            self.killed_actor,
            self.shared_actor,
            self.async_actor,
        )

    def anywhere(self, what: Any, **options: Any) -> Any:
        """The function or class with these options; where there are several nodes, on any of them."""
        return what.options(**options) if options else what

    def round(self, scenes: int) -> list[Call]:
        return [call for _ in range(scenes) for call in self.random.choice(self.scenes)()]

    # ------------------------------------------------------------------------------------------------------------ tasks

    def tasks(self) -> list[Call]:
        numbers = [self.random.randrange(10_000) for _ in range(50)]
        return [returned("task", self.anywhere(square).remote(number), number * number) for number in numbers]

    def fragile_tasks(self) -> list[Call]:
        numbers = [self.random.randrange(10_000) for _ in range(10)]
        return [
            returned(
                "fragile task",
                self.anywhere(fragile_square).remote(number, self.random.uniform(0, 0.05)),
                number * number,
                crashes=CRASHES,
            )
            for number in numbers
        ]

    def chain(self) -> list[Call]:
        start, length = self.random.randrange(1000), 10
        ref = self.anywhere(square).remote(start)
        for _ in range(length):
            ref = self.anywhere(successor).remote(ref)
        return [returned("chain", ref, start * start + length)]

    def large_results(self) -> list[Call]:
        calls = []
        for _ in range(3):
            seed, size_bytes = self.random.randrange(1 << 30), self.random.randrange(1, 4096) * 1024
            ref = self.anywhere(make).remote(seed, size_bytes)
            calls.append(
                returned(
                    "task on a large result", self.anywhere(checksum).remote(ref), zlib.crc32(pattern(seed, size_bytes))
                )
            )
            calls.append(value("large result", ref, pattern(seed, size_bytes)))
        return calls

    def puts(self) -> list[Call]:
        seed, size_bytes = self.random.randrange(1 << 30), self.random.choice([1, 64, 512, 2048]) * 1024
        payload = pattern(seed, size_bytes)
        ref = umbel.put(payload)
        return [
            returned("task on a put", self.anywhere(checksum).remote(ref), zlib.crc32(payload)),
            value("put", ref, payload),
        ]

    def nested(self) -> list[Call]:
        count = self.random.randrange(2, 12)
        return [
            returned(
                "nested", self.anywhere(sum_of_squares).remote(count), sum(number * number for number in range(count))
            )
        ]

    def waited(self) -> list[Call]:
        """`wait` gives exactly so many, each reference once, both lists in the order given."""
        refs = [self.anywhere(square).remote(number) for number in range(20)]
        count = self.random.randrange(1, len(refs))

        def result(limit_s: float) -> tuple[list[Any], list[Any]]:
            return umbel.wait(refs, num_returns=count, timeout=limit_s)

        def is_right(got: tuple[list[Any], list[Any]]) -> bool:
            ready, rest = (set(part) for part in got)
            in_order = [ref for ref in refs if ref in ready], [ref for ref in refs if ref in rest]
            return len(ready) == count and len(ready) + len(rest) == len(refs) and (got[0], got[1]) == in_order

        return [Call("wait", result, is_right)]

    def refused(self) -> list[Call]:
        number = self.random.randrange(10_000)
        ref = self.anywhere(refuse).remote(number)
        return [failed("refused", ref, (ValueError,), message=f"{number} is refused", crashes=CRASHES)]

    def cancelled(self) -> list[Call]:
        ref = self.anywhere(sleep_until_cancelled).remote()
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0, 0.1))  # so that some are running
        umbel.cancel(ref, force=self.with_force and self.random.random() < 0.3)
        # An interrupt that lands in the task's own code is that task's error (core.md 2.4: callers accept both).
        # One whose process died, or the connection to it broke, before it was cancelled ends in that error.
        return [failed("cancelled", ref, (*CANCELLED, exceptions.UmbelTaskError), crashes=CRASHES)]

    def generators(self) -> list[Call]:
        stop = self.random.randrange(1, 40)
        generator = self.anywhere(squares_up_to).remote(stop)

        def result(limit_s: float) -> list[int]:
            return [item for _pid, item in (umbel.get(ref, timeout=limit_s) for ref in generator)]

        return [Call("generator", result, lambda got: got == [number * number for number in range(stop)])]

    def abandoned_generator(self) -> list[Call]:
        generator = self.anywhere(squares_up_to).remote(100)
        return [returned("first item", next(generator), 0)]  # the others are nobody's and must be freed

    def borrowed(self) -> list[Call]:
        """References made by a worker: their values die with it."""
        seed, count = self.random.randrange(1 << 30), 5
        ref = self.anywhere(own_refs).remote(seed, count)

        def result(limit_s: float) -> list[bytes]:
            return list(umbel.get(umbel.get(ref, timeout=limit_s), timeout=limit_s))

        wanted = [pattern(seed + index, 1024) for index in range(count)]
        return [Call("borrowed", result, lambda got: got == wanted, crashes=CRASHES)]

    # ----------------------------------------------------------------------------------------------------------- actors

    def sturdy_actor(self) -> list[Call]:
        actor = self.anywhere(Account, max_restarts=FOREVER, max_task_retries=FOREVER).remote()
        numbers = [self.random.randrange(10_000) for _ in range(20)]
        return [
            returned("sturdy actor", actor.square.remote(number), number * number, keep=actor) for number in numbers
        ]

    def fragile_actor(self) -> list[Call]:
        """No restart: every result it gives is the exact sum so far. Its handle goes before its calls are done."""
        actor = self.anywhere(Account).remote()
        calls, total = [], 0
        for _ in range(20):
            amount = self.random.randrange(100)
            total += amount
            calls.append(returned("fragile actor", actor.add.remote(amount), total, crashes=CRASHES))
        return calls

    def restarted_actor(self) -> list[Call]:
        actor = self.anywhere(Account, max_restarts=FOREVER).remote()
        numbers = [self.random.randrange(10_000) for _ in range(20)]
        return [
            returned("restarted actor", actor.square.remote(number), number * number, crashes=CRASHES, keep=actor)
            for number in numbers
        ]

    def killed_actor(self) -> list[Call]:
        actor = self.anywhere(Account).remote()
        umbel.kill(actor)
        return [failed("call after kill", actor.square.remote(7), (exceptions.ActorDiedError,))]

    def shared_actor(self) -> list[Call]:
        """The handle goes along with tasks, and from here it goes at once."""
        actor = self.anywhere(Account, max_restarts=FOREVER, max_task_retries=FOREVER).remote()
        return [
            returned("shared actor", self.anywhere(ask).remote(actor, number), number * number) for number in range(5)
        ]

    def async_actor(self) -> list[Call]:
        actor = self.anywhere(Waiter).remote()
        numbers = [self.random.randrange(10_000) for _ in range(20)]
        return [
            returned(
                "async actor",
                actor.square.remote(number, self.random.uniform(0, 0.02)),
                number * number,
                crashes=CRASHES,
            )
            for number in numbers
        ]


def returned(
    kind: str,
    ref: Any,
    wanted: object,
    *,
    crashes: tuple[type[Exception], ...] = (),
    keep: object = None,
) -> Call:
    """A call whose result is (pid, wanted)."""
    return Call(kind, waiting(ref), lambda got: bool(got[1] == wanted), crashes=crashes, keep=keep, ref=ref)


def value(kind: str, ref: Any, wanted: object) -> Call:
    return Call(kind, waiting(ref), lambda got: bool(got == wanted), ref=ref)


def failed(
    kind: str,
    ref: Any,
    errors: tuple[type[Exception], ...],
    *,
    message: str = "",
    crashes: tuple[type[Exception], ...] = (),
) -> Call:
    """A call that must end in one of these errors."""
    return Call(kind, waiting(ref), None, errors=errors, message=message, crashes=crashes, ref=ref)


def waiting(ref: Any) -> Callable[[float], Any]:
    return lambda limit_s: umbel.get(ref, timeout=limit_s)
