"""A short run of `nox -s chaos`, and what it relies on to see what is wrong."""

from __future__ import annotations

import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umbel import exceptions

ROOT = pathlib.Path(__file__).resolve().parents[4]
SECONDS, SEED, INTERVAL_S = 19, 2744, 0.5  # attacks of every kind, the head's death among them, in the last 14 s
SCENES = 3  # in a round: what is in flight when the attacks begin and end is waited for
LIMIT_S = 400  # it takes less than a minute; whatever hangs is found after three
IO_S = 30.0

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `benchmarks` is no part of the wheel."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.timeout(LIMIT_S + 20)
def test_a_cluster_under_attack_gives_right_results_and_leaves_nothing() -> None:
    program = str(ROOT / "benchmarks" / "chaos.py")
    options = {"minutes": SECONDS / 60, "seed": SEED, "interval": INTERVAL_S, "scenes": SCENES}
    command = [
        sys.executable,
        program,
        *(f"--{name}={value}" for name, value in options.items()),
        "--kill-head",
        "--log",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    *_, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "0 wrong, 0 lost, 0 leaked" in last
    from benchmarks import chaos_attacks

    made = {kind for kind in chaos_attacks.KINDS for line in done.stdout.splitlines() if f" s: {kind} at node" in line}
    assert made == {*chaos_attacks.KINDS}
    assert re.search(r" s: kill head at node 0 .*: \[\d+\]$", done.stdout, re.MULTILINE), done.stdout


def test_a_seed_gives_the_same_attacks_in_the_order_of_time() -> None:
    from benchmarks import chaos_attacks

    first = chaos_attacks.schedule(7, 600.0, places=5, interval_s=1.0)
    assert first == chaos_attacks.schedule(7, 600.0, places=5, interval_s=1.0)
    assert first != chaos_attacks.schedule(8, 600.0, places=5, interval_s=1.0)
    assert [one.at_s for one in first] == sorted(one.at_s for one in first)
    kinds = chaos_attacks.KINDS
    assert {one.kind for one in first} == {name for name, kind in kinds.items() if kind.weight}
    assert all(0 < one.at_s < 600 and 0 <= one.victim < 1 for one in first)
    assert all(kinds[one.kind].lasts_s[0] <= one.lasts_s <= kinds[one.kind].lasts_s[1] for one in first)
    assert all(one.place or not kinds[one.kind].ends_node for one in first)
    on_heads = chaos_attacks.schedule(7, 600.0, places=5, interval_s=1.0, kills_head=True)
    assert {one.place for one in on_heads if one.kind == "kill head"} == {0}
    assert {one.place for one in on_heads if kinds[one.kind].ends_node} == {2, 3, 4}  # 1 has the program that judges


def ledger(**options: Any) -> Any:
    from benchmarks.ledger import Ledger

    return Ledger("test", **{"lost_after_s": 30.0, **options})


def call(result: Callable[[float], Any], **options: Any) -> Any:
    from benchmarks.soak_load import CRASHES, Call

    return Call("call", result, lambda got: bool(got == 1), **{"crashes": CRASHES, **options})


def raising(error: Exception) -> Callable[[float], Any]:
    def result(_limit_s: float) -> Any:
        raise error

    return result


def test_each_call_is_booked_once_as_what_it_was() -> None:
    books = ledger(crashes=(exceptions.NodeDiedError,))
    books.add(6)
    books.settle(call(lambda _limit_s: 1))
    books.settle(call(lambda _limit_s: 2))
    books.settle(call(raising(exceptions.WorkerCrashedError("too early"))))
    books.settle(call(raising(exceptions.GetTimeoutError("late"))))
    books.note_disturbance("kills")
    books.settle(call(raising(exceptions.NodeDiedError("killed"))))
    books.settle(call(raising(ValueError("not one of its errors"))))
    assert books.right_results == 1
    assert dict(books.right_errors) == {"NodeDiedError": 1}
    assert [one.partition(": ")[2].partition("\n")[0] for one in books.wrong] == [
        "the result 2",
        "WorkerCrashedError: too early",
        "ValueError: not one of its errors",
    ]
    assert ["Traceback" in one for one in books.wrong] == [False, False, True], (
        "where it comes from is told of the last"
    )
    assert len(books.lost) == 1 and books.unaccounted() == 0 and not books.is_clean()


def test_what_may_not_crash_has_no_excuse() -> None:
    books = ledger()
    books.note_disturbance("kills")
    books.settle(call(raising(exceptions.WorkerCrashedError("killed")), crashes=()))
    assert len(books.wrong) == 1


@pytest.mark.parametrize(
    ("totals", "are_right"),
    [
        ([1, 3, 7], [True, True, True]),
        ([1, 4 + 1], [True, False]),  # a later call has run before
        ([1, 2], [True, False]),  # the first has answered and is forgotten
        ([1, 1 + 1 + 2], [True, False]),  # the first has run twice
    ],
)
def test_totals_show_lost_repeated_and_overtaken_calls(totals: list[int], are_right: list[bool]) -> None:
    from benchmarks import chaos_load

    judges = chaos_load.judges_of_powers(len(totals))
    assert [judge((1, total)) for judge, total in zip(judges, totals, strict=True)] == are_right


@pytest.fixture
def relays() -> Iterator[Any]:
    from benchmarks.relays import Relays

    made = Relays()
    yield made
    made.close()


class Echo:
    """Sends back what comes, to a host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(one,), daemon=True).start()

    def _echo(self, one: socket.socket) -> None:
        with one:
            try:
                while data := one.recv(65_536):
                    one.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(IO_S)


@pytest.fixture
def relay(relays: Any) -> Iterator[Any]:
    made = relays.relay("127.0.2.77", "127.0.1.77")
    echo = Echo("127.0.1.77", made.port)
    yield made
    echo.close()


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def test_a_relay_passes_on_delays_and_holds_up(relay: Any) -> None:
    with socket.create_connection((relay.host, relay.port), IO_S) as sock:
        data = bytes(range(256)) * 4096
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        assert received(sock, len(data)) == data
        writer.join(IO_S)
        relay.delay_s = 0.1
        began_s = time.monotonic()
        sock.sendall(b"late")
        assert received(sock, 4) == b"late"
        assert time.monotonic() - began_s >= 0.2  # there and back
        relay.delay_s = 0.0
        relay.stall()
        sock.sendall(b"held")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        relay.flow()
        sock.settimeout(IO_S)
        assert received(sock, 4) == b"held"


def test_a_relay_cuts_and_refuses(relay: Any) -> None:
    with socket.create_connection((relay.host, relay.port), IO_S) as sock:
        sock.sendall(b"first")
        assert received(sock, 5) == b"first"
        relay.is_shut = True
        assert relay.cut() == 1
        assert ended(sock)
    with socket.create_connection((relay.host, relay.port), IO_S) as sock:
        assert ended(sock)
    relay.is_shut = False
    with socket.create_connection((relay.host, relay.port), IO_S) as sock:
        sock.sendall(b"again")
        assert received(sock, 5) == b"again"


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True
