"""Collective groups of which a rank dies or stops at a chosen point of an operation.

The ranks are forked children, connected as a group's processes are, with no runtime around: so that they are there at
once, and a rank can send itself the signal exactly where the test wants it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import drivers
import pytest

from umbel import exceptions
from umbel._plugins import registry
from umbel.util.collective import groups, links, peers

np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the backend shm needs Linux"),
]

FORK = multiprocessing.get_context("fork")
PATIENCE_S = 20.0  # of groups in which nobody is late
SHORT_S = 1.5  # of groups in which a rank stops; the others need the time to come so far
SOON_S = 2.0  # within which the others know it, once they can
COUNT = (64 << 20) // 4  # elements of 4 bytes, which go in many pieces
FEWER = (4 << 20) // 4  # the same, for groups without patience
VICTIM = 1
WORLD_SIZE = 3

Sockets = dict[int, Any]


class Told(NamedTuple):
    """What a rank says of itself once it has got its error. at_s: time.monotonic(), which all processes share."""

    error: BaseException
    at_s: float
    left: list[str]


class Here:
    """One rank, in its process. sockets: for each group that it will be in, those to the others, by rank."""

    def __init__(self, backend: str, rank: int, pipe: Any, directory: str, sockets: list[Sockets]) -> None:
        self.rank = rank
        self.backend = backend
        self._pipe = pipe
        self._directory = directory
        self._sockets = sockets

    def enter(self, rank: int, timeout_s: float, prepare: Callable[[Here], None] = lambda here: None) -> groups.Group:
        """The next group. prepare: called before its backend."""
        sockets = self._sockets.pop(0)
        self.peers = peers.Peers(
            links.Links(sockets), group_name="crashing", rank=rank, world_size=len(sockets) + 1, timeout_s=timeout_s,
            directory=self._directory,
        )  # fmt: skip
        prepare(self)
        try:
            return groups.Group(
                self.peers, registry.installed().collectives.create(self.backend, self.peers), self.backend
            )
        except BaseException as error:
            self.peers.give_up(f"{type(error).__name__}: {error}")
            self.peers.close()
            raise

    def say(self, what: Any) -> None:
        self._pipe.send(what)

    def end(self, how: signal.Signals) -> None:
        """This process sends itself the signal."""
        self.say(time.monotonic())
        os.kill(os.getpid(), how)

    def then(self, name: str, act: Callable[[], None]) -> None:
        """When the peers' method of that name has returned next, `act`."""
        method = getattr(self.peers, name)

        def stepped(*args: Any, **options: Any) -> Any:
            setattr(self.peers, name, method)
            result = method(*args, **options)
            act()
            return result

        setattr(self.peers, name, stepped)


def threads_and_files() -> list[str]:
    """Of this process."""
    found = ["thread"] * len(os.listdir("/proc/self/task"))
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry).split(":")[0])
        except OSError:
            continue  # the listing's own
    return sorted(found)


def difference(more: list[str], less: list[str]) -> list[str]:
    rest = list(more)
    for one in less:
        if one in rest:
            rest.remove(one)
    return rest


class Child:
    """A rank, seen from here."""

    def __init__(self, run: Callable[[Any], None]) -> None:
        self._pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=run, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def told(self) -> Any:
        connection.wait([self._pipe, self.process.sentinel], drivers.PATIENCE_S)
        assert self._pipe.poll(), f"rank's process says nothing; {self.process!r}"
        return self._pipe.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def run_rank(here: Here, work: Work, timeout_s: float, ends_in_s: float, later: list[int], pipe: Any) -> None:
    """In a child: work until it fails, leave, say so, and make a new group with those that are left."""
    expected = difference(threads_and_files(), ["socket"] * (WORLD_SIZE - 1))  # those of the group that is left
    group = None
    try:
        group = here.enter(here.rank, timeout_s, work.prepare)
        work.run(here, group)
        raise AssertionError("nothing went wrong")
    except (exceptions.CollectiveError, KeyboardInterrupt) as error:
        at_s, found = time.monotonic(), pickle.loads(pickle.dumps(error))  # without the frames, which hold tensors
    if group is not None:
        group.leave()
    until_s = time.monotonic() + ends_in_s
    while (left := difference(threads_and_files(), expected)) and time.monotonic() < until_s:
        time.sleep(0.01)
    pipe.send(Told(found, at_s, left))
    group = here.enter(later.index(here.rank), PATIENCE_S)
    check_every_operation(group)
    group.leave()
    pipe.send("right")
    pipe.recv()  # until the others are done too


def check_every_operation(group: groups.Group) -> None:
    """By the least of what each has to do; the conformance suite does the rest, with threads."""
    rank, size = group.rank, group.world_size
    sums = size * (size - 1) / 2

    def filled(value: float) -> Any:
        return np.full(FEWER, value, "f4")

    def check(found: Any, value: float) -> None:
        np.testing.assert_array_equal(found, filled(value))

    tensor, outputs = filled(rank), [filled(-1) for _ in range(size)]
    group.run(lambda one: one.allgather(outputs, tensor))
    for other in range(size):
        check(outputs[other], other)
    group.run(lambda one: one.reducescatter(tensor, [filled(10 * other + rank) for other in range(size)], "sum"))
    check(tensor, 10 * size * rank + sums)
    group.run(lambda one: one.broadcast(tensor, 1))
    check(tensor, 10 * size + sums)
    tensor = filled(rank)
    group.run(lambda one: one.reduce(tensor, 0, "sum"))
    check(tensor, rank or sums)
    tensor = filled(rank)
    group.run(lambda one: one.allreduce(tensor, "max"))
    check(tensor, size - 1)
    if rank == 0:
        group.run(lambda one: one.send(filled(7), size - 1))
    elif rank == size - 1:
        group.run(lambda one: one.recv(tensor, 0))
        check(tensor, 7)
    group.run(lambda one: one.barrier())


@contextmanager
def ranks(
    backend: str,
    work: Work,
    directory: Path,
    *,
    timeout_s: float = PATIENCE_S,
    ends_in_s: float = SOON_S,
    later: list[int],
) -> Iterator[list[Child]]:
    """timeout_s: the group's. ends_in_s: within which nothing of it must be left. later: those that make a new group,
    and perhaps have another one beside the first."""
    first: list[Sockets] = [{} for _ in range(WORLD_SIZE)]
    second: list[Sockets] = [{} for _ in later]
    third: list[Sockets] = [{} for _ in later]
    every = []
    for made in (first, second, third):
        for one in range(len(made)):
            for other in range(one):
                made[one][other], made[other][one] = links.pair()
                every += [made[one][other], made[other][one]]

    def start(rank: int) -> Child:
        own = [first[rank], *(made[later.index(rank)] for made in (second, third) if rank in later)]

        def run(pipe: Any) -> None:
            kept = [sock for sockets in own for sock in sockets.values()]
            for sock in every:
                if sock not in kept:
                    sock.close()
            if backend == "gloo":
                sys.modules["torch"].set_num_threads(1)  # its others are the parent's, and it would wait for them
            run_rank(Here(backend, rank, pipe, str(directory), own), work, timeout_s, ends_in_s, later, pipe)

        return Child(run)

    with ExitStack() as stack:
        children = []
        for rank in range(WORLD_SIZE):
            children.append(start(rank))
            stack.callback(children[-1].end)
        for sock in every:
            sock.close()
        yield children


@pytest.fixture(params=["shm", pytest.param("gloo", marks=pytest.mark.torch)])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "gloo":
        pytest.importorskip("torch")
        importlib.import_module("torch.distributed")  # once, and not in every child
    return name


class Work:
    """What the ranks do until it fails. `how`: the signal that the victim sends itself on the way."""

    def __init__(self, how: signal.Signals, count: int = COUNT) -> None:
        self.how = how
        self.count = count

    def prepare(self, here: Here) -> None:
        """Before the group is there."""

    def run(self, here: Here, group: groups.Group) -> None:
        raise NotImplementedError  # every kind of work has its own


class Making(Work):
    """The victim knows where the others are, and they know where it is, but it has connected to none."""

    def prepare(self, here: Here) -> None:
        if here.rank == VICTIM:
            here.then("exchange" if here.backend == "gloo" else "exchange_descriptors", lambda: here.end(self.how))

    def run(self, here: Here, group: groups.Group) -> None:
        group.run(lambda one: one.barrier())


class Agreed(Work):
    """The victim has agreed with the others on an operation, and does no more for it."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.ones(self.count, "f4")
        group.run(lambda one: one.allreduce(tensor, "max"))
        if here.rank == VICTIM:
            here.then("exchange", lambda: here.end(self.how))
        group.run(lambda one: one.allreduce(tensor, "max"))


class Within(Work):
    """The victim is in the midst of an operation."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.zeros(self.count, "f4")
        group.run(lambda one: one.allreduce(tensor, "max"))
        if here.rank == VICTIM:
            threading.Thread(target=self._watch, args=[here, tensor], daemon=True).start()
        else:
            tensor += 1
        while True:
            group.run(lambda one: one.allreduce(tensor, "max"))

    def _watch(self, here: Here, tensor: Any) -> None:
        while not (tensor[0] or tensor[self.count // 2] or tensor[-1]):
            pass
        here.end(self.how)


class WithinBroadcast(Within):
    """The victim has got a part of what rank 0 sends to all."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.full(4 * self.count, float(here.rank == 0), "f4")  # more than fits on the way
        if here.rank == VICTIM:
            threading.Thread(target=self._watch, args=[here, tensor], daemon=True).start()
        while True:
            group.run(lambda one: one.broadcast(tensor, 0))


class WithinSend(Within):
    """The victim has got a part of what rank 0 sends to it; rank 2 waits for both."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.full(4 * self.count, float(here.rank == 0), "f4")
        if here.rank == VICTIM:
            threading.Thread(target=self._watch, args=[here, tensor], daemon=True).start()
        while here.rank < 2:
            if here.rank == VICTIM:
                group.run(lambda one: one.recv(tensor, 0))
            else:
                group.run(lambda one: one.send(tensor, VICTIM))
        group.run(lambda one: one.barrier())


class Sending(Work):
    """The victim has agreed with rank 0 to send; rank 2 waits for both."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.ones(self.count, "f4")
        if here.rank == VICTIM:
            here.then("send", lambda: here.end(self.how))
            group.run(lambda one: one.send(tensor, 0))
        elif here.rank == 0:
            group.run(lambda one: one.recv(tensor, VICTIM))
        group.run(lambda one: one.barrier())


class Receiving(Work):
    """The victim has agreed with rank 0 to receive; rank 2 waits for both."""

    def run(self, here: Here, group: groups.Group) -> None:
        tensor = np.ones(self.count, "f4")
        if here.rank == VICTIM:
            here.then("receive", lambda: here.end(self.how))
            group.run(lambda one: one.recv(tensor, 0))
        elif here.rank == 0:
            group.run(lambda one: one.send(tensor, VICTIM))
        group.run(lambda one: one.barrier())


class Forked(Sending):
    """A child that the victim has forked lives on, with all its open files."""

    def run(self, here: Here, group: groups.Group) -> None:
        if here.rank == VICTIM:
            child = os.fork()
            if not child:
                signal.pause()
            here.say(child)
        super().run(here, group)


class Forking(Agreed):
    """Every rank forks a child before, which ends as a program does: without Gloo's threads, but with its objects."""

    def run(self, here: Here, group: groups.Group) -> None:
        child = os.fork()
        if not child:
            sys.exit(3)
        try:
            drivers.wait_until(lambda: not drivers.is_running(child), what="the child to end")
        finally:
            drivers.kill(child)
            status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 3
        super().run(here, group)


class Beside(Within):
    """Those who are left have another group, which is at work all the time."""

    def run(self, here: Here, group: groups.Group) -> None:
        if here.rank == VICTIM:
            super().run(here, group)
        other = here.enter(here.rank // 2, PATIENCE_S)
        is_over = threading.Event()
        errors: list[BaseException] = []
        thread = threading.Thread(target=self._reduce, args=[other, is_over, errors])
        thread.start()
        try:
            super().run(here, group)
        finally:
            is_over.set()
            thread.join(drivers.PATIENCE_S)
            other.leave()
            assert (thread.is_alive(), errors) == (False, [])

    @staticmethod
    def _reduce(other: groups.Group, is_over: threading.Event, errors: list[BaseException]) -> None:
        """Until all want to end."""
        count = 0
        try:
            while count < 2:
                tensor = np.full(FEWER // 8, float(is_over.is_set()))
                other.run(lambda one: one.allreduce(tensor, "sum"))
                count = tensor[0]
        except BaseException as error:
            errors.append(error)


WORKS = [Making, Agreed, Within, WithinBroadcast, WithinSend, Sending, Receiving]


def is_left(backend: str, work: type[Work]) -> bool:
    """Gloo may go on waiting: for connections for five time-outs, to send the rest of a tensor for one. And the
    descriptors that `shm` is to get from the others are lost if the interrupt comes before it has them."""
    return work is Making or (backend == "gloo" and work in (WithinBroadcast, WithinSend))


@pytest.mark.parametrize("work", [*WORKS, Forking, Beside])
def test_killed_rank_is_an_error_at_all_others_at_once(backend: str, work: type[Work], tmp_path: Path) -> None:
    with ranks(backend, work(signal.SIGKILL), tmp_path, later=[0, 2]) as children:
        died_s = children[VICTIM].told()
        for rank in (0, 2):
            told = children[rank].told()
            assert isinstance(told.error, exceptions.CollectiveRankDiedError), told
            assert told.error.rank == VICTIM
            assert told.left == [] or is_left(backend, work)
            assert told.at_s - died_s < SOON_S
        assert [children[rank].told() for rank in (0, 2)] == ["right"] * 2


@pytest.mark.parametrize("work", WORKS)
def test_stopped_rank_is_an_error_at_all_others_in_time(backend: str, work: type[Work], tmp_path: Path) -> None:
    """It is alive, so that only time can tell; and it has the same error when it goes on."""
    at_work = work(signal.SIGSTOP, FEWER)
    ends_in_s = 5 * SHORT_S + SOON_S if work is Making else SOON_S  # what Gloo waits for connections
    with ranks(backend, at_work, tmp_path, later=[0, 1, 2], timeout_s=SHORT_S, ends_in_s=ends_in_s) as children:
        stopped_s = children[VICTIM].told()
        told = {rank: children[rank].told() for rank in (0, 2)}
        os.kill(children[VICTIM].process.pid or 0, signal.SIGCONT)
        told[VICTIM] = children[VICTIM].told()
        for rank, one in told.items():
            assert isinstance(one.error, exceptions.CollectiveTimeoutError), told
            assert one.error.rank in (VICTIM, None) or rank == VICTIM
            assert one.left == []
            assert one.at_s - stopped_s < SHORT_S + SOON_S or rank == VICTIM
        assert [child.told() for child in children] == ["right"] * 3


@pytest.mark.parametrize("work", WORKS)
def test_rank_that_is_interrupted_is_an_error_at_all_others_at_once(
    backend: str, work: type[Work], tmp_path: Path
) -> None:
    with ranks(backend, work(signal.SIGINT), tmp_path, later=[0, 1, 2]) as children:
        interrupted_s = children[VICTIM].told()
        for rank, child in enumerate(children):
            told = child.told()
            if rank == VICTIM:
                assert isinstance(told.error, KeyboardInterrupt), told
            else:
                assert isinstance(told.error, exceptions.CollectiveError), told
                assert told.error.rank == VICTIM
            assert told.at_s - interrupted_s < SOON_S
            assert told.left == [] or is_left(backend, work)
        assert [child.told() for child in children] == ["right"] * 3


@pytest.mark.parametrize("work", [Agreed, Sending, Receiving])
def test_wait_for_a_stopped_rank_can_be_interrupted(backend: str, work: type[Work], tmp_path: Path) -> None:
    with ranks(backend, work(signal.SIGSTOP), tmp_path, later=[0, 1, 2]) as children:
        children[VICTIM].told()
        drivers.pause(0.2)  # into the wait; before it makes no difference
        interrupted_s = time.monotonic()
        os.kill(children[0].process.pid or 0, signal.SIGINT)
        told = {rank: children[rank].told() for rank in (0, 2)}
        os.kill(children[VICTIM].process.pid or 0, signal.SIGCONT)
        told[VICTIM] = children[VICTIM].told()
        assert isinstance(told.pop(0).error, KeyboardInterrupt)
        for rank, one in told.items():
            assert isinstance(one.error, exceptions.CollectiveError), told
            assert one.error.rank == 0
            assert one.left == [] or (
                (work, rank) == (Sending, VICTIM) and backend == "gloo"
            )  # it begins to send only now
            assert one.at_s - interrupted_s < SOON_S or rank == VICTIM
        assert [child.told() for child in children] == ["right"] * 3


def test_forked_child_does_not_hide_the_death_of_its_parent(backend: str, tmp_path: Path) -> None:
    with ranks(backend, Forked(signal.SIGKILL), tmp_path, later=[0, 2]) as children:
        child = children[VICTIM].told()
        try:
            died_s = children[VICTIM].told()
            for rank in (0, 2):
                told = children[rank].told()
                assert isinstance(told.error, exceptions.CollectiveRankDiedError), told
                assert (told.error.rank, told.left) == (VICTIM, [])
                assert told.at_s - died_s < SOON_S
        finally:
            drivers.kill(child)
