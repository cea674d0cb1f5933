"""Heads that want to lead a cluster: the production leadership of each, and one production storage in SQLite.

Clocks run apart, as far as they may; heads stand still, die and come again; questions to the storage and its answers are late,
lost, come twice, or when whoever asked has given up. The world's time is the storage's. A head that may act does so now
and then for as long as its margin allows, and commits; it repeats a commit until it is answered.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

from umbel import exceptions, spi
from umbel._control import leadership
from umbel._control.storage import in_sqlite
from umbel.testing.simulation.processes import attribute
from umbel.testing.simulation.world import World

TTL_S = 10.0
RATES = (1 - leadership.DRIFT, 1.0, 1 + leadership.DRIFT)
PAUSES_S = (0.01, 0.1, 0.3, 0.3, 1.0, 1.0, 3.0, 12.0)
GIVE_UP_S = 2.0  # for an answer; the question may still be on its way
HEADS = 3
KEYS = ("a", "b")
REST_STEPS = 100  # of half a second: two leases run out, and somebody has asked since


class Head:
    """One process that wants to lead."""

    def __init__(self, world: LeadershipWorld, name: str) -> None:
        self.name = name
        self.rate = world.chance.choose(RATES)
        self.machine = leadership.Leadership(ttl_s=TTL_S, now_s=world.now_s * self.rate)
        self.asked: Question | None = None  # about the lease
        self.committing: Question | None = None
        self.number = 0  # of its last commit as a leader
        self.is_stopped = False

    def local_s(self, now_s: float) -> float:
        return now_s * self.rate


class Question:
    """To the storage. A copy of it may be on its way though nobody waits for an answer any more."""

    def __init__(self, head: Head, what: str, ask: Callable[[], Any], asked_at_s: float, give_up_at_s: float) -> None:
        self.head = head
        self.what = what
        self.ask = ask
        self.asked_at_s = asked_at_s  # by the head's clock
        self.give_up_at_s = give_up_at_s
        self.answer: Any = None


class LeadershipWorld(World):
    """See the module."""

    steps_min, steps_max = 60, 240

    def run_guarded(self) -> None:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # the storage syncs each commit
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbel-simulation-", dir=memory))
            stack.enter_context(attribute(in_sqlite, "_now_s", lambda: self.now_s))
            storage: Any = in_sqlite.SqliteStorage(f"sqlite://{folder}/control.db")
            self.storage: spi.ControlStorage = stack.enter_context(contextlib.closing(storage))
            self.run()

    def set_up(self) -> None:
        self.now_s = 1.0
        self.name_count = 0
        self.under_way: list[Question] = []  # to the storage
        self.answers: list[Question] = []
        self.granted = 0  # the largest fencing number so far
        self.records: dict[str, bytes] = {}  # by what was committed, once each
        self.done: set[tuple[int, int]] = set()
        self.is_changed = False
        self.is_resting = False
        self.acting_until_s: dict[Head, float] = {}  # whoever has acted and when that is over
        self.heads = [self._new_head() for _ in range(HEADS)]

    def _new_head(self) -> Head:
        self.name_count += 1
        head = Head(self, f"head {self.name_count}")
        self.note("%s starts, its clock runs at %s", head.name, head.rate)
        return head

    # What happens

    def act(self) -> None:
        chance = self.chance
        head = chance.choose(self.heads)
        what = chance.weighted((20, 20, 18, 8, 8, 16, 2, 3, 1))
        if what == 0:
            self._tick(head)
        elif what == 1:
            self._storage_answers(chance.below(len(self.under_way)) if self.under_way else None)
        elif what == 2:
            self._hear(chance.below(len(self.answers)) if self.answers else None)
        elif what == 3:
            self._pass(chance.choose(PAUSES_S))
        elif what == 4:
            self._begin_act(head, chance.choose((0.0, 0.5, 1.0)))
        elif what == 5:
            self._commit(head)
        elif what == 6:
            head.is_stopped = not head.is_stopped
            self.note("%s %s", head.name, "stands still" if head.is_stopped else "goes on")
        elif what == 7:
            self._to_the_last_moment(head)
        else:
            self._die(head)

    def _pass(self, duration_s: float) -> None:
        self.now_s += duration_s

    def _to_the_last_moment(self, head: Head) -> None:
        """Just before a head that leads has to stop, it acts for as long as it may; just before that is over, others try."""
        last_s = (head.machine._until_s - 0.001) / head.rate
        if not head.machine.fencing or last_s <= self.now_s:
            return
        self.now_s = last_s
        self._begin_act(head, 1.0)
        self.now_s = max(self.now_s, self.acting_until_s.get(head, 0.0) - 0.001)
        for other in self.heads:
            if other is not head:
                self._tick(other)
        for _ in range(len(self.under_way)):
            self._storage_answers(0)
        for _ in range(len(self.answers)):
            self._hear(0)
        for other in self.heads:
            self._begin_act(other, 0.0)

    def _tick(self, head: Head) -> None:
        if head.is_stopped:
            return
        for question in (head.asked, head.committing):
            if question is not None and self.now_s >= question.give_up_at_s:
                self._give_up(question)
        self._apply(head, leadership.Tick(head.local_s(self.now_s)))

    def _give_up(self, question: Question) -> None:
        head = question.head
        self.note("%s hears nothing of %s", head.name, question.what)
        if question is head.asked:
            head.asked = None
            self._apply(head, leadership.Failed("no answer", head.local_s(self.now_s)))
        elif question is head.committing:  # uncertain: the same again
            self._send(question)

    def _send(self, question: Question) -> None:
        question.give_up_at_s = self.now_s + GIVE_UP_S
        self.under_way.append(question)

    def _apply(self, head: Head, event: leadership.Event) -> None:
        for command in head.machine.apply(event):
            self.note("%s: %s", head.name, command)
            if isinstance(command, leadership.Lead):
                head.number = max([0, *(number for fencing, number in self.done if fencing == command.fencing)])
                self.must(dict(self.storage.load()) == self.records, "L1", "%s loads something else", head.name)
            elif isinstance(command, leadership.StepDown):
                head.committing = None
                self.acting_until_s.pop(head, None)
            else:
                self._ask(head, command)

    def _ask(self, head: Head, command: leadership.Acquire | leadership.Renew) -> None:
        def ask() -> Any:
            if isinstance(command, leadership.Renew):
                return self.storage.renew(command.fencing)
            return self.storage.acquire(head.name, TTL_S)

        head.asked = Question(head, str(command), ask, head.local_s(self.now_s), self.now_s + GIVE_UP_S)
        self._send(head.asked)

    def _storage_answers(self, index: int | None) -> None:
        if index is None:
            return
        question = self.under_way.pop(index)
        if not self.is_resting and self.chance.happens(20):
            self.under_way.append(question)  # it comes again, and later
        try:
            question.answer = question.ask()
        except exceptions.StorageFenced as error:
            question.answer = error
        self.note("the storage answers %s to %s: %s", question.head.name, question.what, question.answer)
        if isinstance(question.answer, spi.Lease) and question.answer.holder == question.head.name:
            self.granted = max(self.granted, question.answer.fencing)
        if question.head in self.heads and (self.is_resting or self.chance.happens(90)):
            self.answers.append(question)

    def _hear(self, index: int | None) -> None:
        if index is None or self.answers[index].head.is_stopped:
            return
        question = self.answers.pop(index)
        head, local_s = question.head, question.head.local_s(self.now_s)
        if question is head.committing:
            head.committing = None
            if isinstance(question.answer, exceptions.StorageFenced):
                self._apply(head, leadership.Fenced(question.answer.fencing, local_s, is_answer=False))
        elif question is head.asked:
            head.asked = None
            if isinstance(question.answer, exceptions.StorageFenced):
                event: leadership.Event = leadership.Fenced(question.answer.fencing, local_s)
            elif question.what.startswith("Renew"):
                event = leadership.Renewed(question.answer.fencing, question.asked_at_s, local_s)
            elif question.answer.holder == head.name:
                event = leadership.Granted(question.answer.fencing, question.asked_at_s, local_s)
            else:
                event = leadership.Held(question.answer.holder, question.answer.remaining_s, local_s)
            self._apply(head, event)

    def _begin_act(self, head: Head, share: float) -> None:
        """It looks whether it may, and then does something that takes a share of its margin."""
        if head.is_stopped or not head.machine.may_act(head.local_s(self.now_s)):
            return
        until_s = self.now_s + share * leadership.MARGIN * TTL_S / head.rate
        self.note("%s acts as leader %d until %s", head.name, head.machine.fencing, round(until_s, 3))
        for other, other_until_s in self.acting_until_s.items():
            self.must(
                other is head or other_until_s <= self.now_s,
                "L4", "%s acts at %s, and %s until %s", head.name, self.now_s, other.name, other_until_s,
            )  # fmt: skip
        self.acting_until_s[head] = max(until_s, self.acting_until_s.get(head, 0.0))

    def _commit(self, head: Head) -> None:
        """Whether it may is the storage's to say: so it does not look."""
        fencing = head.machine.fencing
        if head.is_stopped or not fencing or head.committing is not None:
            return
        head.number += 1
        number, key = head.number, self.chance.choose(KEYS)
        value = None if self.chance.happens(20) else b"%d.%d" % (fencing, number)

        def ask() -> str:
            try:
                self.storage.commit([(key, value)], fencing=fencing, number=number)
            except exceptions.InvalidOption:  # what nobody waits for, and comes after a later one
                return "late"
            self.is_changed = True
            self.must(
                fencing == self.granted, "L3", "a commit of %d is made after %d was granted", fencing, self.granted
            )
            if (fencing, number) not in self.done:
                self.done.add((fencing, number))
                self.records = {name: old for name, old in self.records.items() if name != key}
                if value is not None:
                    self.records[key] = value
            return "done"

        local_s = head.local_s(self.now_s)
        head.committing = Question(head, f"commit {fencing}.{number}", ask, local_s, self.now_s + GIVE_UP_S)
        self._send(head.committing)

    def _die(self, head: Head) -> None:
        """What it has asked may be on its way."""
        self.note("%s dies", head.name)
        self.heads[self.heads.index(head)] = self._new_head()
        self.acting_until_s.pop(head, None)
        self.answers = [question for question in self.answers if question.head is not head]

    def check(self) -> None:
        if not self.is_changed:
            return
        self.is_changed = False
        self.must(dict(self.storage.load()) == self.records, "L1", "the records are not what was committed")

    # Coming to rest

    def settle(self) -> None:
        """Everybody hears everything: soon somebody leads, and stays it."""
        self.is_resting = True
        for head in self.heads:
            head.is_stopped = False
        for _ in range(REST_STEPS):
            while self.under_way or self.answers:
                self._storage_answers(0 if self.under_way else None)
                self._hear(0 if self.answers else None)
            self._pass(0.5)
            for head in self.heads:
                self._tick(head)

    def check_rest(self) -> None:
        leading = [head.name for head in self.heads if head.machine.may_act(head.local_s(self.now_s))]
        self.must(len(leading) == 1, "R2", "%s lead", leading)
