"""The load of a cluster under attack: that of the soak, anywhere in the cluster, and what only several nodes can get wrong.

As there, a call's value is a function of its arguments alone, or of what it was told has been done. Where a connection breaks,
a call of an actor may have run and its caller cannot know; so what actors add up is such that it shows in every later result
which calls have run, in which order, and whether one ran twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import umbel
from benchmarks import soak_load
from benchmarks.soak_load import CRASHES, FOREVER, Account, Call, failed, pattern, returned
from umbel import exceptions
from umbel.experimental import internal_kv

MAPPERS, REDUCERS = 4, 3
PART_BYTES = (1 << 10, 512 << 10)  # least and most: in messages, and in shared memory
BROADCAST_BYTES = (1 << 20, 4 << 20, 12 << 20)
ITEM_BYTES = 200 << 10  # more than travels in a message
ACCOUNTS = 4
OPENING_BALANCE = 1000
TRANSFERS_PER_SCENE = 5
SPREAD_SHARE = 0.6  # of what runs; the rest is where the runtime likes it
RETRY_PAUSE_S = 0.1
LOOKED_UP_FROM = 3  # tasks


@umbel.remote(max_retries=FOREVER, num_returns=REDUCERS)
def mapped(seed: int, size_bytes: int) -> list[bytes]:
    return [pattern(seed + number, size_bytes) for number in range(REDUCERS)]


@umbel.remote(max_retries=FOREVER)
def reduced(*parts: bytes) -> tuple[int, int]:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return os.getpid(), checksum


@umbel.remote(num_returns="streaming", max_retries=FOREVER)
def large_items(seed: int, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield pattern(seed + number, ITEM_BYTES)


@umbel.remote(max_retries=FOREVER)
def tree(depth: int, number: int) -> tuple[int, int]:
    """How many leaves, by tasks of tasks of tasks."""
    if depth == 0:
        return os.getpid(), number
    below = [tree.options(scheduling_strategy="SPREAD").remote(depth - 1, number) for _ in range(2)]
    return os.getpid(), sum(found for _pid, found in umbel.get(below))


@umbel.remote(max_retries=FOREVER)
def looked_up(name: str, number: int) -> tuple[int, int]:
    """The square, by an actor that is found by its name."""
    return os.getpid(), umbel.get(umbel.get_actor(name).square.remote(number))[1]


@umbel.remote(max_retries=FOREVER)
def found_or_made(name: str) -> tuple[int, str]:
    """The id of the actor of this name, which is made if it is not there."""
    actor = Account.options(
        name=name, get_if_exists=True, lifetime="detached", max_restarts=FOREVER, max_task_retries=FOREVER
    ).remote()
    umbel.get(actor.square.remote(1))
    return os.getpid(), actor._actor_id.hex()


@umbel.remote(max_retries=FOREVER)
def passed_on(box: list[Any]) -> list[Any]:
    """The references as they came, one process further."""
    return box


@umbel.remote(max_retries=FOREVER)
def read_through(box: list[Any]) -> tuple[int, int]:
    """The checksum of what the references inside lead to."""
    checksum = 0
    for value in umbel.get(box):
        checksum = zlib.crc32(value, checksum)
    return os.getpid(), checksum


@umbel.remote(max_retries=0)
def parent_of_sleepers(count: int) -> None:
    umbel.get([soak_load.sleep_until_cancelled.options(scheduling_strategy="SPREAD").remote() for _ in range(count)])


@umbel.remote(num_cpus=0)
class Relayer:
    """Passes a number on to the next one."""

    def __init__(self, following: Any) -> None:
        self._following = following

    def square(self, number: int) -> tuple[int, int]:
        if self._following is None:
            return os.getpid(), number * number
        return os.getpid(), umbel.get(self._following.square.remote(number))[1]

    @umbel.method(num_returns="streaming")
    def squares(self, count: int) -> Iterator[int]:
        for number in range(count):
            yield number * number


@umbel.remote(num_cpus=0)
class Vault:
    """An account of a bank. What it has lies in the control store, from where it goes on after its process has died.

    Each client numbers what it orders, and orders one thing at a time: what was carried out already is so once.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        kept = internal_kv._internal_kv_get(key)
        state = json.loads(kept) if kept else {"balance": OPENING_BALANCE, "done": {}}
        self._balance: int = state["balance"]
        self._done: dict[str, int] = state["done"]

    def add(self, client: str, number: int, amount: int) -> tuple[int, int]:
        if self._done.get(client, 0) < number:
            done = {**self._done, client: number}
            kept = json.dumps({"balance": self._balance + amount, "done": done})
            internal_kv._internal_kv_put(self._key, kept)
            self._balance, self._done = self._balance + amount, done
        return os.getpid(), self._balance

    def balance(self) -> tuple[int, int]:
        return os.getpid(), self._balance


class Bank:
    """Vaults between which one client moves money, and the sums that it expects.

    retries: whether the runtime repeats calls, or the client.
    """

    def __init__(self, name: str, *, retries: bool) -> None:
        self._name = name
        self._number = 0
        self.expected = [OPENING_BALANCE] * ACCOUNTS
        self._vaults = [
            Vault.options(
                name=f"{name}-{index}",
                lifetime="detached",
                max_restarts=FOREVER,
                max_task_retries=FOREVER if retries else 0,
                scheduling_strategy="SPREAD",
            ).remote(f"{name}-{index}")
            for index in range(ACCOUNTS)
        ]

    def transfer(self, source: int, to: int, amount: int, until_s: float) -> None:
        """Raises GetTimeoutError when it is not done by then, AssertionError when a balance is not what it must be."""
        for index, change in ((source, -amount), (to, amount)):
            self._number += 1
            self.expected[index] += change
            vault, number = self._vaults[index], self._number

            def ordered(vault: Any = vault, number: int = number, change: int = change) -> Any:
                return vault.add.remote(self._name, number, change)

            self._check(index, done_at_last(ordered, until_s)[1])

    def check(self, until_s: float) -> int:
        """The total, each balance being as expected."""
        found = [done_at_last(vault.balance.remote, until_s)[1] for vault in self._vaults]
        for index, balance in enumerate(found):
            self._check(index, balance)
        return sum(found)

    def _check(self, index: int, balance: int) -> None:
        if balance != self.expected[index]:
            raise AssertionError(f"vault {self._name}-{index} holds {balance}, expected {self.expected[index]}")

    def close(self) -> None:
        for index, vault in enumerate(self._vaults):
            umbel.kill(vault)
            internal_kv._internal_kv_del(f"{self._name}-{index}")
        self._vaults.clear()


def done_at_last(call: Callable[[], Any], until_s: float) -> Any:
    """Its result, repeated while the actor cannot be reached; for calls that may be repeated."""
    while True:
        try:
            return umbel.get(call(), timeout=max(1.0, until_s - time.monotonic()))
        except exceptions.ActorUnavailableError:
            if time.monotonic() > until_s:
                raise exceptions.GetTimeoutError("the actor cannot be reached") from None
            time.sleep(RETRY_PAUSE_S)


class ChaosLoad(soak_load.Load):
    """name: of what it makes, unlike any other's."""

    def __init__(self, seed: int, name: str, *, with_force: bool, lasting: bool = True) -> None:
        """lasting: it may make what does not end with its process."""
        super().__init__(seed, with_force=with_force)
        self.name = name
        self._named = 0
        self._banks: list[Bank] = []
        self.scenes = (
            *self.scenes,
            self.shuffle,
            self.shuffle,
            self.broadcast,
            self.large_generator,
            self.nested_tree,
            self.references_passed_on,
            self.cancelled_tree,
            self.chain_of_actors,
            self.items_of_an_actor,
        )
        if lasting:
            self._banks += [Bank(f"{name}-bank-{number}", retries=bool(number)) for number in range(2)]
            self.scenes += (self.transfers, self.transfers, self.named_actor, self.raced_name)

    def close(self) -> None:
        for bank in self._banks:
            bank.close()

    def anywhere(self, what: Any, **options: Any) -> Any:
        if self.random.random() < SPREAD_SHARE:
            options["scheduling_strategy"] = "SPREAD"
        return super().anywhere(what, **options)

    # ------------------------------------------------------------------------------------------- in place of the soak's

    def abandoned_generator(self) -> list[Call]:
        generator = self.anywhere(soak_load.squares_up_to).remote(100)
        return [
            Call("first item", lambda limit_s: umbel.get(next(generator), timeout=limit_s), lambda got: got[1] == 0)
        ]

    def fragile_actor(self) -> list[Call]:
        """The n-th call adds 2**n, so each result says which calls have run: none that comes later, each that has answered,
        and none twice."""
        actor = self.anywhere(Account).remote()
        refs = [actor.add.remote(1 << number) for number in range(20)]
        return [
            Call("fragile actor", soak_load.waiting(ref), is_right, crashes=CRASHES, ref=ref)
            for ref, is_right in zip(refs, judges_of_powers(len(refs)), strict=True)
        ]

    def killed_actor(self) -> list[Call]:
        actor = self.anywhere(Account).remote()
        umbel.kill(actor)
        return [failed("call after kill", actor.square.remote(7), (exceptions.ActorDiedError,), crashes=CRASHES)]

    # -------------------------------------------------------------------------------------------------- between nodes

    def shuffle(self) -> list[Call]:
        seeds = [self.random.randrange(1 << 30) for _ in range(MAPPERS)]
        size_bytes = self.random.randrange(*PART_BYTES) // 1024 * 1024
        parts = [self.anywhere(mapped).remote(seed, size_bytes) for seed in seeds]
        calls = []
        for number in range(REDUCERS):
            wanted = 0
            for seed in seeds:
                wanted = zlib.crc32(pattern(seed + number, size_bytes), wanted)
            ref = self.anywhere(reduced).remote(*(row[number] for row in parts))
            calls.append(returned("shuffle", ref, wanted))
        return calls

    def broadcast(self) -> list[Call]:
        """One large value, read on many nodes at once: one that was put, or made anywhere."""
        seed, size_bytes = self.random.randrange(1 << 30), self.random.choice(BROADCAST_BYTES)
        value = pattern(seed, size_bytes)
        is_put = self.random.random() < 0.5
        ref = umbel.put(value) if is_put else self.anywhere(soak_load.make).remote(seed, size_bytes)
        wanted = zlib.crc32(value)
        return [returned("broadcast", self.anywhere(soak_load.checksum).remote(ref), wanted) for _ in range(8)]

    def references_passed_on(self) -> list[Call]:
        """Nobody here keeps them: what reads them far away counts on who passed them on."""
        seed, count = self.random.randrange(1 << 30), 3
        size_bytes = self.random.choice([1, 300]) * 1024
        boxes = [umbel.put(pattern(seed + number, size_bytes)) for number in range(count - 1)]
        boxes.append(self.anywhere(soak_load.make).remote(seed + count - 1, size_bytes))
        wanted = 0
        for number in range(count):
            wanted = zlib.crc32(pattern(seed + number, size_bytes), wanted)
        ref = self.anywhere(passed_on).remote(boxes)
        for _ in range(self.random.randrange(3)):
            ref = self.anywhere(passed_on).remote(ref)
        return [returned("references passed on", self.anywhere(read_through).remote(ref), wanted)]

    def cancelled_tree(self) -> list[Call]:
        ref = self.anywhere(parent_of_sleepers).remote(self.random.randrange(1, 4))
        if self.random.random() < 0.7:
            time.sleep(self.random.uniform(0, 0.3))  # so that some have children
        umbel.cancel(ref, force=self.with_force and self.random.random() < 0.3)
        return [
            failed("cancelled tree", ref, (*soak_load.CANCELLED, exceptions.UmbelTaskError), crashes=CRASHES),
        ]

    def chain_of_actors(self) -> list[Call]:
        actor = None
        for _ in range(self.random.randrange(2, 5)):
            actor = self.anywhere(Relayer, max_restarts=FOREVER, max_task_retries=FOREVER).remote(actor)
        assert actor is not None
        numbers = [self.random.randrange(1000) for _ in range(5)]
        return [returned("chain of actors", actor.square.remote(number), number * number) for number in numbers]

    def items_of_an_actor(self) -> list[Call]:
        count = self.random.randrange(1, 20)
        actor = self.anywhere(Relayer, max_restarts=FOREVER, max_task_retries=FOREVER).remote(None)
        items = actor.squares.remote(count)

        def result(limit_s: float) -> list[int]:
            return [umbel.get(ref, timeout=limit_s) for ref in items]

        wanted = [number * number for number in range(count)]
        return [Call("items of an actor", result, lambda got: got == wanted, keep=actor)]

    def large_generator(self) -> list[Call]:
        seed, count = self.random.randrange(1 << 30), self.random.randrange(1, 6)
        generator = self.anywhere(large_items).remote(seed, count)
        wanted = [zlib.crc32(pattern(seed + number, ITEM_BYTES)) for number in range(count)]

        def result(limit_s: float) -> list[int]:
            return [zlib.crc32(umbel.get(ref, timeout=limit_s)) for ref in generator]

        return [Call("large generator", result, lambda got: got == wanted)]

    def nested_tree(self) -> list[Call]:
        depth, number = self.random.randrange(1, 4), self.random.randrange(1000)
        return [returned("tree", self.anywhere(tree).remote(depth, number), number << depth)]

    def transfers(self) -> list[Call]:
        """In one call, since the next must not begin before the one before is done."""
        bank = self.random.choice(self._banks)
        orders = [
            (*self.random.sample(range(ACCOUNTS), 2), self.random.randrange(100)) for _ in range(TRANSFERS_PER_SCENE)
        ]

        def result(limit_s: float) -> int:
            until_s = time.monotonic() + limit_s
            for source, to, amount in orders:
                bank.transfer(source, to, amount, until_s)
            return bank.check(until_s)

        return [Call("bank", result, lambda got: got == ACCOUNTS * OPENING_BALANCE)]

    def named_actor(self) -> list[Call]:
        """Found from several nodes, then killed; its name is free after that."""
        self._named += 1
        name, number = f"{self.name}-{self._named}", self.random.randrange(10_000)
        actor = self.anywhere(
            Account, name=name, lifetime="detached", max_restarts=FOREVER, max_task_retries=FOREVER
        ).remote()
        refs = [self.anywhere(looked_up).remote(name, number) for _ in range(LOOKED_UP_FROM)]

        def result(limit_s: float) -> tuple[list[int], bool]:
            until_s = time.monotonic() + limit_s
            squares = [found for _pid, found in umbel.get(refs, timeout=limit_s)]
            umbel.kill(actor)
            return squares, is_free(name, until_s)

        return [Call("named actor", result, lambda got: got == ([number * number] * LOOKED_UP_FROM, True))]

    def raced_name(self) -> list[Call]:
        """Several nodes make an actor of the same name: they all get the same one."""
        self._named += 1
        name = f"{self.name}-{self._named}"
        refs = [self.anywhere(found_or_made).remote(name) for _ in range(LOOKED_UP_FROM)]

        def result(limit_s: float) -> tuple[int, bool]:
            until_s = time.monotonic() + limit_s
            ids = {found for _pid, found in umbel.get(refs, timeout=limit_s)}
            umbel.kill(umbel.get_actor(name))
            return len(ids), is_free(name, until_s)

        return [Call("raced name", result, lambda got: got == (1, True))]


def judges_of_powers(count: int) -> list[Callable[[Any], bool]]:
    """Of each call its judge, in the order in which they are to be asked."""
    answered = 0

    def judge(number: int) -> Callable[[Any], bool]:
        def is_right(got: tuple[int, int]) -> bool:
            nonlocal answered
            total = got[1]
            fits = total >> number == 1 and total & answered == answered
            answered |= 1 << number
            return fits

        return is_right

    return [judge(number) for number in range(count)]


def is_free(name: str, until_s: float) -> bool:
    """Whether nobody has the name any more, soon after its actor was killed."""
    while time.monotonic() < until_s:
        with contextlib.suppress(ValueError):
            umbel.get_actor(name)
            time.sleep(RETRY_PAUSE_S)
            continue
        return True
    return False
