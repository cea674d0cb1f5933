"""Ranks of one collective group, which do what their programs say while some die, differ, or lose patience.

The programs are alike but for what chance changes: in each place all take a step, or one sends to another. What a rank
sends in a place says so, which shows whether frames are taken for those of another place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from umbel.testing.simulation.world import Stream, World
from umbel.util.collective import rounds

PLACES_MAX = 8
RANKS_MAX = 4
TIMEOUT_S = 30.0


class Act(NamedTuple):
    """What a rank does in one place of its program. peer: of "send" and "recv"."""

    what: str  # "step", "send", "recv" or "nothing"
    text: str
    peer: int = -1


class Rank:
    """One process. ends: for each place that is over, "done" or the problem."""

    def __init__(self, number: int, world_size: int, program: list[Act]) -> None:
        self.number = number
        self.machine = rounds.Rounds(number, world_size)
        self.program = program
        self.ends: list[str | rounds.Problem] = []
        self.streams: dict[int, Stream] = {}
        self.is_dead = False
        self.has_left = False

    @property
    def is_idle(self) -> bool:
        return not self.is_dead and not self.machine.is_waiting and len(self.ends) < len(self.program)


class CollectiveWorld(World):
    """See the module."""

    steps_min, steps_max = 30, 120

    def set_up(self) -> None:
        chance = self.chance
        world_size = 2 + chance.below(RANKS_MAX - 1)
        self.kill_percent = chance.choose((0, 0, 2, 6))
        self.impatience_percent = chance.choose((0, 0, 0, 2))
        self.differ_percent = chance.choose((0, 0, 20))
        self.odd_percent = chance.choose((0, 0, 0, 10))  # of places where somebody does something of another kind
        self.has_odd_kinds = False
        programs: list[list[Act]] = [[] for _ in range(world_size)]
        for place in range(1 + chance.below(PLACES_MAX)):
            self._add_place(programs, place)
        self.ranks = [Rank(number, world_size, program) for number, program in enumerate(programs)]
        for one in self.ranks:
            for other in self.ranks[: one.number]:
                near, far = self.connect(f"{one.number} from {other.number}", f"{other.number} from {one.number}")
                self._attach(one, other, near)
                self._attach(other, one, far)

    def _add_place(self, programs: list[list[Act]], place: int) -> None:
        chance, world_size = self.chance, len(programs)
        text = "" if place and programs[0][-1].what == "step" and chance.happens(30) else f"op {place}"
        if chance.happens(70):
            for program in programs:
                differs = chance.happens(self.differ_percent) and chance.happens(50)
                program.append(Act("step", f"other {place}" if differs else text))
        else:
            sender = chance.below(world_size)
            receiver = (sender + 1 + chance.below(world_size - 1)) % world_size
            received = f"other {place}" if chance.happens(self.differ_percent) else f"op {place}"
            for number, program in enumerate(programs):
                if number == sender:
                    program.append(Act("send", f"op {place}", receiver))
                elif number == receiver:
                    program.append(Act("recv", received, sender))
                else:
                    program.append(Act("nothing", ""))
        if chance.happens(self.odd_percent):
            self.has_odd_kinds = True
            odd = chance.below(world_size)
            peer = (odd + 1 + chance.below(world_size - 1)) % world_size
            programs[odd][-1] = chance.choose((Act("step", "odd"), Act("send", "odd", peer), Act("recv", "odd", peer)))

    def _attach(self, owner: Rank, peer: Rank, stream: Stream) -> None:
        owner.streams[peer.number] = stream
        stream.owner = owner
        stream.on_frame = lambda _, frame: self._hear(owner, [(peer.number, frame)])
        stream.on_close = lambda _: self._hear(owner, [(peer.number, None)])

    # What happens

    def act(self) -> None:
        chance = self.chance
        alive = [one for one in self.ranks if not one.is_dead]
        if chance.happens(self.kill_percent) and len(alive) > 1:
            self._kill(chance.choose(alive))
        elif chance.happens(self.impatience_percent) and alive:
            self._lose_patience(chance.choose(alive))
        elif chance.happens(40) or not self.deliver_one():
            self._begin_one()

    def settle(self) -> None:
        """No rank is impatient, so that whoever waits in vain is found. But two that both receive from each other can
        only lose their patience."""
        while self.deliver_one() or self._begin_one() or (self.has_odd_kinds and self._one_loses_patience()):
            pass

    def _one_loses_patience(self) -> bool:
        waiting = [one for one in self.ranks if not one.is_dead and one.machine.is_waiting]
        for one in waiting[:1]:
            self._lose_patience(one)
        return bool(waiting)

    def _begin_one(self) -> bool:
        idle = [one for one in self.ranks if one.is_idle]
        if not idle:
            return False
        self._begin(self.chance.choose(idle))
        return True

    def _begin(self, one: Rank) -> None:
        place = len(one.ends)
        act = one.program[place]
        self.note("%d begins %s in place %d", one.number, act, place)
        if act.what == "step":
            others = [other.number for other in self.ranks if other is not one]
            self._carry_out(
                one, one.machine.step(act.text, {other: _body(one.number, other, place) for other in others})
            )
        elif act.what == "send":
            self._carry_out(one, one.machine.offer(act.peer, act.text, _body(one.number, act.peer, place)))
        elif act.what == "recv":
            self._carry_out(one, one.machine.expect(act.peer, act.text))
        else:
            one.ends.append("done")
        self._leave_at_the_end(one)

    def _hear(self, one: Rank, news: Iterable[tuple[int, Any]]) -> None:
        if not one.is_dead:
            self._carry_out(one, one.machine.heard(news))
            self._leave_at_the_end(one)

    def _carry_out(self, one: Rank, commands: list[rounds.Command]) -> None:
        for command in commands:
            if isinstance(command, rounds.Send):
                one.streams[command.rank].send(command.frame)
            elif isinstance(command, rounds.Done):
                self._done(one, command)
            else:
                self._failed(one, command.problem)

    def _done(self, one: Rank, command: rounds.Done) -> None:
        place = len(one.ends)
        act = one.program[place]
        one.ends.append("done")
        self.note("%d is done in place %d", one.number, place)
        expected = {}
        if act.what == "step":
            senders = [other for other in self.ranks if other is not one]
            expected = {other.number: _body(other.number, one.number, place) for other in senders}
            texts = {other.program[place].text for other in self.ranks if other.program[place].what == "step"}
            self.must(texts == {act.text}, "G1", "rank %d was done with %r among %s", one.number, act.text, texts)
        elif act.what == "recv":
            expected = {act.peer: _body(act.peer, one.number, place)}
            for accepted in one.machine.accepted():
                self._carry_out(one, [accepted])
        self.must(command.bodies == expected, "G1", "rank %d got %s in place %d", one.number, command.bodies, place)

    def _failed(self, one: Rank, problem: rounds.Problem) -> None:
        place = len(one.ends)
        if place == len(one.program):
            return
        one.ends.append(problem)
        self.note("%d fails in place %d: %s", one.number, place, problem)
        if problem.fault is rounds.Fault.DIED:
            blamed = self.ranks[problem.rank]
            self.must(blamed.is_dead or blamed.has_left, "G4", "rank %d called %d dead", one.number, problem.rank)

    def _leave_at_the_end(self, one: Rank) -> None:
        """Unless the group is broken: its program may be slow to notice, and the others must not wait for that."""
        is_over = len(one.ends) == len(one.program) and not one.is_dead
        if is_over and not one.has_left and one.machine.problem is None:
            one.has_left = True
            self._carry_out(one, one.machine.left())

    def _kill(self, one: Rank) -> None:
        self.note("%d dies", one.number)
        one.is_dead = True
        for stream in one.streams.values():
            stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))
            stream.is_closed = True

    def _lose_patience(self, one: Rank) -> None:
        if one.machine.is_waiting:
            self.note("%d loses patience", one.number)
            self._carry_out(one, one.machine.timed_out(TIMEOUT_S))
            self._leave_at_the_end(one)

    # What must hold

    def check(self) -> None:
        for one in self.ranks:
            if not one.is_dead:
                one.machine.check()

    def check_rest(self) -> None:
        for one in self.ranks:
            if not one.is_dead:
                self.must(
                    len(one.ends) == len(one.program), "G3", "rank %d waits in place %d", one.number, len(one.ends)
                )
        if not self.has_odd_kinds:
            for place, acts in enumerate(zip(*(one.program for one in self.ranks), strict=True)):
                self._check_texts(place, acts)

    def _check_texts(self, place: int, acts: tuple[Act, ...]) -> None:
        """Those who differ in this place, and came to it with the group whole, were all told the same."""
        whole = [one for one in self.ranks if not one.is_dead and one.machine.problem is None]
        if len(whole) < len(self.ranks):
            return
        concerned = [one for one, act in zip(self.ranks, acts, strict=True) if act.what != "nothing"]
        texts = {acts[one.number].text for one in concerned}
        ends = {one.ends[place] for one in concerned}
        if len(texts) == 1:
            self.must(ends == {"done"}, "G2", "ranks that agree in place %d ended with %s", place, ends)
        else:
            told = {end.text for end in ends if not isinstance(end, str) and end.fault is rounds.Fault.MISMATCH}
            is_alike = len(told) == 1 and "done" not in ends
            self.must(is_alike, "G2", "ranks that differ in place %d ended with %s", place, ends)


def _body(sender: int, receiver: int, place: int) -> bytes:
    return b"%d to %d in %d" % (sender, receiver, place)
