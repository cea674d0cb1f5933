"""Wrong programs: mypy finds a mistake in each marked line, and nowhere else. Never run.

`warn_unused_ignores` reports a mark without a mistake, and a mistake of another kind is not covered by its mark.
"""

from __future__ import annotations

from collections.abc import Iterator

import umbel
from umbel import util


@umbel.remote
def add(a: int, b: int = 2) -> int:
    return a + b


@umbel.remote(num_cpus=2)
def scale(values: list[float], *, by: float) -> list[float]:
    return [value * by for value in values]


@umbel.remote
def count(n: int) -> Iterator[int]:
    yield n


@umbel.remote
class Counter:
    def __init__(self, start: int, step: int = 1) -> None: ...

    def more(self, by: int) -> int:
        return by


class Plain:
    def __init__(self, start: int) -> None: ...


one = add.remote(1)
text = umbel.put("x")

# Arguments.
add.remote("a")  # type: ignore[call-overload]
add.remote()  # type: ignore[call-overload]
add.remote(1, 2, 3)  # type: ignore[call-overload]
add.remote(1, c=2)  # type: ignore[call-overload]
add.remote(1, b=text)  # type: ignore[arg-type]
add.options(num_cpus=1).remote("a")  # type: ignore[call-overload]
scale.remote([1.0])  # type: ignore[call-overload]
scale.remote(["a"], by=2)  # type: ignore[list-item]
count.remote("a")  # type: ignore[call-overload]
umbel.remote(add.__wrapped__).remote("a")  # type: ignore[call-overload]
add(1, 2)  # type: ignore[operator]
add.remot(1)  # type: ignore[attr-defined]

# Results.
wrong: str = umbel.get(one)  # type: ignore[assignment]
wrongs: list[str] = umbel.get([one])  # type: ignore[list-item]
wrong_ref: umbel.ObjectRef[str] = one  # type: ignore[assignment]
wrong_item: umbel.ObjectRef[str] = next(count.remote(1))  # type: ignore[arg-type]
wrong_future: str = one.future().result()  # type: ignore[assignment]
one + 1  # type: ignore[operator]


async def waits() -> str:
    return await one  # type: ignore[return-value]


# Options.
@umbel.remote(num_cpus="x")  # type: ignore[call-overload, untyped-decorator]
def cpus() -> None: ...


@umbel.remote(nonsense=1)  # type: ignore[call-overload, untyped-decorator]
def nonsense() -> None: ...


@umbel.remote(max_restarts=1)  # type: ignore[call-overload]
def restarts() -> None: ...


@umbel.remote(num_returns="many")  # type: ignore[call-overload, untyped-decorator]
def returns() -> None: ...


add.options(num_cpus="x")  # type: ignore[call-overload]
add.options(max_restarts=1)  # type: ignore[call-overload]
umbel.remote(max_calls=1)(Plain)
Counter.options(lifetime="for ever").remote(1)  # type: ignore[arg-type]
Counter.options(num_returns=2).remote(1)  # type: ignore[call-arg]
umbel.method(num_cpus=1)  # type: ignore[call-overload]

# Public functions.
umbel.get(1)  # type: ignore[call-overload]
umbel.get({one})  # type: ignore[call-overload]
umbel.get(add)  # type: ignore[call-overload]
umbel.wait(one)  # type: ignore[call-overload]
umbel.wait((one,))  # type: ignore[call-overload]
umbel.wait([1])  # type: ignore[type-var]
umbel.cancel(add)  # type: ignore[arg-type]
umbel.kill(one)  # type: ignore[arg-type]
number: str = next(util.as_completed([one]))  # type: ignore[assignment]

# Actors.
Counter.remote("a")  # type: ignore[call-overload]
Counter.remote()  # type: ignore[call-overload]
Counter.options(name="c").remote(1, 2, 3)  # type: ignore[call-overload]
umbel.remote(Plain).remote("a")  # type: ignore[call-overload]
umbel.remote(Plain)(1)  # type: ignore[operator]
counter = Counter.remote(1)
counter.more(1)  # type: ignore[operator]
counter.more.options(max_restarts=1)  # type: ignore[call-arg]
plain: umbel.ActorHandle[Plain] = counter  # type: ignore[assignment]
