"""Programs on nodes other than the head, for `chaos.py`: started, watched, and started anew where they ended with their node."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.chaos_cluster import ChaosCluster, Place
from benchmarks.chaos_visitor import NODE_DIED
from benchmarks.ledger import Ledger

PROGRAM = str(Path(__file__).with_name("chaos_visitor.py"))
HEARS_OF_DEATH_S = 60.0  # within which a program ends whose node has died
END_S = 180.0  # more than any of its calls may take


class Visitors:
    """One program at each of `places`. It ends right by itself when it is told to, by a kill, or because its node has died."""

    def __init__(self, cluster: ChaosCluster, places: list[Place], ledger: Ledger, seed: int) -> None:
        self._cluster = cluster
        self._places = places
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._sessions: dict[int, str] = {}  # by place, where its program is connected
        self._orphaned_s: dict[int, float] = {}  # since when that node is gone
        self.started = 0

    def look(self) -> None:
        """Start whoever is not there, and judge whoever has ended."""
        for place in self._places:
            session = self._session(place)
            visitor = place.visitor
            if visitor is None:
                if session:
                    self._start(place, session)
                continue
            is_orphaned = session != self._sessions[place.number]
            code = visitor.poll()
            if code is not None:
                place.visitor = None
                self._judge(place, code, is_orphaned=is_orphaned)
            elif is_orphaned:
                since_s = self._orphaned_s.setdefault(place.number, time.monotonic())
                if time.monotonic() > since_s + HEARS_OF_DEATH_S:
                    self._ledger.book_beside(f"a program goes on {HEARS_OF_DEATH_S:g} s after its node has died")
                    visitor.kill()

    def _session(self, place: Place) -> str:
        """Of the node that lives there; "" for none."""
        node = place.node
        is_gone = node is None or place.is_down or node.launched.process.poll() is not None
        return "" if is_gone or node is None else node.launched.session_dir

    def _start(self, place: Place, session: str) -> None:
        self.started += 1
        self._sessions[place.number] = session
        self._orphaned_s.pop(place.number, None)
        command = [sys.executable, PROGRAM, session, str(self._chance.randrange(1 << 30))]
        place.visitor = subprocess.Popen(command, stdin=subprocess.PIPE)

    def _judge(self, place: Place, code: int, *, is_orphaned: bool) -> None:
        if code == 0 or code == -9 or (code == NODE_DIED and is_orphaned):
            return
        self._ledger.book_beside(f"the program at node {place.number} has ended with code {code}")

    def close(self) -> None:
        """They end, and their books are judged."""
        for place in self._places:
            if place.visitor is not None and place.visitor.stdin is not None:
                place.visitor.stdin.close()
        for place in self._places:
            visitor, place.visitor = place.visitor, None
            if visitor is None:
                continue
            try:
                code = visitor.wait(END_S)
            except subprocess.TimeoutExpired:
                visitor.kill()
                visitor.wait()
                self._ledger.book_beside(f"the program at node {place.number} does not end")
                continue
            self._judge(place, code, is_orphaned=self._session(place) != self._sessions[place.number])
