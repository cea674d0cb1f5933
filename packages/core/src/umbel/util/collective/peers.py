"""One rank's conversation with the others: carries out what `rounds` decides over `links`, and raises what it finds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from umbel import exceptions
from umbel._client import answers
from umbel.util.collective import links, rounds, waiting

_ERRORS: Final[Mapping[rounds.Fault, type[exceptions.CollectiveError]]] = {
    rounds.Fault.DIED: exceptions.CollectiveRankDiedError,
    rounds.Fault.TIMEOUT: exceptions.CollectiveTimeoutError,
    rounds.Fault.MISMATCH: exceptions.CollectiveMismatchError,
    rounds.Fault.FAILED: exceptions.CollectiveError,
}


def error_of(problem: rounds.Problem, group_name: str) -> exceptions.CollectiveError:
    text = f"collective group {group_name!r}: {problem.text}"
    rank = None if problem.rank == rounds.UNKNOWN else problem.rank
    return _ERRORS[problem.fault](text, group_name=group_name, rank=rank)


class Peers:
    """See `spi.CollectivePeers`. `step_count`: how often this rank has told the others something. `thread`: which one is
    in an operation, 0 for none."""

    def __init__(
        self,
        connections: links.Connections,
        *,
        group_name: str,
        rank: int,
        world_size: int,
        timeout_s: float,
        directory: str,
    ) -> None:
        self._links = connections
        self._rounds = rounds.Rounds(rank, world_size)
        self.group_name = group_name
        self.rank = rank
        self.world_size = world_size
        self.timeout_s = timeout_s
        self.directory = directory
        self.is_one_machine = connections.is_one_machine
        self.body_bytes_max = connections.body_bytes_max
        self.step_count = 0
        self.thread = 0
        self._waits_since_s = 0.0  # time.monotonic(); 0 while it does not wait for the others

    @property
    def is_broken(self) -> bool:
        return self._rounds.problem is not None

    def exchange(self, text: str, bodies: Mapping[int, bytes] = rounds.NOTHING) -> Mapping[int, bytes]:
        self.step_count += 1
        if self._rounds.has_unread:  # others are ahead: perhaps so far that they have given up what they said
            self._rounds.heard(self._links.receive(0.0))
        return self._finish(self._rounds.step(text, bodies))

    def exchange_descriptors(self, descriptor: int) -> Mapping[int, int]:
        self.step_count += 1
        descriptors: dict[int, int] = {}
        try:
            self._finish(self._rounds.step("the exchange of descriptors"), sent=descriptor, received=descriptors)
        except BaseException:
            for one in descriptors.values():
                os.close(one)
            raise
        return descriptors

    def send(self, rank: int, text: str, body: bytes = b"", meanwhile: Callable[[], object] | None = None) -> None:
        self.step_count += 1
        commands = self._rounds.offer(rank, text, body)
        if meanwhile is not None:
            commands = self._carry_out_sends(commands)
            meanwhile()
        self._finish(commands)

    def receive(self, rank: int, text: str, consume: Callable[[bytes], object]) -> None:
        self.step_count += 1
        bodies = self._finish(self._rounds.expect(rank, text))
        consume(bodies[rank])
        self._carry_out_sends(self._rounds.accepted())

    def check(self) -> None:
        self._rounds.heard(self._links.receive(0.0))
        self._finish([*self._rounds.look_around(), rounds.Done({})])

    def timed_out(self, ranks: Sequence[int]) -> NoReturn:
        self.check()
        self._finish(self._rounds.timed_out_otherwise(self.timeout_s, ranks))
        raise exceptions.InternalError("a time-out was no error")

    def wait_now(self) -> answers.Wait | None:
        """What an operation here waits for, for those who ask."""
        thread = self.thread
        if not thread:
            return None
        ranks = self._rounds.awaited()
        since_s = self._waits_since_s
        for_s = time.monotonic() - since_s if since_s else 0.0
        reason = waiting.in_operation(
            self._rounds.operation, group_name=self.group_name, rank=self.rank, awaited=ranks, for_s=for_s
        )
        return answers.Wait(thread, reason)

    def give_up(self, why: str) -> None:
        """This rank failed within an operation; the others are told. Raises nothing."""
        self._carry_out_sends(self._rounds.gave_up(why))

    def close(self) -> None:
        """Leave. Idempotent."""
        self._carry_out_sends(self._rounds.left())
        self._links.close()

    def vanish(self) -> None:
        """End as a process does that is killed: without a word. For tests."""
        self._links.close()

    def _finish(
        self,
        commands: list[rounds.Command],
        *,
        sent: int = -1,
        received: dict[int, int] | None = None,
    ) -> Mapping[int, bytes]:
        """Carry the commands out, and wait until what the program called is over."""
        due_s: float | None = None
        while True:
            for command in commands:
                if isinstance(command, rounds.Send):
                    self._send(command, sent)
                elif isinstance(command, rounds.Done):
                    self._waits_since_s = 0.0
                    return command.bodies
                else:
                    raise error_of(command.problem, self.group_name)
            now_s = time.monotonic()
            if due_s is None:
                self._waits_since_s = now_s
                due_s = now_s + self.timeout_s
            commands = self._rounds.heard(self._links.receive(max(0.0, due_s - now_s), received))
            if not commands and time.monotonic() >= due_s:
                commands = self._rounds.timed_out(self.timeout_s)

    def _carry_out_sends(self, commands: list[rounds.Command]) -> list[rounds.Command]:
        """What is left to carry out once all is sent that is to be sent."""
        for command in commands:
            if isinstance(command, rounds.Send):
                self._send(command)
        return [command for command in commands if not isinstance(command, rounds.Send)]

    def _send(self, command: rounds.Send, descriptor: int = -1) -> None:
        # The news that a group is broken must not wait for a rank that reads nothing.
        timeout_s = 0.0 if command.frame.kind in (rounds.Kind.BROKEN, rounds.Kind.BYE) else self.timeout_s
        try:
            self._links.send(command.rank, command.frame, timeout_s, descriptor)
        except TimeoutError:
            if timeout_s:
                raise
