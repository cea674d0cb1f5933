"""What is done to a cluster while it works: a schedule drawn by chance from a seed, and who carries it out.

The schedule has no clock and no cluster; the same seed gives the same. Which process is hit is a number of the schedule's
as well, but which processes there are by then is not.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.chaos_cluster import ChaosCluster, Place
from benchmarks.ledger import Ledger

REPLACED_AFTER_S = (0.0, 3.0)
KILL_HEAD_WEIGHT = 2.0  # one in ten attacks: it is away for about as long as between two of them
EXPELLED = 3  # the exit code of a daemon that its head has declared dead


class Kind(NamedTuple):
    """heading: in the summary. weight: how often, beside the others. lasts_s: least and most. ends_node: it ends the node, or
    may: the one whose program judges all this is spared."""

    heading: str
    weight: float
    lasts_s: tuple[float, float]
    ends_node: bool = False


KINDS = {
    "kill worker": Kind("kills", 6.0, (0.0, 0.0)),
    "kill daemon": Kind("kills", 1.0, REPLACED_AFTER_S, ends_node=True),
    "kill fork server": Kind("kills", 0.4, REPLACED_AFTER_S, ends_node=True),
    "kill visitor": Kind("kills", 0.7, (0.0, 0.0), ends_node=True),
    "kill head": Kind("kills", 0.0, REPLACED_AFTER_S),
    "stop worker": Kind("stops", 2.0, (0.2, 4.0)),
    "stop daemon": Kind("stops", 1.5, (0.2, 6.0)),
    "stop node": Kind("stops", 0.7, (0.5, 12.0), ends_node=True),
    "cut": Kind("cuts", 3.0, (0.0, 0.0)),
    "shut": Kind("cuts", 1.0, (0.2, 3.0)),
    "stall": Kind("stalls", 2.0, (0.2, 6.0)),
    "delay": Kind("delays", 1.5, (1.0, 8.0)),
}


class Attack(NamedTuple):
    """at_s: from the beginning. victim: in [0, 1), which of those there are."""

    at_s: float
    kind: str
    place: int
    victim: float
    lasts_s: float

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:.2f} s: {self.kind} at node {self.place}{lasts} (victim {self.victim:.3f})"


def schedule(seed: int, seconds: float, *, places: int, interval_s: float, kills_head: bool = False) -> list[Attack]:
    """In the order of time, one in `interval_s` on average. kills_head: the head is killed as well, and by nothing else; the
    program that judges is at node 1 then, and else at the head."""
    chance = random.Random(seed)
    first = 2 if kills_head else 1  # of those that may end
    names = list(KINDS)
    weights = [KILL_HEAD_WEIGHT if name == "kill head" and kills_head else KINDS[name].weight for name in names]
    found, at_s = [], 0.0
    while True:
        at_s += chance.uniform(0.2, 1.8) * interval_s
        if at_s >= seconds:
            return found
        (name,) = chance.choices(names, weights)
        kind = KINDS[name]
        place = 0 if name == "kill head" else chance.randrange(first if kind.ends_node else 0, places)
        found.append(Attack(at_s, name, place, chance.random(), chance.uniform(*kind.lasts_s)))


class Attacker:
    """Carries out a schedule in a thread. In others what was held up goes on, and who was killed is replaced.

    say: a line of the log. last_words: of a daemon's log, by its session's name.
    """

    def __init__(
        self,
        cluster: ChaosCluster,
        attacks: list[Attack],
        ledger: Ledger,
        say: Callable[[str], None],
        last_words: Callable[[str], str],
    ) -> None:
        self._cluster = cluster
        self._attacks = attacks
        self._ledger = ledger
        self._say = say
        self._last_words = last_words
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._main = threading.Thread(target=self._run, daemon=True)
        self._began_s = 0.0

    def start(self) -> None:
        self._began_s = time.monotonic()
        self._main.start()

    def finish(self) -> None:
        """No attack begins any more, and all that was begun is undone."""
        self._stop.set()
        self._main.join()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        for attack in self._attacks:
            if self._stop.wait(max(0.0, self._began_s + attack.at_s - time.monotonic())):
                return
            self.replace_who_has_ended()
            place = self._cluster.places[attack.place]
            if place.is_down:
                self._say(f"{attack}: not done, there is no node")
                continue
            self._carry_out(attack, place)

    def _carry_out(self, attack: Attack, place: Place) -> None:
        undo = self._done(attack, place)
        if undo is None:
            self._say(f"{attack}: not done, there is nobody")
            return
        self._in_thread(self._undo_later, attack.lasts_s, undo)

    def _in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _undo_later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._stop.wait(seconds)
        undo()

    def _done(self, attack: Attack, place: Place) -> Callable[[], None] | None:
        """Does it, and returns what undoes it; None if there is nobody to do it to."""
        name, relay = attack.kind, place.relay
        victims = {
            "kill worker": place.workers,
            "stop worker": place.workers,
            "kill daemon": lambda: place.pids()[:1],
            "kill head": lambda: place.pids()[:1],
            "kill visitor": lambda: [] if place.visitor is None else [place.visitor.pid],
            "stop daemon": lambda: place.pids()[:1],
            "kill fork server": lambda: place.pids()[1:],
            "stop node": place.all_pids,
        }.get(name, list)()
        if not victims and name.startswith(("kill", "stop")):
            return None
        chosen = victims if name == "stop node" else victims[int(attack.victim * len(victims)) :][:1]
        self._say(f"{attack}: {chosen or ''}")
        self._ledger.note_disturbance(KINDS[name].heading, attack.lasts_s)
        if name in ("kill worker", "kill visitor"):
            signal_all(chosen, signal.SIGKILL)
            return lambda: None
        if name.startswith("kill"):
            place.is_down = True
            signal_all(chosen, signal.SIGKILL)
            return lambda: self._replace(place)
        if name.startswith("stop"):
            signal_all(chosen, signal.SIGSTOP)
            return lambda: signal_all(chosen, signal.SIGCONT)
        if name == "delay":
            relay.delay_s = 0.005 + 0.2 * attack.victim
            return lambda: setattr(relay, "delay_s", 0.0)
        if name == "stall":
            relay.stall()
            return relay.flow
        relay.is_shut = name == "shut"
        relay.cut()
        return lambda: setattr(relay, "is_shut", False)

    def _replace(self, place: Place) -> None:
        trouble = self._cluster.replace(place)
        if trouble:
            self._ledger.book_beside(f"node {place.number} cannot be replaced: {trouble}")

    def replace_who_has_ended(self) -> None:
        """Those that were declared dead end by themselves. That may come late, and on a busy machine also to one let alone."""
        for place in self._cluster.places:
            node = place.node
            if node is None or place.is_down or node.launched.process.poll() is None:
                continue
            place.is_down = True
            code = node.launched.process.returncode
            if code != EXPELLED:
                said = self._last_words(os.path.basename(node.launched.session_dir))
                self._ledger.book_beside(f"node {place.number} has ended without a reason (code {code}): {said}")
            self._say(f"node {place.number} was declared dead, has ended (code {code}) and is replaced")
            self._ledger.note_disturbance("declared dead")
            self._in_thread(self._replace, place)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
