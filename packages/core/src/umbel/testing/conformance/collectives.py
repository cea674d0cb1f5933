"""What a backend of `umbel.util.collective` must do: its ranks are threads of this process, connected as processes are."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from umbel import exceptions, spi
from umbel.testing.conformance import suite
from umbel.util.collective import links, peers

TIMEOUT_S = 20.0  # for what must happen; only a failing test waits so long
SHORT_S = 0.3  # for a rank that never comes
# Elements of 4 bytes: none, a few, one that small messages hold, and such as pass in several pieces, the last one odd.
COUNTS = [0, 7, 300_000, 600_001]

Ranks = list[spi.CollectiveGroup]


class CollectiveConformance(suite.Suite[spi.CollectiveGroup]):
    """Subclass it and set `descriptor`. Needs numpy; the backend has to take its arrays."""

    kind = "collective"
    descriptor_type = spi.CollectiveDescriptor
    protocol = spi.CollectiveGroup

    @pytest.fixture
    def directory(self, tmp_path: Path) -> str:
        pytest.importorskip("numpy")
        return str(tmp_path)

    @contextmanager
    def group(self, directory: str, world_size: int, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
        """A backend's part of each rank. `conversations` holds what connects them."""
        self.conversations = conversations_of(world_size, timeout_s, directory)
        made = in_threads([functools.partial(self.make, one) for one in self.conversations])
        broken = [one for one in made if isinstance(one, BaseException)]
        try:
            if broken:
                raise broken[0]
            yield made
        finally:
            for one, conversation in zip(made, self.conversations, strict=True):
                if isinstance(one, spi.CollectiveGroup):
                    one.close()
                    one.close()
                conversation.close()

    # results

    @pytest.mark.parametrize("world_size", [1, 2, 3])
    @pytest.mark.parametrize("count", COUNTS)
    def test_every_operation_gives_every_rank_its_result(self, directory: str, world_size: int, count: int) -> None:
        import numpy as np

        def ramp(rank: int) -> Any:
            return np.arange(count, dtype="f4") % 251 + rank

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            everything = sum(ramp(other) for other in range(world_size))
            for root in range(world_size):
                tensor = ramp(rank)
                one.reduce(tensor, root, "sum")
                np.testing.assert_array_equal(tensor, everything if rank == root else ramp(rank))
                one.broadcast(tensor, root)
                np.testing.assert_array_equal(tensor, everything)
            tensor = ramp(rank)
            one.allreduce(tensor, "sum")
            np.testing.assert_array_equal(tensor, everything)
            outputs: list[Any] = [np.empty(count, "f4") for _ in range(world_size)]
            one.allgather(outputs, ramp(rank))
            np.testing.assert_array_equal(outputs, [ramp(other) for other in range(world_size)])
            inputs = [ramp(10 * other + rank) for other in range(world_size)]
            one.reducescatter(tensor, inputs, "sum")
            np.testing.assert_array_equal(tensor, sum(ramp(10 * rank + other) for other in range(world_size)))
            np.testing.assert_array_equal(inputs, [ramp(10 * other + rank) for other in range(world_size)])
            one.barrier()
            if rank == 0 and world_size > 1:
                one.send(ramp(5), world_size - 1)
                one.recv(tensor, world_size - 1)
                np.testing.assert_array_equal(tensor, ramp(6))
            elif rank == world_size - 1 > 0:
                one.recv(tensor, 0)
                np.testing.assert_array_equal(tensor, ramp(5))
                one.send(ramp(6), 0)

        with self.group(directory, world_size) as ranks:
            self.run(ranks, run)

    @pytest.mark.parametrize("count", [5, 300_000])
    def test_every_reduction_of_every_type(self, directory: str, count: int) -> None:
        import numpy as np

        ufuncs = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum}

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            for dtype in ("f4", "f8", "i4", "i8", "u1"):
                parts: list[Any] = [(np.arange(count) % 5 + other).astype(dtype) for other in range(2)]
                for op, ufunc in ufuncs.items():
                    tensor = parts[rank].copy()
                    one.allreduce(tensor, op)
                    np.testing.assert_array_equal(tensor, ufunc(parts[0], parts[1]))

        with self.group(directory, 2) as ranks:
            self.run(ranks, run)

    def test_all_ranks_get_the_same_bits(self, directory: str) -> None:
        """Sums of floating-point numbers depend on their order."""
        import numpy as np

        for count in (1_000, 700_000):
            found: dict[int, Any] = {}

            def run(rank: int, one: spi.CollectiveGroup, count: int = count, found: dict[int, Any] = found) -> None:
                tensor = np.random.default_rng(rank).standard_normal(count)
                one.allreduce(tensor, "sum")
                found[rank] = tensor.tobytes()

            with self.group(directory, 3) as ranks:
                self.run(ranks, run)
            assert found[0] == found[1] == found[2]

    def test_shapes_are_kept_and_operations_follow_one_another(self, directory: str) -> None:
        """Large and small ones by turns, so that memory that is used again is not read too late."""
        import numpy as np

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            tensor: Any
            for turn in range(6):
                for shape in ((3, 5), (600, 700), (2, 1, 4)):
                    tensor = np.full(shape, rank + turn, "f8")
                    one.allreduce(tensor, "sum")
                    np.testing.assert_array_equal(tensor, np.full(shape, 3 + 3 * turn))
                    tensor = np.full(shape, rank + turn, "f8")
                    one.broadcast(tensor, turn % 3)
                    np.testing.assert_array_equal(tensor, np.full(shape, turn % 3 + turn))

        with self.group(directory, 3) as ranks:
            self.run(ranks, run)

    # misuse

    @pytest.mark.parametrize("count", [4, 300_000])
    def test_mismatch_is_an_error_at_every_rank_and_the_group_goes_on(self, directory: str, count: int) -> None:
        import numpy as np

        calls: list[Callable[[spi.CollectiveGroup, Any], None]] = [
            lambda one, tensor: one.allreduce(tensor, "sum"),
            lambda one, tensor: one.allreduce(tensor, "max"),
            lambda one, tensor: one.allreduce(tensor.astype("f8"), "sum"),
            lambda one, tensor: one.allreduce(np.append(tensor, tensor[0]), "sum"),
            lambda one, tensor: one.allreduce(tensor[:2].copy(), "sum"),
            lambda one, tensor: one.broadcast(tensor, 0),
            lambda one, tensor: one.broadcast(tensor, 1),
            lambda one, tensor: one.reduce(tensor, 0, "sum"),
            lambda one, tensor: one.allgather([tensor.copy(), tensor.copy()], tensor),
            lambda one, tensor: one.reducescatter(tensor, [tensor.copy(), tensor.copy()], "sum"),
            lambda one, tensor: one.barrier(),
        ]

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            for call in calls[1:]:
                tensor: Any = np.full(count, rank, "f4")
                with pytest.raises(exceptions.CollectiveMismatchError, match=r"rank 0 called .*; rank 1 called "):
                    calls[0](one, tensor) if rank == 0 else call(one, tensor)
                np.testing.assert_array_equal(tensor, np.full(count, rank))
                one.allreduce(tensor, "sum")
                np.testing.assert_array_equal(tensor, np.ones(count))

        with self.group(directory, 2) as ranks:
            self.run(ranks, run)

    def test_send_and_recv_of_different_shapes_are_errors_at_both_ends(self, directory: str) -> None:
        import numpy as np

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            for sent, received in ((3, 4), (300_000, 3), (3, 300_000)):
                with pytest.raises(exceptions.CollectiveMismatchError, match=r"rank 0 sends .* rank 1 receives "):
                    one.send(np.zeros(sent), 1) if rank == 0 else one.recv(np.zeros(received), 0)
                one.barrier()

        with self.group(directory, 2) as ranks:
            self.run(ranks, run)

    def test_tensors_that_cannot_be_taken_are_errors_before_anybody_is_told(self, directory: str) -> None:
        import numpy as np

        read_only = np.zeros(4)
        read_only.flags.writeable = False
        with self.group(directory, 2) as (one, _):
            for wrong in ("text", [1.0], None, 1.0, object()):
                with pytest.raises(TypeError, match="tensor must be"):
                    one.allreduce(wrong, "sum")
            for wrong in (np.zeros((4, 4))[:, 1], read_only):
                with pytest.raises(ValueError, match=r"contiguous|read-only"):
                    one.allreduce(wrong, "sum")
            with pytest.raises(ValueError, match="all tensors must be alike: the one of index 1"):
                one.allgather([np.zeros(4), np.zeros(5)], np.zeros(4))
            assert [conversation.step_count for conversation in self.conversations] == [
                self.conversations[0].step_count
            ] * 2

    # ranks that are lost

    @pytest.mark.parametrize("count", [4, 300_000])
    def test_rank_that_dies_is_an_error_at_all_others(self, directory: str, count: int) -> None:
        import numpy as np

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            one.allreduce(np.zeros(count), "sum")
            if rank == 2:
                self.conversations[2].vanish()
                return
            with pytest.raises(exceptions.CollectiveRankDiedError, match="rank 2 died") as info:
                one.allreduce(np.zeros(count), "sum")
            assert info.value.rank == 2
            with pytest.raises(exceptions.CollectiveRankDiedError, match="rank 2 died"):
                one.barrier()

        with self.group(directory, 3) as ranks:
            self.run(ranks, run)

    def test_rank_that_does_not_come_is_an_error_in_time(self, directory: str) -> None:
        import numpy as np

        def run(rank: int, one: spi.CollectiveGroup) -> None:
            if rank == 0:
                return
            with pytest.raises(exceptions.CollectiveTimeoutError, match=r"allreduce\(sum\) of float64 .* rank 0;"):
                one.allreduce(np.zeros(4), "sum")

        with self.group(directory, 3, SHORT_S) as ranks:
            self.run(ranks, run)

    def run(self, ranks: Ranks, work: Callable[[int, spi.CollectiveGroup], None]) -> None:
        """`work` for every rank, each in a thread. Raises the first error that one raises."""
        calls = [functools.partial(work, rank, one) for rank, one in enumerate(ranks)]
        for result in in_threads(calls):
            if isinstance(result, BaseException):
                raise result


def conversations_of(world_size: int, timeout_s: float, directory: str) -> list[peers.Peers]:
    """What connects the ranks of a group, for ranks in one process."""
    sockets: list[dict[int, Any]] = [{} for _ in range(world_size)]
    for one in range(world_size):
        for other in range(one):
            sockets[one][other], sockets[other][one] = links.pair()
    return [
        peers.Peers(
            links.Links(sockets[rank]),
            group_name="conformance",
            rank=rank,
            world_size=world_size,
            timeout_s=timeout_s,
            directory=directory,
        )
        for rank in range(world_size)
    ]


def in_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call returned or raised."""
    results: list[Any] = [TimeoutError("a rank did not end")] * len(calls)

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=[index], daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
    return results
